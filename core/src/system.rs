//! The operating system's clock and randomness, for a device and a server alike. Callers pass them
//! on as arguments, so both can be replaced.

use std::io;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use chrono::{Local, Offset};

use crate::random::SeededRandomness;
use crate::time::{Clock, MonotonicTime, Now, WallTime};

/// The operating system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Starts the monotonic clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "everything else receives this clock as an argument"
    )]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "everything else receives this clock as an argument"
    )]
    fn now(&self) -> Now {
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |before| -before)
            }
        };
        let monotonic = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            wall: WallTime::from_milliseconds(wall),
            monotonic: MonotonicTime::from_milliseconds(monotonic),
        }
    }

    fn utc_offset(&self, at: WallTime) -> Option<i32> {
        let there = at.to_utc()?.with_timezone(&Local);
        Some(there.offset().fix().local_minus_utc() / 60)
    }
}

/// Returns the name of the operating system, such as `linux` or `android`.
pub const fn name() -> &'static str {
    std::env::consts::OS
}

/// Seeds randomness from the operating system.
///
/// # Errors
/// The error of the operating system if it has no randomness.
pub fn randomness() -> io::Result<SeededRandomness> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(SeededRandomness::new(seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Randomness;

    #[test]
    fn the_clock_shows_a_present_time_and_never_waits_backwards() {
        let clock = SystemClock::new();
        let (first, second) = (clock.now(), clock.now());
        assert!(first.wall.is_plausible() && first.wall.milliseconds() > 1_700_000_000_000);
        assert!(first.monotonic <= second.monotonic);
    }

    #[test]
    fn no_two_seeds_are_the_same() {
        let drawn = || -> u64 { randomness().unwrap().below(u64::MAX) };
        assert_ne!(drawn(), drawn());
    }
}
