//! Room `config`: the files that settings come from, and what is said of those that make no sense.
//!
//! - [`settings_file`]: one node's settings, from defaults, a flat TOML file and flags;
//! - [`cluster_file`]: one file, TOML or JSON, that names all nodes of a fixed cluster, and becomes each node's settings.
//!
//! What a setting is, and which values it takes, is the table of `types::settings`. The meaning of a file depends on its text and its name
//! alone, so that room `fuzz` can try any text: reading the file is a step of its own.
//!
//! Left out: flags, which the binary reads; what a running node is told by `CONFIG SET`, which is in room `command`.

pub mod cluster_file;
pub mod settings_file;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// An address as it is written.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
