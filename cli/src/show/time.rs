//! Times: for people in the reader's zone, which is always shown; for machines in UTC (RFC 3339).

use chrono::Local;
use fieldbook::host::WallTime;

/// Returns a time for people, `2026-08-05 14:05:09 +02:00`.
pub(crate) fn local(time: WallTime) -> String {
    match time.to_utc() {
        Some(time) => time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S %:z").to_string(),
        None => time.to_string(),
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
