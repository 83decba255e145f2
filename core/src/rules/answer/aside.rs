//! Makes entries for the rows of an answer that this program cannot hold. Each row is recorded
//! once, under its name at the server. A foreign cursor is the cursor of an entity type whose name
//! this program does not allow.
//!
//! Invariants:
//! 1. A row that was set aside in the same version or a later version is not set aside again.
//! 2. A foreign cursor is taken by the rule for all cursors: only if its page began at the cursor
//!    of the book.
//! 3. At most [`limits::FOREIGN_CURSORS`] foreign cursors are kept. Any other such entity type is
//!    read from its beginning each time.

use std::collections::BTreeMap;

use crate::entry::{Control, Decision, Draft, Items, Meta};
use crate::limits;
use crate::numbers::Cursor;
use crate::protocol::{ExchangeAnswer, SetAsideRow};
use crate::random::Randomness;
use crate::rows::{StateRow, aside_hash};

/// Returns the entries for the rows that are set aside, and the number of these rows. `asked` has
/// the foreign cursors of the request.
pub fn set_aside(
    state: &StateRow,
    asked: &BTreeMap<String, Cursor>,
    answer: &ExchangeAnswer,
    random: &mut dyn Randomness,
) -> (Vec<Draft>, u32) {
    let (mut drafts, mut rows) = (Vec::new(), 0u32);
    let (mut decisions, mut items, mut bytes) = (Vec::new(), Items::default(), 0usize);
    for row in answer.set_aside.rows.iter().filter(|row| !is_known(state, row)) {
        bytes = bytes.saturating_add(row.name.len() + row.row.as_ref().map_or(0, String::len));
        let name = items.add(row.name.as_bytes(), random);
        let kept = row.row.as_ref().map(|row| items.add(row.as_bytes(), random));
        let fault = row.fault.to_owned();
        decisions.push(Decision::SetAside { fault, version: row.version, name, row: kept });
        rows = rows.saturating_add(1);
        if bytes >= limits::ITEMS_SPLIT_BYTES || decisions.len() >= DECISIONS_AT_ONCE {
            drafts.push(draft(std::mem::take(&mut decisions), std::mem::take(&mut items)));
            bytes = 0;
        }
    }
    decisions.extend(foreign_cursors(state, asked, answer));
    if !decisions.is_empty() {
        drafts.push(draft(decisions, items));
    }
    (drafts, rows)
}

fn draft(decisions: Vec<Decision>, items: Items) -> Draft {
    Draft { meta: Meta::Control(Control::Decided(decisions)), items }
}

fn is_known(state: &StateRow, row: &SetAsideRow) -> bool {
    let hash = aside_hash(row.name.as_bytes(), row.version, row.row.as_ref().map(String::as_bytes));
    let version = row.version.unwrap_or_default();
    state.set_aside.iter().any(|(known, at)| *known == hash && *at >= version)
}

fn foreign_cursors(
    state: &StateRow,
    asked: &BTreeMap<String, Cursor>,
    answer: &ExchangeAnswer,
) -> Vec<Decision> {
    let mut room = limits::FOREIGN_CURSORS.saturating_sub(state.foreign_cursors.len());
    let mut taken = Vec::new();
    for (entity, cursor) in &answer.set_aside.cursors {
        let known = state
            .foreign_cursors
            .iter()
            .find(|(known, _)| known == entity)
            .map(|(_, cursor)| cursor);
        if known == Some(cursor) || asked.get(entity) != known {
            continue;
        }
        if known.is_none() {
            let Some(left) = room.checked_sub(1) else { continue };
            room = left;
        }
        taken.push(Decision::ReadForeign { entity: entity.clone(), cursor: cursor.clone() });
    }
    taken
}

/// The most rows that one entry sets aside.
const DECISIONS_AT_ONCE: usize = 10_000;
