//! The shell's own words, beside the commands of Redis: what they are called, what they take, what they do.
//!
//! One table, [`WORDS`], from which help, completion and hints are made, as the rest is from the command table. Case does not matter.

/// What one of the shell's own words does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Shows the cluster's state.
    Status,
    /// Shows figures of one node or of all.
    Stats,
    /// Lists keys: of all nodes, of one node's primaries, or by a pattern.
    Keys,
    /// Lists the nodes' addresses.
    ListNodes,
    /// Lists the nodes with their ports and roles.
    Servers,
    /// Says which nodes hold a key.
    NodesForKey,
    /// Explains.
    Help,
    /// Leaves the shell.
    Exit,
}

/// One of the shell's own words.
#[derive(Debug)]
pub(crate) struct Word {
    /// In lower case.
    pub name: &'static str,
    /// What arguments it takes, as the command table writes it.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Least and most arguments.
    pub arguments: (usize, usize),
    /// What it does.
    pub does: Does,
}

const fn word(
    name: &'static str,
    syntax: &'static str,
    arguments: (usize, usize),
    does: Does,
    summary: &'static str,
) -> Word {
    Word { name, syntax, summary, arguments, does }
}

/// The shell's own words, by name.
pub(crate) const WORDS: &[Word] = &[
    word("exit", "", (0, 0), Does::Exit, "Leaves the shell, or ends a script."),
    word(
        "get_nodes_for_key",
        "key",
        (1, 1),
        Does::NodesForKey,
        "The key's slot and partition, its primary, and the nodes that hold backups.",
    ),
    word("help", "[command [subcommand]]", (0, 2), Does::Help, "All commands, or what one takes and does."),
    word(
        "keys",
        "[node | pattern]",
        (0, 1),
        Does::Keys,
        "All keys; those whose primary is on a node, by its number; or those that a pattern fits.",
    ),
    word("list_nodes", "", (0, 0), Does::ListNodes, "The nodes' addresses, and which are alive."),
    word("quit", "", (0, 0), Does::Exit, "The same as EXIT."),
    word("servers", "", (0, 0), Does::Servers, "The nodes with their ports and roles, and the coordinator."),
    word(
        "stats",
        "[node]",
        (0, 1),
        Does::Stats,
        "What each node has done since it started: requests, keys, memory; or one node in full.",
    ),
    word("status", "", (0, 0), Does::Status, "The nodes, and whether all data is served and how safe it is."),
];

/// The shell's own word with this name.
pub(crate) fn find(name: &[u8]) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.name.as_bytes().eq_ignore_ascii_case(name))
}

/// What a line means to the shell itself; none where it is a command for the cluster. A number of arguments that a word does not
/// take is an error, but for KEYS, which is a command of the cluster too.
pub(crate) fn meaning(words: &[Vec<u8>]) -> Result<Option<Does>, String> {
    let Some((word, count)) = words.first().and_then(|name| find(name)).zip(words.len().checked_sub(1))
    else {
        return Ok(None);
    };
    let (least, most) = word.arguments;
    match (word.does, (least..=most).contains(&count)) {
        (_, true) => Ok(Some(word.does)),
        (Does::Keys, false) => Ok(None),
        (_, false) => {
            Err(format!("usage: {}", format!("{} {}", word.name.to_uppercase(), word.syntax).trim_end()))
        }
    }
}

/// Whether a line holds a password, which a file of history is not to keep.
pub(crate) fn carries_secret(words: &[Vec<u8>]) -> bool {
    let is = |word: &Vec<u8>, name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    words.first().is_some_and(|name| is(name, "auth"))
        || words.iter().any(|word| is(word, "auth") || is(word, "requirepass"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quoting::split;

    fn of(line: &str) -> Result<Option<Does>, String> {
        meaning(&split(line).unwrap())
    }

    #[test]
    fn own_words_are_told_from_commands_in_any_case() {
        assert!(WORDS.is_sorted_by_key(|word| word.name));
        for (line, does) in [
            ("STATUS", Does::Status),
            ("Stats", Does::Stats),
            ("stats 2", Does::Stats),
            ("keys", Does::Keys),
            ("KEYS user:*", Does::Keys),
            ("list_nodes", Does::ListNodes),
            ("SERVERS", Does::Servers),
            ("Get_Nodes_For_Key k", Does::NodesForKey),
            ("help get", Does::Help),
            ("EXIT", Does::Exit),
            ("quit", Does::Exit),
        ] {
            assert_eq!(of(line), Ok(Some(does)), "{line}");
        }
        for line in ["get status", "", "set keys 1", "keys a b"] {
            assert_eq!(of(line), Ok(None), "{line}");
        }
        assert_eq!(of("get_nodes_for_key").unwrap_err(), "usage: GET_NODES_FOR_KEY key");
        assert_eq!(of("exit now").unwrap_err(), "usage: EXIT");
    }

    #[test]
    fn secrets_stay_out_of_the_history() {
        for line in ["auth x", "HELLO 3 AUTH default x", "config set requirepass x"] {
            assert!(carries_secret(&split(line).unwrap()), "{line}");
        }
        assert!(!carries_secret(&split("get author").unwrap()));
    }
}
