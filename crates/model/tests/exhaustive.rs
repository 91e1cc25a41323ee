//! The rules hold in every state of every scene, and what each scene looks at does happen in it.
//!
//! `cargo run --profile campaign -p annulet-model --bin model -- large` explores more of each.

use model::scenes::{Scene, Size};
use std::time::Duration;

/// Far more than a small scene takes. One that takes longer has grown, and is no longer explored to its end.
const MOST: Duration = Duration::from_secs(900);

fn holds(name: &str) {
    let scene = Scene::of(name, Size::Small).expect("a scene");
    let explored = scene.explore(None, MOST);
    println!("{name}: {} states, {} steps, {:?}", explored.states, explored.steps, explored.took);
    assert!(explored.failed.is_empty(), "{name}: {:#?}", explored.failed);
    assert!(explored.missed.is_empty(), "{name}: nowhere {:?}", explored.missed);
    assert!(explored.took < MOST, "{name} was not explored to its end");
}

macro_rules! scenes {
    ($($test:ident: $name:literal),+ $(,)?) => {
        $(#[test] fn $test() { holds($name); })+

        #[test]
        fn no_scene_is_left_out() {
            assert_eq!([$($name),+], model::scenes::NAMES);
        }
    };
}

scenes!(
    failover: "failover",
    restart: "restart",
    disks: "disks",
    three_copies: "three copies",
    a_move: "move",
    hand_over: "hand-over",
    overtaking: "overtaking",
    leases: "leases",
    leases_of_a_voter: "leases of a voter",
    voters_restart: "voters restart",
    terms: "terms",
);
