//! For tests, here and in other rooms (feature `testing`): one partition, one session, a host with fixed answers, and
//! replies as text.

use crate::{
    ClusterOrder, ClusterView, Command, CommandError, CommandFigures, Door, Flags, Handler, Host, InfoData,
    List, NodeView, Pause, Persistence, RangeView, Reply, Session, SlowRequest, keys, lookup, place_of,
    places, randomkey, resolve, scan,
};
use std::sync::Arc;
use std::time::Duration;
use storage::{Changes, Footprint, Hasher, Keyspace, Table, Uncommitted};
use types::Version;
use types::latency::bucket_of;
use types::settings::Settings;
use types::shared_settings::{ChangeError, SettingsReader, SharedSettings};

/// What a test runs commands on.
pub struct World {
    table: Table,
    changes: Changes,
    uncommitted: Uncommitted,
    last_version: Version,
    now_ms: u64,
    /// The connection's.
    pub session: Session,
    host: FixedHost,
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl World {
    /// An empty partition, and a new session without a password.
    pub fn new() -> World {
        World::with_password("")
    }

    /// The same behind a password.
    pub fn with_password(password: &str) -> World {
        let mut settings = Settings::default();
        settings.set("requirepass", password).expect("any text is a password");
        World {
            table: Table::new(Hasher::new(1)),
            changes: Changes::new(false, false),
            uncommitted: Uncommitted::default(),
            last_version: Version::default(),
            now_ms: 1_700_000_000_000,
            session: Session::new(7, Door::Plain, &settings),
            host: FixedHost::new(settings),
        }
    }

    /// For how long clients were paused, and which requests of theirs.
    #[cfg(test)]
    pub(crate) fn paused(&self) -> Option<(Duration, Pause)> {
        self.host.paused
    }

    /// Runs something on the partition.
    pub fn keyspace<T>(&mut self, run: impl FnOnce(&mut Keyspace<'_>) -> T) -> T {
        let World { table, changes, uncommitted, last_version, now_ms, .. } = self;
        changes.clear();
        let footprint = Footprint::default();
        run(&mut Keyspace::fresh(table, changes, uncommitted, last_version, *now_ms, &footprint))
    }

    /// Runs a command, given as words between blanks, and shows its reply as text. `sleep` lets milliseconds pass.
    pub fn run(&mut self, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        if let [b"sleep", ms] = args[..] {
            self.now_ms += std::str::from_utf8(ms).unwrap().parse::<u64>().unwrap();
            return String::new();
        }
        let reply = resolve(&args).and_then(|command| self.run_command(command, &args));
        show(&Reply::from(reply))
    }

    fn run_command(&mut self, command: &Command, args: &[&[u8]]) -> Result<Reply<'static>, CommandError> {
        if !self.session.authenticated && !command.flags.contains(Flags::NO_AUTH) {
            return Err(CommandError::NoAuth);
        }
        crate::check_rights(&self.session, command, self.host.settings())?;
        match command.handler {
            Handler::Keys { run, .. } | Handler::Everywhere { run, .. } | Handler::Slot { run, .. } => {
                self.keyspace(|keyspace| run(keyspace, args).map(Reply::into_owned))
            }
            Handler::Session(run) => run(&mut self.session, &mut self.host, args),
            Handler::Scan => {
                let request = scan::parse(args)?;
                let mut found = Vec::new();
                let next = self
                    .keyspace(|keyspace| scan::run_partition(keyspace, request.cursor, &request, &mut found));
                found.sort_unstable();
                Ok(Reply::Array(vec![
                    Reply::bulk(next.unwrap_or(0).to_string()),
                    Reply::Array(found.into_iter().map(Reply::bulk).collect()),
                ]))
            }
            Handler::RandomKey => {
                Ok(self.keyspace(|keyspace| randomkey::run_partition(keyspace, &[args[0], b"0"])))
            }
            Handler::Clients(_) | Handler::Wait | Handler::Changes => Ok(Reply::Integer(0)),
            Handler::Listing => {
                let mut list = List::default();
                let mut cursor = Some(0);
                while let Some(at) = cursor {
                    let step = keys::step(args[1], at);
                    let step: Vec<&[u8]> = step.iter().map(|arg| &arg[..]).collect();
                    let request = scan::parse(&step)?;
                    let mut found = Vec::new();
                    cursor =
                        self.keyspace(|keyspace| scan::run_partition(keyspace, at, &request, &mut found));
                    found.iter().for_each(|key| list.push(key));
                }
                Ok(Reply::List(list))
            }
        }
    }
}

/// Runs cases, each on an empty partition with a new session: commands that set the scene, parted by `;`, the command,
/// and its reply as text.
pub fn check(cases: &[(&str, &str, &str)]) {
    for (scene, line, expected) in cases {
        let mut world = World::new();
        for step in scene.split(';').map(str::trim).filter(|step| !step.is_empty()) {
            let reply = world.run(step);
            assert!(!reply.starts_with("(error) ERR unknown command"), "{step}: {reply}");
        }
        assert_eq!(&world.run(line), expected, "{line}, after: {scene}");
    }
}

fn show(reply: &Reply<'_>) -> String {
    let list = |items: &[Reply<'_>]| format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "));
    match reply {
        Reply::Simple(text) => text.to_string(),
        Reply::Error(error) => format!("(error) {error}"),
        Reply::Integer(value) => format!("(integer) {value}"),
        Reply::Bulk(bytes) => format!("'{}'", String::from_utf8_lossy(bytes)),
        Reply::Null | Reply::NullArray => "(nil)".into(),
        Reply::Array(items) | Reply::Set(items) => list(items),
        Reply::List(list) => show(&Reply::Array(list.iter().map(Reply::bulk).collect())),
        Reply::Map(pairs) => {
            let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{}: {}", show(k), show(v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Reply::Double(value) => value.to_string(),
        Reply::Boolean(value) => value.to_string(),
        Reply::Verbatim(text) => text.clone(),
    }
}

/// The 40 hex digits of a node of the fixed cluster.
pub fn name_of(id: u16) -> String {
    format!("{id:040x}")
}

/// A node that always says the same: the first of a cluster of three.
pub struct FixedHost {
    settings: SettingsReader,
    has_figures: bool,
    has_slow_request: bool,
    saving: bool,
    paused: Option<(Duration, Pause)>,
    copies: u16,
}

impl FixedHost {
    /// With these settings.
    pub fn new(settings: Settings) -> FixedHost {
        FixedHost {
            settings: SharedSettings::new(Arc::new(settings)).reader(),
            has_figures: true,
            has_slow_request: true,
            saving: false,
            paused: None,
            copies: 2,
        }
    }
}

impl Host for FixedHost {
    fn password(&self) -> &str {
        self.settings.requirepass.as_str()
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now_us(&mut self) -> u64 {
        1_700_000_000_012_345
    }

    fn info(&mut self) -> InfoData {
        InfoData { version: "0.0.0".into(), keys: 3, expires: 1, errors: vec![0, 2], ..InfoData::default() }
    }

    /// Nodes 1 and 2 serve three quarters of the slots; node 3 is dead.
    fn cluster(&mut self) -> ClusterView {
        let node = |id: u16| NodeView {
            id,
            name: name_of(id),
            host: format!("h{id}"),
            port: 7000 + id,
            cluster_port: 7100 + id,
            peer_port: 7200 + id,
            failed: id == 3,
            epoch: 4 + u64::from(id),
        };
        let range = |first, last, primary, backups: &[u16]| RangeView {
            first,
            last,
            primary,
            backups: backups.to_vec(),
        };
        ClusterView {
            my_id: 1,
            nodes: [1, 2, 3].map(node).to_vec(),
            ranges: vec![
                range(0, 4095, Some(1), &[2]),
                range(4096, 8191, Some(1), &[2]),
                range(8192, 12287, Some(2), &[3, 1]),
                range(12288, 16383, None, &[3]),
            ],
            current_epoch: 9,
            ok: false,
        }
    }

    fn status_json(&mut self) -> String {
        "{}".into()
    }

    fn pause_clients(&mut self, lasting: Duration, pause: Pause) {
        self.paused = Some((lasting, pause));
    }

    fn unpause_clients(&mut self) {
        self.paused = None;
    }

    fn accept_loss(&mut self) -> usize {
        3
    }

    /// Nodes 1 and 2 are alive; there is no node 9.
    fn refusal(&self, order: ClusterOrder) -> Option<String> {
        match order {
            ClusterOrder::Drain { node: 9, .. } | ClusterOrder::Remove(9) => {
                Some("there is no node 9".into())
            }
            ClusterOrder::Remove(1 | 2) => Some("it is alive".into()),
            ClusterOrder::MinInSync(min) if min > self.copies => Some("more than there are copies".into()),
            _ => None,
        }
    }

    fn order(&mut self, order: ClusterOrder) {
        if let ClusterOrder::Copies(copies) = order {
            self.copies = copies;
        }
    }

    fn cluster_value(&self, name: &str) -> Option<String> {
        (name == "copies").then(|| self.copies.to_string())
    }

    fn change_settings(&mut self, pairs: &[(&str, &str)]) -> Result<(), ChangeError> {
        self.settings.shared().change(pairs)?;
        self.settings.refresh();
        Ok(())
    }

    /// Three times GET, one of them slow, and a CLIENT SETNAME.
    fn command_figures(&mut self) -> Vec<CommandFigures> {
        let mut figures = vec![CommandFigures::default(); places().count()];
        let setname = resolve(&[b"client", b"setname", b"x"]).expect("a command");
        let calls = [(lookup(b"get").expect("a command"), &[1500, 2000, 100_000][..]), (setname, &[500])];
        for (command, took_ns) in calls.into_iter().filter(|_| self.has_figures) {
            let figures = &mut figures[place_of(command)];
            figures.calls = took_ns.len() as u64;
            figures.took_ns = took_ns.iter().sum();
            figures.rejected = 2;
            took_ns.iter().for_each(|took| figures.latencies.counts[bucket_of(*took)] += 1);
        }
        figures
    }

    fn reset_figures(&mut self) {
        self.has_figures = false;
    }

    fn slow_requests(&mut self, most: usize) -> Vec<Arc<SlowRequest>> {
        let slow = SlowRequest {
            id: 4,
            at_unix_seconds: 1_700_000_000,
            took_us: 12_000,
            args: vec![b"GET".to_vec(), b"a".to_vec()],
            address: "127.0.0.1:5".into(),
            name: b"me".to_vec(),
        };
        let kept = if self.has_slow_request { vec![Arc::new(slow)] } else { Vec::new() };
        kept.into_iter().take(most).collect()
    }

    fn forget_slow_requests(&mut self) {
        self.has_slow_request = false;
    }

    fn persistence(&mut self) -> Persistence {
        Persistence { logs: true, saving: self.saving, last_save_s: 1_700_000_000, ..Persistence::default() }
    }

    fn save(&mut self) {
        self.saving = true;
    }
}
