//! A connection as commands see it: plain data that the node keeps and connection commands change.

use crate::Command;
use types::settings::{ReadLevel, Settings, WriteLevel};

/// Which port a connection came in by (docs/compatibility.md, "Two doors"), and so whose keys a command over all keys speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// Any node answers any key.
    #[default]
    Plain,
    /// Another node's key is answered with `MOVED`.
    Cluster,
    /// None: the node's other doors ask for the keys that it holds. Otherwise as [`Door::Plain`].
    Held,
}

/// Whose keys a command over all keys speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those of the whole cluster.
    #[default]
    Cluster,
    /// Those of which this node is primary.
    Primaries,
    /// Those that this node holds an in-sync copy of, whether primary or backup. Asked with stale reads it asks no other node.
    Held,
}

impl Door {
    /// Whose keys a command over all keys speaks of that came in here.
    pub fn scope(self) -> Scope {
        match self {
            Door::Plain => Scope::Cluster,
            Door::Cluster => Scope::Primaries,
            Door::Held => Scope::Held,
        }
    }
}

/// Which replies a connection wants: `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// None to the present request, nor to the next.
    SkipNext,
    /// None to the present request.
    Skip,
}

/// What a connection has said of itself and chosen.
#[derive(Clone, Debug)]
pub struct Session {
    /// Unique in this node's life: `CLIENT ID`.
    pub id: u64,
    /// `CLIENT SETNAME`; empty where none was given.
    pub name: Vec<u8>,
    /// RESP version: 2 or 3.
    pub protocol: u8,
    /// Whether it has shown the password, or none is needed.
    pub authenticated: bool,
    /// Whether it has shown the password of administration. Where none is set that makes no difference.
    pub administrates: bool,
    /// The port it came in by.
    pub door: Door,
    /// `READONLY`: reads may be stale.
    pub readonly: bool,
    /// `ASKING`: for the next command only; the node clears it.
    pub asking: bool,
    /// What its reads may show.
    pub read_level: ReadLevel,
    /// When its writes are acknowledged.
    pub write_level: WriteLevel,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_version: Vec<u8>,
    /// The other end's `host:port`.
    pub address: String,
    /// This end's `host:port`.
    pub local_address: String,
    /// When it came, in Unix milliseconds.
    pub created_ms: u64,
    /// A MULTI was refused: so is what follows, up to EXEC or DISCARD.
    pub refuses_transaction: bool,
    /// Which of its requests are answered.
    pub replies: ReplyMode,
    /// `CLIENT NO-EVICT`: closed last where clients take too much memory.
    pub no_evict: bool,
    /// `CLIENT NO-TOUCH`.
    pub no_touch: bool,
    /// What it asked last.
    pub last_command: Option<&'static Command>,
    /// Whether to close the connection once the reply is out.
    pub close_after_reply: bool,
}

impl Session {
    /// A new connection: RESP2, with the levels of the settings, authenticated where no password is set.
    pub fn new(id: u64, door: Door, settings: &Settings) -> Session {
        Session {
            id,
            name: Vec::new(),
            protocol: 2,
            authenticated: settings.requirepass.as_str().is_empty(),
            administrates: false,
            door,
            readonly: false,
            asking: false,
            read_level: settings.read_level,
            write_level: settings.write_level,
            lib_name: Vec::new(),
            lib_version: Vec::new(),
            address: String::new(),
            local_address: String::new(),
            created_ms: 0,
            refuses_transaction: false,
            replies: ReplyMode::On,
            no_evict: false,
            no_touch: false,
            last_command: None,
            close_after_reply: false,
        }
    }

    /// As it was when it came, but for what the client's library said of itself (`RESET`).
    pub fn reset(&mut self, settings: &Settings) {
        let old = std::mem::replace(self, Session::new(self.id, self.door, settings));
        self.lib_name = old.lib_name;
        self.lib_version = old.lib_version;
        self.address = old.address;
        self.local_address = old.local_address;
        self.created_ms = old.created_ms;
        self.close_after_reply = old.close_after_reply;
    }

    /// What its reads may show now: `READONLY` means stale reads, whatever the level.
    pub fn effective_read_level(&self) -> ReadLevel {
        if self.readonly { ReadLevel::Stale } else { self.read_level }
    }

    /// Called once after each request: whether its reply, now or later, is wanted.
    pub fn wants_reply(&mut self) -> bool {
        match self.replies {
            ReplyMode::On => return true,
            ReplyMode::Off => {}
            ReplyMode::SkipNext => self.replies = ReplyMode::Skip,
            ReplyMode::Skip => self.replies = ReplyMode::On,
        }
        false
    }
}
