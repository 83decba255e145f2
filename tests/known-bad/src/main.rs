//! Shows that the crash points find what they are for: the files that redb 4.1.0 leaves when the
//! power goes while it grows them, and that do not open. The same program holds on the present
//! version: `tests/sim/tests/engine.rs`.

#![allow(dead_code, reason = "the disk can do more than is needed here")]

#[path = "../../sim/src/dice.rs"]
mod dice;
#[path = "../../sim/src/disk/mod.rs"]
mod disk;
mod engine;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The old version panics over its own files, many times.
    std::panic::set_hook(Box::new(|_| {}));
    let fared = engine::fare();
    println!("redb 4.1.0: {fared:?}");
    if fared.unopenable > 20 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
