//! The rooms and their style, kept by an ordinary test: who may use whom (ARCHITECTURE.md, "Rooms"), no cycles, every room and file
//! opens by saying what it is, no file grows without end, nothing is left to do in code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may use whom. A room that is not here may not exist.
const MAY_USE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("storage", &["types"]),
    ("command", &["types", "storage"]),
    ("placement", &["types"]),
    ("replication", &["types", "storage", "placement"]),
    ("control", &["types", "placement"]),
    ("node", &["types", "storage", "command", "placement", "replication", "control"]),
    // Its messages carry records and maps.
    ("wire", &["types", "command", "replication", "control", "storage", "placement"]),
    ("grpc", &["types", "command"]),
    (
        "server",
        &["types", "storage", "command", "placement", "replication", "control", "node", "wire", "grpc"],
    ),
    ("client", &["types", "command", "placement", "wire"]),
    // A file may say how many virtual nodes there are, and has to say what placement has.
    ("config", &["types", "placement"]),
    // Its look into data directories shows entries and findings; its shell reads files of requests.
    ("annulet", &["server", "client", "config", "types", "command", "node", "storage", "wire"]),
    // What checks the product shares no code with it.
    ("history", &[]),
    // It looks at the product from outside.
    ("chaos", &["types", "client", "history"]),
    ("fuzz", &["types", "storage", "command", "config", "wire", "sim"]),
    // It checks rules, so it uses only the rooms that keep them.
    ("model", &["types", "storage", "placement", "replication", "control"]),
    (
        "sim",
        &["node", "wire", "storage", "command", "types", "placement", "replication", "control", "history"],
    ),
];

/// The most lines of a file, its tests not counted.
const LINES_MAX: usize = 800;

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates/").to_owned()
}

fn rooms() -> Vec<String> {
    let mut rooms: Vec<String> = std::fs::read_dir(crates())
        .expect("crates/ can be read")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("Cargo.toml").exists())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    rooms.sort();
    rooms
}

/// The rooms that a room's manifest names, in any section that ends up in the product.
fn uses(room: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(crates().join(room).join("Cargo.toml")).expect("a manifest");
    uses_of(&text.parse().expect("TOML"))
}

fn uses_of(manifest: &toml::Table) -> BTreeSet<String> {
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let sections = tables.into_iter().flat_map(|table| {
        ["dependencies", "build-dependencies"].into_iter().filter_map(|name| table.get(name)?.as_table())
    });
    sections
        .flat_map(|section| section.iter().map(|(name, value)| plain_name(name, value)))
        .filter(|name| MAY_USE.iter().any(|(room, _)| room == name))
        .collect()
}

/// The room that a dependency means, by whatever name or path it goes.
fn plain_name(name: &str, value: &toml::Value) -> String {
    let text = |key| value.get(key).and_then(toml::Value::as_str);
    let shown = text("path").and_then(|path| path.rsplit('/').next()).or(text("package")).unwrap_or(name);
    shown.strip_prefix("annulet-").unwrap_or(shown).to_owned()
}

/// What a room uses that it may not.
fn trespasses(room: &str, uses: &BTreeSet<String>) -> Vec<String> {
    let allowed = MAY_USE.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, allowed)| allowed);
    uses.iter().filter(|used| !allowed.contains(&used.as_str())).cloned().collect()
}

#[test]
fn rooms_use_only_those_they_may() {
    let known: Vec<&str> = MAY_USE.iter().map(|(room, _)| *room).collect();
    for room in rooms() {
        assert!(known.contains(&room.as_str()), "room {room} is not in the table of rooms");
        let wrong = trespasses(&room, &uses(&room));
        assert!(wrong.is_empty(), "{room} may not use {}", wrong.join(", "));
    }
}

#[test]
fn the_table_itself_has_no_cycle() {
    assert_eq!(cycle(&MAY_USE.iter().map(|(room, used)| (*room, used.to_vec())).collect()), None);
}

/// A room that reaches itself, if there is one.
fn cycle(graph: &BTreeMap<&'static str, Vec<&'static str>>) -> Option<&'static str> {
    graph.keys().copied().find(|&start| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = graph[start].clone();
        while let Some(room) = open.pop() {
            if room == start {
                return true;
            }
            if seen.insert(room) {
                open.extend(graph.get(room).into_iter().flatten());
            }
        }
        false
    })
}

/// Every source file of the product.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = rooms().iter().map(|room| crates().join(room).join("src")).collect();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("src can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A file without its tests, which stand at its end.
fn product(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests {").map_or(text, |end| &text[..end])
}

/// What is wrong with the style of a file.
fn faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//! ") {
        faults.push("does not open with `//!` prose that says what it is".to_owned());
    }
    let code = product(text);
    let lines = code.lines().count();
    if lines > LINES_MAX {
        faults
            .push(format!("has {lines} lines without its tests, more than {LINES_MAX}: it holds two ideas"));
    }
    for (at, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or(line);
        for left in ["todo!(", "unimplemented!(", "dbg!("] {
            if line.contains(left) {
                faults.push(format!("has {left}) in line {}", at + 1));
            }
        }
    }
    faults
}

#[test]
fn every_file_keeps_the_style() {
    let mut all = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let name = path.strip_prefix(crates()).expect("below crates/").display().to_string();
        all.extend(faults(&text).into_iter().map(|fault| format!("{name} {fault}")));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// The checks can fail.
#[test]
fn the_checks_see_what_they_are_for() {
    let manifest = "[dependencies]\nserver = { workspace = true }\n[target.'cfg(unix)'.dependencies]\n\
                    fast = { path = \"../annulet-node/../node\" }\nserde = \"1\"\n[dev-dependencies]\nsim = \"1\"";
    let used = uses_of(&manifest.parse().expect("TOML"));
    assert_eq!(used.iter().collect::<Vec<_>>(), ["node", "server"]);
    assert_eq!(trespasses("client", &used), ["node", "server"]);
    assert!(trespasses("annulet", &BTreeSet::from(["server".to_owned()])).is_empty());
    assert_eq!(cycle(&BTreeMap::from([("a", vec!["b"]), ("b", vec!["a"]), ("c", vec![])])), Some("a"));
    assert_eq!(faults("//! Prose.\nfn f() {} // todo!()\n").len(), 0);
    assert_eq!(faults("fn f() { todo!() }\n").len(), 2);
    assert_eq!(faults(&format!("//! Prose.\n{}", "\n".repeat(LINES_MAX))).len(), 1);
    let tests = format!("//! Prose.\n#[cfg(test)]\nmod tests {{\ndbg!(1);{}}}", "\n".repeat(LINES_MAX));
    assert!(faults(&tests).is_empty());
}
