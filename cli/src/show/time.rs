//! Times: for people in the reader's zone, which is always shown; for machines in UTC (RFC 3339).

use std::sync::OnceLock;

use chrono::Local;
use fieldbook::audit::{Offsets, offset_shown, shown};
use fieldbook::host::WallTime;

use crate::view::Clocks;

/// The zone in which this run of the program shows times; the reader's if none was set.
static ZONE: OnceLock<Clocks> = OnceLock::new();

/// Shows times in this zone from now on. The first call counts.
pub(crate) fn show_in(zone: Clocks) {
    ZONE.set(zone).ok();
}

/// Returns a time for people, `2026-08-05 14:05:09 +02:00`.
pub(crate) fn local(time: WallTime) -> String {
    match (zone(), time.to_utc()) {
        (Clocks::Reader, Some(time)) => {
            time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S %:z").to_string()
        }
        (Clocks::Reader, None) => time.to_string(),
        (zone, _) => {
            let offset = zone.at(time);
            format!("{} {}", shown(time, offset), offset_shown(offset))
        }
    }
}

/// Returns a time for people, or another text if there is none.
pub(crate) fn local_or(time: Option<WallTime>, otherwise: &str) -> String {
    time.map_or_else(|| otherwise.to_owned(), local)
}

/// Returns a time for JSON.
pub(crate) fn utc(time: WallTime) -> String {
    time.to_string()
}

/// Returns a sentence with its times in the reader's zone.
pub(crate) fn localised(sentence: &str) -> String {
    let words = sentence.split(' ').map(|word| {
        let time = word.trim_matches(|edge: char| !edge.is_ascii_alphanumeric());
        match WallTime::parse(time) {
            Some(at) => word.replacen(time, &local(at), 1),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Returns the zone in which times are shown.
pub(crate) fn zone() -> Clocks {
    ZONE.get().copied().unwrap_or(Clocks::Reader)
}

/// Returns a time of day for people, `14:05:09`, in the zone in which times are shown.
pub(crate) fn of_day(time: WallTime) -> String {
    let shown = shown(time, zone().at(time));
    shown.split(' ').next_back().unwrap_or_default().to_owned()
}

/// Returns the day of a time for people, `Saturday 28 November 2026`.
pub(crate) fn day(time: WallTime) -> String {
    let local = time.milliseconds() + i64::from(zone().at(time)) * 60_000;
    let local = WallTime::from_milliseconds(local).to_utc();
    local.map_or_else(String::new, |local| local.format("%A %-d %B %Y").to_string())
}

/// Returns a sentence with its times in the zone in which times are shown: as times of day if they
/// are of the same day as `at`.
pub(crate) fn localised_on(sentence: &str, at: WallTime) -> String {
    let words = sentence.split(' ').map(|word| {
        let found = word.trim_matches(|edge: char| !edge.is_ascii_alphanumeric());
        match WallTime::parse(found) {
            Some(time) if day(time) == day(at) => word.replacen(found, &of_day(time), 1),
            Some(time) => word.replacen(found, &shown(time, zone().at(time)), 1),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_a_sentence_are_shown_in_the_readers_zone() {
        let at = WallTime::from_milliseconds(1_772_355_600_000);
        assert_eq!(
            localised(&format!("edited at {at}, r3.")),
            format!("edited at {}, r3.", local(at))
        );
        assert_eq!(
            localised(&format!("since entry 3 ({at}): x")),
            format!("since entry 3 ({}): x", local(at))
        );
        assert_eq!(localised("no  time, 41+3."), "no  time, 41+3.");
    }
}
