//! See the method of the same name of `fieldbook_sim::fuzz::App`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldbook_sim::fuzz::App::example().admit(data));
