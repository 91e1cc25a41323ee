//! HELP: what there is to say, and what each command takes, from the command table and the shell's own words.

use super::paint::Paint;
use super::words::{self, WORDS};
use command::Command;

/// The answer to HELP and what may follow it; none where there is no such command.
pub(crate) fn help(topic: &[Vec<u8>], paint: Paint) -> Option<String> {
    let Some((name, rest)) = topic.split_first() else { return Some(overview(paint)) };
    let own = words::find(name);
    let row = command::lookup(name);
    if own.is_none() && row.is_none() {
        return None;
    }
    let mut text = String::new();
    if let Some(word) = own {
        text += &head(word.name, word.syntax, paint);
        text += &format!("  {}\n  {}\n", word.summary, paint.dim("a word of this shell"));
    }
    if let Some(row) = row {
        text += &of_command(rest.first().and_then(|name| row.subcommand(name)).unwrap_or(row), paint);
    }
    Some(text)
}

/// What is said where there is no such command: the nearest ones.
pub(crate) fn unknown(name: &[u8]) -> String {
    let shown = String::from_utf8_lossy(name);
    let start: String = shown.chars().take(2).flat_map(char::to_lowercase).collect();
    let near: Vec<String> =
        names().filter(|name| name.starts_with(&start)).map(str::to_ascii_uppercase).collect();
    let or = if near.is_empty() { String::new() } else { format!(" (there are {})", near.join(", ")) };
    format!("there is no command '{shown}'{or}; HELP lists them all")
}

/// The names of all commands and of the shell's own words, sorted.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let table = command::table().iter().flat_map(|row| std::iter::once(&row.name).chain(row.aliases));
    let mut names: Vec<&str> = table.copied().chain(WORDS.iter().map(|word| word.name)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

fn head(name: &str, syntax: &str, paint: Paint) -> String {
    let name = paint.strong(&name.replace('|', " ").to_ascii_uppercase());
    format!("{}\n", format!("{name} {syntax}").trim_end())
}

fn overview(paint: Paint) -> String {
    let mut text = format!("{}\n", paint.strong("The shell's own words"));
    for word in WORDS {
        let usage = format!("{} {}", word.name.to_ascii_uppercase(), word.syntax);
        text += &format!("  {usage:<28}{}\n", word.summary);
    }
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for command in command::table() {
        let name = command.name.to_ascii_uppercase();
        match groups.iter_mut().find(|(group, _)| *group == command.group) {
            Some((_, names)) => names.push(name),
            None => groups.push((command.group, vec![name])),
        }
    }
    text += &format!("\n{}\n", paint.strong("Commands, by group"));
    for (group, names) in groups {
        text += &wrapped(&format!("  {group:<14}"), &names.join(" "), 100);
    }
    text + "\nHELP COMMAND tells more of one, as in HELP SET or HELP CLIENT SETNAME.\n"
}

/// Words after a margin, in lines of at most `width`, each with the same margin.
fn wrapped(margin: &str, text: &str, width: usize) -> String {
    let mut lines = vec![margin.to_owned()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, String::len);
        if line > margin.len() && line + word.len() > width {
            lines.push(" ".repeat(margin.len()));
        }
        if let Some(line) = lines.last_mut() {
            *line += &format!("{word} ");
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn of_command(row: &Command, paint: Paint) -> String {
    let mut text = head(&row.full_name(), row.syntax, paint);
    text += &format!("  {}\n", row.summary);
    let facts = format!("group {}, since {}, {}", row.group, row.since, row.complexity);
    text += &format!("  {}\n", paint.dim(&facts));
    if !row.aliases.is_empty() {
        text += &format!("  also: {}\n", row.aliases.join(", ").to_ascii_uppercase());
    }
    for sub in row.subcommands {
        let usage = format!("{} {}", sub.name.to_ascii_uppercase(), sub.syntax);
        text += &format!("    {:<32}{}\n", usage.trim_end(), sub.summary);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quoting::split;

    fn said(topic: &str) -> Option<String> {
        help(&split(topic).unwrap(), Paint::Plain)
    }

    #[test]
    fn help_comes_from_the_tables() {
        let all = said("").unwrap();
        for command in command::table() {
            assert!(all.contains(&command.name.to_ascii_uppercase()), "{}", command.name);
            let one = said(command.name).unwrap();
            assert!(one.contains(command.summary) && one.contains(command.syntax), "{}", command.name);
        }
        for word in WORDS {
            assert!(all.contains(word.summary), "{}", word.name);
            assert!(said(word.name).unwrap().contains(word.summary), "{}", word.name);
        }
        assert!(said("client setname").unwrap().starts_with("CLIENT SETNAME "));
        assert!(said("put").unwrap().starts_with("SET key value"));
        // A word of both: each is told.
        let keys = said("KEYS").unwrap();
        assert!(keys.contains("[node | pattern]") && keys.contains("KEYS pattern\n"), "{keys}");
    }

    #[test]
    fn who_asks_for_nothing_that_is_there_is_shown_what_is() {
        assert_eq!(said("gett"), None);
        let text = unknown(b"gett");
        assert!(
            text.starts_with("there is no command 'gett' (there are GET, GET_NODES_FOR_KEY, GETBIT,"),
            "{text}"
        );
        assert_eq!(unknown(b"zz"), "there is no command 'zz'; HELP lists them all");
    }

    #[test]
    fn long_lists_stay_in_their_column() {
        let lines = wrapped("  a  ", "one two three", 12);
        assert_eq!(lines, "  a  one two\n     three\n");
    }
}
