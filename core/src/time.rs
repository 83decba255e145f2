//! Time as data: the wall clock for people, the hybrid logical clock for order, the monotonic clock
//! for waits.
//!
//! There is no clock in this crate. The caller of a rule passes a [`Now`]. [`crate::rules::clock`]
//! makes stamps of it.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::limits;

/// Milliseconds since 1970-01-01T00:00:00Z by some wall clock. It is for people and for rough
/// bounds, never for order.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(i64);

impl WallTime {
    /// Makes a time of milliseconds since 1970 (UTC).
    pub const fn from_milliseconds(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// Returns milliseconds since 1970 (UTC).
    pub const fn milliseconds(self) -> i64 {
        self.0
    }

    /// Returns the time `duration` later, at most the largest representable time.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns whether a server's clock can show this: a time from 1970 to
    /// [`limits::LATEST_MILLISECONDS`].
    pub const fn is_plausible(self) -> bool {
        0 <= self.0 && self.0 <= limits::LATEST_MILLISECONDS
    }

    /// Returns how long after `earlier` this time is; zero if it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns the calendar time, or `None` outside the years of chrono.
    pub fn to_utc(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.0)
    }

    /// Parses an RFC 3339 time such as `2018-10-15T18:37:45Z`.
    pub fn parse(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok().map(|time| Self(time.timestamp_millis()))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_utc() {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// A reading of a clock that never goes back, in milliseconds since some fixed but unknown moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonotonicTime(u64);

impl MonotonicTime {
    /// Makes a reading of milliseconds since the clock's own start.
    pub const fn from_milliseconds(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Returns milliseconds since the clock's own start.
    pub const fn milliseconds(self) -> u64 {
        self.0
    }

    /// Returns how long after `earlier` this reading is; zero if it is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// One reading of both clocks, passed to every rule that needs time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// The device's time of day. It may jump either way by years.
    pub wall: WallTime,
    /// A clock that only goes forward while the process lives.
    pub monotonic: MonotonicTime,
}

/// The source of time. A simulation supplies its own.
pub trait Clock: Send + Sync {
    /// Reads both clocks at once.
    fn now(&self) -> Now;

    /// Returns the minutes by which the device's wall clock, as its user sees it, is ahead of UTC
    /// at a time. `None`, the default, if that is not known.
    fn utc_offset(&self, _at: WallTime) -> Option<i32> {
        None
    }
}

/// A hybrid logical clock stamp: 48 bits of milliseconds since 1970, then 16 bits of counter.
///
/// The stamps of a log's entries always grow. The stamp of an edit is above every stamp of its
/// record that its author read. Source: Kulkarni et al., "Logical Physical Clocks", 2014.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Hlc(u64);

impl Hlc {
    /// The stamp before every other.
    pub const ZERO: Self = Self(0);

    /// Builds the first stamp of a millisecond. A time before 1970 or after
    /// [`limits::LATEST_MILLISECONDS`] counts as that bound, so that a wrong clock cannot use up
    /// the stamps.
    pub fn at(wall: WallTime) -> Self {
        Self(u64::try_from(wall.milliseconds().min(limits::LATEST_MILLISECONDS)).unwrap_or(0) << 16)
    }

    /// Returns whether a clock can show this time: it is at most [`limits::LATEST_MILLISECONDS`].
    pub fn is_plausible(self) -> bool {
        self.wall().milliseconds() <= limits::LATEST_MILLISECONDS
    }

    /// Makes a stamp of its packed form.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the packed form.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the wall-clock part.
    pub fn wall(self) -> WallTime {
        WallTime(i64::try_from(self.0 >> 16).unwrap_or(i64::MAX))
    }

    /// Returns the counter part.
    pub const fn counter(self) -> u64 {
        self.0 & 0xffff
    }

    /// Returns the next stamp. The counter overflows into the milliseconds, so the stamp never goes
    /// back.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.wall(), self.counter())
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hlc({self})")
    }
}
