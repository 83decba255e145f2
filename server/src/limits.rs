//! The bounds of the server's door: what one server holds for all of its clients, and how long it waits for one.
//!
//! The bounds of a single request are those of the protocol, in `fieldbook_core::limits`.

use std::time::Duration;

/// What the server takes on at the same time, and how slow a client may be.
///
/// A client that comes over a bound is told so with `503 busy` and may send the same again. Bytes, requests and work are
/// divided between tenants and, within a tenant, between tokens, so that somebody who takes all they can get leaves enough
/// for the next one: a tenant may hold as much as is left free, and a token as much as is left free for its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DoorLimits {
    /// The most open connections. Over it, the one that has waited longest without a request under way is closed.
    /// It is lowered to what the process may open.
    pub connections: usize,
    /// The most exchanges under way: being read, waiting, being worked on or being answered.
    pub requests: usize,
    /// The most bytes of requests in memory.
    pub request_bytes: usize,
    /// The most bytes of answers that nobody has read yet, after which no further work is begun.
    pub answer_bytes: usize,
    /// How many exchanges are worked on at the same time. One tenant has at most half of them.
    pub exchanges: usize,
    /// How many of them one tenant has at most while others are there: a processor is left to those.
    pub exchanges_beside_others: usize,
    /// How many bytes of work an exchange may be, or its request or its answer may have, without a rest of its tenant after it.
    pub work_at_once: usize,
    /// How many bytes a second a tenant may work beyond that while others are there.
    pub work_rate: u32,
    /// How long an exchange waits for its turn to be worked on.
    pub turn_within: Duration,
    /// How long a connection may take to send the head of a request, also from the end of the answer before it.
    pub head_within: Duration,
    /// How long a request's body or an answer may make no progress.
    pub patience: Duration,
    /// How many bytes a second of a body or an answer must travel on average, once `patience` is over.
    pub least_rate: u32,
    /// How long running exchanges may still take once the server is to stop.
    pub stop_within: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            connections: 1_024,
            requests: 512,
            request_bytes: 128 * 1024 * 1024,
            answer_bytes: 128 * 1024 * 1024,
            exchanges: (2 * processors).max(4),
            exchanges_beside_others: processors.saturating_sub(1).max(1),
            work_at_once: 2 * 1024 * 1024,
            work_rate: 8 * 1024 * 1024,
            turn_within: Duration::from_secs(15),
            // Our own client keeps an idle connection for 30 seconds, and is the one to close it.
            head_within: Duration::from_secs(35),
            patience: Duration::from_secs(30),
            least_rate: 1024,
            stop_within: Duration::from_secs(10),
        }
    }
}

impl DoorLimits {
    /// Returns how long a tenant rests after an exchange of so much work.
    pub(crate) fn rest_after(&self, work: usize) -> Duration {
        let over = work.saturating_sub(self.work_at_once);
        Duration::from_secs_f64(over as f64 / f64::from(self.work_rate.max(1)))
    }
}
