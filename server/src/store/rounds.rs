//! Rounds of writing: the exchanges that wait for a commit share the next one.
//!
//! Whoever comes while a commit is under way waits for it to end, and is in the next one with all the others that came
//! meanwhile ([`GroupCommit`]). A disk takes about as long for one exchange as for thirty.
//!
//! Invariants:
//! 1. An exchange is answered after the commit that it is in.
//! 2. Exchanges of a commit are applied one after the other, each to what the one before left.
//! 3. One that is refused has written nothing, and takes nobody with it. If one fails, or the commit does, all that were in it
//!    are done again one by one, so that each has its own answer. What a failed commit left of a unit answers for itself: the
//!    unit's id is known then.
//! 4. Tenants come into a round in turn, each with a few while others are there.

use std::sync::Arc;

use fieldbook_core::authority::{self, Accepted, Caller, ExchangeError, Quota};
use fieldbook_core::log::{Abandoned, GroupCommit, Reply};
use fieldbook_core::protocol::ExchangeRequest;
use fieldbook_core::{ServerEpoch, ServerId, WallTime};
use redb::Database;

use super::state::TenantState;
use super::{Incoming, StateError, StoreExchangeError, Tenant};
use crate::door::{Turn, Turns};

/// How many exchanges are in a round, or wait for the next one, at most. One tenant has at most half of them.
const ROUND: usize = 32;
/// How many of them one tenant has at most while others are there.
const BESIDE_OTHERS: usize = 4;
/// After how many bytes of work a commit is made in the midst of a round: those that were quick do not wait for all that is slow.
const COMMIT_BYTES: usize = 2 * 1024 * 1024;

/// An exchange that waits for its commit.
struct Job {
    tenant: Tenant,
    request: Arc<ExchangeRequest>,
    now: WallTime,
    caller: Caller,
    quota: Quota,
}

type Answer = Result<Accepted, StoreExchangeError>;

/// Where exchanges wait to be written.
pub(super) struct Rounds {
    /// Who may be in a round: the group knows nothing of tenants.
    places: Arc<Turns>,
    group: GroupCommit<Job, Answer>,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self { places: Turns::with_most(ROUND, BESIDE_OTHERS), group: GroupCommit::new(ROUND) }
    }

    /// Applies a request in the next round, durably. While it waits, others have its turn to work, if it has one to lend.
    pub(super) fn accept(
        &self,
        database: &Database,
        identity: (ServerId, ServerEpoch),
        incoming: Incoming<'_>,
        turn: Option<&Turn>,
    ) -> Answer {
        let Incoming { tenant, request, now, caller, quota } = incoming;
        let job = Job {
            tenant: tenant.clone(),
            request: Arc::clone(request),
            now,
            caller: caller.clone(),
            quota: *quota,
        };
        let wait = || {
            let _place = self.places.take_blocking(tenant);
            self.group.submit(job, |jobs| round(database, identity, jobs))
        };
        let answered = match turn {
            Some(turn) => turn.lend(wait),
            None => wait(),
        };
        // Whoever led the round met damage that the engine does not outlive, and tells of it.
        answered.unwrap_or_else(|Abandoned| Err(StoreExchangeError::OutOfReach))
    }
}

/// Works on exchanges and answers each of them.
fn round(database: &Database, identity: (ServerId, ServerEpoch), mut jobs: Vec<(Job, Reply<Answer>)>) {
    while !jobs.is_empty() {
        let mut tried = 0;
        let done = commit_some(database, identity, jobs.iter().map(|(job, _)| job), &mut tried);
        let mut worked_on = jobs.drain(..tried.clamp(1, jobs.len()));
        match done {
            Ok(answers) => worked_on.zip(answers).for_each(|((_, reply), answer)| reply.send(answer)),
            Err(_) if worked_on.len() > 1 => worked_on.for_each(|job| round(database, identity, vec![job])),
            Err(error) => {
                if let Some((_, reply)) = worked_on.next() {
                    reply.send(Err(error.into()));
                }
            }
        }
    }
}

/// Applies exchanges in one transaction until there was enough work for a commit, and commits it if anything was written.
/// `tried` is how many were worked on, also if this fails; the answers are theirs.
fn commit_some<'j>(
    database: &Database,
    identity: (ServerId, ServerEpoch),
    jobs: impl IntoIterator<Item = &'j Job>,
    tried: &mut usize,
) -> Result<Vec<Answer>, StateError> {
    let transaction = database.begin_write()?;
    let mut state = TenantState::write(&transaction, identity)?;
    let (mut answers, mut wrote, mut work) = (Vec::new(), false, 0);
    for Job { tenant, request, now, caller, quota } in jobs {
        *tried += 1;
        state.turn_to(tenant);
        answers.push(match authority::accept(&mut state, request, *now, caller, quota) {
            Ok(accepted) => {
                wrote |= accepted.wrote;
                work += accepted.work;
                Ok(accepted)
            }
            Err(ExchangeError::Refused(refusal)) => Err(StoreExchangeError::Refused(refusal)),
            Err(ExchangeError::State(error)) => return Err(error),
            Err(ExchangeError::Damaged(_)) => return Err(super::DAMAGED_FIELDS.into()),
        });
        if work >= COMMIT_BYTES {
            break;
        }
    }
    drop(state);
    if wrote {
        transaction.commit()?
    } else {
        transaction.abort()?
    }
    Ok(answers)
}

#[cfg(test)]
mod tests;
