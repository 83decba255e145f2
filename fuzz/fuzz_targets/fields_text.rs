//! See the function of the same name in `fieldbook_sim::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldbook_sim::fuzz::fields_text(data));
