//! Checks whether an answer can be true. An answer with an impossible part is refused as a whole:
//! nothing of it is applied, its units stay unanswered, and the run ends as after any invalid
//! answer.
//!
//! | the answer has | code |
//! |---|---|
//! | more records or cursors than any page has | `too_many_changes`, `too_many_cursors` |
//! | a time of its clock before 1970 or after 2199 | `server_time` |
//! | a stamp after 2199 | `stamp` |
//! | a living record of version 0, or a version above [`limits::VERSION_MOST`] | `version` |
//! | a version far above every version of this server epoch | `version_leap` |
//! | more names of older fields than a record can have | `older` |
//! | a second outcome of the same unit | `outcome` |
//! | an unsupported entity type that the unit does not contain | `outcome` |
//! | a receipt for a head that was not claimed | `receipt` |
//! | a signed note of another kind than a receipt, or of another head than the receipt | `note` |
//! | a fork of a head that was not claimed, or from before the present epoch | `forked` |
//!
//! Invariants:
//! 1. Every answer of a sound server passes, whatever its clock shows between 1970 and 2199.
//! 2. Everything that passes can be stored: the size of each part is checked before memory or an
//!    entry is allocated for it.
//! 3. A version passes only if a sound server of the same epoch could soon exceed it. So no record
//!    freezes.
//!
//! What it does not do: check the server's identity ([`super::belonging`]), or the syntax of the
//! answer, which the reader checks.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Receipt;
use crate::ids::{Epoch, UnitId};
use crate::limits;
use crate::numbers::{Seq, Version};
use crate::protocol::{Change, ExchangeAnswer, ExchangeRequest, Outcome, Unit};
use crate::rules::answer::note;
use crate::time::Hlc;

/// The facts that a device has about the server. An answer must agree with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KnownOfServer {
    /// The last head that the server has confirmed.
    pub anchor: Option<Receipt>,
    /// The highest version of this server epoch so far; 0 if there is none.
    pub highest: Version,
    /// The present epoch of the device's log.
    pub epoch: Option<Epoch>,
    /// The first entry of that epoch.
    pub epoch_from: Seq,
}

/// Returns whether an answer to this request can be true.
///
/// # Errors
/// The code of the impossible part.
pub fn credible(
    request: &ExchangeRequest,
    answer: &ExchangeAnswer,
    known: &KnownOfServer,
) -> Result<(), &'static str> {
    check(answer.server_time.is_plausible(), "server_time")?;
    let cursors = answer.cursors.len().saturating_add(answer.set_aside.cursors.len());
    check(cursors <= limits::ANSWER_CURSORS, "too_many_cursors")?;
    outcomes(request, answer)?;
    let shown = || answer.outcomes.iter().flat_map(|answered| shown_by(&answered.outcome));
    let records = shown().count().saturating_add(answer.changes.len());
    let records = records.saturating_add(answer.set_aside.rows.len());
    check(records <= limits::ANSWER_CHANGES, "too_many_changes")?;
    shown().chain(&answer.changes).try_for_each(|change| of_change(change, known))?;
    let given = answer.outcomes.iter().flat_map(|answered| versions_of(&answered.outcome));
    given.into_iter().try_for_each(|version| of_version(version, true, known))?;
    heads(request, answer, known)
}

/// Returns the highest version in an answer, or `None` if it has none.
pub fn highest_version(answer: &ExchangeAnswer) -> Option<Version> {
    let shown = answer
        .outcomes
        .iter()
        .flat_map(|answered| shown_by(&answered.outcome))
        .chain(&answer.changes);
    let given = answer.outcomes.iter().flat_map(|answered| versions_of(&answered.outcome));
    shown.map(|change| change.version).chain(given).max()
}

/// Removes the outcomes of units that the request did not contain.
pub fn drop_unasked(request: &ExchangeRequest, answer: &mut ExchangeAnswer) {
    let sent: BTreeSet<UnitId> = request.units.iter().map(|unit| unit.id).collect();
    answer.outcomes.retain(|answered| sent.contains(&answered.unit));
}

fn check(holds: bool, code: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(code) }
}

fn outcomes(request: &ExchangeRequest, answer: &ExchangeAnswer) -> Result<(), &'static str> {
    check(answer.outcomes.len() <= limits::ANSWER_CURSORS, "outcome")?;
    let sent: BTreeMap<UnitId, &Unit> = request.units.iter().map(|unit| (unit.id, unit)).collect();
    let mut answered_units = BTreeSet::new();
    for answered in &answer.outcomes {
        // Other units were not sent, so their outcomes are ignored: see `drop_unasked`.
        let Some(unit) = sent.get(&answered.unit) else { continue };
        check(answered_units.insert(answered.unit), "outcome")?;
        if let Outcome::Unsupported { entity, .. } = &answered.outcome {
            check(unit.changes.iter().any(|change| change.key.entity == *entity), "outcome")?;
        }
    }
    Ok(())
}

fn shown_by(outcome: &Outcome) -> &[Change] {
    match outcome {
        Outcome::Applied { current, .. }
        | Outcome::Duplicate { current, .. }
        | Outcome::Stale { current, .. } => current,
        _ => &[],
    }
}

fn versions_of(outcome: &Outcome) -> Vec<Version> {
    match outcome {
        Outcome::Applied { versions, .. } | Outcome::Duplicate { versions, .. } => {
            versions.values().copied().collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn of_change(change: &Change, known: &KnownOfServer) -> Result<(), &'static str> {
    of_version(change.version, !change.deleted, known)?;
    let names = change.older.iter().flat_map(|write| &write.fields);
    let older = names.fold(change.older.len().saturating_mul(WRITE_BYTES), |bytes, name| {
        bytes.saturating_add(name.len() + NAME_BYTES)
    });
    check(older <= limits::OLDER_BYTES, "older")?;
    let floor = change.floor.map(|floor| floor.edited_at);
    let stamps =
        change.older.iter().map(|write| write.edited_at).chain(floor).chain([change.edited_at]);
    check(stamps.into_iter().all(Hlc::is_plausible), "stamp")
}

/// Checks a version. A record that never existed has version 0, and is a deletion.
fn of_version(version: Version, lives: bool, known: &KnownOfServer) -> Result<(), &'static str> {
    let number = version.number();
    check(number <= limits::VERSION_MOST && !(lives && number == 0), "version")?;
    let highest = known.highest.number();
    check(highest == 0 || number <= highest.saturating_add(limits::VERSION_LEAP), "version_leap")
}

fn heads(
    request: &ExchangeRequest,
    answer: &ExchangeAnswer,
    known: &KnownOfServer,
) -> Result<(), &'static str> {
    let claimed = request.head.as_ref().map(|claim| Receipt { seq: claim.seq, hash: claim.hash });
    if let Some(receipt) = answer.receipt {
        check(claimed == Some(receipt) || known.anchor == Some(receipt), "receipt")?;
    }
    if let Some(signed) = &answer.signed {
        let receipt = answer.receipt.ok_or("note")?;
        check(note::states(signed, request, &receipt), "note")?;
    }
    if let Some(anchored) = answer.forked {
        let is_present = known.epoch == Some(request.epoch);
        check(claimed.is_some() && !(is_present && anchored.seq < known.epoch_from), "forked")?;
    }
    Ok(())
}

/// The size of a write without its field names: its stamp, its op, and the number of fields.
const WRITE_BYTES: usize = 28;
/// The size of the length of a field's name.
const NAME_BYTES: usize = 3;

#[cfg(test)]
mod tests;
