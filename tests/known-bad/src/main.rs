//! Shows that the crash points find a known fault: if the power fails while redb 4.1.0 grows a
//! file, the file may not open. The same program finds no fault of the present version:
//! `tests/sim/tests/engine.rs`.

#![allow(dead_code, reason = "the disk can do more than is needed here")]

#[path = "../../sim/src/dice.rs"]
mod dice;
#[path = "../../sim/src/disk/mod.rs"]
mod disk;
mod engine;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The old version panics on its own files many times.
    std::panic::set_hook(Box::new(|_| {}));
    let fared = engine::fare();
    println!("redb 4.1.0: {fared:?}");
    if fared.unopenable > 20 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
