//! What a primary asks the control plane to change in its partition's configuration. Each is a compare-and-set on the epoch (rule 3).

use serde::{Deserialize, Serialize};

/// What becomes of the copy that a change names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It leaves the in-sync set.
    Leave,
    /// It joins the in-sync set.
    Join,
    /// It is the heir, and becomes the primary: whoever asks has committed all that it ordered, and serves no more (rule 10).
    Release,
    /// It is the heir, and is to be none any more: the primary stays.
    Keep,
}
