//! What a command can be refused with: the texts of Redis 7, which clients parse, and whether trying again helps.
//!
//! One table below. A row is the code under which nodes pass the error to each other (never reused), the variant, what
//! a client may do about it, and the text.

use crate::neutral::{Corrupt, Field, Reader};
use std::borrow::Cow;
use thiserror::Error;

/// What a client may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing was done. The same request may succeed later, or at another node.
    Retryable,
    /// Nothing was done, and the same request would fail again.
    Final,
    /// The request may or may not have been done, now or later.
    UnknownOutcome,
}

macro_rules! errors {
    ($($(#[$doc:meta])* $code:literal $name:ident $({ $($(#[$field_doc:meta])* $field:ident: $type:ty),+ })? $kind:ident $text:literal;)+) => {
        /// Why a command was refused. Its text is the whole error line, code word first.
        #[derive(Clone, Debug, PartialEq, Eq, Error)]
        pub enum CommandError {
            $($(#[$doc])* #[error($text)] $name $({ $($(#[$field_doc])* $field: $type),+ })?,)+
            /// Any other: the whole line, code word first.
            #[error("{0}")]
            Other(String),
        }

        impl CommandError {
            /// What a client may do about it.
            pub fn kind(&self) -> ErrorKind {
                match self {
                    $(Self::$name { .. } => ErrorKind::$kind,)+
                    Self::Other(_) => ErrorKind::Final,
                }
            }

            /// Its text, with names where fields stand.
            fn pattern(&self) -> &str {
                match self {
                    $(Self::$name { .. } => $text,)+
                    Self::Other(text) => text,
                }
            }

            pub(crate) fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name $({ $($field),+ })? => {
                        out.push($code);
                        $($(Field::encode($field, out);)+)?
                    })+
                    Self::Other(text) => {
                        out.push(0);
                        Field::encode(text, out);
                    }
                }
            }

            pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<CommandError, Corrupt> {
                Ok(match reader.byte()? {
                    0 => Self::Other(Field::decode(reader)?),
                    $($code => Self::$name $({ $($field: Field::decode(reader)?),+ })?,)+
                    _ => return Err(Corrupt),
                })
            }

            /// The variants without fields.
            const PLAIN: &'static [CommandError] = &errors!(@plain [] $($name $({ $($field)+ })?,)+);
        }
    };
    (@plain [$($done:expr,)*]) => { [$($done),*] };
    (@plain [$($done:expr,)*] $name:ident, $($rest:tt)*) => { errors!(@plain [$($done,)* CommandError::$name,] $($rest)*) };
    (@plain [$($done:expr,)*] $name:ident { $($field:ident)+ }, $($rest:tt)*) => { errors!(@plain [$($done,)*] $($rest)*) };
}

errors! {
    /// Too few or too many arguments.
    1 WrongArity {
        /// The command's full name, as in `client|setname`.
        command: Cow<'static, str>
    } Final "ERR wrong number of arguments for '{command}' command";
    /// No such command.
    2 UnknownCommand {
        /// What was asked for.
        name: String,
        /// The beginning of its arguments, each quoted and followed by a blank.
        args: String
    } Final "ERR unknown command '{name}', with args beginning with: {args}";
    /// No such subcommand.
    3 UnknownSubcommand {
        /// What was asked for.
        name: String,
        /// The command, in capitals.
        command: String
    } Final "ERR unknown subcommand '{name}'. Try {command} HELP.";
    /// Options that make no sense, or not together.
    4 Syntax Final "ERR syntax error";
    /// A number was expected.
    5 NotInteger Final "ERR value is not an integer or out of range";
    /// A number was expected.
    6 NotFloat Final "ERR value is not a valid float";
    /// The sum does not fit 64 bits.
    7 IncrementOverflow Final "ERR increment or decrement would overflow";
    /// The decrement has no negative that fits 64 bits.
    8 DecrementOverflow Final "ERR decrement would overflow";
    /// The key holds a value of another type.
    9 WrongType Final "WRONGTYPE Operation against a key holding the wrong kind of value";
    /// The connection has not authenticated.
    10 NoAuth Final "NOAUTH Authentication required.";
    /// The same, for `HELLO` without `AUTH`.
    11 NoAuthHello Final "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time";
    /// Wrong user or password.
    12 WrongPass Final "WRONGPASS invalid username-password pair or user is disabled.";
    /// A password was sent where none is set.
    13 NoPassword Final "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";
    /// A protocol version other than 2 and 3.
    14 NoProto Final "NOPROTO unsupported protocol version";
    /// The keys lie in several slots.
    15 CrossSlot Final "CROSSSLOT Keys in request don't hash to the same slot";
    /// Another node serves the key.
    16 Moved {
        /// The key's slot.
        slot: u16,
        /// `host:port` of the node's cluster door.
        address: String
    } Retryable "MOVED {slot} {address}";
    /// Another node serves the key for this request only.
    17 Ask {
        /// The key's slot.
        slot: u16,
        /// `host:port` of the node's cluster door.
        address: String
    } Retryable "ASK {slot} {address}";
    /// Nothing was done; soon it may be.
    18 TryAgain {
        /// What is under way.
        why: Cow<'static, str>
    } Retryable "TRYAGAIN {why}";
    /// The partition, or the cluster, is not served.
    19 ClusterDown {
        /// What is missing.
        why: Cow<'static, str>
    } Retryable "CLUSTERDOWN {why}";
    /// Fewer in-sync copies than `min_in_sync`.
    20 NoReplicas Retryable "NOREPLICAS Not enough good replicas to write.";
    /// A write where only reads are served.
    21 ReadOnly Final "READONLY You can't write against a read only replica.";
    /// No room for more data.
    22 OutOfMemory Final "OOM command not allowed when used memory > 'maxmemory'.";
    /// The node is not ready yet.
    23 Loading Retryable "LOADING Redis is loading the dataset in memory";
    /// The request may or may not take effect.
    24 OutcomeUnknown {
        /// What happened.
        why: Cow<'static, str>
    } UnknownOutcome "UNKNOWN outcome unknown: {why}";
    /// A time that is not positive, or too far ahead.
    25 InvalidExpire {
        /// The command's name.
        command: Cow<'static, str>
    } Final "ERR invalid expire time in '{command}' command";
    /// A database other than 0.
    26 DatabaseOutOfRange Final "ERR DB index is out of range";
    /// Not a cursor that SCAN gave.
    27 InvalidCursor Final "ERR invalid cursor";
    /// The value would be too long.
    28 ValueTooLong Final "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    /// The key is too long.
    29 KeyTooLong Final "ERR key is longer than 65536 bytes";
    /// A negative timeout.
    30 NegativeTimeout Final "ERR timeout is negative";
    /// A timeout that is no number.
    31 BadTimeout Final "ERR timeout is not an integer or out of range";
    /// The caller may not run this command.
    32 NoPermission {
        /// The command's full name.
        command: Cow<'static, str>
    } Final "NOPERM this user has no permissions to run the '{command}' command";
    /// The disk has no room for more data.
    33 DiskFull Retryable "MISCONF the disk is full: commands that may need more room are refused until it has some";
    /// CHANGES from where the log does not lead on.
    34 NoHistory Final "NOHISTORY the changes behind this place are not kept any more: begin with NOW, and read the keys anew";
}

/// The first words of errors, by which they are counted (`INFO errorstats`). The last stands for any other.
pub const ERROR_WORDS: [&str; 20] = [
    "ERR",
    "WRONGTYPE",
    "NOAUTH",
    "WRONGPASS",
    "NOPROTO",
    "CROSSSLOT",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "READONLY",
    "OOM",
    "LOADING",
    "UNKNOWN",
    "NOPERM",
    "BUSYKEY",
    "MISCONF",
    "NOHISTORY",
    "OTHER",
];

impl CommandError {
    /// Where its first word stands in [`ERROR_WORDS`].
    pub fn word_place(&self) -> usize {
        let word = self.pattern().split(' ').next().unwrap_or_default();
        ERROR_WORDS.iter().position(|known| *known == word).unwrap_or(ERROR_WORDS.len() - 1)
    }

    /// The error that a line from a server says: what a client decodes. Its text is `line` again.
    pub fn from_line(line: &str) -> CommandError {
        if let Some(plain) = Self::PLAIN.iter().find(|plain| plain.to_string() == line) {
            return plain.clone();
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let address = || {
            let (slot, address) = rest.split_once(' ')?;
            Some((slot.parse().ok().filter(|number: &u16| number.to_string() == slot)?, address.to_owned()))
        };
        let why = || Cow::Owned(rest.to_owned());
        match word {
            "MOVED" => address().map(|(slot, address)| Self::Moved { slot, address }),
            "ASK" => address().map(|(slot, address)| Self::Ask { slot, address }),
            "TRYAGAIN" if !rest.is_empty() => Some(Self::TryAgain { why: why() }),
            "CLUSTERDOWN" if !rest.is_empty() => Some(Self::ClusterDown { why: why() }),
            "UNKNOWN" => rest
                .strip_prefix("outcome unknown: ")
                .map(|why| Self::OutcomeUnknown { why: Cow::Owned(why.to_owned()) }),
            _ => None,
        }
        .unwrap_or_else(|| Self::Other(line.to_owned()))
    }

    /// The error for a command that the table does not have, with what Redis shows of its arguments.
    pub fn unknown_command(args: &[&[u8]]) -> CommandError {
        const SHOWN: usize = 128;
        let shown = |bytes: &[u8], most: usize| {
            // Redis prints C strings: nothing from a zero byte on.
            let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
        };
        let mut text = String::new();
        for arg in args.iter().skip(1) {
            if text.len() >= SHOWN {
                break;
            }
            text += &format!("'{}' ", shown(arg, SHOWN - text.len()));
        }
        let name = args.first().map_or_else(String::new, |name| shown(name, SHOWN));
        Self::UnknownCommand { name, args: text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_back_from_its_line() {
        let errors = [
            CommandError::Moved { slot: 7, address: "h:1".into() },
            CommandError::TryAgain { why: "moving".into() },
            CommandError::ClusterDown { why: "no copy of slot 7 is alive".into() },
            CommandError::OutcomeUnknown { why: "the primary died".into() },
            CommandError::Other("ERR something else".into()),
            CommandError::Other("MOVED 07 h:1".into()),
            CommandError::Other("TRYAGAIN".into()),
        ];
        for error in CommandError::PLAIN.iter().chain(&errors) {
            assert_eq!(&CommandError::from_line(&error.to_string()), error);
        }
        assert!(CommandError::PLAIN.len() > 15);
        assert_eq!(errors[3].kind(), ErrorKind::UnknownOutcome);
        assert_eq!(errors[1].kind(), ErrorKind::Retryable);
        assert_eq!(CommandError::Syntax.kind(), ErrorKind::Final);
    }

    #[test]
    fn every_error_is_counted_under_its_first_word() {
        let moved = CommandError::Moved { slot: 7, address: "h:1".into() };
        for error in CommandError::PLAIN.iter().chain([&moved]) {
            let text = error.to_string();
            assert_eq!(text.split(' ').next(), Some(ERROR_WORDS[error.word_place()]), "{text}");
        }
        assert_eq!(ERROR_WORDS[CommandError::Other("ODD one".into()).word_place()], "OTHER");
        assert_eq!(ERROR_WORDS[CommandError::Other("ERR one".into()).word_place()], "ERR");
    }

    #[test]
    fn the_key_limit_is_the_one_in_the_text() {
        assert!(CommandError::KeyTooLong.to_string().contains(&types::limits::KEY_BYTES_MAX.to_string()));
    }

    #[test]
    fn unknown_commands_show_a_bounded_part_of_their_arguments() {
        let error = CommandError::unknown_command(&[b"foo", b"a", b"b"]);
        assert_eq!(error.to_string(), "ERR unknown command 'foo', with args beginning with: 'a' 'b' ");
        let error = CommandError::unknown_command(&[b"fo\0o", b"a\0"]);
        assert_eq!(error.to_string(), "ERR unknown command 'fo', with args beginning with: 'a' ");
        let long = vec![b'x'; 100_000];
        assert!(CommandError::unknown_command(&[&long, &long, &long]).to_string().len() < 400);
    }
}
