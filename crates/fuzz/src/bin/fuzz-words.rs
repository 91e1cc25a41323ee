//! Prints the words of a target as libFuzzer reads dictionaries: `fuzz-words TARGET`. So they follow the command table.

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(target) = fuzz::TARGETS.iter().find(|target| target.name == name) else {
        let names: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
        eprintln!("fuzz-words TARGET, one of: {}", names.join(", "));
        return ExitCode::FAILURE;
    };
    for word in (target.words)() {
        let shown: String = word
            .iter()
            .map(|&byte| match byte {
                b'"' | b'\\' => format!("\\{}", byte as char),
                b' '..=b'~' => (byte as char).to_string(),
                _ => format!("\\x{byte:02x}"),
            })
            .collect();
        println!("\"{shown}\"");
    }
    ExitCode::SUCCESS
}
