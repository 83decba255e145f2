//! Renews credentials: one refresh at a time, shared by all exchanges that wait for it.
//!
//! ```text
//!   exchange a   seen 4 ── 401 ── refresh (5) ───────── resend
//!   exchange b   seen 4 ───── 401 ── waits ── finds 5 ─ resend     (no second refresh)
//! ```
//!
//! Invariants:
//! 1. No two refreshes run at once.
//! 2. A request that was refused, and was sent before a refresh of its actor ended, shares the
//!    result of that refresh, good or bad.
//! 3. A refresh that takes too long counts as failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fieldbook_core::Actor;
use tokio::sync::Mutex;

use crate::credentials::Credentials;

/// The refreshes of one remote.
#[derive(Default)]
pub(super) struct Refreshes {
    state: Mutex<State>,
    clock_is_wrong: AtomicBool,
}

#[derive(Default)]
struct State {
    ended: u64,
    last: BTreeMap<Actor, Ended>,
}

#[derive(Clone, Copy)]
struct Ended {
    number: u64,
    renewed: bool,
}

impl Refreshes {
    /// Returns whether the device's clock tells when a token expires. If it does not, a token is
    /// renewed when the server refuses it.
    pub(super) fn trust_clock(&self) -> bool {
        !self.clock_is_wrong.load(Ordering::Relaxed)
    }

    /// The device's clock is wrong: a token that was just renewed has expired by it.
    pub(super) fn distrust_clock(&self) {
        self.clock_is_wrong.store(true, Ordering::Relaxed);
    }

    /// Returns how many refreshes have ended. Waits for a refresh that is running.
    pub(super) async fn seen(&self) -> u64 {
        self.state.lock().await.ended
    }

    /// Renews the actor's credentials, unless a refresh since `seen` did so. Returns whether there
    /// are new credentials.
    pub(super) async fn refresh(
        &self,
        actor: &Actor,
        seen: u64,
        credentials: &dyn Credentials,
        within: Duration,
    ) -> bool {
        // The lock is held during the refresh on purpose: so no second refresh runs.
        let mut state = self.state.lock().await;
        if let Some(ended) = state.last.get(actor).filter(|ended| ended.number > seen) {
            return ended.renewed;
        }
        let renewed =
            tokio::time::timeout(within, credentials.refresh(actor)).await.unwrap_or(false);
        state.ended += 1;
        if state.last.len() >= ACTORS_MOST {
            state.last.clear();
        }
        let ended = Ended { number: state.ended, renewed };
        state.last.insert(actor.clone(), ended);
        renewed
    }
}

/// The number of actors whose last refresh is remembered. Forgetting an actor costs at most one
/// more refresh.
const ACTORS_MOST: usize = 256;
