//! How quick the checker is, on histories that are right:
//! `cargo run --profile campaign -p annulet-history --example measure [-- OPERATIONS KEYS [CLIENTS [GROUPED UNKNOWN]]]`
//!
//! One line a history: operations, keys, clients at once, how many of a thousand keys are in groups of three, how many of a thousand
//! operations have an unknown outcome, and the seconds. Without the last two all of several are measured.

use history::linearizability;
use history::made::{self, Shape};
use history::random::Random;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let numbers: Option<Vec<u64>> = std::env::args().skip(1).map(|word| word.parse().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.len() != 1 && numbers.len() != 4 && numbers.len() < 6);
    let Some(numbers) = numbers else {
        eprintln!("usage: measure [OPERATIONS KEYS [CLIENTS [GROUPED UNKNOWN]]]");
        return ExitCode::from(2);
    };
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (operations, keys, clients) = (number(0, 100_000), number(1, 50).max(1), number(2, 50).max(1));
    let several: Vec<(u64, u64)> = match numbers[..] {
        [.., grouped, unknown] if numbers.len() == 5 => vec![(grouped, unknown)],
        _ => [0, 200].into_iter().flat_map(|grouped| [0, 20].map(|unknown| (grouped, unknown))).collect(),
    };
    let mut all_right = true;
    for (grouped_permille, unknown_permille) in several {
        let shape = Shape {
            clients: clients as u32,
            operations: operations as usize,
            keys: keys as usize,
            grouped_permille,
            unknown_permille,
        };
        let history = made::history(shape, &mut Random::new(3));
        let began = Instant::now();
        let verdict = linearizability::check(&history);
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{} operations, {keys} keys, {clients} clients, {grouped_permille} ‰ of the keys in groups, \
             {unknown_permille} ‰ unknown: {seconds:.3} s",
            history.len()
        );
        if let Err(violation) = verdict {
            all_right = false;
            println!("{}", violation.explain(|key| format!("key {key}")));
        }
    }
    if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
