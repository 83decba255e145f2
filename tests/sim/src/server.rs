//! The server of a simulated world: the product's own rules over a store in memory, and beside it a ledger that works the
//! same changes out in its own, plain way.
//!
//! Invariants that are checked here, after every request:
//! - S7: a unit takes effect at most once, on the very versions that it was made for.
//! - The rows of the store are what the ledger comes to.

use std::collections::BTreeMap;

use fieldbook::protocol::{ExchangeAnswer, ExchangeRequest, Failure, Outcome, Unit};
use fieldbook::{DeviceId, OpId, OpKind, RecordKey, ServerEpoch, ServerId, UnitId, Version, WallTime};
use fieldbook_core::authority::{Caller, ExchangeError, MemoryAuthority, Quota, exchange};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::broken::{Broken, ensure};

/// A record's fields.
pub type Image = Map<String, Value>;

/// What the server does to one request out of the ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// Not now, says something in front of the server.
    Unavailable,
    /// Not now, says the server, and when to come again.
    Busy {
        /// In seconds.
        retry_after: u64,
    },
    /// Everything is applied, and then the server says "not now".
    AppliedThenBusy,
    /// The credentials are refused.
    Unauthorized,
    /// The request is too large.
    TooLarge,
    /// The client is too old.
    UpgradeRequired,
    /// One unit is answered like this instead of being applied.
    Unit {
        /// Which, counted round.
        number: usize,
        /// How.
        verdict: Verdict,
    },
    /// One unit is left untreated, to be sent again.
    Skips {
        /// Which, counted round.
        number: usize,
    },
}

/// What becomes of a unit that is not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Not now.
    Transient,
    /// Never.
    Rejected,
    /// Its entity type is not known.
    Unsupported,
    /// Its actor may not.
    Unauthorized,
}

/// The server.
pub struct Server {
    authority: MemoryAuthority,
    /// What was applied, worked out independently.
    pub ledger: Ledger,
}

/// What was applied.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What each record was at each of its versions; none for a deletion.
    pub history: BTreeMap<(RecordKey, Version), Option<Image>>,
    /// What each record is.
    pub current: BTreeMap<RecordKey, Stored>,
    /// The units that took effect, with the commit.
    pub applied: BTreeMap<UnitId, Version>,
    /// The ops that took effect, with the units they were in.
    pub ops: BTreeMap<OpId, Vec<UnitId>>,
    last: Version,
}

/// A record at the server.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its version.
    pub version: Version,
    /// Its fields; none if it is deleted.
    pub image: Option<Image>,
    /// For each field, and for the record as a whole under the empty name, when it last changed and by whom.
    writers: BTreeMap<String, (Version, DeviceId)>,
}

/// An edit of one device that took another device's value away.
#[derive(Debug, Clone)]
pub struct Overwrite {
    /// The record.
    pub key: RecordKey,
    /// The field; empty for a deletion that was overridden.
    pub field: String,
    /// The other's value; none if it had taken the field away.
    pub value: Option<Value>,
    /// Since when it was there.
    pub since: Version,
    /// The ops of the edit.
    pub ops: Vec<OpId>,
}

/// What a request came to.
pub struct Reply {
    /// What is sent back.
    pub result: Result<ExchangeAnswer, Failure>,
    /// The units that took effect.
    pub applied: Vec<Unit>,
    /// What they took away of others.
    pub overwrites: Vec<Overwrite>,
}

impl Server {
    /// Makes an empty server.
    pub fn new() -> Self {
        let identity = (ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([2; 16]));
        Self { authority: MemoryAuthority::new(identity.0, identity.1), ledger: Ledger::default() }
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
        let failed =
            |failure| Ok(Reply { result: Err(failure), applied: Vec::new(), overwrites: Vec::new() });
        let code = || "simulated".to_owned();
        match trouble {
            Some(Trouble::Unavailable) => {
                return failed(Failure::Transient { code: code(), retry_after: None, marked: false });
            }
            Some(Trouble::Busy { retry_after }) => {
                let retry_after = Some(std::time::Duration::from_secs(retry_after));
                return failed(Failure::Transient { code: code(), retry_after, marked: true });
            }
            Some(Trouble::Unauthorized) => return failed(Failure::Unauthorized { code: code() }),
            Some(Trouble::UpgradeRequired) => return failed(Failure::UpgradeRequired { code: code() }),
            Some(Trouble::TooLarge) if !request.units.is_empty() => return failed(Failure::TooLarge),
            _ => {}
        }
        let mut request = request.clone();
        if let Some(Trouble::Skips { number }) = trouble
            && !request.units.is_empty()
        {
            request.units.remove(number % request.units.len());
        }
        let verdict = match trouble {
            Some(Trouble::Unit { number, verdict }) if !request.units.is_empty() => {
                let place = number % request.units.len();
                // What took effect before is a duplicate, whatever else could be said of it now.
                let known =
                    request.units.get(place).is_some_and(|unit| self.ledger.applied.contains_key(&unit.id));
                (!known).then(|| (request.units.remove(place), verdict))
            }
            _ => None,
        };
        let mut reply = self.exchange(&request, now)?;
        let Ok(answer) = &mut reply.result else { return Ok(reply) };
        if let Some((unit, verdict)) = verdict
            && answer.forked.is_none()
        {
            answer.outcomes.push(refused(&unit, verdict));
        }
        if trouble == Some(Trouble::AppliedThenBusy) {
            reply.result = Err(Failure::Transient { code: code(), retry_after: None, marked: true });
        }
        Ok(reply)
    }

    fn exchange(&mut self, request: &ExchangeRequest, now: i64) -> Result<Reply, Broken> {
        // What fails is given up as a transaction would be.
        let mut authority = self.authority.clone();
        let now = WallTime::from_milliseconds(now);
        let answer = match exchange(&mut authority, request, now, &Caller::Anyone, &Quota::default()) {
            Ok(answer) => answer,
            Err(ExchangeError::Refused(refusal)) => {
                let result = Err(refusal.into());
                return Ok(Reply { result, applied: Vec::new(), overwrites: Vec::new() });
            }
            Err(error) => return Err(Broken::new("server", format!("the store failed: {error}"))),
        };
        self.authority = authority;
        let mut reply = Reply { result: Ok(answer), applied: Vec::new(), overwrites: Vec::new() };
        let Ok(answer) = &reply.result else { return Ok(reply) };
        for outcome in &answer.outcomes {
            let unit = request.units.iter().find(|unit| unit.id == outcome.unit);
            let Some(unit) = unit else {
                return Err(Broken::new("server", "an outcome for a unit that was not sent"));
            };
            match &outcome.outcome {
                Outcome::Applied { versions, .. } => {
                    let version = versions.values().next().copied().unwrap_or_default();
                    let overwritten = self.ledger.apply(unit, version, request.device)?;
                    reply.overwrites.extend(overwritten);
                    reply.applied.push(unit.clone());
                }
                Outcome::Duplicate { versions } => {
                    let first = self.ledger.applied.get(&unit.id);
                    ensure(
                        first.is_some_and(|first| versions.values().all(|version| version == first)),
                        "S7",
                        || format!("a duplicate of {} got another answer than the first", unit.id),
                    )?;
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

fn refused(unit: &Unit, verdict: Verdict) -> fieldbook::protocol::UnitOutcome {
    let code = "simulated".to_owned();
    let entity = unit.changes.first().map(|change| change.key.entity.clone());
    let outcome = match (verdict, entity) {
        (Verdict::Transient, _) => Outcome::Transient {
            code,
            message: "not now".to_owned(),
            retry_after_milliseconds: Some(u64::MAX),
        },
        (Verdict::Unsupported, Some(entity)) => Outcome::Unsupported { entity, code },
        (Verdict::Unauthorized, _) => Outcome::Unauthorized { code },
        (Verdict::Rejected | Verdict::Unsupported, _) => {
            Outcome::Rejected { code, message: "never".to_owned() }
        }
    };
    fieldbook::protocol::UnitOutcome { unit: unit.id, outcome }
}

impl Ledger {
    fn apply(&mut self, unit: &Unit, version: Version, device: DeviceId) -> Result<Vec<Overwrite>, Broken> {
        ensure(version > self.last, "S7", || format!("commit {version} does not come after {}", self.last))?;
        self.last = version;
        let before = self.applied.insert(unit.id, version);
        ensure(before.is_none(), "S7", || format!("unit {} took effect twice", unit.id))?;
        let mut overwrites = Vec::new();
        for change in &unit.changes {
            let known = self.current.remove(&change.key);
            let base = change.base.filter(|base| *base > Version::default());
            ensure(known.as_ref().map(|stored| stored.version) == base, "S14", || {
                format!("{} was applied on another version than it was made for", change.key)
            })?;
            let fields = match &change.fields {
                Some(json) => parse(json.as_str())?,
                None => Image::new(),
            };
            let old = known.as_ref().and_then(|stored| stored.image.clone());
            let image = changed(old.clone(), change.kind, &fields);
            let mut writers = known.map(|stored| stored.writers).unwrap_or_default();
            let news = differing(old.as_ref(), image.as_ref());
            if !news.is_empty() {
                // What a delete takes over has no effect of its own in it.
                let most = if change.kind == OpKind::Delete { 1 } else { usize::MAX };
                for op in change.ops.iter().rev().take(most) {
                    self.ops.entry(*op).or_default().push(unit.id);
                }
            }
            for field in news {
                if let Some((since, writer)) = writers.insert(field.clone(), (version, device))
                    && writer != device
                {
                    let (key, ops) = (change.key.clone(), change.ops.clone());
                    let value = old.as_ref().and_then(|old| old.get(&field)).cloned();
                    overwrites.push(Overwrite { key, field, value, since, ops });
                }
            }
            self.history.insert((change.key.clone(), version), image.clone());
            self.current.insert(change.key.clone(), Stored { version, image, writers });
        }
        Ok(overwrites)
    }

    fn compare(&self, authority: &MemoryAuthority) -> Result<(), Broken> {
        let mut rows = 0;
        for (key, row) in authority.records() {
            rows += 1;
            let stored = self.current.get(key);
            let fields = row.fields.as_ref().map(|fields| parse(fields.as_str())).transpose()?;
            ensure(
                stored.is_some_and(|stored| stored.version == row.version && stored.image == fields),
                "server",
                || format!("{key} is not what the units that were applied come to"),
            )?;
        }
        ensure(rows == self.current.len(), "server", || "the server has other records".to_owned())
    }

    /// Returns what a record was at a version; `None` if it never had that version.
    pub fn at(&self, key: &RecordKey, version: Version) -> Option<Option<&Image>> {
        if version == Version::default() {
            return Some(None);
        }
        self.history.get(&(key.clone(), version)).map(Option::as_ref)
    }
}

/// Applies a change the plain way.
pub fn changed(image: Option<Image>, kind: OpKind, fields: &Image) -> Option<Image> {
    let mut after = match kind {
        OpKind::Delete => return None,
        OpKind::Create | OpKind::Replace => Image::new(),
        OpKind::Update => image.unwrap_or_default(),
    };
    for (name, value) in fields {
        if value.is_null() {
            after.remove(name);
        } else {
            after.insert(name.clone(), value.clone());
        }
    }
    Some(after)
}

/// Returns the fields in which two images differ; the empty name stands for whether there is a record at all.
fn differing(before: Option<&Image>, after: Option<&Image>) -> Vec<String> {
    let nothing = Image::new();
    let (old, new) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
    let mut names: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| old.get(name) != new.get(name));
    if before.is_some() != after.is_some() {
        names.push(String::new());
    }
    names
}

/// Reads fields.
///
/// # Errors
/// [`Broken`] if they are no JSON object.
pub fn parse(json: &str) -> Result<Image, Broken> {
    serde_json::from_str(json).map_err(|error| Broken::new("S11", format!("fields do not read: {error}")))
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({} records)", self.ledger.current.len())
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reply({} applied)", self.applied.len())
    }
}
