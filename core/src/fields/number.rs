//! Numbers: the one way to write each, and which numbers are kept.
//!
//! | written as | is kept if | and is written |
//! |---|---|---|
//! | a whole number: digits only | it is within 64 bits (-2⁶³ to 2⁶⁴ - 1) | unchanged; `-0` as `-0.0` |
//! | with a fraction or an exponent | a double prints with the same decimal digits | as the shortest such digits: `1.50` as `1.5`, `1E5` as `100000.0` |
//!
//! Invariants: the number that is written back has exactly the value that was read. Nothing is
//! rounded. (A double such as 2132540895234988.25 is midway between two shortest decimals, and
//! programs print either of them, so both are accepted for it.) `1` and `1.0` remain two different
//! values, because the types of an app distinguish them.

use std::borrow::Cow;

/// Returns the one way to write a number, or `None` if it cannot be kept exactly. `token` follows
/// JSON's grammar.
pub(super) fn canonical(token: &str) -> Option<Cow<'_, str>> {
    if token.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return whole(token);
    }
    if is_plain(token) {
        return Some(Cow::Borrowed(token));
    }
    reread(token)
}

/// Returns the same as [`canonical`] by reading a number and writing it again.
fn reread(token: &str) -> Option<Cow<'_, str>> {
    let number: f64 = token.parse().ok().filter(|number: &f64| number.is_finite())?;
    let printed = serde_json::to_string(&number).ok()?;
    if printed == token {
        return Some(Cow::Borrowed(token));
    }
    let written = Decimal::of(token);
    // A double midway between two shortest decimals is printed as either, depending on the program.
    let is_same =
        Decimal::of(&printed) == written || Decimal::of(&format!("{number:e}")) == written;
    is_same.then_some(Cow::Owned(printed))
}

/// Returns whether a number has so few digits that every double returns them, and is written in the
/// one way. Most numbers are.
pub(super) fn is_plain(token: &str) -> bool {
    let unsigned = token.strip_prefix('-').unwrap_or(token);
    let Some((whole, fraction)) = unsigned.split_once('.') else { return false };
    let is_small = whole == "0" && fraction.starts_with("000");
    whole.len() + fraction.len() <= 15
        && !is_small
        && (fraction == "0" || !fraction.ends_with('0'))
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

/// Does the same for a whole number. A number of up to 18 characters is within 64 bits, so it is
/// not read.
fn whole(token: &str) -> Option<Cow<'_, str>> {
    if token == "-0" {
        return Some(Cow::Borrowed("-0.0"));
    }
    let fits = token.len() <= 18 || token.parse::<i64>().is_ok() || token.parse::<u64>().is_ok();
    fits.then_some(Cow::Borrowed(token))
}

/// The value of a decimal literal: `0.digits × 10^scale`, without zeros on either side of the
/// digits.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    digits: Vec<u8>,
    scale: i64,
}

impl Decimal {
    /// Reads a literal without its sign. Two literals are compared only if they have the same sign.
    fn of(token: &str) -> Self {
        let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let whole = whole.trim_start_matches('-');
        let zeros = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Self { digits, scale: 0 };
        }
        // An exponent beyond 64 bits belongs to no number that a double holds, except to zero.
        let exponent: i64 = exponent.parse().unwrap_or(i64::MAX);
        let leading = i64::try_from(leading).unwrap_or(i64::MAX);
        Self { digits, scale: exponent.saturating_add(zeros(whole)).saturating_sub(leading) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_keeps_its_value_and_gets_one_spelling() {
        for (token, written) in [
            ("0", "0"),
            ("-7", "-7"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("1.0", "1.0"),
            ("1.50", "1.5"),
            ("15e-1", "1.5"),
            ("0.150E+1", "1.5"),
            ("1E5", "100000.0"),
            ("-0", "-0.0"),
            ("-0.0", "-0.0"),
            ("0e999999999999999999999", "0.0"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("9007199254740992.0", "9007199254740992.0"),
        ] {
            let kept = canonical(token).unwrap_or_else(|| panic!("{token} is kept"));
            assert_eq!(Decimal::of(&kept), Decimal::of(written), "{token}");
            assert_eq!(
                canonical(&kept).as_deref(),
                Some(&*kept),
                "{token}: written once, it stays"
            );
        }
    }

    #[test]
    fn a_double_between_two_decimals_is_taken_from_whoever_prints_it() {
        let kept = |token| canonical(token).map(Cow::into_owned);
        assert_eq!(kept("2132540895234988.2"), kept("2132540895234988.3"));
        assert!(kept("2132540895234988.3").is_some());
        assert_eq!(kept("2132540895234988.25"), None);
    }

    #[test]
    fn a_number_that_would_be_rounded_is_not_kept() {
        for token in [
            "18446744073709551616",
            "-9223372036854775809",
            "100000000000000000000",
            "12345678901234567890123",
            "9007199254740993.0",
            "0.12345678901234567890",
            "0.10000000000000001",
            "1e-400",
            "-1e-400",
            "1e400",
            "-1e400",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "4.9406564584124654e-324",
        ] {
            assert_eq!(canonical(token), None, "{token}");
        }
    }

    proptest! {
        #[test]
        fn every_double_and_every_whole_number_of_64_bits_is_kept(double in any::<f64>(), signed: i64, unsigned: u64) {
            if double.is_finite() {
                let token = serde_json::to_string(&double).unwrap();
                prop_assert_eq!(canonical(&token), Some(Cow::Borrowed(&*token)));
                // The digits of the standard library's printer are the same, in another spelling.
                let other = format!("{double:e}");
                prop_assert_eq!(canonical(&other).as_deref().map(str::parse), Some(Ok(double)));
            }
            for token in [signed.to_string(), unsigned.to_string()] {
                prop_assert_eq!(canonical(&token), Some(Cow::Borrowed(&*token)));
            }
        }

        #[test]
        fn a_plain_number_is_what_reading_and_writing_it_makes(token in "-?(0|[1-9][0-9]{0,14})\\.[0-9]{1,14}") {
            if is_plain(&token) {
                prop_assert_eq!(reread(&token), Some(Cow::Borrowed(&*token)));
            }
        }

        #[test]
        fn what_is_kept_has_the_very_value(token in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?") {
            if let Some(kept) = canonical(&token) {
                prop_assert_eq!(kept.parse::<f64>(), token.parse::<f64>());
                let digits = Decimal::of(&token).digits.len();
                prop_assert!(Decimal::of(&kept) == Decimal::of(&token) || digits >= 16, "{} {}", kept, token);
            }
        }
    }
}
