//! Files of settings, cluster files and `CONFIG SET`: any text makes settings that fit together, or an error that says where and
//! what is wrong; what was made, printed and read again is the same.
//!
//! An input's first byte says what the rest is taken for. What is no UTF-8 is refused before any of this, when a file is read.

use crate::input::Input;
use ::config::cluster_file::{ClusterFile, ClusterFileError};
use ::config::settings_file::{ConfigError, Given, parse, render, settings_over};
use std::path::Path;
use std::sync::Arc;
use types::settings::{SETTINGS, SettingError, Settings};
use types::shared_settings::{ChangeError, SharedSettings};

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let Ok(text) = std::str::from_utf8(input.rest) else { return };
    match choice % 5 {
        0 => settings_file(text),
        1 => cluster_file(Path::new("FILE.toml"), text),
        2 => cluster_file(Path::new("FILE.json"), text),
        3 => cluster_file(Path::new("FILE"), text),
        _ => change(text),
    }
}

fn settings_file(text: &str) {
    let path = Path::new("FILE");
    let read = parse(path, text).and_then(|given| {
        reads_back(&given);
        settings_over(path, given, &Given::new())
    });
    match read {
        Ok(settings) => prints_the_same(&settings),
        Err(error) => {
            let said = error.to_string();
            let names = match &error {
                ConfigError::Syntax { .. } => said.contains("FILE") && said.contains("line "),
                ConfigError::Unknown { name, .. } | ConfigError::WrongType { name, .. } => {
                    said.contains("FILE") && said.contains(&format!("'{name}'"))
                }
                ConfigError::InFile { error, .. } => said.contains("FILE") && names_a_setting(error),
                ConfigError::Together(error) => names_a_setting(error),
                ConfigError::Unreadable { .. } | ConfigError::InFlag { .. } => false,
            };
            assert!(names, "it names no place: {said}");
        }
    }
}

fn names_a_setting(error: &SettingError) -> bool {
    match error {
        SettingError::Invalid { name, expected, .. } => {
            SETTINGS.iter().any(|setting| setting.name == *name) && !expected.is_empty()
        }
        SettingError::Unknown { .. } => false,
    }
}

/// What a file gives, printed and read again.
fn reads_back(given: &Given) {
    let printed = render("a comment", given);
    let mut read = parse(Path::new("FILE"), &printed).expect("what we print");
    let mut given = given.clone();
    read.sort();
    given.sort();
    assert_eq!(read, given, "{printed}");
}

/// All settings, printed and read again.
fn prints_the_same(settings: &Settings) {
    let all =
        SETTINGS.iter().map(|setting| (setting.name, settings.get(setting.name).expect("of the table")));
    let printed = render("", &all.collect());
    let read = parse(Path::new("FILE"), &printed).expect("what we print");
    let again = settings_over(Path::new("FILE"), read, &Given::new()).expect("what was accepted");
    assert_eq!(again, *settings);
}

fn cluster_file(path: &Path, text: &str) {
    let file = match ClusterFile::parse(path, text) {
        Ok(file) => file,
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with("FILE"), "{said}");
            let names = match &error {
                ClusterFileError::Syntax { format, why, .. } => {
                    ["TOML", "JSON"].contains(format)
                        && (why.contains("line ") || why.contains("the whole is"))
                }
                ClusterFileError::Wrong { place, why, .. } => {
                    !place.to_string().is_empty() && !why.is_empty()
                }
                _ => false,
            };
            assert!(names, "it names no place: {said}");
            return;
        }
    };
    let Err(ClusterFileError::NoSuchNode { known, .. }) = file.node_settings(0) else {
        panic!("no node has the number 0");
    };
    let mut nodes: Vec<Settings> = Vec::new();
    for node in known {
        let id = node.split(' ').next().and_then(|id| id.parse().ok()).expect("a number and a host");
        let given = file.node_settings(id).expect("all of the file was checked");
        reads_back(&given);
        // Whoever listens elsewhere than on loopback needs a password, which may be a flag.
        let settings = settings_over(path, given, &vec![("requirepass", "secret".into())]);
        let settings = settings.expect("all of the file was checked");
        assert_eq!(settings.node_id, id);
        prints_the_same(&settings);
        nodes.push(settings);
    }
    let common = |settings: &Settings| -> Vec<Option<String>> {
        SETTINGS
            .iter()
            .filter(|setting| setting.cluster_wide)
            .map(|setting| settings.get(setting.name))
            .collect()
    };
    for two in nodes.windows(2) {
        assert_eq!(
            (&two[0].nodes, common(&two[0])),
            (&two[1].nodes, common(&two[1])),
            "nodes of one cluster"
        );
    }
    let listed = nodes[0].listed_nodes().expect("a list that was checked");
    assert_eq!(listed.len(), nodes.len());
}

/// Lines of a name and a value each, changed together.
fn change(text: &str) {
    let pairs: Vec<(&str, &str)> =
        text.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
    let shared = SharedSettings::new(Arc::new(Settings::default()));
    match shared.change(&pairs) {
        Ok(()) => {
            let settings = shared.get();
            prints_the_same(&Settings { node_id: 1, ..Settings::clone(&settings) });
        }
        Err(error) => {
            assert_eq!(*shared.get(), Settings::default(), "all of them, or none");
            let asked = |name: &str| {
                pairs.iter().any(|(other, _)| other.replace('-', "_").eq_ignore_ascii_case(name))
            };
            match &error {
                ChangeError::Setting(SettingError::Unknown { name }) => assert!(asked(name), "{error}"),
                ChangeError::Fixed { name } => assert!(asked(name), "{error}"),
                ChangeError::Setting(error) => assert!(names_a_setting(error), "{error}"),
            }
        }
    }
}

/// Settings, and what files are made of.
pub fn words() -> Vec<Vec<u8>> {
    let mut words: Vec<String> =
        ["[[nodes]]\nid = 1\nhost = \"h\"\n", "\"nodes\": [{\"id\": 1, \"host\": \"h\"}]", "\"\"\"", "'''"]
            .map(str::to_owned)
            .to_vec();
    words.extend(
        ["1gb", "10k", "1024", "0x10", "-1", "true", "\\u0000", "virtual_nodes = 160\n", "::1"]
            .map(str::to_owned),
    );
    for setting in SETTINGS {
        words.push(format!("{} = {}\n", setting.name, setting.default));
        words.push(format!("{} {}\n", setting.name.replace('_', "-"), setting.default));
        words.push(format!("\"{}\": ", setting.name));
    }
    words.push(format!("join_secret = \"{}\"\n", "0a".repeat(32)));
    words.into_iter().map(String::into_bytes).collect()
}
