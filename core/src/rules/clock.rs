//! The stamp of an edit.
//!
//! ```text
//!   believed = the device's wall clock, at least the known time of the server, at most a minute after it
//!   stamp    = max(believed, above every stamp of the record that its author read)
//! ```
//!
//! | when the server last sent its time | its time now | a wall clock is believed |
//! |---|---|---|
//! | in this process | that time, and the monotonic clock since | from there to a minute after it |
//! | before the last start | that time, and the wall clock since, as if it had continued normally | from there to a minute after it |
//! | before the last start, and the wall clock has gone back since | at least that time | from there on |
//! | never | unknown | always |
//!
//! Invariants:
//! 1. An edit's stamp is above every stamp of its record that its author read, whatever the clock
//!    and its bounds are.
//! 2. The bound applies to each op alone: a stamp from a wrong clock does not raise later stamps of
//!    other records.
//! 3. An edit is never refused for a bad clock.
//! 4. The stamps of entries in a log always grow. That is the order of the log, not the order of
//!    the edits in it.
//!
//! What it does not do: lower stamps that turn out to be ahead ([`super::restamp`]).

use crate::limits;
use crate::time::{Hlc, MonotonicTime, Now, WallTime};

/// A time of the server, with the device's clocks when it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTime {
    server: WallTime,
    wall: WallTime,
    /// The monotonic clock; none if the time arrived before this process began.
    monotonic: Option<MonotonicTime>,
}

impl ServerTime {
    /// Makes a server time that arrived now.
    pub const fn heard(server: WallTime, now: Now) -> Self {
        Self { server, wall: now.wall, monotonic: Some(now.monotonic) }
    }

    /// Makes a server time that arrived before this process began, when the device's wall clock
    /// showed `wall`.
    pub const fn remembered(server: WallTime, wall: WallTime) -> Self {
        Self { server, wall, monotonic: None }
    }

    /// Returns the device's wall clock when the server's time arrived, as it does with every
    /// answer.
    pub const fn heard_at(&self) -> WallTime {
        self.wall
    }

    /// Returns an estimate of the server's clock now. The server's clock shows at least this time.
    pub fn estimate(&self, now: Now) -> WallTime {
        match self.monotonic {
            Some(heard) => self.server.plus(now.monotonic.since(heard)),
            None => self.server.plus(now.wall.since(self.wall)),
        }
    }

    /// Returns whether the wall clock has been set since, compared with the server's clock, by more
    /// than the believed difference. What is remembered of the two clocks would then mislead the
    /// next start.
    pub fn is_outdated_by(&self, server: WallTime, wall: WallTime) -> bool {
        let behind = |server: WallTime, wall: WallTime| {
            server.milliseconds().saturating_sub(wall.milliseconds())
        };
        let moved = behind(server, wall).abs_diff(behind(self.server, self.wall));
        u128::from(moved) > limits::CLOCK_AHEAD.as_millis()
    }

    /// Returns the latest time that a believed clock may show; none if nothing is known.
    fn latest(&self, now: Now) -> Option<WallTime> {
        let is_known = self.monotonic.is_some() || now.wall >= self.wall;
        is_known.then(|| self.estimate(now).plus(limits::CLOCK_AHEAD))
    }
}

/// A stamp, and whether the wall clock had to be overruled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    /// The stamp.
    pub hlc: Hlc,
    /// Whether the wall clock was too far ahead.
    pub capped: bool,
}

/// Makes the stamp of an edit. `read` is the latest stamp of its record that its author read.
/// `last` is the last stamp that this device made: it keeps edits of the same moment apart, unless
/// it is ahead itself.
pub fn stamp(last: Hlc, read: Hlc, now: Now, server: Option<ServerTime>) -> Stamped {
    let (wall, capped) = believable(now, server);
    let near = Hlc::at(wall.plus(limits::CLOCK_AHEAD));
    let most =
        server.and_then(|server| server.latest(now)).map_or(near, |most| near.min(Hlc::at(most)));
    let counted_on = if last < most { last.next() } else { Hlc::ZERO };
    Stamped { hlc: Hlc::at(wall).max(counted_on).max(read.next()), capped }
}

/// Returns the stamp of an entry, which is above the stamp of the entry before it.
pub fn entry_stamp(last: Hlc, now: Now, server: Option<ServerTime>) -> Hlc {
    Hlc::at(believable(now, server).0).max(last.next())
}

/// Returns the stamp of an entry after a foreign stamp arrived: above the last entry's stamp, and
/// above the foreign stamp unless that stamp is beyond the bound.
pub fn observe(last: Hlc, seen: Hlc, server: WallTime) -> Hlc {
    let bound = Hlc::at(server.plus(limits::CLOCK_AHEAD));
    last.max(seen.min(bound)).next()
}

/// Returns the believed wall clock, and whether the real one is too far ahead.
fn believable(now: Now, server: Option<ServerTime>) -> (WallTime, bool) {
    let Some(server) = server else { return (now.wall, false) };
    match server.latest(now) {
        Some(most) if now.wall > most => (most, true),
        _ => (now.wall.max(server.estimate(now)), false),
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

    fn wall(milliseconds: i64) -> WallTime {
        WallTime::from_milliseconds(milliseconds)
    }

    const YEARS: i64 = 441_504_000_000;

    #[test]
    fn an_edit_comes_after_what_its_author_read_however_the_wall_clock_jumps() {
        let first = stamp(Hlc::ZERO, Hlc::ZERO, at(5_000, 0), None).hlc;
        let second = stamp(first, first, at(-60_000, 1), None).hlc;
        assert_eq!(second, first.next());
    }

    /// This happened: a clock was known to be hours behind, and unknown again after a start,
    /// because the server had no news.
    #[test]
    fn what_is_remembered_is_outdated_by_a_clock_that_was_set_and_not_by_time_that_passes() {
        let known = ServerTime::remembered(wall(1_000_000), wall(1_000_000));
        assert!(!known.is_outdated_by(wall(1_000_000 + YEARS), wall(1_000_000 + YEARS)));
        assert!(!known.is_outdated_by(wall(1_060_000), wall(1_000_000)), "a minute is believed");
        for (server, device) in
            [(1_060_001, 1_000_000), (1_000_000, 1_060_001), (i64::MAX, i64::MIN)]
        {
            assert!(known.is_outdated_by(wall(server), wall(device)), "{server} {device}");
        }
    }

    #[test]
    fn edits_of_one_moment_are_told_apart() {
        let first = stamp(Hlc::ZERO, Hlc::ZERO, at(5_000, 0), None).hlc;
        assert_eq!(stamp(first, Hlc::ZERO, at(5_000, 0), None).hlc, first.next());
    }

    /// One edit was made while the clock was 14 years ahead, and the device won every conflict from
    /// then on.
    #[test]
    fn a_stamp_of_a_bad_minute_moves_no_later_edit_of_another_record() {
        let bad = stamp(Hlc::ZERO, Hlc::ZERO, at(YEARS, 0), None).hlc;
        assert_eq!(stamp(bad, Hlc::ZERO, at(5_000, 10), None).hlc, Hlc::at(wall(5_000)));
        let server = Some(ServerTime::heard(wall(5_000), at(5_000, 0)));
        assert_eq!(stamp(bad, Hlc::ZERO, at(5_010, 10), server).hlc, Hlc::at(wall(5_010)));
        // The log's own order continues from there.
        assert_eq!(entry_stamp(bad, at(5_010, 10), server), bad.next());
    }

    #[test]
    fn a_clock_in_2040_is_capped_by_the_server_and_flagged() {
        let server = ServerTime::heard(wall(1_000_000), at(0, 10));
        let stamped = stamp(Hlc::ZERO, Hlc::ZERO, at(2_208_988_800_000, 5_010), Some(server));
        assert!(stamped.capped);
        assert_eq!(stamped.hlc.wall(), wall(1_000_000 + 5_000 + 60_000));
    }

    #[test]
    fn a_clock_that_is_behind_is_put_right_by_the_server() {
        let server = ServerTime::heard(wall(1_000_000), at(0, 10));
        let stamped = stamp(Hlc::ZERO, Hlc::ZERO, at(-YEARS, 5_010), Some(server));
        assert_eq!((stamped.hlc.wall(), stamped.capped), (wall(1_005_000), false));
    }

    #[test]
    fn after_a_restart_a_clock_is_taken_to_be_as_wrong_as_it_was() {
        let hours = 3 * 3_600_000;
        let now = hours + 10_000_000;
        let behind = ServerTime::remembered(wall(now), wall(now - hours));
        assert_eq!(
            stamp(Hlc::ZERO, Hlc::ZERO, at(now - hours + 7, 0), Some(behind)).hlc.wall(),
            wall(now + 7)
        );
        let ahead = ServerTime::remembered(wall(now), wall(now + hours));
        let stamped = stamp(Hlc::ZERO, Hlc::ZERO, at(now + hours + 7, 0), Some(ahead));
        assert_eq!((stamped.hlc.wall(), stamped.capped), (wall(now + 7 + 60_000), true));
    }

    #[test]
    fn after_a_restart_a_clock_that_went_back_is_not_believed_below_what_the_server_told() {
        let server = Some(ServerTime::remembered(wall(10_000_000), wall(10_000_000)));
        assert_eq!(stamp(Hlc::ZERO, Hlc::ZERO, at(-YEARS, 0), server).hlc.wall(), wall(10_000_000));
        // The time since then is unknown.
        let ahead = Some(ServerTime::remembered(wall(10_000_000), wall(10_000_000 + YEARS)));
        assert_eq!(
            stamp(Hlc::ZERO, Hlc::ZERO, at(90_000_000, 0), ahead).hlc.wall(),
            wall(90_000_000)
        );
    }

    #[test]
    fn the_counter_runs_over_into_the_milliseconds() {
        let full = Hlc::from_bits((7 << 16) | 0xffff);
        assert_eq!(full.next(), Hlc::from_bits(8 << 16));
    }

    #[test]
    fn a_stamp_seen_from_the_far_future_does_not_drag_ours_along() {
        let server = wall(1_000_000);
        let after = observe(Hlc::at(server), Hlc::at(wall(i64::MAX / 2)), server);
        assert_eq!(after.wall(), server.plus(limits::CLOCK_AHEAD));
        let near = Hlc::at(wall(1_000_500));
        assert_eq!(observe(Hlc::at(server), near, server), near.next());
    }

    #[test]
    fn a_clock_is_believed_up_to_the_bound() {
        let server = Some(ServerTime::heard(wall(1_000), at(1_000, 0)));
        let most = 1_000 + 60_000;
        assert_eq!(believable(at(most, 0), server), (wall(most), false));
        assert_eq!(believable(at(most + 1, 0), server), (wall(most), true));
    }
}
