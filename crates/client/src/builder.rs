//! How a [`Client`](crate::Client) is made, and what it is told.

use crate::client::Client;
use crate::error::Error;
use crate::levels::Levels;
use crate::map::Address;
use std::time::Duration;
use types::settings::{ReadLevel, WriteLevel};

/// What does not change while a client lives.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) seeds: Vec<Address>,
    pub(crate) password: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) connections_per_node: usize,
    pub(crate) queue_requests_max: usize,
    pub(crate) refresh_every: Duration,
    pub(crate) pause_first: Duration,
    pub(crate) pause_most: Duration,
}

/// Does not show the password.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

/// Makes a [`Client`](crate::Client). Every setting but the seeds has a default.
#[derive(Clone, Debug)]
pub struct Builder {
    settings: Settings,
    levels: Levels,
    deadline: Duration,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            settings: Settings {
                seeds: Vec::new(),
                password: None,
                connect_timeout: Duration::from_secs(2),
                connections_per_node: 2,
                queue_requests_max: 1024,
                refresh_every: Duration::from_secs(30),
                pause_first: Duration::from_millis(5),
                pause_most: Duration::from_millis(250),
            },
            levels: Levels::default(),
            deadline: Duration::from_secs(10),
        }
    }
}

impl Builder {
    /// Addresses, `host:port`, of any nodes at either RESP door. One that answers is enough; several are for when one does not.
    #[must_use]
    pub fn seeds<A: AsRef<str>>(mut self, seeds: impl IntoIterator<Item = A>) -> Builder {
        self.settings.seeds = seeds.into_iter().map(|seed| Address::from(seed.as_ref())).collect();
        self
    }

    /// What `requirepass` says on the servers. None by default.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Builder {
        self.settings.password = Some(password.into());
        self
    }

    /// How long a call may take in all, every attempt and wait included. 10 s by default: longer than the 5 s that a
    /// node lets a request wait (`request_timeout_ms`), so that its own answer comes first.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = deadline;
        self
    }

    /// What reads may show. By default what the servers' setting `read_level` says. With [`ReadLevel::Stale`] they go to the
    /// nearest copy.
    #[must_use]
    pub fn read_level(mut self, level: ReadLevel) -> Builder {
        self.levels.read = Some(level);
        self
    }

    /// When writes are acknowledged. By default when the servers' setting `write_level` says.
    #[must_use]
    pub fn write_level(mut self, level: WriteLevel) -> Builder {
        self.levels.write = Some(level);
        self
    }

    /// How long a node may take to accept and greet a connection. 2 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Connections to each node, shared by all tasks. 2 by default, 1 at least. They are opened when needed.
    #[must_use]
    pub fn connections_per_node(mut self, connections: usize) -> Builder {
        self.settings.connections_per_node = connections.max(1);
        self
    }

    /// Requests that may wait for one connection to take them; beyond it calls wait before they queue. 1024 by default.
    #[must_use]
    pub fn queue_requests_max(mut self, requests: usize) -> Builder {
        self.settings.queue_requests_max = requests.max(1);
        self
    }

    /// How often the map is asked for where nothing says that it is old. 30 s by default.
    #[must_use]
    pub fn refresh_every(mut self, every: Duration) -> Builder {
        self.settings.refresh_every = every.max(Duration::from_millis(10));
        self
    }

    /// The first and the longest wait between attempts: each is twice as long as the one before, less up to a half by
    /// chance. 5 ms and 250 ms by default.
    #[must_use]
    pub fn back_off(mut self, first: Duration, most: Duration) -> Builder {
        (self.settings.pause_first, self.settings.pause_most) = (first, most);
        self
    }

    /// Connects to the first seed that answers, and learns the map from it.
    ///
    /// Has to be called on a tokio runtime, whose tasks then serve the client.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] where no seed tells the map before the deadline, [`Error::Refused`] for a wrong password,
    /// [`Error::Setup`] without seeds.
    pub async fn connect(self) -> Result<Client, Error> {
        if self.settings.seeds.is_empty() {
            return Err(Error::Setup { why: "a client needs at least one seed, as host:port".into() });
        }
        Client::connect(self.settings, self.levels, self.deadline).await
    }

    /// As [`Builder::connect`], for programs without a runtime.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::connect`], and those of [`crate::blocking::Client`].
    pub fn connect_blocking(self) -> Result<crate::blocking::Client, Error> {
        crate::blocking::Client::connect(self)
    }
}
