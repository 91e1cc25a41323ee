//! See `fuzz::records`.
#![no_main]

#[global_allocator]
static ALLOCATOR: fuzz::meter::Metered = fuzz::meter::Metered;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::records::run(data));
