//! How long to wait after a failed run: the worker waits so, and a report tells the least wait.
//!
//! | the failure | the wait |
//! |---|---|
//! | our server does not accept the credentials, the version or the request | the longest wait: time alone does not help |
//! | the server asked for a time | random, and at least that time |
//! | no server is reached, or something else asks for a login | random, up to five minutes |
//! | any other | random |

use std::time::Duration;

use fieldbook_core::limits;
use fieldbook_core::protocol::{Failure, UNMARKED};
use fieldbook_core::rules::backoff::clamp;

/// The longest wait while no server is reached: a try costs little, and the network may be back.
const OFFLINE_MOST: Duration = Duration::from_secs(5 * 60);

/// The wait after a failed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitAfter {
    /// The longest wait. Time alone does not help, but a run must be tried at some finite time.
    Longest,
    /// A random wait that grows with the number of failures in a row.
    Random {
        /// What the server asked for.
        asked: Option<Duration>,
        /// The longest wait.
        most: Duration,
    },
}

impl WaitAfter {
    /// Returns the wait after a failure.
    pub(crate) fn of(failure: &Failure) -> Self {
        let random = |asked, most| Self::Random { asked, most };
        match failure {
            // Something other than our server asks for a login, such as the login page of a
            // network: the user of the device may be signing in now.
            Failure::Unauthorized { code } if code.starts_with(UNMARKED) => {
                random(None, OFFLINE_MOST)
            }
            Failure::Unauthorized { .. }
            | Failure::UpgradeRequired { .. }
            | Failure::Refused { .. } => Self::Longest,
            Failure::Transient { retry_after, .. } => random(*retry_after, limits::BACKOFF_MOST),
            Failure::Unreachable { .. } => random(None, OFFLINE_MOST),
            _ => random(None, limits::BACKOFF_MOST),
        }
    }

    /// Returns the least wait that makes sense.
    pub(super) fn least(self) -> Duration {
        match self {
            Self::Longest => limits::BACKOFF_MOST,
            Self::Random { asked, .. } => asked.map_or(limits::BACKOFF_FIRST, clamp),
        }
    }
}
