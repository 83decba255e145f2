//! The one place where the front door touches the operating system's clock and randomness. Both can be replaced
//! ([`crate::BookOptions`]).

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fieldbook_core::log::StoreError;
use fieldbook_core::{Clock, MonotonicTime, Now, SeededRandomness, WallTime};

/// The operating system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Starts to count monotonic time.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
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
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    fn now(&self) -> Now {
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |before| -before),
        };
        let monotonic = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            wall: WallTime::from_milliseconds(wall),
            monotonic: MonotonicTime::from_milliseconds(monotonic),
        }
    }
}

/// Seeds randomness from the operating system.
pub(crate) fn randomness() -> Result<SeededRandomness, StoreError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|source| StoreError::Disk {
        during: "asking the operating system for randomness",
        source: Box::new(source),
    })?;
    Ok(SeededRandomness::new(seed))
}
