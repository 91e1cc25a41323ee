//! A section of a Markdown file, between two marks, that is written anew. The rest of the file stays.

use crate::failure::Failure;
use std::path::Path;

/// The marked section of rates.
pub(super) const RATES: &str = "compare";
/// That of memory.
pub(super) const MEMORY: &str = "compare-memory";
/// That of pauses.
pub(super) const PAUSES: &str = "compare-pauses";
/// That of writes that are on disk.
pub(super) const DURABLE: &str = "compare-durable";
/// That of restarts.
pub(super) const RESTART: &str = "compare-restart";
/// That of doors.
pub(super) const DOORS: &str = "compare-doors";
/// That of snapshots under load.
pub(super) const SNAPSHOTS: &str = "compare-snapshots";

/// That of faults of every kind.
pub(crate) const STORM: &str = "storm";
/// That of changes of shape.
pub(crate) const SHAPE: &str = "shape";

/// Whether the file has the section.
pub(crate) fn check(path: &Path, name: &str) -> Result<(), Failure> {
    replaced(&read(path)?, name, "").map(|_| ()).ok_or_else(|| missing(path, name))
}

/// Writes the section anew.
pub(crate) fn write(path: &Path, name: &str, text: &str) -> Result<(), Failure> {
    // Read now: others may have written in the meantime.
    let whole = replaced(&read(path)?, name, text).ok_or_else(|| missing(path, name))?;
    Ok(std::fs::write(path, whole)?)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

fn missing(path: &Path, name: &str) -> Failure {
    format!("{} has no section from <!-- {name}:begin --> to <!-- {name}:end -->", path.display()).into()
}

fn replaced(whole: &str, name: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- {name}:begin -->");
    let from = whole.find(&begin)? + begin.len();
    let to = from + whole[from..].find(&format!("<!-- {name}:end -->"))?;
    Some(format!("{}\n{}\n{}", &whole[..from], text.trim_end(), &whole[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_section_changes() {
        let whole = "before\n<!-- compare:begin -->\nold\n<!-- compare:end -->\nafter\n";
        let new = "before\n<!-- compare:begin -->\nnew\n<!-- compare:end -->\nafter\n";
        assert_eq!(replaced(whole, RATES, "new\n").as_deref(), Some(new));
        assert_eq!(replaced(new, RATES, "new").as_deref(), Some(new));
        assert_eq!(replaced(whole, MEMORY, "new"), None);
        assert_eq!(replaced("<!-- compare:end --><!-- compare:begin -->", RATES, "new"), None);
    }
}
