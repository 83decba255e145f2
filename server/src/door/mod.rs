//! The server's door: which clients are let in, how long they may take, and how much of the server
//! one of them may use.
//!
//! ```text
//!   entry     connections: their number, which one is closed for a new one, and the loop that accepts them
//!   steady    a connection that closes once its client stops reading the answer
//!   pace      how long bytes may take: a minimum rate, and a longest pause
//!   shares    an amount divided between tenants and their tokens
//!   turns     permits to work, tenant by tenant in turn
//! ```
//!
//! What it does not do: look into the content of a request.

mod entry;
mod pace;
mod shares;
mod steady;
mod turns;

pub(crate) use entry::{Door, Guest, Running};
pub(crate) use pace::Pace;
pub(crate) use shares::{Share, Shares};
pub(crate) use turns::{Turn, Turns};
