//! The server of a simulated world: the product's own rules over a store in memory, and a ledger
//! that computes the same changes in a plain way of its own.
//!
//! Invariants that are checked here, after every request:
//! - S7: a repeated unit gets its first answer.
//! - The rows of the store equal those of the ledger.

mod compared;

use std::collections::BTreeSet;

use fieldbook::audit::entry::Receipt;
use fieldbook::host::WallTime;
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest, Failure, Outcome, Unit};
use fieldbook::sync::{ServerEpoch, ServerId, TenantId};
use fieldbook::{Actor, EntityType};
use fieldbook_core::authority::{
    AuthorityRead, Caller, ExchangeError, MemoryAuthority, Quota, exchange,
};
use serde::{Deserialize, Serialize};

use crate::broken::{Broken, ensure};
use crate::ledger::{Holdings, Ledger, Overwrite};
use crate::way::{Way, page};

/// A special treatment of one request by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// Something in front of the server answers: not now.
    Unavailable,
    /// The server answers: not now, and names a time to come back.
    Busy {
        /// The wait, in seconds.
        retry_after: u64,
    },
    /// Everything is applied, and then the server answers "not now".
    AppliedThenBusy,
    /// The credentials are refused.
    Unauthorized,
    /// The request is too large.
    TooLarge,
    /// The client is too old.
    UpgradeRequired,
    /// Something without our marker answers, with a page of this class.
    Foreign(usize),
    /// One unit is answered in this way instead of being applied.
    Unit {
        /// Which, counted round.
        number: usize,
        /// The answer.
        refusal: UnitRefusal,
    },
    /// One unit gets no outcome, and is sent again.
    Skips {
        /// Which, counted round.
        number: usize,
    },
}

/// The answer to a unit that is not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitRefusal {
    /// The unit is not accepted now.
    Transient,
    /// The unit is refused for good.
    Rejected,
    /// Its entity type is not known.
    Unsupported,
    /// Its actor's credentials are not valid.
    Unauthorized,
    /// Its actor may not change the record.
    Forbidden,
}

/// The server.
pub struct Server {
    authority: MemoryAuthority,
    /// The applied units, computed independently.
    pub ledger: Ledger,
    backup: (MemoryAuthority, Holdings),
    /// The actors that may not exchange anything.
    pub denied_actors: BTreeSet<Actor>,
    /// Entity types whose records no actor may change.
    pub denied_entities: BTreeSet<EntityType>,
    /// Whether the store was set back without a new epoch.
    pub is_set_back: bool,
    /// The fault in front of the server, or of the server itself.
    pub way: Option<Way>,
    epochs: u8,
}

/// The result of a request.
pub struct Reply {
    /// The answer.
    pub result: Result<ExchangeAnswer, Failure>,
    /// The units that took effect.
    pub applied: Vec<Unit>,
    /// The values of others that these units replaced.
    pub overwrites: Vec<Overwrite>,
}

impl Server {
    /// Makes an empty server.
    pub fn new() -> Self {
        let epoch = ServerEpoch::from_bytes([2; 16]);
        let authority = MemoryAuthority::new(ServerId::from_bytes([1; 16]), epoch);
        let authority = authority.of_tenant(TenantId::from_bytes([3; 16]));
        Self {
            backup: (authority.clone(), Holdings::default()),
            authority,
            ledger: Ledger::new(epoch),
            denied_actors: BTreeSet::new(),
            denied_entities: BTreeSet::new(),
            is_set_back: false,
            way: None,
            epochs: 2,
        }
    }

    /// Returns the server's id and epoch.
    pub fn identity(&self) -> (ServerId, ServerEpoch) {
        let Ok(identity) = self.authority.identity();
        identity
    }

    /// Keeps the content of the store.
    pub fn back_up(&mut self) {
        self.backup = (self.authority.clone(), self.ledger.now.clone());
    }

    /// Goes back to the kept content. Without a declaration the store keeps the epoch of that time.
    pub fn restore(&mut self, declared: bool) {
        let (authority, holdings) = self.backup.clone();
        let Ok((_, epoch)) = authority.identity();
        self.authority = authority;
        self.ledger.restore(holdings, epoch);
        self.is_set_back = true;
        if declared {
            self.declare();
        }
    }

    /// Declares with a new epoch that the store was set back.
    pub fn declare(&mut self) {
        self.is_set_back = false;
        self.epochs = self.epochs.wrapping_add(1);
        let epoch = ServerEpoch::from_bytes([self.epochs; 16]);
        self.authority.start_epoch(epoch);
        let mut holdings = self.ledger.now.clone();
        holdings.anchors.clear();
        self.ledger.restore(holdings, epoch);
    }

    /// Returns whether a unit changes a record that no actor may change now. A unit that took
    /// effect before is a duplicate, whatever else is true of it.
    fn is_denied(&self, unit: &Unit) -> bool {
        let denied =
            unit.changes.iter().any(|change| self.denied_entities.contains(&change.key.entity));
        denied && !self.ledger.now.applied.contains_key(&unit.id)
    }

    /// Treats a request at a time by the server's clock.
    ///
    /// # Errors
    /// [`Broken`] if a rule of the server was broken.
    pub fn treat(
        &mut self,
        request: &ExchangeRequest,
        now: i64,
        trouble: Option<Trouble>,
    ) -> Result<Reply, Broken> {
        let failed = |failure| {
            Ok(Reply { result: Err(failure), applied: Vec::new(), overwrites: Vec::new() })
        };
        let code = || "simulated".to_owned();
        let now = self.told_time(now);
        if let Some(failure) = self.way.and_then(|way| way.instead(request)) {
            return failed(failure);
        }
        if let Some(other) = self.other(request.server_epoch, request.tenant) {
            return elsewhere(other, request, now);
        }
        match trouble {
            Some(Trouble::Foreign(number)) => return failed(page(number)),
            Some(Trouble::Unavailable) => {
                return failed(Failure::Transient {
                    code: code(),
                    retry_after: None,
                    marked: false,
                });
            }
            Some(Trouble::Busy { retry_after }) => {
                let retry_after = Some(std::time::Duration::from_secs(retry_after));
                return failed(Failure::Transient { code: code(), retry_after, marked: true });
            }
            Some(Trouble::Unauthorized) => return failed(Failure::Unauthorized { code: code() }),
            Some(Trouble::UpgradeRequired) => {
                return failed(Failure::UpgradeRequired { code: code() });
            }
            Some(Trouble::TooLarge) if !request.units.is_empty() => {
                return failed(Failure::TooLarge);
            }
            _ => {}
        }
        if self.is_set_back {
            return self.find_out(request, now);
        }
        let mut request = request.clone();
        if let Some(Trouble::Skips { number }) = trouble
            && !request.units.is_empty()
        {
            request.units.remove(number % request.units.len());
        }
        let mut refusals = Vec::new();
        if let Some(Trouble::Unit { number, refusal }) = trouble
            && !request.units.is_empty()
        {
            let place = number % request.units.len();
            let known = request
                .units
                .get(place)
                .is_some_and(|unit| self.ledger.now.applied.contains_key(&unit.id));
            if !known {
                refusals.push(refused(&request.units.remove(place), refusal));
            }
        }
        let denied = request.units.iter().filter(|unit| self.is_denied(unit));
        refusals.extend(denied.map(|unit| refused(unit, UnitRefusal::Forbidden)));
        request.units.retain(|unit| !self.is_denied(unit));
        let mut reply = self.exchange(&request, now)?;
        let Ok(answer) = &mut reply.result else { return Ok(reply) };
        if answer.forked.is_none() && is_meant(&request, answer) {
            answer.outcomes.extend(refusals);
        }
        if trouble == Some(Trouble::AppliedThenBusy) {
            reply.result =
                Err(Failure::Transient { code: code(), retry_after: None, marked: true });
        }
        Ok(reply)
    }

    /// Refuses a request like a store that is set back. A store that was set back without a
    /// declaration refuses every device that has read a later state, and after the first refusal
    /// its operator declares it. Other devices are kept waiting here, because their actions in that
    /// time are outside every promise.
    fn find_out(&mut self, request: &ExchangeRequest, now: i64) -> Result<Reply, Broken> {
        let mut authority = self.authority.clone();
        let now = WallTime::from_milliseconds(now);
        let answer = exchange(&mut authority, request, now, &Caller::Anyone, &Quota::default());
        let failure = match answer {
            Err(ExchangeError::Refused(refusal)) => {
                ensure(refusal.code == "server_behind", "X2", || {
                    format!("refused as {}", refusal.code)
                })?;
                self.declare();
                refusal.into()
            }
            _ => Failure::Transient { code: "closed".to_owned(), retry_after: None, marked: false },
        };
        Ok(Reply { result: Err(failure), applied: Vec::new(), overwrites: Vec::new() })
    }

    fn exchange(&mut self, request: &ExchangeRequest, now: i64) -> Result<Reply, Broken> {
        // A failure is rolled back, like a transaction.
        let mut authority = self.authority.clone();
        let now = WallTime::from_milliseconds(now);
        let caller = self.caller(&request.actor);
        let answer = match exchange(&mut authority, request, now, &caller, &Quota::default()) {
            Ok(answer) => answer,
            Err(ExchangeError::Refused(refusal)) => {
                let result = Err(refusal.into());
                return Ok(Reply { result, applied: Vec::new(), overwrites: Vec::new() });
            }
            Err(error) => return Err(Broken::new("server", format!("the store failed: {error}"))),
        };
        self.authority = authority;
        let author = (request.device, request.epoch);
        if let (Some(claim), None, true) =
            (&request.head, answer.forked, is_meant(request, &answer))
        {
            self.ledger.now.anchors.insert(author, Receipt { seq: claim.seq, hash: claim.hash });
        }
        let mut reply = Reply { result: Ok(answer), applied: Vec::new(), overwrites: Vec::new() };
        let Ok(answer) = &reply.result else { return Ok(reply) };
        for outcome in &answer.outcomes {
            let unit = request.units.iter().find(|unit| unit.id == outcome.unit);
            let Some(unit) = unit else {
                return Err(Broken::new("server", "an outcome for a unit that was not sent"));
            };
            match &outcome.outcome {
                Outcome::Applied { versions, .. } => {
                    let overwritten = self.ledger.apply(unit, versions, author)?;
                    reply.overwrites.extend(overwritten);
                    reply.applied.push(unit.clone());
                }
                Outcome::Duplicate { versions, current } => {
                    self.ledger.duplicate(unit, versions, current)?;
                }
                _ => {}
            }
        }
        self.ledger.compare(&self.authority)?;
        Ok(reply)
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes the answer of another server or tenant: it applies nothing and names itself.
fn elsewhere(
    mut other: MemoryAuthority,
    request: &ExchangeRequest,
    now: i64,
) -> Result<Reply, Broken> {
    let now = WallTime::from_milliseconds(now);
    let answer = exchange(&mut other, request, now, &Caller::Anyone, &Quota::default());
    let answer =
        answer.map_err(|error| Broken::new("server", format!("the store failed: {error}")))?;
    ensure(answer.outcomes.is_empty(), "X2", || {
        format!("another server took {:?}", answer.outcomes)
    })?;
    Ok(Reply { result: Ok(answer), applied: Vec::new(), overwrites: Vec::new() })
}

/// Returns whether a request was made for the epoch of the store, and the tenant, that answer it.
pub fn is_meant(request: &ExchangeRequest, answer: &ExchangeAnswer) -> bool {
    request.server_epoch.is_none_or(|meant| meant == answer.server_epoch)
        && (request.tenant.is_none() || answer.tenant.is_none() || request.tenant == answer.tenant)
}

fn refused(unit: &Unit, refusal: UnitRefusal) -> fieldbook::sync::protocol::UnitOutcome {
    let code = "simulated".to_owned();
    let entity = unit.changes.first().map(|change| change.key.entity.clone());
    let outcome = match (refusal, entity) {
        (UnitRefusal::Transient, _) => Outcome::Transient {
            code,
            message: "not now".to_owned(),
            retry_after_milliseconds: Some(u64::MAX),
        },
        (UnitRefusal::Unsupported, Some(entity)) => Outcome::Unsupported { entity, code },
        (UnitRefusal::Unauthorized, _) => Outcome::Unauthorized { code },
        (UnitRefusal::Forbidden, _) => {
            Outcome::Rejected { code: "forbidden".to_owned(), message: "not you".to_owned() }
        }
        (UnitRefusal::Rejected | UnitRefusal::Unsupported, _) => {
            Outcome::Rejected { code, message: "never".to_owned() }
        }
    };
    fieldbook::sync::protocol::UnitOutcome { unit: unit.id, outcome }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({} records)", self.ledger.now.current.len())
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reply({} applied)", self.applied.len())
    }
}
