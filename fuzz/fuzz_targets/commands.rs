//! See `fuzz::commands`.
#![no_main]

#[global_allocator]
static ALLOCATOR: fuzz::meter::Metered = fuzz::meter::Metered;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::commands::run(data));
