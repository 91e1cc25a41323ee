//! Sequences of commands that seeds determine, against the model of Redis; and that none of the product's commands is forgotten.

mod drawn;

use command::table;
use fuzz::commands::{LEFT_OUT, run};
use fuzz::sequence::Sequence;

/// How many sequences are played, unless `SEQUENCES=1000000` says otherwise.
const SEQUENCES: u64 = 20_000;

#[test]
fn commands_do_what_redis_does() {
    let wanted = std::env::var("SEQUENCES").ok().and_then(|text| text.parse().ok());
    for seed in 0..wanted.unwrap_or(SEQUENCES) {
        let input = drawn::input(seed);
        if let Err(panic) = std::panic::catch_unwind(|| run(&input)) {
            eprintln!("seed {seed}: {}", input.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn every_command_on_keys_is_in_sequences_or_left_out_for_a_reason() {
    for command in table() {
        let is_on_keys = ["string", "generic", "bitmap"].contains(&command.group);
        let is_left_out = LEFT_OUT.iter().any(|(name, _)| *name == command.name);
        if is_on_keys {
            assert!(Sequence::has(command.name) != is_left_out, "{}", command.name);
        }
    }
    for (name, _) in LEFT_OUT {
        assert!(table().iter().any(|command| command.name == *name), "there is no {name}");
    }
}
