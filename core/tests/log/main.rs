//! The log through its public face: the file, the chain, the golden bytes, group commit.

#![cfg(feature = "store")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "clippy.toml frees test functions only; these are their helpers"
)]

mod bundle;
mod erasure;
mod folded;
mod golden;
mod group_commit;
mod samples;
mod second_verifier;
mod store;
mod verify;
