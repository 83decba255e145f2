//! Reads an answer even if this program cannot hold a part of it: that part is set aside as it
//! arrived, and the rest is read.
//!
//! | part that cannot be read | effect |
//! |---|---|
//! | a record of the page or of an outcome: its key, a number, a stamp, a field | the record is set aside under the name in the answer |
//! | a cursor's entity type | the cursor is kept under that name, so that the type is not read from its beginning again |
//! | a cursor | it is left out: the next request reads that type from the old cursor |
//! | an outcome, or any other member | nothing is read: a device must never guess the outcome of its change |
//!
//! Invariants:
//! 1. An answer without such a part costs nothing more: this reading is tried only after the normal
//!    one failed.
//! 2. At most the answer itself is kept, and of a single row at most [`limits::SET_ASIDE_BYTES`].

use std::collections::{BTreeMap, BTreeSet};

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::outcome::OutcomeMembers;
use super::{Change, ExchangeAnswer};
use crate::entry::{Receipt, SignedNote};
use crate::fields::FieldsJson;
use crate::ids::{RequestId, ServerEpoch, ServerId, TenantId};
use crate::limits;
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::{Cursor, Version};
use crate::record::{EditStamp, FieldWrites};
use crate::time::{Hlc, WallTime};

/// The parts of an answer that this program cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetAside {
    /// Records.
    pub rows: Vec<SetAsideRow>,
    /// Cursors of entity types whose names break the naming rule.
    pub cursors: BTreeMap<String, Cursor>,
}

/// A record of an answer that this program cannot hold.
#[derive(Clone, PartialEq, Eq)]
pub struct SetAsideRow {
    /// The server's name for the record, cut to [`limits::FOREIGN_NAME_BYTES`]. If the row has no
    /// name, its beginning.
    pub name: String,
    /// The version in the row, if it has one.
    pub version: Option<Version>,
    /// The part that cannot be read: `key`, `version`, `fields`, or `row` for any other part.
    pub fault: &'static str,
    /// The row as it arrived, unless it is too large.
    pub row: Option<String>,
}

/// Shows no payload: a row's name and content belong to the user.
impl std::fmt::Debug for SetAsideRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetAsideRow({}, {:?})", self.fault, self.version)
    }
}

impl SetAside {
    /// Returns whether the whole answer could be read.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.cursors.is_empty()
    }

    fn change(&mut self, raw: &RawValue) -> Option<Change> {
        match serde_json::from_str(raw.get()) {
            Ok(change) => Some(change),
            Err(_) => {
                self.rows.push(SetAsideRow::of(raw.get()));
                None
            }
        }
    }

    pub(super) fn changes(&mut self, raw: &[&RawValue]) -> Vec<Change> {
        raw.iter().filter_map(|raw| self.change(raw)).collect()
    }
}

impl ExchangeAnswer {
    /// Reads the body of an answer. The parts that this program cannot hold are in
    /// [`ExchangeAnswer::set_aside`].
    ///
    /// # Errors
    /// If it is not an answer, or if a part other than a record or a cursor cannot be read.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body).or_else(|_| in_part(body))
    }
}

/// The members of an answer. Those that may be set aside are still text.
#[derive(Deserialize)]
struct Members<'a> {
    marker: String,
    protocol: u32,
    request: RequestId,
    server: ServerId,
    server_epoch: ServerEpoch,
    #[serde(default)]
    tenant: Option<TenantId>,
    server_time: WallTime,
    #[serde(default, borrow)]
    outcomes: Vec<OutcomeMembers<&'a RawValue>>,
    #[serde(default, borrow)]
    changes: Vec<&'a RawValue>,
    #[serde(default, borrow)]
    cursors: BTreeMap<String, &'a RawValue>,
    #[serde(default)]
    others: Option<Cursor>,
    #[serde(default)]
    more: bool,
    #[serde(default)]
    receipt: Option<Receipt>,
    #[serde(default)]
    signed: Option<SignedNote>,
    #[serde(default)]
    forked: Option<Receipt>,
}

fn in_part(body: &[u8]) -> Result<ExchangeAnswer, serde_json::Error> {
    let members: Members<'_> = serde_json::from_slice(body)?;
    let mut set_aside = SetAside::default();
    let mut outcomes = Vec::with_capacity(members.outcomes.len());
    for text in members.outcomes {
        outcomes.push(text.read(|current| set_aside.changes(&current)).map_err(Error::custom)?);
    }
    let changes = set_aside.changes(&members.changes);
    let mut cursors = BTreeMap::new();
    for (name, raw) in members.cursors {
        let Ok(cursor) = serde_json::from_str::<Cursor>(raw.get()) else { continue };
        match EntityType::parse(&name) {
            Ok(entity) => drop(cursors.insert(entity, cursor)),
            Err(_) if name.len() <= limits::FOREIGN_NAME_BYTES => {
                set_aside.cursors.insert(name, cursor);
            }
            Err(_) => {}
        }
    }
    Ok(ExchangeAnswer {
        marker: members.marker,
        protocol: members.protocol,
        request: members.request,
        server: members.server,
        server_epoch: members.server_epoch,
        tenant: members.tenant,
        server_time: members.server_time,
        outcomes,
        changes,
        cursors,
        others: members.others,
        more: members.more,
        receipt: members.receipt,
        signed: members.signed,
        forked: members.forked,
        set_aside,
    })
}

/// The members that are looked for in a row that cannot be read.
#[derive(Deserialize, Default)]
struct RowText<'a> {
    #[serde(default, borrow)]
    key: Option<&'a RawValue>,
    #[serde(default, borrow)]
    version: Option<&'a RawValue>,
    #[serde(default, borrow)]
    fields: Option<&'a RawValue>,
}

impl SetAsideRow {
    fn of(row: &str) -> Self {
        let text: RowText<'_> = serde_json::from_str(row).unwrap_or_default();
        let key = text.key.map(|raw| {
            serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
        });
        let version = text.version.and_then(|raw| serde_json::from_str::<Version>(raw.get()).ok());
        let has_fields = || text.fields.is_none_or(|raw| FieldsJson::parse(raw.get()).is_ok());
        let fault = match &key {
            Some(key) if key.parse::<RecordKey>().is_err() => "key",
            Some(_) if version.is_none() => "version",
            Some(_) if !has_fields() => "fields",
            _ => "row",
        };
        let kept = (row.len() <= limits::SET_ASIDE_BYTES).then(|| row.to_owned());
        Self { name: cut(key.as_deref().unwrap_or(row)), version, fault, row: kept }
    }
}

/// Reads a stamp and checks that it is plausible: a record with a stamp after 2199 could never be
/// edited again.
pub(super) fn stamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hlc, D::Error> {
    let stamp = Hlc::deserialize(deserializer)?;
    if stamp.is_plausible() { Ok(stamp) } else { Err(Error::custom("a stamp is after 2199")) }
}

/// Reads the writes that fields come from. It checks that stamps are plausible and that no field
/// occurs twice.
pub(super) fn writes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<FieldWrites>, D::Error> {
    let writes = Vec::<FieldWrites>::deserialize(deserializer)?;
    if !writes.iter().all(|write| write.edited_at.is_plausible()) {
        return Err(Error::custom("a stamp is after 2199"));
    }
    let mut names = BTreeSet::new();
    let is_told_once = writes.iter().flat_map(|write| &write.fields).all(|name| names.insert(name));
    if is_told_once { Ok(writes) } else { Err(Error::custom("a field is listed twice")) }
}

/// Reads a floor and checks that it is plausible.
pub(super) fn floor<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<EditStamp>, D::Error> {
    let floor = Option::<EditStamp>::deserialize(deserializer)?;
    let can_be = floor.is_none_or(|floor| floor.edited_at.is_plausible());
    if can_be { Ok(floor) } else { Err(Error::custom("a stamp is after 2199")) }
}

/// Reads the author of a record. A server that breaks the rule for names loses no record by it.
pub(super) fn author<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Actor>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    Ok(name.and_then(|name| Actor::parse(&name).ok()))
}

/// Reads the cursors of a request. A device may send cursors of another server, for entity types
/// whose names break the naming rule.
pub(super) fn known_cursors<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<EntityType, Cursor>, D::Error> {
    let all = BTreeMap::<String, Cursor>::deserialize(deserializer)?;
    Ok(all
        .into_iter()
        .filter_map(|(name, cursor)| Some((EntityType::parse(&name).ok()?, cursor)))
        .collect())
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(limits::FOREIGN_NAME_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(members: Value) -> Result<ExchangeAnswer, serde_json::Error> {
        let mut whole = json!({
            "marker": "fieldbook", "protocol": 1, "request": "018f3a2b-7c00-7000-8000-000000000001",
            "server": "7d444840-9dc0-4111-b245-5ffdce74fad2",
            "server_epoch": "3f333df6-90a4-4fda-8dd3-9485d27cee36", "server_time": 1_715_153_000_000u64,
        });
        let (Value::Object(whole), Value::Object(members)) = (&mut whole, members) else {
            panic!()
        };
        whole.extend(members);
        ExchangeAnswer::read(&serde_json::to_vec(&whole).unwrap())
    }

    const OP: &str = "018f3a2b-7000-7000-8000-0000000000c1";

    fn row(key: &str) -> Value {
        json!({"key": key, "version": 3, "edited_at": 5, "op": OP, "fields": {"a": 1}})
    }

    fn write(edited_at: u64, fields: &[&str]) -> Value {
        json!({"edited_at": edited_at, "op": OP, "fields": fields})
    }

    fn with(mut row: Value, member: &str, value: Value) -> Value {
        row[member] = value;
        row
    }

    /// A record that this program cannot hold must not stop it from reading the rest: the server
    /// may be newer.
    #[test]
    fn a_record_that_cannot_be_held_is_set_aside_and_the_others_are_read() {
        let long = format!("lead/{}", "x".repeat(200));
        let name = "n".repeat(limits::FIELD_NAME_BYTES + 1);
        let odd = [
            (row("OrderLine/7"), "OrderLine/7", "key"),
            (row("lead/"), "lead/", "key"),
            (row("lead"), "lead", "key"),
            (row("lead/a\u{7}b"), "lead/a\u{7}b", "key"),
            (row(&long), long.as_str(), "key"),
            (with(row("lead/1"), "key", json!(7)), "7", "key"),
            (with(row("lead/1"), "version", json!("three")), "lead/1", "version"),
            (with(row("lead/1"), "version", json!(-1)), "lead/1", "version"),
            (with(row("lead/1"), "fields", json!([1])), "lead/1", "fields"),
            (with(row("lead/1"), "fields", json!({name: 1})), "lead/1", "fields"),
            (with(row("lead/1"), "op", json!("none")), "lead/1", "row"),
            (with(row("lead/1"), "edited_at", json!(1.5)), "lead/1", "row"),
            (with(row("lead/1"), "older", json!([1])), "lead/1", "row"),
            (with(row("lead/1"), "edited_at", json!(u64::MAX)), "lead/1", "row"),
            (with(row("lead/1"), "older", json!({"a": 4})), "lead/1", "row"),
            (with(row("lead/1"), "older", json!([write(1 << 63, &["a"])])), "lead/1", "row"),
            (
                with(row("lead/1"), "older", json!([write(4, &["a"]), write(3, &["b", "a"])])),
                "lead/1",
                "row",
            ),
            (
                with(row("lead/1"), "floor", json!({"edited_at": 1u64 << 63, "op": OP})),
                "lead/1",
                "row",
            ),
            (with(row("lead/1"), "floor", json!(7)), "lead/1", "row"),
            (json!("row"), "\"row\"", "row"),
            (json!(null), "null", "row"),
        ];
        for (odd, name, fault) in odd {
            let read = answer(
                json!({"changes": [odd, row("lead/2")], "cursors": {"lead": "AAAAAAAAAAI"}}),
            );
            let read = read.unwrap_or_else(|error| panic!("{odd}: {error}"));
            assert_eq!(read.changes.len(), 1, "{odd}");
            let [aside] = read.set_aside.rows.as_slice() else { panic!("{odd}") };
            assert_eq!((aside.name.as_str(), aside.fault), (name, fault), "{odd}");
            assert_eq!(serde_json::from_str::<Value>(aside.row.as_ref().unwrap()).unwrap(), odd);
            assert_eq!(read.cursors.len(), 1);
        }
    }

    #[test]
    fn a_cursor_of_a_type_outside_our_rule_is_kept_under_its_name_and_a_broken_one_is_left_out() {
        let read =
            answer(json!({"cursors": {"lead": "AAAAAAAAAAI", "OrderLine": "AAE", "note": 7}}))
                .unwrap();
        assert_eq!(read.cursors.keys().map(EntityType::as_str).collect::<Vec<_>>(), ["lead"]);
        assert_eq!(read.set_aside.cursors.keys().collect::<Vec<_>>(), ["OrderLine"]);
    }

    #[test]
    fn a_record_within_an_outcome_is_set_aside_and_an_unknown_outcome_makes_the_answer_unreadable()
    {
        let unit = "018f3a2b-7bff-7000-8000-0000000000a1";
        let stale =
            json!([{"unit": unit, "outcome": "stale", "current": [row("Lead/1"), row("lead/1")]}]);
        let read = answer(json!({"outcomes": stale})).unwrap();
        assert_eq!((read.outcomes.len(), read.set_aside.rows.len()), (1, 1));
        for outcome in ["maybe", "applied", "unsupported"] {
            let unreadable = json!([{"unit": unit, "outcome": outcome}]);
            assert!(
                answer(json!({"outcomes": unreadable, "changes": [row("Lead/1")]})).is_err(),
                "{outcome}"
            );
        }
    }
}
