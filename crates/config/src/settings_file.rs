//! Where a node's settings come from: defaults, a TOML file, flags. The later wins.
//!
//! The file has the names of `types::settings::SETTINGS`, flat, and nothing else. Every complaint names the file or the
//! flag, the setting, and what would do.

use std::path::{Path, PathBuf};
use thiserror::Error;
use types::settings::{SETTINGS, Setting, SettingError, Settings};

/// Settings by name, in the order in which they were given.
pub type Given = Vec<(&'static str, String)>;

/// Why settings were refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read the config file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{} is not TOML: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        source: Box<toml::de::Error>,
    },
    /// It names what is no setting.
    #[error("unknown setting '{name}' in {}; `annulet settings` lists them all", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What it names.
        name: String,
    },
    /// Text where a number has to be, or the like.
    #[error("wrong type for '{name}' in {}: {expected}, not {found}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The setting.
        name: String,
        /// What it takes.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A value in the file that the setting does not take.
    #[error("{error} (in {})", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The setting, and what it takes.
        error: SettingError,
    },
    /// A value of a flag that the setting does not take.
    #[error("{error}; see --{}", flag_name(name))]
    InFlag {
        /// The setting.
        name: &'static str,
        /// What it takes.
        error: SettingError,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Together(SettingError),
}

/// The settings that a file and flags make, checked also against each other.
pub fn settings(file: Option<&Path>, flags: &Given) -> Result<Settings, ConfigError> {
    match file {
        Some(path) => settings_over(path, read(path)?, flags),
        None => settings_over(Path::new(""), Given::new(), flags),
    }
}

/// The settings that flags make over those that a file gave.
pub fn settings_over(path: &Path, file: Given, flags: &Given) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    let mut is_given = flags.iter().any(|(name, _)| *name == "node_id");
    for (name, value) in file {
        is_given |= name == "node_id";
        settings.set(name, &value).map_err(|error| ConfigError::InFile { path: path.to_owned(), error })?;
    }
    for (name, value) in flags {
        settings.set(name, value).map_err(|error| ConfigError::InFlag { name, error })?;
    }
    // A node that has joined, or does so now, has its number from the cluster.
    if !is_given && settings.nodes.as_str().is_empty() {
        settings.node_id = 0;
    }
    settings.check().map_err(ConfigError::Together)?;
    Ok(settings)
}

/// The settings that a file gives.
pub fn read(path: &Path) -> Result<Given, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// The settings that a file with this text gives.
pub fn parse(path: &Path, text: &str) -> Result<Given, ConfigError> {
    let table: toml::Table = text
        .parse()
        .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    table.into_iter().map(|(name, value)| entry(path, name, value)).collect()
}

fn entry(path: &Path, name: String, value: toml::Value) -> Result<(&'static str, String), ConfigError> {
    let path = path.to_owned();
    let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
        return Err(ConfigError::Unknown { path, name });
    };
    match (is_number(setting), value) {
        (true, toml::Value::Integer(number)) => Ok((setting.name, number.to_string())),
        (false, toml::Value::String(text)) => Ok((setting.name, text)),
        // A size may have a unit, and then it is text.
        (true, toml::Value::String(text)) if setting.size => Ok((setting.name, text)),
        (number, other) => Err(ConfigError::WrongType {
            path,
            name,
            expected: if number { "a number, without quotes" } else { "text, in quotes" },
            found: match other {
                toml::Value::String(_) => "text",
                toml::Value::Integer(_) => "a number",
                toml::Value::Float(_) => "a number with a fraction",
                toml::Value::Boolean(_) => "true or false",
                toml::Value::Datetime(_) => "a date",
                toml::Value::Array(_) => "a list",
                toml::Value::Table(_) => "a section",
            },
        }),
    }
}

/// Whether a setting is a number in the file. Every number's default is one, and no text's is.
pub fn is_number(setting: &Setting) -> bool {
    setting.default.parse::<u64>().is_ok()
}

/// The file that gives these settings.
pub fn render(comment: &str, given: &Given) -> String {
    let mut text = comment.lines().map(|line| format!("# {line}\n")).collect::<String>();
    for (name, value) in given {
        let number = SETTINGS.iter().any(|setting| setting.name == *name && is_number(setting));
        // TOML has one way to write a number; a size may have been written in others.
        let bare = number && value.parse::<i64>().is_ok_and(|plain| plain.to_string() == *value);
        let value = if bare { value.clone() } else { toml::Value::String(value.clone()).to_string() };
        text += &format!("{name} = {value}\n");
    }
    text
}

/// A setting's flag, without the leading dashes.
pub fn flag_name(setting: &str) -> String {
    setting.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str, flags: &[(&'static str, &str)]) -> Result<Settings, String> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("annulet-config-{}-{count}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let flags = flags.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        let settings = settings(Some(&path), &flags);
        std::fs::remove_file(&path).unwrap();
        settings.map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let settings = from("copies = 3\nport = 8001\nlog_level = \"debug\"", &[("port", "9001")]).unwrap();
        assert_eq!((settings.copies, settings.port, settings.log_level.as_str()), (3, 9001, "debug"));
        assert_eq!(settings.cluster_port, Settings::default().cluster_port);
        for text in ["maxmemory = 1048576", "maxmemory = \"1mb\""] {
            assert_eq!(from(text, &[]).unwrap().maxmemory.0, 1 << 20);
        }
    }

    #[test]
    fn complaints_name_the_file_and_the_setting() {
        let said = |text: &str| from(text, &[]).unwrap_err();
        assert_eq!(said("colour = 1"), "unknown setting 'colour' in FILE; `annulet settings` lists them all");
        assert_eq!(
            said("port = \"7001\""),
            "wrong type for 'port' in FILE: a number, without quotes, not text"
        );
        assert_eq!(said("dir = 7"), "wrong type for 'dir' in FILE: text, in quotes, not a number");
        assert_eq!(said("[server]"), "unknown setting 'server' in FILE; `annulet settings` lists them all");
        assert_eq!(
            said("copies = 0"),
            "invalid value '0' for 'copies': a whole number from 1 to 7 (in FILE)"
        );
        assert!(said("copies = ").starts_with("FILE is not TOML: "));
        let missing = settings(Some(Path::new("/nowhere/annulet.toml")), &Given::new()).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read the config file /nowhere/annulet.toml: "));
    }

    #[test]
    fn flags_are_named_and_what_does_not_fit_together_is_said() {
        let error = from("", &[("write_level", "most")]).unwrap_err();
        assert_eq!(error, "invalid value 'most' for 'write_level': one or quorum or all; see --write-level");
        assert!(from("partitions = 1000", &[]).unwrap_err().contains("a power of two"));
    }

    #[test]
    fn what_is_rendered_reads_back() {
        let given: Given = SETTINGS.iter().map(|s| (s.name, s.default.to_owned())).collect();
        let quoted = vec![
            ("requirepass", "a\"b\\c\n".to_owned()),
            ("port", "1".to_owned()),
            ("maxmemory", "2gb".to_owned()),
            ("max_request_bytes", "007".to_owned()),
            ("link_bytes_max", "+5".to_owned()),
        ];
        for given in [given, quoted] {
            let mut read = parse(Path::new("FILE"), &render("one\ntwo", &given)).unwrap();
            let mut given = given;
            read.sort();
            given.sort();
            assert_eq!(read, given);
        }
    }
}
