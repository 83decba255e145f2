//! A connection to the server with faults on purpose, drawn from a seed: `play --faults`.
//!
//! ```text
//!   request ─► lost │ sent, answer lost │ sent twice │ kept back and sent again later, after others
//!           ─► 503 before or after the effect │ one unit deferred │ 401 for a while │ an old answer again
//! ```
//!
//! Invariants:
//! 1. The same seed and stream have the same faults.
//! 2. No unit is deferred so often that it becomes a dead letter: [`MOST_PUT_OFF`] is below the
//!    limit. So a dead letter at the end is a fault of the engine, not of the seed.
//! 3. At most [`MOST_IN_A_ROW`] exchanges in a row have a fault, so every sync ends.
//!
//! What it is not: a false answer. Every answer is the server's, although it may be late or arrive
//! twice.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fieldbook::host::{Randomness, SeededRandomness, WallTime};
use fieldbook::record::UnitId;
use fieldbook::sync::protocol::{ExchangeRequest, Failure, Outcome, UnitOutcome};
use fieldbook::sync::{BoxFuture, Received, RemoteError};
use fieldbook::{Actor, Remote};
use serde::Serialize;

/// How often one unit is deferred at most. The fifth time would make it a dead letter.
const MOST_PUT_OFF: u32 = 3;
/// The most exchanges in a row with a fault.
const MOST_IN_A_ROW: u32 = 5;
/// The number of exchanges with a fault, of a thousand.
const FAULTS_PER_MILLE: u64 = 300;
/// The most requests that are kept to be sent again after later ones.
const KEPT_BACK: usize = 8;

/// The numbers of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct FaultCounts {
    /// Requests that never arrived.
    pub requests_lost: u64,
    /// Answers that never arrived, to requests that took effect.
    pub answers_lost: u64,
    /// Requests that arrived twice.
    pub requests_doubled: u64,
    /// Requests that arrived again after later ones.
    pub requests_late: u64,
    /// Exchanges that received the answer of an earlier one.
    pub answers_late: u64,
    /// Exchanges that the server refused with 503.
    pub unavailable: u64,
    /// Exchanges that took effect and were answered with 503.
    pub applied_then_unavailable: u64,
    /// Units that the server deferred.
    pub units_put_off: u64,
    /// Exchanges that the server refused with 401.
    pub unauthorized: u64,
}

impl FaultCounts {
    /// Returns the number of all faults.
    pub const fn sum(&self) -> u64 {
        self.requests_lost
            + self.answers_lost
            + self.requests_doubled
            + self.requests_late
            + self.answers_late
            + self.unavailable
            + self.applied_then_unavailable
            + self.units_put_off
            + self.unauthorized
    }
}

/// A remote with faults.
pub(crate) struct Faulty {
    remote: Arc<dyn Remote>,
    state: Mutex<State>,
    /// Whether the last exchange had a fault.
    went_wrong: AtomicBool,
    healed: AtomicBool,
}

struct State {
    random: SeededRandomness,
    counts: FaultCounts,
    in_a_row: u32,
    /// The number of further exchanges that are answered with 401.
    unauthorized_for: u64,
    put_off: BTreeMap<UnitId, u32>,
    /// Requests that arrived once and will arrive again later.
    kept_back: Vec<ExchangeRequest>,
    /// The last answer that arrived.
    last: Option<Received>,
}

/// The fault of one exchange.
enum Fault {
    RequestLost,
    AnswerLost,
    Doubled,
    KeptBack,
    OldAnswer(Box<Received>),
    Unavailable,
    AppliedThenUnavailable,
    PutOff(UnitId),
    Unauthorized,
}

impl Faulty {
    pub(crate) fn new(remote: Arc<dyn Remote>, seed: u64) -> Self {
        let state = State {
            random: SeededRandomness::from_number(seed ^ 0x00FA_0017),
            counts: FaultCounts::default(),
            in_a_row: 0,
            unauthorized_for: 0,
            put_off: BTreeMap::new(),
            kept_back: Vec::new(),
            last: None,
        };
        Self {
            remote,
            state: Mutex::new(state),
            went_wrong: AtomicBool::new(false),
            healed: AtomicBool::new(false),
        }
    }

    /// Stops the faults, or lets them continue.
    pub(crate) fn heal(&self, healed: bool) {
        self.healed.store(healed, Ordering::SeqCst);
    }

    /// Returns whether the last exchange had a fault.
    pub(crate) fn went_wrong(&self) -> bool {
        self.went_wrong.load(Ordering::SeqCst)
    }

    pub(crate) fn counts(&self) -> FaultCounts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn arrive(&self, request: &ExchangeRequest) -> Result<Received, RemoteError> {
        let fault =
            if self.healed.load(Ordering::SeqCst) { None } else { self.state().draw(request) };
        self.went_wrong.store(fault.is_some(), Ordering::SeqCst);
        let Some(fault) = fault else {
            let late = self.state().late();
            if let Some(late) = late {
                // Nobody waits for this answer any more.
                drop(self.remote.exchange(&late).await);
            }
            let received = self.remote.exchange(request).await?;
            self.state().last = Some(received.clone());
            return Ok(received);
        };
        match fault {
            Fault::RequestLost => Err(RemoteError::new(Failure::Unreachable { code: "simulated" })),
            Fault::AnswerLost => {
                drop(self.remote.exchange(request).await?);
                Err(RemoteError::new(Failure::Unknown { code: "simulated" }))
            }
            Fault::Doubled => {
                drop(self.remote.exchange(request).await?);
                self.remote.exchange(request).await
            }
            Fault::KeptBack => Err(RemoteError::new(Failure::Unknown { code: "simulated" })),
            Fault::OldAnswer(received) => {
                drop(self.remote.exchange(request).await?);
                Ok(*received)
            }
            Fault::Unavailable => Err(unavailable()),
            Fault::AppliedThenUnavailable => {
                drop(self.remote.exchange(request).await?);
                Err(unavailable())
            }
            Fault::PutOff(unit) => self.put_off(request, unit).await,
            Fault::Unauthorized => {
                Err(RemoteError::new(Failure::Unauthorized { code: "token_expired".to_owned() }))
            }
        }
    }

    /// Passes all units on but one, and defers that one.
    async fn put_off(
        &self,
        request: &ExchangeRequest,
        unit: UnitId,
    ) -> Result<Received, RemoteError> {
        let units = request.units.iter().filter(|other| other.id != unit).cloned().collect();
        let mut received =
            self.remote.exchange(&ExchangeRequest { units, ..request.clone() }).await?;
        let outcome = Outcome::Transient {
            code: "simulated".to_owned(),
            message: "not now".to_owned(),
            retry_after_milliseconds: None,
        };
        if received.answer.forked.is_none() {
            received.answer.outcomes.push(UnitOutcome { unit, outcome });
        }
        Ok(received)
    }
}

impl Remote for Faulty {
    fn prepare<'a>(&'a self, actor: &'a Actor, now: WallTime) -> BoxFuture<'a, ()> {
        self.remote.prepare(actor, now)
    }

    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Received, RemoteError>> + Send + 'a>> {
        Box::pin(self.arrive(request))
    }
}

impl State {
    fn draw(&mut self, request: &ExchangeRequest) -> Option<Fault> {
        let fault = self.drawn(request);
        self.in_a_row = if fault.is_some() { self.in_a_row + 1 } else { 0 };
        fault
    }

    fn drawn(&mut self, request: &ExchangeRequest) -> Option<Fault> {
        if self.in_a_row >= MOST_IN_A_ROW {
            return None;
        }
        if self.unauthorized_for > 0 {
            self.unauthorized_for -= 1;
            self.counts.unauthorized += 1;
            return Some(Fault::Unauthorized);
        }
        if self.random.below(1_000) >= FAULTS_PER_MILLE {
            return None;
        }
        let may_wait = request.units.iter().all(|unit| self.times(unit.id) < MOST_PUT_OFF);
        match self.random.below(9) {
            0 => Some(count(&mut self.counts.requests_lost, Fault::RequestLost)),
            1 => Some(count(&mut self.counts.answers_lost, Fault::AnswerLost)),
            2 => Some(count(&mut self.counts.requests_doubled, Fault::Doubled)),
            3 if self.kept_back.len() < KEPT_BACK => {
                self.kept_back.push(request.clone());
                Some(Fault::KeptBack)
            }
            4 => {
                let last = self.last.clone()?;
                Some(count(&mut self.counts.answers_late, Fault::OldAnswer(Box::new(last))))
            }
            5 if may_wait => {
                request.units.iter().for_each(|unit| self.note(unit.id));
                Some(count(&mut self.counts.unavailable, Fault::Unavailable))
            }
            6 if may_wait => {
                request.units.iter().for_each(|unit| self.note(unit.id));
                Some(count(
                    &mut self.counts.applied_then_unavailable,
                    Fault::AppliedThenUnavailable,
                ))
            }
            7 if may_wait && !request.units.is_empty() => {
                let number = self.random.below(request.units.len() as u64);
                let unit =
                    usize::try_from(number).ok().and_then(|number| request.units.get(number))?.id;
                self.note(unit);
                Some(count(&mut self.counts.units_put_off, Fault::PutOff(unit)))
            }
            8 => {
                self.unauthorized_for = self.random.below(3);
                Some(count(&mut self.counts.unauthorized, Fault::Unauthorized))
            }
            _ => None,
        }
    }

    fn times(&self, unit: UnitId) -> u32 {
        self.put_off.get(&unit).copied().unwrap_or_default()
    }

    fn note(&mut self, unit: UnitId) {
        *self.put_off.entry(unit).or_default() += 1;
    }

    /// Takes a kept request, from time to time.
    fn late(&mut self) -> Option<ExchangeRequest> {
        if self.kept_back.is_empty() || self.random.below(3) > 0 {
            return None;
        }
        self.counts.requests_late += 1;
        Some(self.kept_back.remove(0))
    }
}

fn count(counter: &mut u64, fault: Fault) -> Fault {
    *counter += 1;
    fault
}

fn unavailable() -> RemoteError {
    RemoteError::new(Failure::Transient {
        code: "simulated".to_owned(),
        retry_after: None,
        marked: true,
    })
}
