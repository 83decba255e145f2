//! Targets over the rules alone: laws that are true for any input.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook::audit::{Hlc, Seq};
use fieldbook::host::{MonotonicTime, Now, WallTime};
use fieldbook::record::{FieldsJson, OpId, OpKind, OpPlace};
use fieldbook::sync::Plan;
use fieldbook::{Actor, EntityRules, Fields, Mutation, RecordKey, Schema, limits};
use fieldbook_core::record::{Pending, Registers, TailOp};
use fieldbook_core::rows::{FieldReference, TailRow};
use fieldbook_core::rules::OpContent;
use fieldbook_core::rules::admit::admit;
use fieldbook_core::rules::clock::{ServerTime, entry_stamp, observe, stamp};
use fieldbook_core::rules::coalesce::coalesce as coalesced;
use fieldbook_core::rules::inspect::NoInspection;
use fieldbook_core::rules::plan::{PlanInput, plan};
use fieldbook_core::tail::Tail;
use serde_json::{Value, json};

use super::{App, Choices};
use crate::walk::{stroll, worlds};

/// Reads fields from text: all ways of reading them agree, and an admitted mutation makes exactly
/// its change.
pub fn fields_admit(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (image, patch) = text.split_once('\n').unwrap_or(("{}", text));
    let (quick, full) = (FieldsJson::parse(patch), Fields::parse(patch));
    assert_eq!(quick.is_ok(), full.is_ok(), "BUG: the quick check and the full parse disagree");
    let (Ok(json), Ok(patch), Ok(image)) = (quick, full, Fields::parse(image)) else { return };
    assert_eq!(
        json.to_fields().ok().as_ref(),
        Some(&patch),
        "BUG: the same text reads as two things"
    );
    assert_eq!(
        FieldsJson::parse(json.as_str()).as_ref(),
        Ok(&json),
        "BUG: stored text is not read back"
    );
    let Ok(key) = RecordKey::parse("lead", "1") else { return };
    let image = (choice & 1 == 1).then(|| image.into_image());
    let mutation = match choice >> 1 & 3 {
        0 => Mutation::create(key, patch),
        1 => Mutation::update(key, patch),
        2 => Mutation::replace(key, patch),
        _ => Mutation::delete(key),
    };
    let as_text = image.as_ref().map(Fields::to_json);
    let schema = Schema::open(EntityRules::default());
    let admitted = admit(&schema, as_text.as_ref(), &mutation);
    let of_text =
        admit(&schema, as_text.as_ref(), &Mutation { fields: json.into(), ..mutation.clone() });
    assert_eq!(of_text, admitted, "BUG: text and values come to two things");
    let Ok(admitted) = admitted else { return };
    let asked = applied(image.clone(), mutation.kind, &values(&mutation));
    match admitted {
        Some(json) => {
            let said = json.to_fields().unwrap_or_default();
            assert_eq!(
                applied(image, mutation.kind, &said),
                asked,
                "BUG: the op does something else"
            );
        }
        None => assert_eq!(image, asked, "BUG: a change was ignored"),
    }
}

fn values(mutation: &Mutation) -> Fields {
    mutation.fields.to_fields().unwrap_or_default()
}

/// Returns the record that the app reads after an op.
fn applied(image: Option<Fields>, kind: OpKind, fields: &Fields) -> Option<Fields> {
    match (kind, image) {
        (OpKind::Delete, _) => None,
        (OpKind::Create | OpKind::Update, Some(mut image)) => {
            image.apply(fields);
            Some(image)
        }
        (OpKind::Update, None) if fields.is_empty() => None,
        (OpKind::Create | OpKind::Update | OpKind::Replace, _) => Some(fields.clone().into_image()),
    }
}

/// Coalesces ops of a record: their coalesced change, joined to the confirmed record, has the same
/// result as the ops one by one.
pub fn coalesce(data: &[u8]) {
    let Some((&start, rest)) = data.split_first() else { return };
    let mut confirmed = Registers::default();
    if start & 1 == 1 {
        let made = tail_op(OpKind::Create, small_fields(start >> 1), 0);
        confirmed.join(&made.writes);
    }
    let ops: Vec<_> = (1..)
        .zip(rest.chunks_exact(2).take(64))
        .filter_map(|(at, bytes)| {
            let [kind, fields] = *bytes else { return None };
            let kind = match kind & 3 {
                0 => OpKind::Create,
                1 => OpKind::Update,
                2 => OpKind::Delete,
                _ => OpKind::Replace,
            };
            let fields = if kind == OpKind::Delete { Fields::new() } else { small_fields(fields) };
            Some(tail_op(kind, fields, at))
        })
        .collect();
    let one_by_one = confirmed.with(ops.iter().map(|op| &op.writes));
    let at_once = coalesced(&confirmed, ops.iter(), true)
        .map_or(confirmed.image(), |change| change.after.image());
    assert_eq!(one_by_one.image(), at_once, "BUG: the change does something else");
}

fn tail_op(kind: OpKind, fields: Fields, at: u64) -> TailOp {
    let (op, place) =
        (OpId::from_bytes(u128::from(at).to_be_bytes()), OpPlace { seq: Seq::new(at), index: 0 });
    let edited_at = Hlc::from_bits(at + 1);
    let content = OpContent { id: op, kind, edited_at, schema_version: 1, fields };
    let pending = Pending::new(op, place, kind, edited_at);
    TailOp::new(pending, content)
        .unwrap_or_else(|fault| panic!("BUG: fields that were built do not read: {fault}"))
}

/// Makes up to three fields, each absent, null or a number.
pub(super) fn small_fields(bits: u8) -> Fields {
    let named = ["a", "b", "c"].into_iter().zip([bits & 3, bits >> 2 & 3, bits >> 4 & 3]);
    let present = named.filter(|(_, choice)| *choice > 0);
    present
        .map(|(name, choice)| {
            (name.to_owned(), if choice == 1 { Value::Null } else { json!(choice) })
        })
        .collect()
}

/// Stamps edits by clocks that jump: an edit is later than everything that its author read; no
/// stamp is later than the server's clock allows, unless a stamp that was read is; and the entries
/// of a log are stamped in order.
pub fn clock(data: &[u8]) {
    let mut choices = Choices(data);
    let (mut wall, mut monotonic, mut last) = (1_767_225_600_000_i64, 0_u64, Hlc::ZERO);
    let (mut server, mut read, mut drawn) = (None, Hlc::ZERO, Hlc::ZERO);
    while !choices.is_empty() {
        let (what, by) = (choices.below(6), i64::from(choices.byte()));
        let large = 1_i64 << choices.below(48);
        match what {
            0 => wall = wall.saturating_add(by.saturating_mul(large)),
            1 => wall = wall.saturating_sub(by.saturating_mul(large)),
            2 => monotonic = monotonic.saturating_add(by.unsigned_abs()),
            3 => {
                let now = Now {
                    wall: WallTime::from_milliseconds(wall),
                    monotonic: MonotonicTime::from_milliseconds(monotonic),
                };
                let shown =
                    WallTime::from_milliseconds(wall.saturating_sub(by.saturating_mul(large)));
                server = Some(ServerTime::heard(shown, now));
                let seen =
                    Hlc::from_bits(by.unsigned_abs().wrapping_mul(large.unsigned_abs()) << 8);
                let next = observe(last, seen, shown);
                assert!(next > last, "BUG: having seen something takes the clock back");
                let bound = Hlc::at(shown.plus(limits::CLOCK_AHEAD)).max(last).next();
                assert!(next <= bound, "BUG: a stamp of someone else drags ours along");
                last = next;
            }
            4 => read = Hlc::from_bits(by.unsigned_abs().wrapping_mul(large.unsigned_abs()) << 8),
            _ => {}
        }
        let now = Now {
            wall: WallTime::from_milliseconds(wall),
            monotonic: MonotonicTime::from_milliseconds(monotonic),
        };
        let stamped = stamp(drawn, read, now, server);
        assert!(stamped.hlc > read, "BUG: a stamp does not come after what was read");
        if let Some(server) = server {
            let bound = Hlc::at(server.estimate(now).plus(limits::CLOCK_AHEAD));
            assert!(
                stamped.hlc <= bound.max(read.next()),
                "BUG: a stamp is beyond what the server's clock allows"
            );
        }
        drawn = stamped.hlc;
        let entry = entry_stamp(last, now, server);
        assert!(entry > last, "BUG: an entry is not stamped after the one before");
        last = entry;
    }
}

/// Runs people and messages in a small world, one byte for each step: conflicts under every policy,
/// in chains that a walk does not reach. No conflict is false, nothing is lost without a record,
/// and all devices come to rest in the same state.
pub fn policies(data: &[u8]) {
    let mut choices = Choices(data);
    let worlds = worlds();
    let Some(world) = worlds.get(choices.below(worlds.len())) else { return };
    let choose = |actions: usize| (!choices.is_empty()).then(|| choices.below(actions));
    let (broken, path) = stroll(world, data.len(), choose);
    assert!(broken.is_empty(), "BUG: in {:?}: {broken:?}\n{path}", world.name);
}

impl App {
    /// Admits mutations of the app's records: an admitted mutation makes exactly its change.
    pub fn admit(&self, data: &[u8]) {
        let mut choices = Choices(data);
        let mut images: BTreeMap<RecordKey, Fields> = BTreeMap::new();
        while !choices.is_empty() {
            let Some(key) = self.key(&mut choices) else { return };
            let mutation = self.mutation(key.clone(), images.contains_key(&key), &mut choices);
            let image = images.get(&key).cloned();
            let asked = applied(image.clone(), mutation.kind, &values(&mutation));
            let is_valid = image.is_some() != (mutation.kind == OpKind::Create);
            let admitted =
                admit(self.schema(), image.as_ref().map(Fields::to_json).as_ref(), &mutation);
            assert_eq!(
                admitted.is_ok(),
                is_valid,
                "BUG: {admitted:?} is said of a mutation of {key}"
            );
            match admitted {
                Ok(Some(json)) => {
                    let done = applied(image, mutation.kind, &json.to_fields().unwrap_or_default());
                    assert_eq!(done, asked, "BUG: the op does something else");
                    match done {
                        Some(fields) => images.insert(key, fields),
                        None => images.remove(&key),
                    };
                }
                Ok(None) => assert_eq!(image, asked, "BUG: a change was ignored"),
                Err(_) => {}
            }
        }
    }

    /// Plans a tail from bytes: the plan is the same each time, leaves no op out, divides no
    /// transaction, keeps every order, and keeps the batch limits.
    pub fn plan(&self, data: &[u8]) {
        let mut choices = Choices(data);
        let Some(ann) = Actor::parse("ann").ok() else { return };
        let (batch, now) =
            (1 + choices.below(8), WallTime::from_milliseconds(i64::from(choices.byte())));
        let tail = self.tail(&ann, &mut choices);
        let input = PlanInput::unbounded(&tail, self.schema(), &[], &ann, now, &NoInspection);
        let all = plan(&input);
        assert_eq!(plan(&input), all, "BUG: the same tail is planned in two ways");
        check_plan(&tail, &all, &ann);
        let part = plan(&PlanInput { batch_ops: batch, ..input });
        let changes: usize = part.groups.iter().map(|group| group.records.len()).sum();
        assert!(
            changes <= batch || part.groups.len() == 1,
            "BUG: {changes} changes in a batch of {batch}"
        );
        let prefix = all.groups.iter().take(part.groups.len());
        assert!(prefix.eq(&part.groups) || part.more, "BUG: a smaller batch is another plan");
    }

    fn tail(&self, ann: &Actor, choices: &mut Choices<'_>) -> Tail {
        let mut tail = Tail::default();
        let bob = Actor::parse("bob").unwrap_or_else(|_| ann.clone());
        let mut there: BTreeSet<RecordKey> = BTreeSet::new();
        for seq in 1..=12_u64 {
            if choices.is_empty() {
                break;
            }
            let actor = if choices.below(8) == 0 { &bob } else { ann };
            let ops = if choices.below(4) == 0 { 1 + choices.below(3) } else { 1 };
            for index in 0..ops {
                let Some(key) = self.key(choices) else { return tail };
                let mutation = self.mutation(
                    key.clone(),
                    there.contains(&key) || choices.below(2) == 0,
                    choices,
                );
                let kind = if there.insert(key.clone()) {
                    mutation.kind
                } else {
                    not_create(mutation.kind)
                };
                let place =
                    OpPlace { seq: Seq::new(seq), index: u32::try_from(index).unwrap_or(0) };
                let id = u8::try_from(seq * 8).unwrap_or(0) + u8::try_from(index).unwrap_or(0);
                let row = TailRow {
                    op: OpId::from_bytes([id; 16]),
                    kind,
                    actor: actor.clone(),
                    edited_at: Hlc::from_bits(seq),
                    made_at: WallTime::from_milliseconds(0),
                    schema_version: 1,
                    upcast: None,
                    transaction_ops: u32::try_from(ops).unwrap_or(1),
                    bytes: 10,
                    references: self.references(&key, &values(&mutation)),
                    led_away: Vec::new(),
                    key,
                };
                tail.insert(place, row);
                if choices.below(12) == 0 {
                    tail.set_dead(place, true);
                }
            }
        }
        tail
    }

    fn references(&self, key: &RecordKey, fields: &Fields) -> Vec<FieldReference> {
        let rules = self.rules(&key.entity);
        let named = rules.references.iter().filter_map(|reference| {
            let id = fields.get(&reference.field)?.as_str()?;
            let target = RecordKey::parse(reference.entity.as_str(), id).ok()?;
            Some(FieldReference { field: reference.field.clone(), target: Some(target) })
        });
        named.filter(|reference| reference.target.as_ref() != Some(key)).collect()
    }
}

const fn not_create(kind: OpKind) -> OpKind {
    match kind {
        OpKind::Create => OpKind::Update,
        kind => kind,
    }
}

fn check_plan(tail: &Tail, plan: &Plan, actor: &Actor) {
    let mut planned: BTreeMap<OpPlace, usize> = BTreeMap::new();
    for (number, group) in plan.groups.iter().enumerate() {
        assert_eq!(group.actor, *actor, "BUG: another actor's ops are planned");
        for (key, places) in &group.records {
            assert!(places.is_sorted() && !places.is_empty(), "BUG: ops of {key} out of order");
            let waiting: Vec<_> = tail.ops_of(key).filter(|place| !tail.is_dead(*place)).collect();
            // Ops that were planned before, in this plan, are sent first.
            let before = waiting.iter().filter(|place| planned.contains_key(*place)).count();
            let rest: Vec<_> = waiting.into_iter().skip(before).take(places.len()).collect();
            assert_eq!(&rest, places, "BUG: an op of {key} overtakes an earlier one");
            for place in places {
                assert!(
                    tail.op(*place).is_some_and(|row| row.actor == *actor),
                    "BUG: another actor's op is planned"
                );
                assert!(planned.insert(*place, number).is_none(), "BUG: an op is planned twice");
            }
        }
    }
    for (place, row) in tail.ops().filter(|(place, _)| !tail.is_dead(*place)) {
        let accounted = planned.contains_key(&place) != plan.holds.contains_key(&place);
        assert!(accounted, "BUG: op {place} of {} is neither planned nor held, or both", row.key);
        let mates = tail.ops_of_entry(place.seq).filter(|(mate, _)| !tail.is_dead(*mate));
        let mut groups: Vec<_> = mates.map(|(mate, _)| planned.get(&mate)).collect();
        groups.dedup();
        assert_eq!(groups.len(), 1, "BUG: the transaction {} is torn apart", place.seq);
    }
}
