//! The answers of the scripted server: outcomes and changes, built from a case's results.

use std::collections::BTreeMap;

use fieldbook::audit::Hlc;
use fieldbook::host::{Clock, WallTime};
use fieldbook::record::{OpId, UnitId};
use fieldbook::sync::protocol::FieldWrites;
use fieldbook::sync::protocol::{Change, ExchangeRequest, Outcome, Unit, UnitChange, UnitOutcome};
use fieldbook::{Fields, RecordKey};

use super::case::{Answered, Edited, Pulled, ResultClass};
use super::clock::CaseClock;
use super::fault::Fault;
use super::world::version;

/// Returns the answer "not now" for a record.
pub(super) const fn put_off(key: RecordKey) -> Answered {
    Answered {
        key,
        result: ResultClass::Retryable,
        version: None,
        row: None,
        code: None,
        retry_after_ms: None,
        edited: None,
    }
}

/// Builds the outcomes in the order of the results. A unit of several records has the outcome of
/// the first result that names one of them, completed by the others. A result for a record that was
/// not sent names a unit that never existed.
pub(super) fn outcomes(
    request: &ExchangeRequest,
    results: &[Answered],
    mut draw: impl FnMut() -> [u8; 16],
) -> Result<Vec<UnitOutcome>, Fault> {
    let mut outcomes: Vec<UnitOutcome> = Vec::new();
    for result in results {
        let unit = request
            .units
            .iter()
            .find(|unit| unit.changes.iter().any(|change| change.key == result.key));
        let (id, outcome) = match unit {
            Some(unit) => (unit.id, outcome(unit, result, results, &mut draw)),
            None => (UnitId::from_bytes(draw()), unknown(result, &mut draw)?),
        };
        if outcomes.iter().all(|before| before.unit != id) {
            outcomes.push(UnitOutcome { unit: id, outcome });
        }
    }
    Ok(outcomes)
}

fn outcome(
    unit: &Unit,
    first: &Answered,
    results: &[Answered],
    draw: &mut impl FnMut() -> [u8; 16],
) -> Outcome {
    let of = |change: &UnitChange| results.iter().find(|result| result.key == change.key);
    let code = |otherwise: &str| first.code.clone().unwrap_or_else(|| otherwise.to_owned());
    let versions = || {
        let versions = unit.changes.iter().map(|change| {
            let number =
                of(change).and_then(|result| result.version).or(first.version).unwrap_or(1);
            (change.key.clone(), version(number))
        });
        versions.collect::<BTreeMap<_, _>>()
    };
    match first.result {
        ResultClass::Applied => {
            let rows = unit.changes.iter().filter_map(|change| {
                let row = of(change)?.row.as_ref()?;
                let number = of(change)?.version.or(first.version).unwrap_or(1);
                let stamp = (change.edited_at, *change.ops.last()?);
                Some(current(change.key.clone(), number, stamp, Some(row)))
            });
            Outcome::Applied { versions: versions(), current: rows.collect() }
        }
        ResultClass::Duplicate => Outcome::Duplicate { versions: versions(), current: Vec::new() },
        ResultClass::Conflict => {
            let mut rows = Vec::new();
            for change in &unit.changes {
                let Some(result) =
                    of(change).filter(|result| result.result == ResultClass::Conflict)
                else {
                    continue;
                };
                let edited_at = match result.edited.unwrap_or(Edited::Later) {
                    Edited::Later => change.edited_at.next(),
                    Edited::Earlier => Hlc::from_bits(1),
                };
                let stamp = (edited_at, OpId::from_bytes(draw()));
                let number = result.version.unwrap_or(1);
                rows.push(current(change.key.clone(), number, stamp, result.row.as_ref()));
            }
            Outcome::Stale { current: rows, applied: Vec::new() }
        }
        ResultClass::Ahead => Outcome::Ahead,
        ResultClass::Rejected => {
            Outcome::Rejected { code: code("rejected"), message: String::new() }
        }
        ResultClass::Retryable => Outcome::Transient {
            code: code("503"),
            message: String::new(),
            retry_after_milliseconds: first.retry_after_ms,
        },
        ResultClass::AuthExpired => Outcome::Unauthorized { code: code("token_expired") },
        ResultClass::Unsupported => {
            Outcome::Unsupported { entity: first.key.entity.clone(), code: code("unknown_entity") }
        }
    }
}

/// Builds an outcome for a unit that was never sent.
fn unknown(result: &Answered, draw: &mut impl FnMut() -> [u8; 16]) -> Result<Outcome, Fault> {
    let change = UnitChange {
        key: result.key.clone(),
        kind: fieldbook::record::OpKind::Delete,
        base: None,
        ops: vec![OpId::from_bytes(draw())],
        edited_at: Hlc::from_bits(1),
        older: Vec::new(),
        schema_version: 1,
        fields: None,
    };
    let unit =
        Unit { id: UnitId::from_bytes(draw()), changes: vec![change], earlier_units: Vec::new() };
    // The row of a unit that never existed must not be applied through the outcome.
    let result = Answered { row: None, ..result.clone() };
    Ok(outcome(&unit, &result, std::slice::from_ref(&result), draw))
}

fn current(key: RecordKey, number: u64, stamp: (Hlc, OpId), row: Option<&Fields>) -> Change {
    Change {
        key,
        version: version(number),
        edited_at: stamp.0,
        op: stamp.1,
        by: None,
        older: Vec::new(),
        floor: None,
        deleted: row.is_none(),
        partial: false,
        fields: row.map(Fields::to_json),
    }
}

/// The author of the fields that a case calls older.
const EARLIER: OpId = OpId::from_bytes([0xea; 16]);

/// Builds a record of a page.
pub(super) fn change(
    pulled: &Pulled,
    own: Option<(OpId, Hlc)>,
    clock: &CaseClock,
    drawn: [u8; 16],
) -> Result<Change, Fault> {
    if pulled.payload.is_some() == pulled.deleted {
        return Err(Fault::Case(format!("{}: a change has a payload or is deleted", pulled.key)));
    }
    let earlier = clock.earlier();
    let at = |milliseconds: i64| {
        Hlc::at(WallTime::from_milliseconds(
            clock.true_time().milliseconds().saturating_add(milliseconds),
        ))
    };
    let edited_at = match (pulled.edited_ms, pulled.edited) {
        (Some(milliseconds), _) => at(milliseconds),
        // The stamp is after every stamp of the device, however far ahead the device's clock is.
        (None, Some(Edited::Later)) => at(0).max(Hlc::at(clock.now().wall)).next(),
        (None, _) => earlier,
    };
    let (op, edited_at) = own.unwrap_or((OpId::from_bytes(drawn), edited_at));
    let older = FieldWrites { edited_at: earlier, op: EARLIER, fields: pulled.older.clone() };
    Ok(Change {
        key: pulled.key.clone(),
        version: version(pulled.version),
        edited_at,
        op,
        by: None,
        older: if pulled.older.is_empty() { Vec::new() } else { vec![older] },
        floor: None,
        deleted: pulled.deleted,
        partial: pulled.partial,
        fields: pulled.payload.as_ref().map(Fields::to_json),
    })
}
