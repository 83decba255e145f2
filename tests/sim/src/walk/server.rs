//! The server: the product's authority over its store in memory, and the writers of each state of a
//! record.
//!
//! What it does not do: let time pass, or receive claims of heads.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fieldbook_core::authority::{Caller, ExchangeError, MemoryAuthority, Quota, exchange};
use fieldbook_core::protocol::{
    ExchangeAnswer, ExchangeRequest, Outcome, Unit, UnitChange, UnitOutcome,
};
use fieldbook_core::{
    FieldsJson, OpKind, RecordKey, ServerEpoch, ServerId, UnitId, Version, WallTime,
};

use super::law::{Broken, Law};
use super::rows::{Ghosts, Ops, Said};
use super::world::{FIELDS, Ground};

/// The server's clock.
pub(super) const SERVER_TIME: i64 = 1_767_225_600_000;

/// The writers of one state of a record, by the sent changes, independently of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Holding {
    /// Whether the record exists.
    pub(super) there: bool,
    /// The op that made or deleted the record; none for a given record.
    pub(super) life: Option<usize>,
    /// The op that wrote each field last.
    pub(super) fields: [Option<usize>; 2],
    /// Every op that ever took effect on it.
    pub(super) ops: Ops,
}

/// The server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) authority: MemoryAuthority,
    /// Units that were refused for good.
    pub(super) refused: BTreeSet<UnitId>,
    /// The content of each version: the record, and its writers.
    pub(super) history: Rc<BTreeMap<Version, Vec<(usize, Holding)>>>,
    pub(super) backup: Option<Box<MemoryAuthority>>,
    pub(super) epochs: u8,
}

impl Server {
    pub(super) fn new() -> Self {
        let authority =
            MemoryAuthority::new(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([1; 16]));
        Self {
            authority,
            refused: BTreeSet::new(),
            history: Rc::default(),
            backup: None,
            epochs: 1,
        }
    }

    /// Returns the content of a version of a record.
    pub(super) fn holding(&self, record: usize, version: Version) -> Option<&Holding> {
        self.history
            .get(&version)?
            .iter()
            .find(|(known, _)| *known == record)
            .map(|(_, holding)| holding)
    }

    /// Treats a request. `refuse`: its units are refused for good, if they took no effect before.
    pub(super) fn treat(
        &mut self,
        ground: &Ground,
        ghosts: &Ghosts,
        request: &ExchangeRequest,
        refuse: bool,
    ) -> Result<ExchangeAnswer, Broken> {
        let mut asked = request.clone();
        let mut refused = Vec::new();
        let (_, epoch) = self.identity();
        if request.server_epoch.is_none_or(|meant| meant == epoch) {
            asked.units.retain(|unit| {
                let stays = !self.is_refused(unit, refuse);
                if !stays {
                    refused.push(unit.id);
                }
                stays
            });
        }
        if !ground.world.forgets_refusals {
            self.refused.extend(&refused);
        }
        let now = WallTime::from_milliseconds(SERVER_TIME);
        let answer = exchange(&mut self.authority, &asked, now, &Caller::Anyone, &Quota::default());
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(ExchangeError::Refused(refusal)) => {
                return Err(Broken::new(
                    Law::Sound,
                    format!("the server refuses a request: {}", refusal.code),
                ));
            }
            Err(error) => return Err(Broken::unsound(&error)),
        };
        for told in &answer.outcomes {
            let unit = asked.units.iter().find(|unit| unit.id == told.unit);
            if let (Outcome::Applied { versions, .. }, Some(unit)) = (&told.outcome, unit) {
                self.note(ground, ghosts, unit, versions);
            }
        }
        let rejected = |unit| UnitOutcome {
            unit,
            outcome: Outcome::Rejected { code: "refused".to_owned(), message: String::new() },
        };
        answer.outcomes.extend(refused.into_iter().map(rejected));
        Ok(answer)
    }

    fn identity(&self) -> (ServerId, ServerEpoch) {
        (ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([self.epochs; 16]))
    }

    /// Returns whether a unit is refused. A unit that took effect before is a duplicate, whatever
    /// else is true of it.
    fn is_refused(&self, unit: &Unit, refuse: bool) -> bool {
        use fieldbook_core::authority::AuthorityRead;
        let Ok(known) = self.authority.unit(&unit.id);
        known.is_none() && (refuse || self.refused.contains(&unit.id))
    }

    /// Records the writers of a unit's records now.
    fn note(
        &mut self,
        ground: &Ground,
        ghosts: &Ghosts,
        unit: &Unit,
        versions: &BTreeMap<RecordKey, Version>,
    ) {
        let mut noted = Vec::new();
        for change in &unit.changes {
            let Some(record) = ground.record(&change.key) else { continue };
            let base = change.base.and_then(|base| self.holding(record, base));
            let mut holding = base.cloned().unwrap_or_default();
            let slots: Vec<_> = change.ops.iter().filter_map(|op| ground.slot(op)).collect();
            let last = slots.last().copied();
            holding.ops = slots.iter().fold(holding.ops, |ops, slot| ops.with(*slot));
            let Some(version) =
                versions.get(&change.key).filter(|version| !self.history.contains_key(version))
            else {
                // The record did not change.
                continue;
            };
            if change.kind == OpKind::Delete {
                holding = Holding { there: false, life: last, fields: [None; 2], ops: holding.ops };
            } else {
                let is_made = !holding.there;
                if is_made {
                    (holding.there, holding.life) = (true, last);
                }
                let fields = change
                    .fields
                    .as_ref()
                    .and_then(|json| json.to_fields().ok())
                    .unwrap_or_default();
                for (number, (writer, name)) in holding.fields.iter_mut().zip(FIELDS).enumerate() {
                    let says = fields.has(name) || is_made || change.kind == OpKind::Replace;
                    // A write with an earlier stamp than the present write does not win.
                    if says && self.stands(change, name) {
                        let value = Said::by(Some(&fields), name);
                        let sent_by = || ghosts.writer(record, number, value, &slots).or(last);
                        // A field that the new record lacks was removed by a deletion, or never
                        // existed. It has no writer.
                        *writer = if fields.has(name) || !is_made { sent_by() } else { None };
                    }
                }
            }
            noted.push((*version, record, holding));
        }
        for (version, record, holding) in noted {
            Rc::make_mut(&mut self.history).entry(version).or_default().push((record, holding));
        }
    }

    /// Returns whether a field of the record now has the value of a change.
    fn stands(&self, change: &UnitChange, name: &str) -> bool {
        let row = self
            .authority
            .records()
            .find(|(key, _)| **key == change.key)
            .map(|(_, row)| row.clone());
        let Some(row) = row.map(|row| row.into_change(change.key.clone())) else { return false };
        // A record that is made again over a deletion has removed the fields that it lacks by that
        // deletion.
        let by_deletion = !change.fields.as_ref().is_some_and(|json| has(json, name));
        row.stamp_of(name) == change.stamp_of(name)
            || by_deletion && row.floor.is_some_and(|floor| floor == row.stamp_of(name))
    }

    /// Keeps a backup.
    pub(super) fn back_up(&mut self) {
        self.backup = Some(Box::new(self.authority.clone()));
    }

    /// Goes back to the backup, in a new epoch.
    pub(super) fn restore(&mut self) {
        if let Some(backup) = self.backup.take() {
            self.authority = *backup;
            self.epochs += 1;
            self.authority.start_epoch(ServerEpoch::from_bytes([self.epochs; 16]));
        }
    }
}

fn has(json: &FieldsJson, name: &str) -> bool {
    json.to_fields().is_ok_and(|fields| fields.has(name))
}
