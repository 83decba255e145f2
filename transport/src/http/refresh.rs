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
//! 3. A refresh that has begun runs to its end in a task of its own, also if nobody waits for it
//!    any more: what it gave up for the new token may be good for one use only.
//! 4. A refresh that takes too long counts as failed for those who wait for it. None begins
//!    meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fieldbook_core::Actor;
use tokio::sync::watch;
use tokio::time::timeout;

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
    /// The refresh that is running: its sender is dropped at its end.
    running: Option<watch::Receiver<()>>,
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

    /// Returns how many refreshes have ended. Waits so long for a refresh that is running.
    pub(super) async fn seen(&self, within: Duration) -> u64 {
        let running = self.state().running.clone();
        if let Some(running) = running {
            drop(timeout(within, over(running)).await);
        }
        self.state().ended
    }

    /// Renews the actor's credentials, unless a refresh since `seen` did so. Returns whether there
    /// are new credentials.
    pub(super) async fn refresh(
        self: &Arc<Self>,
        actor: &Actor,
        seen: u64,
        credentials: &Arc<dyn Credentials>,
        within: Duration,
    ) -> bool {
        let renewed = async {
            loop {
                let running = {
                    let mut state = self.state();
                    if let Some(ended) = state.last.get(actor).filter(|last| last.number > seen) {
                        return ended.renewed;
                    }
                    match &state.running {
                        Some(running) => running.clone(),
                        None => self.begin(&mut state, actor, credentials),
                    }
                };
                over(running).await;
            }
        };
        timeout(within, renewed).await.unwrap_or(false)
    }

    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        actor: &Actor,
        credentials: &Arc<dyn Credentials>,
    ) -> watch::Receiver<()> {
        let (sender, running) = watch::channel(());
        state.running = Some(running.clone());
        let (actor, credentials) = (actor.clone(), Arc::clone(credentials));
        let end = End { of: Arc::clone(self), actor, renewed: false, _sender: sender };
        drop(tokio::spawn(async move {
            // All of it belongs to the task.
            let mut end = end;
            end.renewed = credentials.refresh(&end.actor).await;
        }));
        running
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code under this lock can panic in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a refresh is over.
async fn over(mut running: watch::Receiver<()>) {
    // Nothing is ever sent: the sender is dropped at the end.
    drop(running.changed().await);
}

/// Records the end of a refresh when it is dropped, also by a panic or the end of the runtime.
struct End {
    of: Arc<Refreshes>,
    actor: Actor,
    renewed: bool,
    _sender: watch::Sender<()>,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.ended += 1;
        if state.last.len() >= ACTORS_MOST {
            state.last.clear();
        }
        let ended = Ended { number: state.ended, renewed: self.renewed };
        state.last.insert(self.actor.clone(), ended);
        state.running = None;
    }
}

/// The number of actors whose last refresh is remembered. Forgetting an actor costs at most one
/// more refresh.
const ACTORS_MOST: usize = 256;
