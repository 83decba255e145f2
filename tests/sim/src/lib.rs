//! The simulated world of fieldbook, the crash points, the runner of the spec cases, and the bodies
//! of the fuzz targets.
//!
//! ```text
//!   swarm ──draws──► actions ──► world ──► device: real Book on SimDisk, SimClock ──► model (second opinion)
//!                                  │
//!                                  ├────► network: a list of messages
//!                                  └────► server: the product's authority ──► ledger (second opinion)
//! ```
//!
//! Beside it are small worlds of the same rules that are walked whole, without books ([`walk`]).
//!
//! Everything runs in one thread from one seed. Nothing reads a real clock, disk or network. The
//! invariants have their names in the fault model (S1–S20, L1–L8).

pub mod action;
pub mod app;
pub mod broken;
pub mod clock;
pub mod crash;
pub mod dice;
pub mod disk;
pub mod fuzz;
pub mod ledger;
pub mod model;
pub mod seeds;
pub mod server;
pub mod spec;
pub mod swarm;
pub mod walk;
pub mod way;
pub mod world;

mod device;
mod run;
#[path = "../../common/scored.rs"]
mod scored;

pub use device::Device;
pub use run::{Ran, Stats, play, run_seed, shrink};
