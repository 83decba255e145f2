//! A moment of a log as a person names it: `41873`, `2026-11-28 14:05`, `14:05`, `-2h`, `@-3`,
//! `12.2`.
//!
//! ```text
//!   text ──► When ──► with the end of the log and a zone ──► Moment: an entry, or a time
//! ```
//!
//! Invariants:
//! 1. A moment is a place in the log, not a time of today: `-2h` counts from the end of the log.
//! 2. An entry belongs to a time if the milliseconds of its log clock are not after it. The wall
//!    clock may have been set back; the log clock only grows.
//!
//! What it does not do: find the entry of a time. The log does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

use crate::numbers::{ConflictId, Seq};
use crate::time::WallTime;

/// A moment as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// `41873`: after this entry.
    Entry(Seq),
    /// `12.2`: after the entry that recorded this conflict.
    Conflict(ConflictId),
    /// `@-3`: this many entries before the end of the log.
    Back(u64),
    /// `-2h`: this long before the end of the log.
    Before(Duration),
    /// `2026-11-28 14:05+01:00`: a time with its offset.
    Instant(WallTime),
    /// `2026-11-28 14:05`: a date and a time of some zone.
    Local(NaiveDateTime),
    /// `14:05`: the last such time before the end of the log.
    TimeOfDay(NaiveTime),
}

/// A moment of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After this entry; [`Seq::ZERO`] is before the first one.
    Entry(Seq),
    /// After all entries up to this time.
    Time(WallTime),
    /// This many entries before the end of the log.
    Back(u64),
}

/// The offsets of a zone from UTC, in minutes to the east.
pub trait Offsets {
    /// Returns the offset at a time.
    fn at(&self, time: WallTime) -> i32;

    /// Returns the offset at a time that a clock of the zone shows. If the clock shows it twice, it
    /// is the first of the two.
    fn of_local(&self, local: NaiveDateTime) -> i32;
}

/// A zone as a person names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Zone {
    /// The zone of the device at that moment.
    #[default]
    Device,
    /// The zone of the reader.
    Local,
    /// Always this offset, in minutes to the east; 0 is UTC.
    Fixed(i32),
}

/// Text that names no moment or no zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWhen {
    /// The text names no moment.
    #[error(
        "expected a moment: an entry (41873), a time (2026-11-28 14:05, 14:05), a span before the end of the log (-2h), \
         steps back (@-3) or a conflict (12.2)"
    )]
    Moment,
    /// The text names no zone.
    #[error("expected a zone: utc, local, device, or an offset such as +01:00")]
    Zone,
}

/// A fixed offset.
impl Offsets for i32 {
    fn at(&self, _: WallTime) -> i32 {
        *self
    }

    fn of_local(&self, _: NaiveDateTime) -> i32 {
        *self
    }
}

impl When {
    /// Returns the moment in a log that ends at `end`.
    pub fn moment(&self, end: WallTime, zone: &impl Offsets) -> Moment {
        match self {
            Self::Entry(seq) => Moment::Entry(*seq),
            Self::Conflict(id) => Moment::Entry(id.seq),
            Self::Back(steps) => Moment::Back(*steps),
            Self::Before(span) => {
                let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                Moment::Time(WallTime::from_milliseconds(end.milliseconds().saturating_sub(span)))
            }
            Self::Instant(time) => Moment::Time(*time),
            Self::Local(local) => Moment::Time(at_local(*local, zone)),
            Self::TimeOfDay(time) => Moment::Time(last_before(*time, end, zone)),
        }
    }
}

fn at_local(local: NaiveDateTime, zone: &impl Offsets) -> WallTime {
    let shown = local.and_utc().timestamp_millis();
    WallTime::from_milliseconds(shown - minutes(zone.of_local(local)))
}

fn last_before(time: NaiveTime, end: WallTime, zone: &impl Offsets) -> WallTime {
    let shown = end.milliseconds().saturating_add(minutes(zone.at(end)));
    let today = DateTime::from_timestamp_millis(shown).unwrap_or_default().date_naive();
    let found = at_local(today.and_time(time), zone);
    if found <= end {
        return found;
    }
    let yesterday = today.checked_sub_signed(TimeDelta::days(1)).unwrap_or(today);
    at_local(yesterday.and_time(time), zone)
}

/// Returns minutes in milliseconds.
fn minutes(minutes: i32) -> i64 {
    i64::from(minutes) * 60_000
}

/// Returns a time as a clock with this offset shows it, `2026-11-28 14:05:09`.
pub fn shown(time: WallTime, offset: i32) -> String {
    let local = time.milliseconds().saturating_add(minutes(offset));
    match DateTime::from_timestamp_millis(local) {
        Some(local) => local.format("%Y-%m-%d %H:%M:%S").to_string(),
        None => time.to_string(),
    }
}

/// Returns an offset as it is written, `+01:00`.
pub fn offset_shown(offset: i32) -> String {
    let (sign, size) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
    format!("{sign}{:02}:{:02}", size / 60, size % 60)
}

impl FromStr for When {
    type Err = InvalidWhen;

    fn from_str(text: &str) -> Result<Self, InvalidWhen> {
        let text = text.trim();
        if let Ok(seq) = text.parse() {
            return Ok(Self::Entry(Seq::new(seq)));
        }
        if let Some(steps) = text.strip_prefix("@-") {
            return steps.parse().map(Self::Back).map_err(|_| InvalidWhen::Moment);
        }
        if text == "@" {
            return Ok(Self::Back(0));
        }
        if let Some(span) = text.strip_prefix('-') {
            return span_of(span).map(Self::Before).ok_or(InvalidWhen::Moment);
        }
        if let Ok(id) = text.parse() {
            return Ok(Self::Conflict(id));
        }
        calendar(text).ok_or(InvalidWhen::Moment)
    }
}

/// Reads `2h`, `30m`, `3d`, `45s`.
fn span_of(text: &str) -> Option<Duration> {
    let at = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at))?;
    let (number, unit) = text.split_at(at);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// Reads `14:05`, `14:05:30`, `2026-11-28`, `2026-11-28 14:05[:30][+01:00|Z]`.
fn calendar(text: &str) -> Option<When> {
    if let Some(time) = time_of_day(text) {
        return Some(When::TimeOfDay(time));
    }
    let (date, rest) = text.split_at_checked(10)?;
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let Some(rest) = rest.strip_prefix([' ', 'T']) else {
        return rest.is_empty().then(|| When::Local(date.and_time(NaiveTime::default())));
    };
    let (time, offset) = match rest.find(['+', '-', 'Z']) {
        Some(at) => {
            let (time, offset) = rest.split_at(at);
            (time, Some(offset_of(offset)?))
        }
        None => (rest, None),
    };
    let local = date.and_time(time_of_day(time)?);
    Some(offset.map_or(When::Local(local), |offset| When::Instant(at_local(local, &offset))))
}

fn time_of_day(text: &str) -> Option<NaiveTime> {
    let found = ["%H:%M", "%H:%M:%S", "%H:%M:%S%.f"].into_iter();
    found.filter_map(|form| NaiveTime::parse_from_str(text, form).ok()).next()
}

/// Reads `+01:00`, `-05:30` or `Z` as minutes to the east.
fn offset_of(text: &str) -> Option<i32> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let is_clock = (0..=23).contains(&hours) && (0..=59).contains(&minutes);
    is_clock.then_some(sign * (hours * 60 + minutes))
}

impl FromStr for Zone {
    type Err = InvalidWhen;

    fn from_str(text: &str) -> Result<Self, InvalidWhen> {
        match text {
            "utc" | "UTC" => Ok(Self::Fixed(0)),
            "local" => Ok(Self::Local),
            "device" => Ok(Self::Device),
            _ => offset_of(text).map(Self::Fixed).ok_or(InvalidWhen::Zone),
        }
    }
}

/// The text that reads as this moment.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(seq) => seq.fmt(f),
            Self::Conflict(id) => id.fmt(f),
            Self::Back(steps) => write!(f, "@-{steps}"),
            Self::Before(span) => write!(f, "-{}s", span.as_secs()),
            Self::Instant(time) => {
                write!(f, "{}Z", local_shown(time.to_utc().unwrap_or_default().naive_utc()))
            }
            Self::Local(local) => f.write_str(&local_shown(*local)),
            Self::TimeOfDay(time) => write!(f, "{}", time.format("%H:%M:%S%.f")),
        }
    }
}

fn local_shown(local: NaiveDateTime) -> String {
    local.format("%Y-%m-%d %H:%M:%S%.f").to_string()
}

/// The text that reads as this zone.
impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("device"),
            Self::Local => f.write_str("local"),
            Self::Fixed(offset) => f.write_str(&offset_shown(*offset)),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(seq) => write!(f, "entry {seq}"),
            Self::Time(time) => time.fmt(f),
            Self::Back(steps) => write!(f, "@-{steps}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> WallTime {
        WallTime::parse(text).unwrap()
    }

    /// The log ends on Saturday, 28 November 2026, 16:54:47 UTC.
    fn end() -> WallTime {
        time("2026-11-28T16:54:47Z")
    }

    #[track_caller]
    fn is_time(text: &str, offset: i32, wanted: &str) {
        let when: When = text.parse().unwrap();
        assert_eq!(when.moment(end(), &offset), Moment::Time(time(wanted)), "{text} at {offset}");
    }

    #[test]
    fn a_moment_is_an_entry_a_conflict_or_steps_back() {
        let of = |text: &str| text.parse::<When>().unwrap().moment(end(), &0);
        assert_eq!(of("41873"), Moment::Entry(Seq::new(41_873)));
        assert_eq!(of("12.2"), Moment::Entry(Seq::new(12)), "the entry that recorded it");
        assert_eq!((of("@-3"), of("@")), (Moment::Back(3), Moment::Back(0)));
    }

    #[test]
    fn a_span_counts_from_the_end_of_the_log() {
        is_time("-2h", 0, "2026-11-28T14:54:47Z");
        is_time("-30m", 345, "2026-11-28T16:24:47Z");
        is_time("-3d", 0, "2026-11-25T16:54:47Z");
    }

    #[test]
    fn a_time_of_day_is_the_last_one_before_the_end_of_the_log() {
        is_time("14:05", 0, "2026-11-28T14:05:00Z");
        is_time("17:00", 0, "2026-11-27T17:00:00Z");
        is_time("17:00", 60, "2026-11-28T16:00:00Z");
        is_time("16:54:47", 0, "2026-11-28T16:54:47Z");
        // It is the 28th in Kathmandu already, and still the 28th at 00:10 there.
        is_time("00:10", 345, "2026-11-27T18:25:00Z");
    }

    #[test]
    fn a_date_and_time_are_of_the_zone_unless_they_have_an_offset() {
        is_time("2026-11-28 14:05", 0, "2026-11-28T14:05:00Z");
        is_time("2026-11-28 14:05:30", 345, "2026-11-28T08:20:30Z");
        is_time("2026-11-28T14:05:30+01:00", 345, "2026-11-28T13:05:30Z");
        is_time("2026-11-28 14:05Z", 345, "2026-11-28T14:05:00Z");
        is_time("2026-11-28 14:05-03:30", 0, "2026-11-28T17:35:00Z");
        is_time("2026-11-28", 60, "2026-11-27T23:00:00Z");
    }

    #[test]
    fn a_moment_and_a_zone_read_as_they_are_shown() {
        for text in [
            "41",
            "12.2",
            "@-3",
            "-7200s",
            "2026-11-28 14:05:30Z",
            "2026-11-28 14:05:30",
            "14:05:00",
        ] {
            assert_eq!(text.parse::<When>().unwrap().to_string(), text);
        }
        for text in ["device", "local", "+05:45", "-03:30"] {
            assert_eq!(text.parse::<Zone>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_no_moment_or_zone_is_refused() {
        for wrong in
            ["", "x", "-", "-2", "-2y", "@-", "@-x", "@3", "25:00", "2026-13-01", "12.", "-é"]
        {
            assert_eq!(wrong.parse::<When>(), Err(InvalidWhen::Moment), "{wrong}");
        }
        for wrong in ["2026-11-28 14:05+1", "2026-11-28 14:05+24:00", "2026-11-28x14:05"] {
            assert_eq!(wrong.parse::<When>(), Err(InvalidWhen::Moment), "{wrong}");
        }
        assert_eq!("utc".parse(), Ok(Zone::Fixed(0)));
        assert_eq!(("-03:30".parse(), "local".parse()), (Ok(Zone::Fixed(-210)), Ok(Zone::Local)));
        assert_eq!("mars".parse::<Zone>(), Err(InvalidWhen::Zone));
    }

    #[test]
    fn a_time_is_shown_as_its_zones_clock_shows_it() {
        assert_eq!(
            (shown(end(), 345), offset_shown(345)),
            ("2026-11-28 22:39:47".into(), "+05:45".into())
        );
        assert_eq!(offset_shown(-210), "-03:30");
        // A log can have any number.
        assert_eq!(offset_shown(i32::MIN), "-35791394:08");
        assert_eq!(shown(WallTime::from_milliseconds(i64::MAX), 1), format!("{} ms", i64::MAX));
    }
}
