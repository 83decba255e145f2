//! Natural group commit: callers that arrive during a commit share the next one.
//!
//! ```text
//!   A ──submit──► leads: work([A])──────────┐ hands over
//!   B   ──submit──► waits ··················└► leads: work([B, C, D])──┐
//!   C      ──submit──► waits ···························· its reply ◄──┤
//!   D         ──submit──► waits ························· its reply ◄──┘
//! ```
//!
//! Invariants:
//! 1. One round runs at a time. Jobs are done in the order of their arrival.
//! 2. A lone caller leads at once. It does not wait for other callers.
//! 3. A leader's own job is the oldest, so it is in the leader's first and only round.
//! 4. While a job waits, a caller leads. A round that ends, also by a panic, passes the lead to the
//!    oldest waiting caller.
//! 5. A caller returns when its reply was sent, or when it is certain that no reply will be sent
//!    ([`Abandoned`]).
//!
//! What it is not: a thread, a timer or a bounded queue. Callers block, so each thread has at most
//! one waiting job. `work` must not submit to its own group.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use crate::locks::{Condvar, Mutex, MutexGuard};

/// The meeting point of callers. `J` is a job, `T` is its result.
pub struct GroupCommit<J, T> {
    limit: usize,
    state: Mutex<State<J, T>>,
}

struct State<J, T> {
    waiting: VecDeque<(J, Reply<T>)>,
    led: bool,
}

/// The job was given up: its round panicked, or ended without a reply to it. Whether its effects
/// are undone or unknown depends on the round's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the commit was abandoned before this change was answered")]
pub struct Abandoned;

/// The channel for the answer to one job. If it is dropped without an answer, the caller gets
/// [`Abandoned`].
pub struct Reply<T> {
    slot: Arc<Slot<T>>,
}

struct Slot<T> {
    news: Mutex<News<T>>,
    changed: Condvar,
}

enum News<T> {
    None,
    /// The caller leads the next round.
    Lead,
    Answered(T),
    Abandoned,
}

impl<J, T> GroupCommit<J, T> {
    /// Makes a group whose rounds have at most `limit` jobs, and at least one.
    pub fn new(limit: usize) -> Self {
        let state = State { waiting: VecDeque::new(), led: false };
        Self { limit: limit.max(1), state: Mutex::new(state) }
    }

    /// Submits a job and returns its answer.
    ///
    /// If no round is running, this call runs `work` with this job. Otherwise the caller waits. It
    /// may then become the leader, whose `work` gets all jobs that have arrived in the meantime.
    /// `work` answers each job when its result is safe, which is after the commit. It may answer
    /// before it returns. The next round begins after it has returned.
    ///
    /// # Errors
    /// [`Abandoned`] if the round with this job panicked in another caller's thread, or did not
    /// answer.
    ///
    /// # Panics
    /// If `work` panics in this thread. The other callers get [`Abandoned`], and the group
    /// continues.
    pub fn submit(&self, job: J, work: impl FnOnce(Vec<(J, Reply<T>)>)) -> Result<T, Abandoned> {
        let slot = Arc::new(Slot { news: Mutex::new(News::None), changed: Condvar::new() });
        let leads = {
            let mut state = self.state();
            state.waiting.push_back((job, Reply { slot: Arc::clone(&slot) }));
            !std::mem::replace(&mut state.led, true)
        };
        if leads || slot.wait() == Woken::ToLead {
            let _hand_over = HandOver(self);
            work(self.next_round());
        }
        slot.take_answer()
    }

    fn next_round(&self) -> Vec<(J, Reply<T>)> {
        let mut state = self.state();
        let count = state.waiting.len().min(self.limit);
        state.waiting.drain(..count).collect()
    }

    fn state(&self) -> MutexGuard<'_, State<J, T>> {
        // No code of callers runs under this lock, so no panic can leave a half-made change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J, T> std::fmt::Debug for GroupCommit<J, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupCommit")
    }
}

/// The end of a round: dropping it passes the lead on, also after a panic.
struct HandOver<'a, J, T>(&'a GroupCommit<J, T>);

impl<J, T> Drop for HandOver<'_, J, T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        match state.waiting.front() {
            Some((_, reply)) => reply.slot.tell(News::Lead),
            None => state.led = false,
        }
    }
}

impl<T> Reply<T> {
    /// Answers the caller.
    pub fn send(self, answer: T) {
        self.slot.tell(News::Answered(answer));
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.slot.tell(News::Abandoned);
    }
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

#[derive(PartialEq, Eq)]
enum Woken {
    ToLead,
    WithAnswer,
}

impl<T> Slot<T> {
    fn tell(&self, news: News<T>) {
        let mut present = self.news();
        // An answer is final: the drop of its reply, or of an answered job, changes nothing.
        if matches!(*present, News::None | News::Lead) {
            *present = news;
            self.changed.notify_one();
        }
    }

    fn wait(&self) -> Woken {
        let mut news = self.news();
        loop {
            match *news {
                News::None => {
                    news = self.changed.wait(news).unwrap_or_else(PoisonError::into_inner)
                }
                News::Lead => return Woken::ToLead,
                News::Answered(_) | News::Abandoned => return Woken::WithAnswer,
            }
        }
    }

    /// Receives the answer. A leader's round has ended, so its answer is present or will never be
    /// sent.
    fn take_answer(&self) -> Result<T, Abandoned> {
        match std::mem::replace(&mut *self.news(), News::Abandoned) {
            News::Answered(answer) => Ok(answer),
            News::None | News::Lead | News::Abandoned => Err(Abandoned),
        }
    }

    fn news(&self) -> MutexGuard<'_, News<T>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
