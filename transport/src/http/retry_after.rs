//! `Retry-After`: a wait in seconds or until a date, limited to a range, or nothing.
//!
//! Invariant: the wait is between the shortest and the longest of [`backoff::backoff`].
//!
//! A date counts from the `Date` of the answer, never from the device's clock, which may be wrong
//! by years. Source: RFC 9110, section 10.2.3.

use std::time::Duration;

use fieldbook_core::rules::backoff;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// Returns the wait that the answer asks for.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    parse(text(RETRY_AFTER)?, text(DATE))
}

fn parse(retry_after: &str, date: Option<&str>) -> Option<Duration> {
    let retry_after = retry_after.trim();
    if !retry_after.is_empty() && retry_after.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit a number count as a very long time.
        let seconds = retry_after.parse().unwrap_or(u64::MAX);
        return Some(backoff::clamp(Duration::from_secs(seconds)));
    }
    let until = httpdate::parse_http_date(retry_after).ok()?;
    let sent = httpdate::parse_http_date(date?.trim()).ok()?;
    Some(backoff::clamp(until.duration_since(sent).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: Option<&str> = Some("Sun, 06 Nov 1994 08:49:37 GMT");

    #[test]
    fn seconds_and_dates_are_read_and_brought_into_bounds() {
        for (text, seconds) in [
            ("0", 1),
            ("30", 30),
            (" 30 ", 30),
            ("3601", 3600),
            ("99999999999999999999999999", 3600),
            ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
            ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
            ("Sun Nov  6 08:50:37 1994", 60),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 1),
            ("Sat, 05 Nov 1994 08:49:37 GMT", 1),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ] {
            assert_eq!(parse(text, DATE), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn garbage_asks_for_nothing() {
        for text in [
            "",
            "soon",
            "-5",
            "1.5",
            "30 seconds",
            "Sun, 99 Nov 1994 08:49:37 GMT",
            "10000-01-01",
            "\u{0661}",
        ] {
            assert_eq!(parse(text, DATE), None, "{text}");
        }
    }

    #[test]
    fn a_date_without_the_servers_clock_asks_for_nothing() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:37 GMT", None), None);
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:37 GMT", Some("yesterday")), None);
    }
}
