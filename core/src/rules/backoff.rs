//! The time until the engine tries again after a failure: exponential backoff with full jitter.
//!
//! ```text
//!   wait = a random time below  min(first × 2^(tries − 1), most),  but at least what the server asked for
//! ```
//!
//! Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter). A server's
//! `Retry-After` is a lower bound. It is limited too, so that no answer can make a device wait for
//! ever.
//!
//! What it is not: a retry by a person ([`super::retry`]).

use std::time::Duration;

use crate::limits;
use crate::random::Randomness;

/// Returns the wait after this many failures in a row.
pub fn backoff(tries: u32, asked: Option<Duration>, random: &mut dyn Randomness) -> Duration {
    let doublings = tries.saturating_sub(1).min(31);
    let most = limits::BACKOFF_FIRST.saturating_mul(1 << doublings).min(limits::BACKOFF_MOST);
    let milliseconds = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    let jittered = Duration::from_millis(random.below(milliseconds.saturating_add(1)));
    asked.map_or(jittered, |asked| jittered.max(clamp(asked)))
}

/// The code of a server that has no room for a tenant.
const NO_ROOM: &str = "quota_exceeded";

/// Returns whether an answer counts as a try of its unit. After [`limits::TRIES`] tries the unit
/// ends. The answer of a server without room is no try: the unit is not its cause, and waits as
/// long as needed.
pub fn counts(code: &str) -> bool {
    code != NO_ROOM
}

/// Returns the wait that a server asked for, within the bounds.
pub fn clamp(asked: Duration) -> Duration {
    asked.clamp(limits::BACKOFF_FIRST, limits::BACKOFF_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandomness;

    #[test]
    fn waits_stay_below_a_doubling_bound_and_below_the_most() {
        let mut random = SeededRandomness::from_number(3);
        for tries in 1..200 {
            let bound = Duration::from_secs(1 << (tries - 1).min(12)).min(limits::BACKOFF_MOST);
            assert!(backoff(tries, None, &mut random) <= bound);
        }
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let mut random = SeededRandomness::from_number(4);
        let waits: Vec<_> = (0..1000).map(|_| backoff(5, None, &mut random)).collect();
        let early = waits.iter().filter(|wait| **wait < Duration::from_secs(8)).count();
        assert!((400..600).contains(&early), "half of the waits fall in the first half: {early}");
    }

    #[test]
    fn what_the_server_asks_for_is_a_lower_bound_within_limits() {
        let mut random = SeededRandomness::from_number(5);
        assert!(backoff(1, Some(Duration::from_secs(30)), &mut random) >= Duration::from_secs(30));
        assert_eq!(
            backoff(1, Some(Duration::from_secs(u64::MAX)), &mut random),
            limits::BACKOFF_MOST
        );
        assert!(backoff(1, Some(Duration::ZERO), &mut random) >= limits::BACKOFF_FIRST);
    }
}
