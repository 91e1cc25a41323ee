//! See `fuzz::snapshots`.
#![no_main]

#[global_allocator]
static ALLOCATOR: fuzz::meter::Metered = fuzz::meter::Metered;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::snapshots::run(data));
