//! The transport against servers and books that misbehave.

#![expect(unreachable_pub, reason = "a test program has no users")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod credentials;
mod exchange_loop;
mod fault_server;
mod foreign_pages;
mod http_faults;
mod http_statuses;
mod http_tls;
mod reading;
mod runs;
mod scripted_host;
mod support;
mod worker;
