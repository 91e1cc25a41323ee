//! What the line editor offers while one types: names on Tab, and the arguments that are still to come, dim, as a hint.
//!
//! Both come from the command table and the shell's own words: the first word is a command, the second a subcommand where the
//! command has some, and further words may be the options that its syntax writes in capitals.

use super::help::names;
use super::paint::Paint;
use super::words;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use std::borrow::Cow;

/// The editor's helper.
pub(crate) struct Suggestions {
    pub paint: Paint,
}

impl Helper for Suggestions {}
impl Validator for Suggestions {}

impl Completer for Suggestions {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(&line[..pos]))
    }
}

impl Hinter for Suggestions {
    type Hint = Hint;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Hint> {
        (pos == line.len()).then(|| hint(line)).flatten().map(Hint)
    }
}

impl Highlighter for Suggestions {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(self.paint.dim(hint))
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(self.paint.strong(prompt))
    }
}

/// What is to come. It is shown and never taken over into the line: it names arguments, and is none.
pub(crate) struct Hint(String);

impl rustyline::hint::Hint for Hint {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

/// Where the word before the cursor starts, and what it may become.
fn complete(before: &str) -> (usize, Vec<String>) {
    let start = before.rfind(|c: char| c.is_ascii_whitespace()).map_or(0, |blank| blank + 1);
    let typed = &before[start..];
    let earlier: Vec<&str> = before[..start].split_ascii_whitespace().collect();
    let offered = candidates(&earlier);
    let fits = |name: &String| {
        name.len() >= typed.len()
            && name.is_char_boundary(typed.len())
            && name[..typed.len()].eq_ignore_ascii_case(typed)
    };
    // Who began in capitals goes on so.
    let capitals = typed.starts_with(|c: char| c.is_ascii_uppercase());
    let written = |name: String| if capitals { name.to_ascii_uppercase() } else { name.to_ascii_lowercase() };
    let found = offered.into_iter().filter(fits).map(|name| written(name) + " ");
    (start, found.collect())
}

/// What may follow these words.
fn candidates(earlier: &[&str]) -> Vec<String> {
    let subcommands = |name: &str| {
        command::lookup(name.as_bytes()).map_or(&[][..], |row| row.subcommands).iter().map(|sub| sub.name)
    };
    match earlier {
        [] => names().map(str::to_owned).collect(),
        [help] if help.eq_ignore_ascii_case("help") => names().map(str::to_owned).collect(),
        [help, name] if help.eq_ignore_ascii_case("help") => subcommands(name).map(str::to_owned).collect(),
        [name] if subcommands(name).next().is_some() => subcommands(name).map(str::to_owned).collect(),
        _ => usage(earlier).map_or_else(Vec::new, |(syntax, _)| options(syntax)),
    }
}

/// The syntax of the command that a line begins with, and how many of its words are the command's name.
fn usage(line: &[&str]) -> Option<(&'static str, usize)> {
    let name = line.first()?.as_bytes();
    if let Some(word) = words::find(name) {
        return Some((word.syntax, 1));
    }
    let row = command::lookup(name)?;
    match line.get(1).and_then(|name| row.subcommand(name.as_bytes())) {
        Some(sub) => Some((sub.syntax, 2)),
        None => Some((row.syntax, 1)),
    }
}

/// The words in capitals of a syntax: those that are typed as they stand.
fn options(syntax: &str) -> Vec<String> {
    let mut found: Vec<String> = syntax
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.len() > 1 && word.bytes().all(|byte| !byte.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect();
    found.dedup();
    found
}

/// The arguments that are still to come after a line that ends with a blank.
fn hint(line: &str) -> Option<String> {
    if !line.ends_with(' ') {
        return None;
    }
    let typed: Vec<&str> = line.split_ascii_whitespace().collect();
    let (syntax, name_words) = usage(&typed)?;
    let given = typed.get(name_words..).unwrap_or_default();
    let left = left_of(syntax, given);
    (!left.is_empty()).then_some(left)
}

/// A syntax without what was given: one part for each word, as long as parts are single words; then those options that were not
/// typed yet.
fn left_of(syntax: &str, given: &[&str]) -> String {
    let parts = parts(syntax);
    let is_single = |part: &&str| !part.starts_with('[') && !part.contains("...");
    let taken = parts.iter().take_while(|part| is_single(part)).count().min(given.len());
    let rest = &given[taken..];
    let is_typed = |part: &str| {
        let options = options(part);
        rest.iter().any(|word| options.iter().any(|option| option.eq_ignore_ascii_case(word)))
    };
    // An option without a name of its own, as in `[node]`, is taken by the first word that stands there.
    let mut unnamed = rest.len();
    let left = parts[taken..].iter().filter(|part| {
        if part.contains("...") || !part.starts_with('[') {
            return true;
        }
        if !options(part).is_empty() {
            return !is_typed(part);
        }
        let is_taken = unnamed > 0;
        unnamed = unnamed.saturating_sub(1);
        !is_taken
    });
    left.copied().collect::<Vec<_>>().join(" ")
}

/// The parts of a syntax between blanks, brackets being kept together, and what repeats a part being kept with it.
fn parts(syntax: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, byte) in syntax.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b' ' if depth == 0 => {
                parts.push(&syntax[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&syntax[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> Vec<String> {
        complete(line).1.iter().map(|word| word.trim_end().to_owned()).collect()
    }

    #[test]
    fn tab_completes_commands_and_the_shells_own_words() {
        assert_eq!(offered("getr"), ["getrange"]);
        assert_eq!(offered("GETR"), ["GETRANGE"]);
        assert_eq!(offered("get_"), ["get_nodes_for_key"]);
        assert_eq!(offered("sta"), ["stats", "status"]);
        assert_eq!(offered("delet"), ["delete"]);
        assert!(offered("nonsense").is_empty() && offered("g\u{e9}").is_empty());
        assert_eq!(offered("").len(), names().count());
        assert_eq!(complete("  getr").0, 2, "the word's start, not the line's");
    }

    #[test]
    fn tab_completes_subcommands_topics_and_options() {
        assert_eq!(offered("cluster sl"), ["slots"]);
        assert_eq!(offered("CLIENT SETN"), ["SETNAME"]);
        assert_eq!(offered("help getr"), ["getrange"]);
        assert_eq!(offered("help cluster ke"), ["keyslot"]);
        assert_eq!(offered("SET k v KEEP"), ["KEEPTTL"]);
        assert!(offered("get a").is_empty() && offered("nonsense a").is_empty());
    }

    #[test]
    fn a_hint_shows_the_arguments_that_are_still_to_come() {
        let row = |name: &str| command::lookup(name.as_bytes()).unwrap();
        assert_eq!(hint("get "), Some("key".to_owned()));
        assert_eq!(hint("get"), None, "the name may go on");
        assert_eq!(hint("get a "), None);
        assert_eq!(hint("set "), Some(row("set").syntax.to_owned()));
        assert!(hint("SET k ").unwrap().starts_with("value ["));
        assert_eq!(hint("mget a b "), Some(row("mget").syntax.split_once(' ').unwrap().1.to_owned()));
        assert_eq!(
            hint("client setname "),
            row("client").subcommand(b"setname").map(|sub| sub.syntax.into())
        );
        assert_eq!(hint("stats "), Some("[node]".to_owned()));
        assert_eq!(hint("stats 1 "), None);
        assert_eq!(hint("nonsense "), None);
        // Options go once they are there.
        let before = hint("set k v ").unwrap();
        let after = hint("set k v keepttl ").unwrap();
        assert!(before.contains("KEEPTTL") && !after.contains("KEEPTTL"), "{before} / {after}");
    }

    #[test]
    fn a_syntax_falls_into_its_parts() {
        assert_eq!(parts("key [EX s | PX [m]] [key ...]"), ["key", "[EX s | PX [m]]", "[key ...]"]);
        assert!(parts("").is_empty());
        assert_eq!(options("key [EX seconds | NX] [GET]"), ["EX", "NX", "GET"]);
    }
}
