//! How long bytes may take to be sent or received.
//!
//! A fixed time for a whole body cuts off a slow client that works: 1 MiB over a link of 4 kB/s
//! takes more than four minutes. So bytes have a minimum average rate, and a pause has a longest
//! length. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The transfer of bytes in one direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    patience: Duration,
    least_rate: u32,
    began: Instant,
    last: Instant,
    bytes: u64,
}

impl Pace {
    pub(crate) fn begin(patience: Duration, least_rate: u32, now: Instant) -> Self {
        Self { patience, least_rate: least_rate.max(1), began: now, last: now, bytes: 0 }
    }

    /// Records that some bytes have travelled.
    pub(crate) fn moved(&mut self, bytes: usize, now: Instant) {
        self.last = now;
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Returns when the next byte must have travelled.
    pub(crate) fn deadline(&self) -> Instant {
        let earned = Duration::from_secs_f64(self.bytes as f64 / f64::from(self.least_rate));
        (self.began + self.patience + earned).min(self.last + self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Moves this many bytes each second, and returns the number of seconds until the transfer is
    /// cut off.
    fn seconds_at(rate: usize, most: u64) -> u64 {
        let start = Instant::now();
        let mut pace = Pace::begin(30 * SECOND, 1024, start);
        for second in 1..=most {
            let now = start + SECOND * u32::try_from(second).unwrap();
            if now > pace.deadline() {
                return second - 1;
            }
            pace.moved(rate, now);
        }
        most
    }

    #[tokio::test]
    async fn a_slow_link_that_works_is_never_cut_off() {
        assert_eq!(seconds_at(2_000, 10_000), 10_000);
        assert_eq!(seconds_at(4_000, 10_000), 10_000);
    }

    #[tokio::test]
    async fn a_trickle_is_cut_off_soon_after_the_patience() {
        assert_eq!(seconds_at(1, 10_000), 30);
        assert_eq!(seconds_at(512, 10_000), 59);
    }

    #[tokio::test]
    async fn what_came_fast_earns_no_longer_pause_than_the_patience() {
        let start = Instant::now();
        let mut pace = Pace::begin(30 * SECOND, 1024, start);
        pace.moved(10_000_000, start + SECOND);
        assert_eq!(pace.deadline(), start + 31 * SECOND);
    }
}
