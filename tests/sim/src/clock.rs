//! A device's clocks, moved by hand: the wall clock may jump, the monotonic clock only advances.

use std::sync::{Arc, Mutex, PoisonError};

use fieldbook_core::{Clock, MonotonicTime, Now, WallTime};

/// Both clocks of one device.
#[derive(Debug, Clone)]
pub struct SimClock(Arc<Mutex<(i64, u64)>>);

impl SimClock {
    /// Starts with the wall clock at this many milliseconds since 1970.
    pub fn new(wall: i64) -> Self {
        Self(Arc::new(Mutex::new((wall, 0))))
    }

    /// Lets time go by.
    pub fn advance(&self, milliseconds: u64) {
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.0 = clocks.0.saturating_add(i64::try_from(milliseconds).unwrap_or(i64::MAX));
        clocks.1 = clocks.1.saturating_add(milliseconds);
    }

    /// Sets the wall clock, forward or back.
    pub fn set_wall(&self, wall: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = wall;
    }

    /// Returns the wall clock, in milliseconds since 1970.
    pub fn wall(&self) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let (wall, monotonic) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Now {
            wall: WallTime::from_milliseconds(wall),
            monotonic: MonotonicTime::from_milliseconds(monotonic),
        }
    }
}
