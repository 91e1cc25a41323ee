//! The shared settings handle: a node's settings as they stand now, for all of its threads.
//!
//! `CONFIG SET` changes settings while the node runs. The newest stand behind a lock in [`SharedSettings`], with a
//! version beside them; each thread keeps a [`SettingsReader`], whose [`SettingsReader::refresh`] is one relaxed look at
//! the version where nothing has changed. So no request takes a lock, and no request sees half of a change.

use crate::settings::{SETTINGS, SettingError, Settings};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use thiserror::Error;

/// Why settings were not changed. None of them was.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ChangeError {
    /// A value does not parse, lies outside its range, or does not fit the other settings; or the name is unknown.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// It is read once, at the start.
    #[error("'{name}' cannot change while the node runs")]
    Fixed {
        /// The setting.
        name: &'static str,
    },
}

/// A node's settings as they stand now.
#[derive(Debug)]
pub struct SharedSettings {
    version: AtomicU64,
    current: Mutex<Arc<Settings>>,
    /// More clients than this the system does not let the process have.
    clients_max: u32,
}

impl SharedSettings {
    /// The settings that a node starts with.
    pub fn new(settings: Arc<Settings>) -> Arc<SharedSettings> {
        SharedSettings::with_clients_max(settings, u32::MAX)
    }

    /// The same, where the system lets the process have so many clients at most.
    pub fn with_clients_max(settings: Arc<Settings>, clients_max: u32) -> Arc<SharedSettings> {
        Arc::new(SharedSettings { version: AtomicU64::new(1), current: Mutex::new(settings), clients_max })
    }

    /// The settings as they stand now.
    pub fn get(&self) -> Arc<Settings> {
        self.lock().clone()
    }

    /// A reader of a thread's own.
    pub fn reader(self: &Arc<SharedSettings>) -> SettingsReader {
        let version = self.version.load(Ordering::Acquire);
        SettingsReader { settings: self.get(), version, shared: self.clone() }
    }

    /// Changes settings by name: all of them, or none.
    pub fn change(&self, pairs: &[(&str, &str)]) -> Result<(), ChangeError> {
        let mut current = self.lock();
        let mut changed = Settings::clone(&current);
        for (name, value) in pairs {
            changed.set(name, value)?;
            let setting = SETTINGS.iter().find(|setting| setting.is_called(name));
            if let Some(setting) = setting.filter(|setting| !setting.live) {
                return Err(ChangeError::Fixed { name: setting.name });
            }
        }
        changed.check()?;
        if changed.maxclients > self.clients_max && changed.maxclients != current.maxclients {
            let expected = format!("at most {}, by the limit of open files (ulimit -n)", self.clients_max);
            let value = changed.maxclients.to_string();
            return Err(SettingError::Invalid { name: "maxclients", value, expected }.into());
        }
        *current = Arc::new(changed);
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Settings>> {
        self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// One thread's view of the settings, as new as its last [`SettingsReader::refresh`].
#[derive(Clone, Debug)]
pub struct SettingsReader {
    settings: Arc<Settings>,
    version: u64,
    shared: Arc<SharedSettings>,
}

impl SettingsReader {
    /// Takes what has changed. True where something has.
    pub fn refresh(&mut self) -> bool {
        if self.shared.version.load(Ordering::Relaxed) == self.version {
            return false;
        }
        // Under the lock, version and settings belong together.
        let current = self.shared.lock();
        self.version = self.shared.version.load(Ordering::Relaxed);
        self.settings = current.clone();
        true
    }

    /// As they were at the last refresh.
    pub fn current(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// What all threads share.
    pub fn shared(&self) -> &Arc<SharedSettings> {
        &self.shared
    }
}

impl Deref for SettingsReader {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_change_or_nothing() {
        let shared = SharedSettings::with_clients_max(Arc::new(Settings::default()), 20_000);
        let mut reader = shared.reader();
        let pairs = [("maxclients", "5"), ("requirepass", "secret")];
        shared.change(&pairs).unwrap();
        assert_eq!(reader.maxclients, 10_000);
        assert!(reader.refresh() && !reader.refresh());
        assert_eq!((reader.maxclients, reader.requirepass.as_str()), (5, "secret"));
        for bad in [("port", "1"), ("maxclients", "0"), ("nonsense", "1"), ("maxclients", "30000")] {
            shared.change(&[("requirepass", "other"), bad]).unwrap_err();
        }
        assert!(!reader.refresh());
        assert_eq!(shared.get().requirepass.as_str(), "secret");
        assert_eq!(shared.change(&[("lease-ms", "400")]), Err(ChangeError::Fixed { name: "lease_ms" }));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let mut settings = Settings::default();
        settings.set("bind", "0.0.0.0").unwrap();
        settings.set("requirepass", "secret").unwrap();
        let shared = SharedSettings::new(Arc::new(settings));
        assert!(shared.change(&[("requirepass", "")]).unwrap_err().to_string().contains("requirepass"));
    }
}
