//! Exchanges as a process makes them that lives for only one of them: it opens the book and runs
//! the loop. Nothing is left in memory from the one before.
//!
//! What it is not: a push whose answer comes in a later step of the case, or a page that comes
//! late. Such a process no longer exists by then, so these are driven by hand.

use std::sync::{Mutex, PoisonError};

use fieldbook::sync::protocol::{Change, ExchangeAnswer, ExchangeRequest, Failure};
use fieldbook::sync::{Cursor, FnRemote};
use fieldbook::{EntityType, RunOptions, limits};

use super::answer;
use super::case::Answered;
use super::exchange::Batch;
use super::fault::Fault;
use super::world::World;

/// The most exchanges that a process makes before it has sent something.
const MOST_EXCHANGES: u32 = 3;

impl World {
    /// Sends the next units, once, in its own process; in another process before, if requests are
    /// lost.
    pub(super) fn push_in_one_shot(
        &mut self,
        results: &[Answered],
        batch: Batch,
    ) -> Result<(), Fault> {
        let options = |exchanges| RunOptions {
            push_only: true,
            page_limit: 0,
            batch_ops: batch.ops,
            batch_bytes: batch.bytes,
            max_exchanges: exchanges,
            ..RunOptions::default()
        };
        let lost = match self.next_loss() {
            Some(failure) => self.run_once(&options(1), |_, _| Ok(Err(failure.clone())))?,
            None => None,
        };
        let answering = self.answering();
        let known = self.known(results.iter().map(|result| &result.key))?;
        for exchanges in 1..=MOST_EXCHANGES {
            let sent = self.run_once(&options(exchanges), |request, draw| {
                answering.clock.advance(1);
                let mut outcomes = match request.units.as_slice() {
                    [] => Vec::new(),
                    _ => answer::outcomes(request, results, draw)?,
                };
                known.clone().stamp(request, &mut outcomes)?;
                Ok(Ok(ExchangeAnswer { outcomes, ..answering.nothing(request) }))
            })?;
            let Some(sent) = sent else { return Ok(()) };
            if sent.units.is_empty() {
                // The process first asked whether the server answers. The next process does the
                // same, and then sends.
                continue;
            }
            if let Some(lost) = lost.filter(|lost| !lost.units.is_empty()) {
                Self::check_resend(&lost, Some(&sent))?;
            }
            return self.leaves(&sent);
        }
        Ok(())
    }

    /// Reads a page in its own process. Returns whether the process asked for a page.
    pub(super) fn pull_in_one_shot(
        &mut self,
        changes: &[Change],
        cursors: &[(EntityType, Cursor)],
    ) -> Result<bool, Fault> {
        let options = RunOptions {
            pull_only: true,
            page_limit: limits::PAGE_CHANGES,
            max_exchanges: 1,
            ..RunOptions::default()
        };
        let answering = self.answering();
        let asked = self.run_once(&options, |request, _| {
            let cursors = cursors.iter().cloned().collect();
            Ok(Ok(ExchangeAnswer {
                changes: changes.to_vec(),
                cursors,
                ..answering.nothing(request)
            }))
        })?;
        Ok(asked.is_some())
    }

    /// Opens the book again and lets the loop make its exchanges, which a function answers. Returns
    /// the last request, if there was one.
    fn run_once(
        &mut self,
        options: &RunOptions,
        answer: impl Fn(
            &ExchangeRequest,
            &mut dyn FnMut() -> [u8; 16],
        ) -> Result<Result<ExchangeAnswer, Failure>, Fault>
        + Sync
        + Send,
    ) -> Result<Option<ExchangeRequest>, Fault> {
        self.reopen_as_it_is()?;
        let seen: Mutex<(u128, Option<ExchangeRequest>, Option<Fault>)> =
            Mutex::new((self.drawn, None, None));
        let remote = FnRemote::new(|request: &ExchangeRequest| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.1 = Some(request.clone());
            let drawn = &mut seen.0;
            let answered = answer(request, &mut || {
                *drawn += 1;
                drawn.to_be_bytes()
            });
            match answered {
                Ok(answered) => Ok(answered?),
                Err(fault) => {
                    seen.2 = Some(fault);
                    Err(Failure::Unreachable { code: "connect" }.into())
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| Fault::Case(format!("no runtime: {error}")))?;
        let ran = runtime.block_on(self.book()?.sync(&remote, options));
        drop(runtime);
        let (drawn, request, fault) = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.drawn = drawn;
        if let Some(fault) = fault {
            return Err(fault);
        }
        ran?;
        Ok(request)
    }
}
