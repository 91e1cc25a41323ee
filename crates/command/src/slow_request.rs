//! A request that took long, as `SLOWLOG` keeps it: a bounded copy of what was asked, without secrets.

use crate::{Command, Flags, Session};
use types::settings::SETTINGS;

/// Arguments that are kept, as in Redis.
const ARGS_MAX: usize = 32;
/// Bytes that are kept of each, as in Redis.
const ARG_BYTES_MAX: usize = 128;
const REDACTED: &[u8] = b"(redacted)";

/// A request that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRequest {
    /// Its number in this node's life.
    pub id: u64,
    /// When it was answered, in Unix seconds.
    pub at_unix_seconds: u64,
    /// Microseconds that it kept its data thread busy.
    pub took_us: u64,
    /// Its arguments, shortened.
    pub args: Vec<Vec<u8>>,
    /// The client's `host:port`.
    pub address: String,
    /// The name that the client gave itself.
    pub name: Vec<u8>,
}

impl SlowRequest {
    /// Keeps what `SLOWLOG` shows of a request.
    pub fn new(
        id: u64,
        at_unix_seconds: u64,
        took_us: u64,
        command: &Command,
        args: &[&[u8]],
        session: &Session,
    ) -> SlowRequest {
        SlowRequest {
            id,
            at_unix_seconds,
            took_us,
            args: kept(command, args),
            address: session.address.clone(),
            name: session.name.clone(),
        }
    }
}

fn kept(command: &Command, args: &[&[u8]]) -> Vec<Vec<u8>> {
    // Where more were sent than are kept, the last place tells how many.
    let whole = if args.len() > ARGS_MAX { ARGS_MAX - 1 } else { args.len() };
    let mut kept: Vec<Vec<u8>> = (0..whole)
        .map(|at| if is_secret(command, args, at) { REDACTED.to_vec() } else { shortened(args[at]) })
        .collect();
    if args.len() > whole {
        kept.push(format!("... ({} more arguments)", args.len() - whole).into_bytes());
    }
    kept
}

/// `AUTH` and `HELLO` carry passwords; so does `CONFIG SET` behind the name of a secret.
fn is_secret(command: &Command, args: &[&[u8]], at: usize) -> bool {
    if command.flags.contains(Flags::SENSITIVE) {
        return at > 0;
    }
    let sets = command.parent == "config" && command.name == "set" && at >= 3 && at % 2 == 1;
    sets && std::str::from_utf8(args[at - 1])
        .is_ok_and(|name| SETTINGS.iter().any(|setting| setting.secret && setting.is_called(name)))
}

fn shortened(arg: &[u8]) -> Vec<u8> {
    if arg.len() <= ARG_BYTES_MAX {
        return arg.to_vec();
    }
    let mut short = arg[..ARG_BYTES_MAX].to_vec();
    short.extend_from_slice(format!("... ({} more bytes)", arg.len() - ARG_BYTES_MAX).as_bytes());
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve;

    fn shown(line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let kept = kept(resolve(&args).unwrap(), &args);
        kept.iter().map(|arg| String::from_utf8_lossy(arg)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn secrets_are_not_kept() {
        assert_eq!(shown("AUTH secret"), "AUTH (redacted)");
        assert!(!shown("HELLO 3 AUTH default secret SETNAME me").contains("secret"));
        assert_eq!(
            shown("CONFIG SET maxclients 5 Requirepass secret"),
            "CONFIG SET maxclients 5 Requirepass (redacted)"
        );
        assert_eq!(shown("SET requirepass secret"), "SET requirepass secret");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many = format!("DEL {}", vec!["k"; 40].join(" "));
        assert_eq!(shown(&many), format!("DEL {} ... (10 more arguments)", vec!["k"; 30].join(" ")));
        assert_eq!(shown(&format!("DEL {}", vec!["k"; 31].join(" "))).split(' ').count(), 32);
        let long = shown(&format!("GET {}", "x".repeat(130)));
        assert_eq!(long, format!("GET {}... (2 more bytes)", "x".repeat(128)));
    }
}
