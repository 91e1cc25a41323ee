//! Room `sim`: whole clusters in one thread, from a seed.
//!
//! The simulator runs the code that ships: [`process`] joins the machines of a node as the server does, and
//! [`world`] gives them a network that loses, delays and cuts ([`network`]), clocks that disagree ([`clock`]), a disk
//! that forgets what was not synced ([`disk`]), takes its time ([`log_thread`]), fails and is full, clients ([`client`];
//! some ask several keys at once, `together`) and a schedule of faults ([`faults`], which happen in `injure`, `links` and `disks`), all
//! drawn from one seed. In many seeds nodes join, are
//! drained and removed meanwhile, and the number of copies changes ([`shape`]); in some they begin on an older build (`upgrades`). Most seeds keep a log on disk; of some all machines lose
//! power before it is synced ([`losses`]). After every event the invariants in [`checks`] are looked at; at the end the clients' [`history`]
//! has to be linearizable ([`history::linearizability`]), and once all is healed the cluster has to be whole again.
//!
//! A run is a function of its seed and the code: the same seed gives the same [`trace`], to the last message. All that happens to
//! the cluster has numbers (`occasions`), and can be left out ([`keep`]): a seed that fails is made small by that ([`shrink`]).
//!
//! ```text
//! cargo run --profile campaign -p annulet-sim --bin sim -- --seeds 0..2000
//! cargo run --profile campaign -p annulet-sim --bin sim -- --seed 17 --keep-faults 3,9-12 --keep-clients 2 --trace
//! ```

mod breaks;
pub mod checks;
pub mod client;
pub mod clock;
mod crowd;
pub mod disk;
mod disks;
mod ending;
pub mod faults;
mod follower;
mod hand_over;
mod injure;
pub mod keep;
mod links;
pub mod log_thread;
pub mod losses;
mod lost;
mod machine;
pub mod network;
mod occasions;
pub mod oracle;
pub mod process;
pub mod run;
pub mod scale;
pub mod scale_tables;
mod set_up;
mod shape;
pub mod shrink;
mod together;
pub mod trace;
mod upgrades;
pub mod world;

pub use run::{Failure, Options, Summary, run};
