//! Pages that are made from tables are current, links between pages lead somewhere, and each outside crate has its line
//! in ARCHITECTURE.md.
//!
//! With `UPDATE_DOCS=1` the made pages are written anew. docs/settings.md and docs/placement.md are checked where they
//! are made.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_page_of_commands_is_up_to_date() {
    let path = root().join("docs/commands.md");
    let page = command::reference_markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/commands.md can be written");
    }
    assert_eq!(read(&path), page, "docs/commands.md is out of date: run this test with UPDATE_DOCS=1");
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let path = root().join("docs/metrics.md");
    let page = server::metrics::reference_markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/metrics.md can be written");
    }
    assert_eq!(read(&path), page, "docs/metrics.md is out of date: run this test with UPDATE_DOCS=1");
}

/// Every page of the project.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for directory in [root(), root().join("docs")] {
        for entry in std::fs::read_dir(directory).expect("a directory of pages") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// Where the links of a page lead within the project.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains("://"))
}

#[test]
fn links_lead_to_files() {
    for page in pages() {
        let directory = page.parent().expect("a page lies in a directory");
        for link in links(&read(&page)) {
            assert!(directory.join(link).exists(), "{} links to {link}, which is not there", page.display());
        }
    }
}

#[test]
fn every_outside_crate_has_its_line() {
    let manifest: toml::Table = read(&root().join("Cargo.toml")).parse().expect("TOML");
    let dependencies =
        manifest["workspace"]["dependencies"].as_table().expect("the workspace's dependencies");
    let architecture = read(&root().join("ARCHITECTURE.md"));
    for (name, value) in dependencies {
        let is_room = value.get("path").is_some();
        assert!(
            is_room || architecture.contains(&format!("| `{name}` |")),
            "ARCHITECTURE.md does not say why `{name}` is used"
        );
    }
}

/// The check can fail.
#[test]
fn links_are_found() {
    let text = "[a](docs/a.md), [b](b.md#part) [c](https://example.org/c.md) [d](#here)";
    assert_eq!(links(text).collect::<Vec<_>>(), ["docs/a.md", "b.md"]);
}
