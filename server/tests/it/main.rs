//! The server over real HTTP.

mod life;
mod refusals;
mod schema;
mod support;
