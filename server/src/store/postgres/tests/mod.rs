//! The store in a real database.

#[path = "../../../../tests/cluster/mod.rs"]
#[allow(dead_code, reason = "it is shared with the tests over HTTP")]
mod cluster;
mod outages;
mod proxy;
mod same_answers;
mod statements;
mod support;
