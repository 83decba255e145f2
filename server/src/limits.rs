//! The bounds of the server's door: how much one server holds for all its clients, and how long it
//! waits for one.
//!
//! The bounds of a single request are those of the protocol, in `fieldbook_core::limits`.

use std::time::Duration;

/// The most that the server works on at the same time, and how slow a client may be.
///
/// A client over a bound receives `503 busy` and may send the same request again. Bytes, requests
/// and work are divided between tenants and, within a tenant, between tokens. A tenant may hold as
/// much as is left free, and a token as much as is left free for its tenant. So a client that takes
/// everything it can get leaves enough for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DoorLimits {
    /// The most open connections. Over this limit, the server closes the connection that has
    /// waited longest without a running request. The limit is lowered to the number of files
    /// that the process may open.
    pub connections: usize,
    /// The most exchanges that are read, wait, are worked on or are answered at the same time.
    pub requests: usize,
    /// The most bytes of requests in memory.
    pub request_bytes: usize,
    /// The most bytes of answers that clients have not read yet. Above this amount no further work
    /// begins.
    pub answer_bytes: usize,
    /// The most exchanges that are worked on at the same time. One tenant has at most half of
    /// them.
    pub exchanges: usize,
    /// The most exchanges that are worked on for one tenant while others are present, so that a
    /// processor is left for the others.
    pub exchanges_beside_others: usize,
    /// The bytes of work of an exchange, or of its request or its answer, up to which its tenant
    /// need not rest after it.
    pub work_at_once: usize,
    /// The bytes of work per second beyond `work_at_once` for one tenant while others are present.
    pub work_rate: u32,
    /// How long an exchange waits for its turn to work.
    pub turn_within: Duration,
    /// How long a connection may take to send the head of a request, counted also from the end of
    /// the answer before it.
    pub head_within: Duration,
    /// How long a request's body or an answer may stop making progress.
    pub patience: Duration,
    /// How many bytes a second of a body or an answer must travel on average, once `patience` is
    /// over.
    pub least_rate: u32,
    /// How long running exchanges may still take after a stop of the server began.
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
            // Our own client keeps an idle connection for 30 seconds, so it closes the connection
            // first.
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
