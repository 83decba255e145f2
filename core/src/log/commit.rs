//! Natural group commit: whoever comes while a commit is under way shares the next one.
//!
//! ```text
//!   A ──submit──► leads: work([A])──────────┐ hands over
//!   B   ──submit──► waits ··················└► leads: work([B, C, D])──┐
//!   C      ──submit──► waits ···························· its reply ◄──┤
//!   D         ──submit──► waits ························· its reply ◄──┘
//! ```
//!
//! Invariants:
//! 1. One round at a time; jobs are done in the order in which they came.
//! 2. A lone caller leads at once: nobody ever waits for company.
//! 3. A leader's own job is the oldest one, so it is in the leader's first and only round.
//! 4. While a job waits, someone leads: a round that ends, also by a panic, hands over to the oldest waiting caller.
//! 5. A caller returns when its reply was sent, or when it is certain that it never will be ([`Abandoned`]).
//!
//! What it is not: a thread, a timer or a bounded queue. Callers block, so at most one job of each thread waits. `work` must
//! not submit to its own group.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use crate::locks::{Condvar, Mutex, MutexGuard};

/// Where callers meet. `J` is what they want done, `T` what they get for it.
pub struct GroupCommit<J, T> {
    limit: usize,
    state: Mutex<State<J, T>>,
}

struct State<J, T> {
    waiting: VecDeque<(J, Reply<T>)>,
    led: bool,
}

/// The job was given up: its round panicked, or ended without a reply to it. What it had done is undone or unknown, as
/// the transaction it was part of decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the commit was abandoned before this change was answered")]
pub struct Abandoned;

/// Where the answer to one job goes. Dropped without an answer, it tells the caller [`Abandoned`].
pub struct Reply<T> {
    slot: Arc<Slot<T>>,
}

struct Slot<T> {
    news: Mutex<News<T>>,
    changed: Condvar,
}

enum News<T> {
    None,
    /// The caller is to lead the next round.
    Lead,
    Answered(T),
    Abandoned,
}

impl<J, T> GroupCommit<J, T> {
    /// Makes a group whose rounds take at most `limit` jobs, and at least one.
    pub fn new(limit: usize) -> Self {
        let state = State { waiting: VecDeque::new(), led: false };
        Self { limit: limit.max(1), state: Mutex::new(state) }
    }

    /// Has a job done and returns its answer.
    ///
    /// If nobody is at work, `work` is called here, with this job; else the caller waits, and may then be the one whose
    /// `work` is called with all the jobs that came meanwhile. `work` answers each job when it is safe, which is after
    /// the commit. It may answer before it returns; the next round begins when it has returned.
    ///
    /// # Errors
    /// [`Abandoned`] if the round with this job panicked in another caller's thread, or did not answer.
    ///
    /// # Panics
    /// If `work` panics in this thread. The others are told, and the group goes on.
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
        // No caller's code runs under this lock, so nothing can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J, T> std::fmt::Debug for GroupCommit<J, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupCommit")
    }
}

/// Ends a round, however it ends.
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
                News::None => news = self.changed.wait(news).unwrap_or_else(PoisonError::into_inner),
                News::Lead => return Woken::ToLead,
                News::Answered(_) | News::Abandoned => return Woken::WithAnswer,
            }
        }
    }

    /// Takes the answer; that of a leader, whose round is over, is there or will never be.
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
