//! Who made the changes that an answer has, for the entry that records it.

use std::collections::BTreeMap;

use crate::entry::{Authored, Upstream};
use crate::names::{Actor, RecordKey};
use crate::numbers::Version;
use crate::protocol::{Change, ExchangeAnswer, Outcome};

/// The authors that an answer names, by record and version.
#[derive(Debug, Default)]
pub(super) struct Authors<'a>(BTreeMap<(&'a RecordKey, Version), &'a Actor>);

impl<'a> Authors<'a> {
    /// Returns the authors of an answer's records: those of its page, and those of its outcomes.
    pub(super) fn of(answer: &'a ExchangeAnswer) -> Self {
        let of_outcomes = answer.outcomes.iter().flat_map(|told| match &told.outcome {
            Outcome::Applied { current, .. }
            | Outcome::Duplicate { current, .. }
            | Outcome::Stale { current, .. } => current.as_slice(),
            _ => &[],
        });
        let author =
            |change: &'a Change| Some(((&change.key, change.version), change.by.as_ref()?));
        Self(answer.changes.iter().chain(of_outcomes).filter_map(author).collect())
    }

    /// Returns the authors of the changes of an entry, in the order of their names.
    pub(super) fn in_entry(&self, upstream: &Upstream) -> Vec<Authored> {
        let mut all: BTreeMap<&Actor, Vec<u32>> = BTreeMap::new();
        if self.0.is_empty() {
            return Vec::new();
        }
        for (number, change) in (0..).zip(&upstream.changes) {
            if let Some(actor) = self.0.get(&(&change.key, change.version)) {
                all.entry(actor).or_default().push(number);
            }
        }
        let all = all.into_iter();
        all.map(|(actor, changes)| Authored { actor: actor.clone(), changes }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UnitId;
    use crate::entry::{ChangeMeta, Extent};
    use crate::protocol::UnitOutcome;
    use crate::rules::test_view::{self, theirs};

    fn by(actor: Option<&str>, record: &str, version: u64) -> Change {
        let by = actor.map(|actor| Actor::parse(actor).unwrap());
        Change { by, ..theirs(record, version, serde_json::json!({})) }
    }

    fn recorded(change: &Change) -> ChangeMeta {
        ChangeMeta {
            key: change.key.clone(),
            version: change.version,
            extent: Extent::Whole,
            edited_at: change.edited_at,
            op: change.op,
            older: Vec::new(),
            floor: None,
            fields: None,
            undeclared: false,
        }
    }

    fn answer(changes: Vec<Change>, current: Vec<Change>) -> ExchangeAnswer {
        let outcome = Outcome::Stale { current, applied: Vec::new() };
        let outcomes = vec![UnitOutcome { unit: UnitId::from_bytes([4; 16]), outcome }];
        ExchangeAnswer { outcomes, changes, ..test_view::answer() }
    }

    #[test]
    fn each_actor_is_named_once_with_the_changes_that_are_recorded() {
        let changes = vec![
            by(Some("ben"), "1", 4),
            by(None, "2", 5),
            by(Some("ann"), "3", 6),
            by(Some("ben"), "4", 7),
        ];
        let stale = vec![by(Some("eve"), "5", 3)];
        let told = answer(changes.clone(), stale.clone());
        // The second record of ben was known, so it is not recorded.
        let kept = [&changes[0], &changes[1], &changes[2], &stale[0]].map(recorded);
        let upstream = Upstream {
            request: told.request,
            server: told.server,
            epoch: told.server_epoch,
            server_time: told.server_time,
            outcomes: Vec::new(),
            changes: kept.into(),
            cursors: Vec::new(),
            receipt: None,
        };
        let named = Authors::of(&told).in_entry(&upstream);
        let named: Vec<_> =
            named.iter().map(|one| (one.actor.as_str(), one.changes.as_slice())).collect();
        assert_eq!(named, [("ann", &[2][..]), ("ben", &[0]), ("eve", &[3])]);
        let nobody = answer(vec![by(None, "1", 4)], Vec::new());
        assert_eq!(Authors::of(&nobody).in_entry(&upstream), []);
    }
}
