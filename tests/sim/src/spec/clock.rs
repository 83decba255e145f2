//! Time in a case: a true time that the server has, and a device whose wall clock may differ.

use std::sync::atomic::{AtomicI64, Ordering};

use fieldbook::audit::Hlc;
use fieldbook::host::{Clock, MonotonicTime, Now, WallTime};

/// The time at which a case begins.
const BEGIN: i64 = 1_700_000_000_000;
/// The first stamp of the changes of the server that a case calls "earlier".
const EARLIER: i64 = BEGIN - 24 * 60 * 60 * 1_000;

/// The clocks of a case.
#[derive(Debug)]
pub(super) struct CaseClock {
    /// Milliseconds since the case began.
    passed: AtomicI64,
    /// The amount by which the device's wall clock is ahead.
    ahead: AtomicI64,
    /// The number of changes that were edited earlier.
    earlier: AtomicI64,
}

impl CaseClock {
    pub(super) const fn new() -> Self {
        Self { passed: AtomicI64::new(0), ahead: AtomicI64::new(0), earlier: AtomicI64::new(0) }
    }

    /// Lets time pass for everyone.
    pub(super) fn advance(&self, milliseconds: i64) {
        self.passed.fetch_add(milliseconds.max(0), Ordering::Relaxed);
    }

    /// Sets the device's wall clock.
    pub(super) fn jump(&self, milliseconds: i64) {
        self.ahead.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// Lets time pass until the device's wall clock shows at least this time.
    pub(super) fn pass(&self, wall: WallTime) {
        let shown = self.now().wall.milliseconds();
        self.advance(wall.milliseconds().saturating_sub(shown));
    }

    /// Returns the server's time.
    pub(super) fn true_time(&self) -> WallTime {
        WallTime::from_milliseconds(BEGIN + self.passed.load(Ordering::Relaxed))
    }

    /// Draws a stamp before every edit of the device; each is after the earlier drawn stamps.
    pub(super) fn earlier(&self) -> Hlc {
        Hlc::at(WallTime::from_milliseconds(EARLIER + self.earlier.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Clock for CaseClock {
    fn now(&self) -> Now {
        let passed = self.passed.load(Ordering::Relaxed);
        Now {
            wall: WallTime::from_milliseconds(BEGIN + passed + self.ahead.load(Ordering::Relaxed)),
            monotonic: MonotonicTime::from_milliseconds(passed.unsigned_abs()),
        }
    }
}
