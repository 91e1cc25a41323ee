//! What `CLIENT LIST`, `KILL` and `INFO` ask of the connections of a node, and how they are shown.
//!
//! Connections belong to the data threads, and commands see none of them. So a command yields a [`ClientOrder`]; the
//! server puts it to each of its threads, each of which answers for its own connections, and [`ClientOrder::reply`]
//! makes one reply of their answers.

use crate::commands::is;
use crate::number::parse_i64;
use crate::{CommandError, Reply, Session};
use std::fmt::Write;

/// What is asked of every connection of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOrder {
    /// A line about the asker alone.
    Info,
    /// A line about each that the filter takes.
    List(ClientFilter),
    /// Closes those that the filter takes.
    Kill {
        /// Which.
        filter: ClientFilter,
        /// `CLIENT KILL address`: one has to be there, and the reply is OK instead of a count.
        must_exist: bool,
    },
}

/// Which connections are meant: those to which everything that was said applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFilter {
    /// Their numbers; empty for any.
    pub ids: Vec<u64>,
    /// The other end's `host:port`.
    pub address: Option<Vec<u8>>,
    /// This end's `host:port`.
    pub local_address: Option<Vec<u8>>,
    /// Asked for a type that no connection here has: replica, master or pubsub.
    pub other_type: bool,
    /// At least this old, in seconds.
    pub age_s_min: Option<u64>,
    /// Not this one: whoever asks.
    pub skip: Option<u64>,
}

/// What a data thread knows of a connection beyond its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientState {
    /// The descriptor of its socket.
    pub fd: i32,
    /// Seconds since it was made.
    pub age_s: u64,
    /// Seconds since it last sent something.
    pub idle_s: u64,
    /// Its next request waits, since clients are paused.
    pub paused: bool,
    /// Its replies wait for commits or other nodes.
    pub waits: bool,
    /// It closes once its replies are out.
    pub closing: bool,
    /// Bytes received and not run.
    pub input_bytes: usize,
    /// Bytes of the input buffer that are free.
    pub input_bytes_free: usize,
    /// Bytes of requests whose replies have not come.
    pub request_bytes: usize,
    /// Room of the buffer for replies, in bytes.
    pub output_bytes_room: usize,
    /// Bytes of replies that the client has not taken.
    pub output_bytes: usize,
    /// Replies behind others that have not come.
    pub replies_behind: usize,
    /// Bytes of those.
    pub replies_behind_bytes: usize,
}

/// What one data thread answers to an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAnswer {
    /// A connection's number, and the line that shows it.
    pub lines: Vec<(u64, String)>,
    /// How many were closed.
    pub closed: usize,
}

impl ClientFilter {
    /// Whether a connection is meant.
    pub fn takes(&self, session: &Session, age_s: u64) -> bool {
        let is_other = |wanted: &Option<Vec<u8>>, has: &str| {
            wanted.as_deref().is_some_and(|wanted| wanted != has.as_bytes())
        };
        !self.other_type
            && (self.ids.is_empty() || self.ids.contains(&session.id))
            && !is_other(&self.address, &session.address)
            && !is_other(&self.local_address, &session.local_address)
            && self.age_s_min.is_none_or(|least| age_s >= least)
            && self.skip != Some(session.id)
    }

    fn set_type(&mut self, word: &[u8]) -> Result<(), CommandError> {
        self.other_type = match word {
            word if is(word, "normal") => false,
            word if ["master", "replica", "slave", "pubsub"].iter().any(|name| is(word, name)) => true,
            word => {
                let text = format!("ERR Unknown client type '{}'", crate::commands::shown(word));
                return Err(CommandError::Other(text));
            }
        };
        Ok(())
    }
}

impl ClientOrder {
    /// `CLIENT INFO`.
    pub(crate) fn info(_: &Session, _: &[&[u8]]) -> Result<ClientOrder, CommandError> {
        Ok(ClientOrder::Info)
    }

    /// `CLIENT LIST [TYPE type | ID id ...]`.
    pub(crate) fn list(_: &Session, args: &[&[u8]]) -> Result<ClientOrder, CommandError> {
        let mut filter = ClientFilter::default();
        match &args[2..] {
            [] => {}
            [word, kind] if is(word, "type") => filter.set_type(kind)?,
            [word, ids @ ..] if is(word, "id") && !ids.is_empty() => {
                for id in ids {
                    let number = parse_i64(id).and_then(|id| u64::try_from(id).ok());
                    let invalid = || CommandError::Other("ERR Invalid client ID".into());
                    filter.ids.push(number.ok_or_else(invalid)?);
                }
                filter.ids.sort_unstable();
                filter.ids.dedup();
            }
            _ => return Err(CommandError::Syntax),
        }
        Ok(ClientOrder::List(filter))
    }

    /// `CLIENT KILL address`, or `CLIENT KILL option value ...`.
    pub(crate) fn kill(session: &Session, args: &[&[u8]]) -> Result<ClientOrder, CommandError> {
        let mut filter = ClientFilter::default();
        if let [_, _, address] = args {
            filter.address = Some(address.to_vec());
            return Ok(ClientOrder::Kill { filter, must_exist: true });
        }
        filter.skip = Some(session.id);
        let error = |text: &str| CommandError::Other(text.into());
        let (options, []) = args[2..].as_chunks::<2>() else { return Err(CommandError::Syntax) };
        for &[option, value] in options {
            match option {
                option if is(option, "id") => {
                    let id = parse_i64(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
                    filter.ids = vec![id.ok_or_else(|| error("ERR client-id should be greater than 0"))?];
                }
                option if is(option, "type") => filter.set_type(value)?,
                option if is(option, "addr") => filter.address = Some(value.to_vec()),
                option if is(option, "laddr") => filter.local_address = Some(value.to_vec()),
                option if is(option, "user") && is(value, "default") => {}
                option if is(option, "user") => {
                    let text = format!("ERR No such user '{}'", crate::commands::shown(value));
                    return Err(CommandError::Other(text));
                }
                option if is(option, "skipme") && is(value, "yes") => filter.skip = Some(session.id),
                option if is(option, "skipme") && is(value, "no") => filter.skip = None,
                option if is(option, "maxage") => {
                    let age = parse_i64(value)
                        .ok_or_else(|| error("ERR maxage is not an integer or out of range"))?;
                    let age = u64::try_from(age).ok().filter(|&age| age > 0);
                    filter.age_s_min = Some(age.ok_or_else(|| error("ERR maxage should be greater than 0"))?);
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(ClientOrder::Kill { filter, must_exist: false })
    }

    /// The reply, given what all data threads answered together.
    pub fn reply(&self, mut answer: ClientAnswer) -> Reply<'static> {
        match self {
            ClientOrder::Info | ClientOrder::List(_) => {
                answer.lines.sort_unstable();
                Reply::Verbatim(answer.lines.into_iter().map(|(_, line)| line).collect())
            }
            ClientOrder::Kill { must_exist: true, .. } if answer.closed == 0 => {
                Reply::Error(CommandError::Other("ERR No such client".into()))
            }
            ClientOrder::Kill { must_exist: true, .. } => Reply::ok(),
            ClientOrder::Kill { must_exist: false, .. } => Reply::count(answer.closed),
        }
    }
}

/// A connection as one line of `CLIENT LIST`, with all fields of Redis 7.0 and the library's name and version of 7.2.
pub fn describe(session: &Session, state: &ClientState) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut flags = String::new();
    for (flag, set) in [
        ('r', session.readonly),
        ('b', state.waits || state.paused),
        ('c', state.closing || session.close_after_reply),
        ('e', session.no_evict),
        ('T', session.no_touch),
    ] {
        if set {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let output = state.output_bytes + state.replies_behind_bytes;
    let total = state.input_bytes
        + state.input_bytes_free
        + state.request_bytes
        + state.output_bytes_room.max(state.output_bytes)
        + state.replies_behind_bytes
        + size_of::<Session>();
    let mut line = String::new();
    let _ = write!(
        line,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db=0 sub=0 psub=0 ssub=0 multi=-1 ",
        session.id,
        session.address,
        session.local_address,
        state.fd,
        text(&session.name),
        state.age_s,
        state.idle_s,
    );
    let _ = write!(
        line,
        "qbuf={} qbuf-free={} argv-mem={} multi-mem=0 rbs={} rbp={} obl={} oll={} omem={output} tot-mem={total} ",
        state.input_bytes,
        state.input_bytes_free,
        state.request_bytes,
        state.output_bytes_room,
        state.output_bytes,
        state.output_bytes,
        state.replies_behind,
    );
    let _ = writeln!(
        line,
        "events={} cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
        if output > 0 { "rw" } else { "r" },
        session.last_command.map_or("NULL".into(), |command| command.full_name()),
        session.protocol,
        text(&session.lib_name),
        text(&session.lib_version),
    );
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Door, Handler, resolve};
    use types::settings::Settings;

    fn session(id: u64) -> Session {
        let mut session = Session::new(id, Door::Plain, &Settings::default());
        session.address = format!("1.2.3.4:{id}");
        session.local_address = "1.2.3.4:7001".into();
        session
    }

    fn order(line: &str) -> Result<ClientOrder, String> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let command = resolve(&args).map_err(|error| error.to_string())?;
        let Handler::Clients(parse) = command.handler else { panic!("{line} asks nothing of connections") };
        parse(&session(7), &args).map_err(|error| error.to_string())
    }

    /// Which of the connections 1 (10 s old) and 7 (the asker, just made) an order is about.
    fn meant(line: &str) -> Vec<u64> {
        let (ClientOrder::List(filter) | ClientOrder::Kill { filter, .. }) = order(line).unwrap() else {
            panic!("{line} is about its asker")
        };
        [(1, 10), (7, 0)]
            .into_iter()
            .filter(|&(id, age)| filter.takes(&session(id), age))
            .map(|(id, _)| id)
            .collect()
    }

    #[test]
    fn filters_take_whom_they_name() {
        for (line, ids) in [
            ("client list", &[1, 7][..]),
            ("client list type normal", &[1, 7]),
            ("client list type pubsub", &[]),
            ("client list id 7 9", &[7]),
            ("client kill 1.2.3.4:7", &[7]),
            ("client kill 1.2.3.4:9", &[]),
            ("client kill id 7", &[]),
            ("client kill id 7 skipme no", &[7]),
            ("client kill laddr 1.2.3.4:7001", &[1]),
            ("client kill type normal skipme no", &[1, 7]),
            ("client kill type replica skipme no", &[]),
            ("client kill user default addr 1.2.3.4:1", &[1]),
            ("client kill maxage 10 skipme no", &[1]),
            ("client kill maxage 11 skipme no", &[]),
        ] {
            assert_eq!(meant(line), ids, "{line}");
        }
    }

    /// As Redis 7.0.15 says it; MAXAGE as 7.4.
    #[test]
    fn what_makes_no_sense_is_told_as_redis_tells_it() {
        for (line, error) in [
            ("client list type foo", "ERR Unknown client type 'foo'"),
            ("client list id x", "ERR Invalid client ID"),
            ("client list id", "ERR syntax error"),
            ("client list type normal id 3", "ERR syntax error"),
            ("client list id 3 type normal", "ERR Invalid client ID"),
            ("client list foo", "ERR syntax error"),
            ("client kill", "ERR wrong number of arguments for 'client|kill' command"),
            ("client kill id x", "ERR client-id should be greater than 0"),
            ("client kill id 0", "ERR client-id should be greater than 0"),
            ("client kill id -3", "ERR client-id should be greater than 0"),
            ("client kill type foo", "ERR Unknown client type 'foo'"),
            ("client kill user nobody", "ERR No such user 'nobody'"),
            ("client kill addr x skipme maybe", "ERR syntax error"),
            ("client kill foo x", "ERR syntax error"),
            ("client kill id 999 addr", "ERR syntax error"),
            ("client kill maxage x", "ERR maxage is not an integer or out of range"),
            ("client kill maxage 0", "ERR maxage should be greater than 0"),
        ] {
            assert_eq!(order(line), Err(error.to_owned()), "{line}");
        }
    }

    #[test]
    fn replies_put_together_what_the_threads_answered() {
        let answer = |closed| ClientAnswer { lines: vec![(2, "b\n".into()), (1, "a\n".into())], closed };
        assert_eq!(order("client list").unwrap().reply(answer(0)), Reply::Verbatim("a\nb\n".into()));
        assert_eq!(order("client kill id 3").unwrap().reply(answer(2)), Reply::Integer(2));
        let old = order("client kill 1.2.3.4:3").unwrap();
        assert_eq!(old.reply(answer(1)), Reply::ok());
        assert_eq!(old.reply(answer(0)), Reply::Error(CommandError::Other("ERR No such client".into())));
    }

    #[test]
    fn a_line_has_the_fields_of_redis_in_its_order() {
        let mut session = session(3);
        session.last_command = crate::lookup(b"get");
        let state = ClientState {
            fd: 8,
            age_s: 5,
            idle_s: 1,
            input_bytes: 26,
            output_bytes: 4,
            ..ClientState::default()
        };
        let line = describe(&session, &state);
        let fields: Vec<&str> =
            line.split_whitespace().map(|field| field.split_once('=').unwrap().0).collect();
        assert_eq!(
            fields.join(" "),
            "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp \
             obl oll omem tot-mem events cmd user redir resp lib-name lib-ver"
        );
        assert!(
            line.starts_with("id=3 addr=1.2.3.4:3 laddr=1.2.3.4:7001 fd=8 name= age=5 idle=1 flags=N db=0 ")
        );
        assert!(
            line.contains(" qbuf=26 ") && line.contains(" obl=4 ") && line.contains(" events=rw cmd=get ")
        );
        session.no_evict = true;
        session.readonly = true;
        assert!(describe(&session, &ClientState { closing: true, ..state }).contains(" flags=rce "));
    }
}
