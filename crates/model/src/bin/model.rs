//! Explores the scenes to their ends: `model [small|medium|large] [NAME]`. The larger ones may take hours.

use model::scenes::{NAMES, Scene, Size};
use std::process::ExitCode;
use std::time::Duration;

/// A scene that takes longer than this is too large.
const MOST: Duration = Duration::from_secs(6 * 3600);

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let size = match words.next().as_deref() {
        None | Some("small") => Size::Small,
        Some("medium") => Size::Medium,
        Some("large") => Size::Large,
        Some(other) => {
            eprintln!("there is no size {other}: small, medium or large");
            return ExitCode::FAILURE;
        }
    };
    let wanted = words.next().unwrap_or_default();
    let mut all_well = true;
    for name in NAMES.into_iter().filter(|name| name.contains(&wanted)) {
        let Some(scene) = Scene::of(name, size) else { continue };
        let explored = scene.explore(None, MOST);
        println!(
            "{name}: {} states, {} steps, depth {}, {:.1} s",
            explored.states,
            explored.steps,
            explored.depth,
            explored.took.as_secs_f64()
        );
        for (property, actions) in &explored.failed {
            println!("  FAILED: {property}: {actions}");
        }
        for property in &explored.missed {
            println!("  nowhere: {property}");
        }
        all_well &= explored.failed.is_empty() && explored.missed.is_empty();
    }
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
