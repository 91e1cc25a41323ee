//! Who holds what: the cluster map, and the plans that decide its placement.
//!
//! The map ([`map`]) is one versioned value, agreed by the control plane. Plans ([`plan`]) are computed by the
//! coordinator alone and their outcome is stored in the map, so no two parties ever compute a different answer. A plan
//! is even by quota and, where that leaves a choice, follows a consistent-hash ring ([`ring`]). docs/placement.md has
//! the figures.

mod change;
pub mod format_1;
pub mod map;
pub mod plan;
pub mod progress;
mod quota;
pub mod ring;

pub use change::ChangeKind;
pub use map::{ClusterMap, Member, MemberState, PartitionState, Seat};
pub use plan::{PlanNode, even_primaries, plan_new, replan};
pub use progress::{Held, Progress, progress};
