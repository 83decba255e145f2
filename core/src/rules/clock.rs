//! Which stamp an edit gets.
//!
//! ```text
//!   stamp = max(device's wall clock, last stamp + 1), but at most  server's estimated time + bound
//! ```
//!
//! Invariants:
//! 1. Stamps of one device grow strictly, through restarts and clock jumps: the last one is read from the log's head.
//! 2. Once a server's time is known, a wall clock that stands too far ahead moves no stamp beyond the bound, except by
//!    counting on from a stamp that is already there.
//! 3. An edit is never refused for a bad clock.

use std::time::Duration;

use crate::limits;
use crate::time::{Hlc, MonotonicTime, Now, WallTime};

/// A server's time, and the device's monotonic time when it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTime {
    /// What the server's clock showed.
    pub server: WallTime,
    /// What the device's monotonic clock showed then.
    pub heard: MonotonicTime,
}

impl ServerTime {
    /// Returns what the server's clock shows now, as far as can be told.
    pub fn estimate(&self, now: Now) -> WallTime {
        self.server.plus(now.monotonic.since(self.heard))
    }
}

/// A stamp, and whether the wall clock had to be overruled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    /// The stamp.
    pub hlc: Hlc,
    /// Whether the wall clock stood too far ahead.
    pub capped: bool,
}

/// Draws the next stamp of a device.
pub fn stamp(last: Hlc, now: Now, server: Option<ServerTime>) -> Stamped {
    let (wall, capped) = believable(now.wall, server.map(|server| server.estimate(now)), limits::CLOCK_AHEAD);
    Stamped { hlc: Hlc::at(wall).max(last.next()), capped }
}

/// Returns the stamp after having seen a stamp of someone else: later than both, but not dragged beyond the bound.
pub fn observe(last: Hlc, seen: Hlc, server: WallTime) -> Hlc {
    let bound = Hlc::at(server.plus(limits::CLOCK_AHEAD));
    last.max(seen.min(bound)).next()
}

fn believable(wall: WallTime, server: Option<WallTime>, bound: Duration) -> (WallTime, bool) {
    match server.map(|server| server.plus(bound)) {
        Some(most) if wall > most => (most, true),
        _ => (wall, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, monotonic: u64) -> Now {
        Now {
            wall: WallTime::from_milliseconds(wall),
            monotonic: MonotonicTime::from_milliseconds(monotonic),
        }
    }

    #[test]
    fn stamps_grow_when_the_wall_clock_goes_back() {
        let first = stamp(Hlc::ZERO, at(5_000, 0), None).hlc;
        let second = stamp(first, at(-60_000, 1), None).hlc;
        assert!(second > first);
        assert_eq!(second.wall(), first.wall());
    }

    #[test]
    fn a_clock_in_2040_is_capped_by_the_server_and_flagged() {
        let server = ServerTime {
            server: WallTime::from_milliseconds(1_000_000),
            heard: MonotonicTime::from_milliseconds(10),
        };
        let stamped = stamp(Hlc::ZERO, at(2_208_988_800_000, 5_010), Some(server));
        assert!(stamped.capped);
        assert_eq!(stamped.hlc.wall(), WallTime::from_milliseconds(1_000_000 + 5_000 + 60_000));
    }

    #[test]
    fn the_counter_runs_over_into_the_milliseconds() {
        let full = Hlc::from_bits((7 << 16) | 0xffff);
        assert_eq!(full.next(), Hlc::from_bits(8 << 16));
    }

    #[test]
    fn a_stamp_seen_from_the_far_future_does_not_drag_ours_along() {
        let server = WallTime::from_milliseconds(1_000_000);
        let after = observe(Hlc::at(server), Hlc::at(WallTime::from_milliseconds(i64::MAX / 2)), server);
        assert_eq!(after.wall(), server.plus(limits::CLOCK_AHEAD));
        let near = Hlc::at(WallTime::from_milliseconds(1_000_500));
        assert_eq!(observe(Hlc::at(server), near, server), near.next());
    }

    #[test]
    fn a_clock_is_believed_up_to_the_bound() {
        let server = WallTime::from_milliseconds(1_000);
        let bound = Duration::from_millis(500);
        let of = |wall| believable(WallTime::from_milliseconds(wall), Some(server), bound);
        assert_eq!(of(1_500), (WallTime::from_milliseconds(1_500), false));
        assert_eq!(of(1_501), (WallTime::from_milliseconds(1_500), true));
    }
}
