//! A clock that stands until it is set: devices of the past need the time of the past.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fieldbook::host::{Clock, MonotonicTime, Now, WallTime};

/// A clock that stands until it is set.
///
/// When it is set back, its wall clock goes back and its monotonic clock stands, as on a real
/// device.
#[derive(Debug, Default)]
pub(crate) struct VirtualClock(Mutex<Now>);

impl VirtualClock {
    /// Sets the wall clock.
    pub(crate) fn set(&self, wall: WallTime) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = u64::try_from(wall.since(now.wall).as_millis()).unwrap_or(u64::MAX);
        now.monotonic =
            MonotonicTime::from_milliseconds(now.monotonic.milliseconds().saturating_add(passed));
        now.wall = wall;
    }

    /// Sets the wall clock unless it shows a later time.
    pub(crate) fn advance_to(&self, wall: WallTime) {
        if wall > self.wall() {
            self.set(wall);
        }
    }

    pub(crate) fn advance(&self, duration: Duration) {
        self.set(self.wall().plus(duration));
    }

    pub(crate) fn wall(&self) -> WallTime {
        self.now().wall
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_counts_every_step_forward_and_none_back() {
        let clock = VirtualClock::default();
        for wall in [1_000, 400, 900] {
            clock.set(WallTime::from_milliseconds(wall));
        }
        assert_eq!(clock.now().monotonic, MonotonicTime::from_milliseconds(1_500));
        assert_eq!(clock.wall(), WallTime::from_milliseconds(900));
    }
}
