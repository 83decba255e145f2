//! Times: the reader's own zone, always shown, for people; UTC (RFC 3339) for machines.

use chrono::Local;
use fieldbook::WallTime;

/// Returns a time as people read it, `2026-08-05 14:05:09 +02:00`.
pub(crate) fn local(time: WallTime) -> String {
    match time.to_utc() {
        Some(time) => time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S %:z").to_string(),
        None => time.to_string(),
    }
}

/// Returns a time that may not have come yet.
pub(crate) fn local_or(time: Option<WallTime>, otherwise: &str) -> String {
    time.map_or_else(|| otherwise.to_owned(), local)
}

/// Returns a time for JSON.
pub(crate) fn utc(time: WallTime) -> String {
    time.to_string()
}
