//! The server's door: who is let in, how long they may take, and how much of the server one of them may have.
//!
//! ```text
//!   entry     connections: how many, which one is closed for a new one, and the loop that accepts them
//!   steady    a connection that closes once its answer is no longer read
//!   pace      how long bytes may take: a least rate, and patience
//!   shares    a number of things divided between tenants and their tokens
//!   turns     permits to work, tenant by tenant in turn
//! ```
//!
//! It knows nothing of what a request says.

mod entry;
mod pace;
mod shares;
mod steady;
mod turns;

pub(crate) use entry::{Door, Guest, UnderWay};
pub(crate) use pace::Pace;
pub(crate) use shares::{Share, Shares};
pub(crate) use turns::{Turn, Turns};
