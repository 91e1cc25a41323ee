//! Judges histories that were kept: `cargo run -p annulet-history --bin check -- FILE...`
//!
//! Says for each whether it is linearizable, and what is wrong with it otherwise. Ends with 0 where all are, with 1 where one is not, and
//! with 2 where one cannot be read or its search was given up.

use history::{file, linearizability};
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() || files.iter().any(|file| file.starts_with('-')) {
        eprintln!("usage: check FILE...");
        return ExitCode::from(2);
    }
    ExitCode::from(files.iter().map(|path| judge(path)).max().unwrap_or(2))
}

fn judge(path: &str) -> u8 {
    let read = File::open(path)
        .map_err(|error| error.to_string())
        .and_then(|opened| file::read(BufReader::new(opened)).map_err(|error| error.to_string()));
    let operations = match read {
        Ok(operations) => operations,
        Err(why) => {
            eprintln!("{path}: {why}");
            return 2;
        }
    };
    let began = Instant::now();
    let verdict = linearizability::check(&operations);
    let seconds = began.elapsed().as_secs_f64();
    match verdict {
        Ok(()) => {
            println!("{path}: {} operations are linearizable ({seconds:.2} s)", operations.len());
            0
        }
        Err(violation) => {
            println!("{path}: {}", violation.explain(|key| format!("key {key}")));
            if violation.undecided { 2 } else { 1 }
        }
    }
}
