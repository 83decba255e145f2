//! Rounds of writing: the exchanges that wait for a commit share the next one.
//!
//! An exchange that arrives during a commit waits for its end, and is in the next commit together
//! with all others that arrived in the meantime ([`GroupCommit`]). A disk needs about the same time
//! for one exchange as for thirty.
//!
//! Invariants:
//! 1. An exchange is answered after its commit.
//! 2. The exchanges of a commit are applied one after the other, each to the state after the one
//!    before.
//! 3. A refused exchange has written nothing, and does not affect the others. If an exchange or the
//!    commit fails, all exchanges of the round are applied again one by one, so that each has its
//!    own answer. If a failed commit stored a unit after all, the second try finds the unit's id
//!    and repeats its answer.
//! 4. Tenants enter a round in turn, each with a few exchanges while others are present.

use std::sync::Arc;

use fieldbook_core::authority::{self, Accepted, Caller, ExchangeError, Quota};
use fieldbook_core::log::{Abandoned, GroupCommit, Reply};
use fieldbook_core::protocol::ExchangeRequest;
use fieldbook_core::{ServerEpoch, ServerId, WallTime};
use redb::{Database, ReadableDatabase};

use super::state::TenantState;
use super::{Incoming, StateError, StoreExchangeError, Tenant};
use crate::door::{Turn, Turns};

/// The most exchanges in a round, or waiting for the next round. One tenant has at most half of
/// them.
const ROUND: usize = 32;
/// The most exchanges of one tenant in a round while others are present.
const BESIDE_OTHERS: usize = 4;
/// The bytes of work after which a round commits in between, so that quick exchanges do not wait
/// for all slow ones.
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

/// The exchanges that wait to be written.
pub(super) struct Rounds {
    /// The places in a round, by tenant. The group commit has no tenants.
    places: Arc<Turns>,
    group: GroupCommit<Job, Answer>,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self { places: Turns::with_most(ROUND, BESIDE_OTHERS), group: GroupCommit::new(ROUND) }
    }

    /// Applies a request in the next round, durably. While it waits, others use its turn to work,
    /// if it has one to lend.
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
        // The leader of the round met damage that the engine does not survive, and reports it.
        answered.unwrap_or_else(|Abandoned| Err(StoreExchangeError::OutOfReach))
    }
}

/// Works on exchanges and answers each of them.
fn round(
    database: &Database,
    identity: (ServerId, ServerEpoch),
    mut jobs: Vec<(Job, Reply<Answer>)>,
) {
    while !jobs.is_empty() {
        let mut tried = 0;
        let done = commit_some(database, identity, jobs.iter().map(|(job, _)| job), &mut tried);
        let mut worked_on = jobs.drain(..tried.clamp(1, jobs.len()));
        match done {
            Ok(answers) => {
                worked_on.zip(answers).for_each(|((_, reply), answer)| reply.send(answer))
            }
            Err(_) if worked_on.len() > 1 => {
                worked_on.for_each(|job| round(database, identity, vec![job]))
            }
            Err(error) => {
                if let Some((_, reply)) = worked_on.next() {
                    reply.send(Err(error.into()));
                }
            }
        }
    }
}

/// Applies exchanges in one transaction until there is enough work for a commit, and commits if
/// anything was written. `tried` is the number of exchanges that were worked on, also after a
/// failure. The answers belong to these.
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
        // While somebody reads the earlier state, redb leaves the pages that this commit frees to
        // the next one. A second commit for them would cost as much again, and every reader of a
        // page that is not in the cache would search the write buffer after it.
        let _before = database.begin_read()?;
        transaction.commit()?
    } else {
        transaction.abort()?
    }
    Ok(answers)
}

#[cfg(test)]
mod tests;
