//! The traffic of the box: the counts of each kind, and the real outcomes of the units.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook::record::{OpId, UnitId};
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest, Outcome};

use crate::wire::Message;
use crate::{Broken, ensure};

/// The server and tenant that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The right server and the books' own tenant.
    Ours,
    /// Another tenant of the same server.
    OtherTenant,
    /// Another server.
    OtherServer,
}

/// The counts of a run.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Requests that reached the box.
    pub exchanges: u64,
    /// Requests that the right server answered with a page and outcomes.
    pub answered: u64,
    /// Ops that the apps wrote.
    pub ops: u64,
    /// Ops that the right server refused for good.
    pub refused: u64,
    /// Times that a book was closed and opened again.
    pub reopenings: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.exchanges += other.exchanges;
        self.answered += other.answered;
        self.ops += other.ops;
        self.refused += other.refused;
        self.reopenings += other.reopenings;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

/// The traffic of one box.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// How often each unit took effect, and where.
    applied: BTreeMap<(Place, UnitId), u32>,
    /// The ops that the right server refused for good, by their unit.
    pub(crate) refused: BTreeSet<OpId>,
    /// The last answer that the right server gave.
    pub(crate) last: Option<Message>,
}

impl Tally {
    /// Records the answer of a server.
    pub(crate) fn answered(&mut self, place: Place, request: &Message, answer: &Message) {
        if answer.status() != 200 {
            return;
        }
        let asked = serde_json::from_slice::<ExchangeRequest>(&request.body);
        let told = serde_json::from_slice::<ExchangeAnswer>(&answer.body);
        let (Ok(asked), Ok(told)) = (asked, told) else { return };
        if place == Place::Ours {
            self.counts.answered += 1;
            self.last = Some(answer.clone());
        }
        for outcome in &told.outcomes {
            match outcome.outcome {
                Outcome::Applied { .. } => {
                    *self.applied.entry((place, outcome.unit)).or_default() += 1
                }
                Outcome::Rejected { .. } if place == Place::Ours => {
                    let unit = asked.units.iter().filter(|unit| unit.id == outcome.unit);
                    let ops = unit.flat_map(|unit| &unit.changes).flat_map(|change| &change.ops);
                    self.refused.extend(ops.copied());
                }
                _ => {}
            }
        }
        self.counts.refused = self.refused.len() as u64;
    }

    /// Checks that no unit took effect twice, or at another server or tenant.
    pub(crate) fn check(&self) -> Result<(), Broken> {
        for ((place, unit), times) in &self.applied {
            ensure(*place == Place::Ours, || format!("unit {unit} took effect at {place:?}"))?;
            ensure(*times == 1, || format!("unit {unit} took effect {times} times"))?;
        }
        Ok(())
    }
}
