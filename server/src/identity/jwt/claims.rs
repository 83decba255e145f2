//! Reading claims.

use std::time::Duration;

use fieldbook_core::WallTime;
use serde_json::{Map, Value};

use super::Fault;

/// The place of a claim: a name, or a JSON pointer such as `/app_metadata/tenant`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim(String);

impl Claim {
    /// Returns the claim that names the user of a token.
    pub(super) fn subject() -> Self {
        Self("sub".to_owned())
    }

    /// Makes the place of a claim. A text that begins with a slash is a pointer (RFC 6901), so that
    /// names may have dots and slashes, such as `https://example.com/tenant`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix('/').unwrap_or(text);
        (!name.is_empty() && text.len() <= 255).then(|| Self(text.to_owned()))
    }

    /// Returns the claim.
    pub(super) fn value<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let Some(pointer) = self.0.strip_prefix('/') else { return claims.get(&self.0) };
        let (first, rest) = match pointer.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (pointer, None),
        };
        let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
        rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
    }

    /// Returns the claim if it is a text.
    pub(super) fn text<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c str> {
        self.value(claims)?.as_str()
    }

    /// Returns the texts of a claim: a list, or one text with spaces between its words.
    pub(super) fn texts<'c>(&self, claims: &'c Map<String, Value>) -> Vec<&'c str> {
        match self.value(claims) {
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
            _ => Vec::new(),
        }
    }
}

/// Returns a time of a token, in seconds since 1970, perhaps with a fraction.
pub(super) fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<WallTime>, Fault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().ok_or(Fault::Invalid)?;
    let since = Duration::try_from_secs_f64(seconds).map_err(|_| Fault::Invalid)?;
    // A time that no clock shows is the end of time.
    Ok(Some(WallTime::from_milliseconds(0).plus(since)))
}

/// Returns a number that distinguishes texts.
pub(super) fn number(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_claim_has_a_name_or_a_place_inside_another() {
        let claims = claims(
            r#"{"tenant":"a","https://x.example/tenant":"b","app":{"tenant":"c","x/y":["d"]},"n":1}"#,
        );
        for (place, value) in [
            ("tenant", Some("a")),
            ("https://x.example/tenant", Some("b")),
            ("/app/tenant", Some("c")),
            ("/app/x~1y/0", Some("d")),
            ("/tenant", Some("a")),
            ("n", None),
            ("app", None),
            ("other", None),
            ("/tenant/deeper", None),
        ] {
            assert_eq!(Claim::parse(place).unwrap().text(&claims), value, "{place}");
        }
        assert!(Claim::parse("").is_none() && Claim::parse("/").is_none());
    }

    #[test]
    fn a_time_is_a_number_of_seconds() {
        let claims = claims(r#"{"a":1.5,"b":"1","c":-1,"d":1e300,"e":18446744073709551615}"#);
        assert_eq!(time(&claims, "a"), Ok(Some(WallTime::from_milliseconds(1_500))));
        assert_eq!(time(&claims, "none"), Ok(None));
        for bad in ["b", "c", "d", "e"] {
            assert_eq!(time(&claims, bad), Err(Fault::Invalid), "{bad}");
        }
    }
}
