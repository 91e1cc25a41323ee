//! Which levels a client's connections ask for.

use types::settings::{ReadLevel, WriteLevel};

/// What a connection says with `CONSISTENCY`; what is not chosen is left to the server's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) read: Option<ReadLevel>,
    pub(crate) write: Option<WriteLevel>,
}

impl Levels {
    /// The request that chooses them, if there is anything to choose.
    pub(crate) fn command(self) -> Option<Vec<String>> {
        let mut words = vec!["CONSISTENCY".to_owned()];
        if let Some(level) = self.read {
            words.extend(["READ".to_owned(), level.to_string()]);
        }
        if let Some(level) = self.write {
            words.extend(["WRITE".to_owned(), level.to_string()]);
        }
        (words.len() > 1).then_some(words)
    }

    /// Whether reads may be answered by any copy.
    pub(crate) fn reads_stale(self) -> bool {
        self.read == Some(ReadLevel::Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_chosen_is_said() {
        let said = |read, write| Levels { read, write }.command().map(|words| words.join(" "));
        assert_eq!(said(None, None), None);
        assert_eq!(said(Some(ReadLevel::Stale), None).as_deref(), Some("CONSISTENCY READ stale"));
        let both = said(Some(ReadLevel::Linearizable), Some(WriteLevel::Quorum));
        assert_eq!(both.as_deref(), Some("CONSISTENCY READ linearizable WRITE quorum"));
    }
}
