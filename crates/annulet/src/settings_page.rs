//! The settings as text for a terminal, and as docs/settings.md.

use config::settings_file::{flag_name, is_number};
use types::settings::{SETTINGS, Setting};

/// Every setting, for a terminal.
pub(crate) fn text() -> String {
    let mut text = String::from("Settings (flags of `annulet serve`, names in its config file):\n");
    for setting in SETTINGS {
        let shown = if setting.default.is_empty() { "empty".to_owned() } else { setting.default.to_owned() };
        let mark = match (setting.cluster_wide, setting.live) {
            (true, _) => "; the same on every node",
            (_, true) => "; CONFIG SET changes it",
            _ => "",
        };
        text += &format!("\n  {}  (default: {shown}{mark})\n      {}\n", setting.name, setting.help);
    }
    text
}

/// docs/settings.md.
pub(crate) fn page() -> String {
    let mut page = String::from(HEAD);
    for setting in SETTINGS {
        page += &format!(
            "| `{}` | {} | {} | {} |{} {} |\n",
            setting.name,
            default(setting),
            if setting.cluster_wide { "yes" } else { "" },
            if setting.live { "yes" } else { "" },
            if setting.secret { " A secret: never shown." } else { "" },
            setting.help
        );
    }
    page += FOOT;
    page += &example();
    page
}

fn default(setting: &Setting) -> String {
    if setting.default.is_empty() { "empty".to_owned() } else { format!("`{}`", setting.default) }
}

fn example() -> String {
    let lines = ["node_id", "nodes", "dir", "bind", "requirepass", "copies", "log_level"].map(|name| {
        let setting = SETTINGS.iter().find(|setting| setting.name == name).expect("a setting of the table");
        let value = match name {
            "nodes" => "1=10.0.0.1:7201,2=10.0.0.2:7201,3=10.0.0.3:7201",
            "dir" => "/var/lib/annulet",
            "bind" => "10.0.0.1",
            "requirepass" => "a long secret",
            _ => setting.default,
        };
        let value = if is_number(setting) { value.to_owned() } else { format!("\"{value}\"") };
        format!("{name} = {value}\n")
    });
    format!("```toml\n{}```\n\nThe flag of `node_id` is `--{}`.\n", lines.concat(), flag_name("node_id"))
}

const HEAD: &str = "\
# Settings

Made from the table in `crates/types/src/settings.rs`; `UPDATE_DOCS=1 cargo test -p annulet settings_page` writes it anew.

A setting is a flag of `annulet serve` (with dashes for underscores), a name in its config file, and a name in `CONFIG GET`.
Flags win over the file, the file over the defaults. Those marked *cluster* have to be the same on every node. Those marked *live*
`CONFIG SET` changes on one node while it runs, until it stops; what sets something of a connection holds for new ones.

| setting | default | cluster | live | what it does |
| --- | --- | --- | --- | --- |
";

const FOOT: &str = "
A config file is TOML: numbers bare, text in quotes, no sections. A name that is not in the table is an error.

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, page()).expect("docs/settings.md can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, page(), "docs/settings.md is out of date: run this test with UPDATE_DOCS=1");
    }
}
