//! `annulet cli`: one command, a file of commands, or a shell.

use crate::format::{Style, reply};
use crate::quoting::split;
use crate::{FAILED, Failure, status};
use clap::ArgMatches;
use client::{Connection, Reply};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

/// The exit code where there was nothing.
const NOTHING: u8 = 1;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let style = match (matches.get_flag("json"), matches.get_flag("raw")) {
        (true, _) => Style::Json,
        (_, true) => Style::Raw,
        _ => Style::Readable,
    };
    let words: Vec<Vec<u8>> = matches
        .get_many::<OsString>("command")
        .map_or_else(Vec::new, |words| words.cloned().map(OsString::into_vec).collect());
    if let Some(text) = help_for(&words) {
        return crate::print(&text);
    }
    let mut connection = status::connect(matches)?;
    if !words.is_empty() {
        let answer = connection.request(&words)?;
        show(&answer, style)?;
        return Ok(exit_code(&answer));
    }
    if std::io::stdin().is_terminal() {
        interactive(&mut connection, style)
    } else {
        piped(&mut connection, style)
    }
}

fn exit_code(reply: &Reply<'_>) -> ExitCode {
    match reply {
        Reply::Error(_) => ExitCode::from(FAILED),
        Reply::Null | Reply::NullArray => ExitCode::from(NOTHING),
        _ => ExitCode::SUCCESS,
    }
}

fn show(answer: &Reply<'_>, style: Style) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(&reply(answer, style))?;
    out.flush()
}

/// Each line a command. The first failure of the connection ends it; error replies do not, but show in the exit code.
fn piped(connection: &mut Connection, style: Style) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    for (at, line) in std::io::stdin().lines().enumerate() {
        let words = split(&line?).map_err(|error| format!("line {}: {error}", at + 1))?;
        if words.is_empty() {
            continue;
        }
        if is_exit(&words) {
            break;
        }
        let answer = connection.request(&words)?;
        show(&answer, style)?;
        if matches!(answer, Reply::Error(_)) {
            code = ExitCode::from(FAILED);
        }
    }
    Ok(code)
}

fn interactive(connection: &mut Connection, style: Style) -> Result<ExitCode, Failure> {
    let mut editor = DefaultEditor::new()?;
    loop {
        let line = match editor.readline(&format!("{}> ", connection.address())) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error.into()),
        };
        let words = match split(&line) {
            Ok(words) if words.is_empty() => continue,
            Ok(words) => words,
            Err(error) => {
                println!("{error}");
                continue;
            }
        };
        if !carries_secret(&words) {
            editor.add_history_entry(line.as_str())?;
        }
        if is_exit(&words) {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(text) = help_for(&words) {
            print!("{text}");
            continue;
        }
        match connection.request(&words) {
            Ok(answer) => show(&answer, style)?,
            Err(error) => println!("(error) {error}"),
        }
    }
}

fn is_exit(words: &[Vec<u8>]) -> bool {
    matches!(words, [word] if word.eq_ignore_ascii_case(b"exit") || word.eq_ignore_ascii_case(b"quit"))
}

fn carries_secret(words: &[Vec<u8>]) -> bool {
    let is = |word: &Vec<u8>, name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    words.first().is_some_and(|name| is(name, "auth"))
        || words.iter().any(|word| is(word, "auth") || is(word, "requirepass"))
}

/// The answer to `help` and `help COMMAND`, from the command table.
fn help_for(words: &[Vec<u8>]) -> Option<String> {
    let (name, topic) = words.split_first()?;
    if !name.eq_ignore_ascii_case(b"help") {
        return None;
    }
    let topic: Vec<String> =
        topic.iter().map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
    Some(if topic.is_empty() { overview() } else { topic_help(&topic) })
}

fn overview() -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for command in command::table() {
        match groups.iter_mut().find(|(group, _)| *group == command.group) {
            Some((_, names)) => names.push(command.name),
            None => groups.push((command.group, vec![command.name])),
        }
    }
    let mut text = String::from("Commands, by group (`help COMMAND` tells more, `exit` leaves):\n");
    for (group, names) in groups {
        text += &format!("  {group}: {}\n", names.join(" "));
    }
    text
}

fn topic_help(topic: &[String]) -> String {
    let matching = |row: &&command::Command| row.name == topic[0] || row.aliases.contains(&topic[0].as_str());
    let Some(mut row) = command::table().iter().find(matching) else {
        return format!("There is no command '{}'; `help` lists them all.\n", topic[0]);
    };
    if let Some(sub) = topic.get(1).and_then(|name| row.subcommand(name.as_bytes())) {
        row = sub;
    }
    let name = row.full_name().replace('|', " ").to_ascii_uppercase();
    let mut text = format!("{}\n  {}\n", format!("{name} {}", row.syntax).trim_end(), row.summary);
    text += &format!("  group {}, since {}, {}\n", row.group, row.since, row.complexity);
    if !row.aliases.is_empty() {
        text += &format!("  also: {}\n", row.aliases.join(", ").to_ascii_uppercase());
    }
    for sub in row.subcommands {
        let name = sub.name.to_ascii_uppercase();
        text += &format!("    {}  {}\n", format!("{name} {}", sub.syntax).trim_end(), sub.summary);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        split(line).unwrap()
    }

    #[test]
    fn help_comes_from_the_table() {
        assert_eq!(help_for(&words("get a")), None);
        let all = help_for(&words("HELP")).unwrap();
        for command in command::table() {
            assert!(all.contains(command.name), "{}", command.name);
            let one = help_for(&words(&format!("help {}", command.name))).unwrap();
            assert!(one.contains(command.summary), "{}", command.name);
        }
        assert!(help_for(&words("help nothing")).unwrap().contains("no command 'nothing'"));
    }

    #[test]
    fn secrets_stay_out_of_the_history() {
        for line in ["auth x", "HELLO 3 AUTH default x", "config set requirepass x"] {
            assert!(carries_secret(&words(line)), "{line}");
        }
        assert!(!carries_secret(&words("get author")));
    }

    #[test]
    fn exit_codes_tell_found_from_nothing_from_error() {
        let code = |reply: Reply<'_>| format!("{:?}", exit_code(&reply));
        assert_eq!(code(Reply::ok()), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(Reply::Null), format!("{:?}", ExitCode::from(1)));
        assert_eq!(code(Reply::Error(command::CommandError::Syntax)), format!("{:?}", ExitCode::from(2)));
        assert!(is_exit(&words("QUIT")) && !is_exit(&words("get quit")));
    }
}
