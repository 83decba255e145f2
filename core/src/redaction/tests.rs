//! One redaction test for each variant of an entry. A new variant without one does not compile.
//!
//! Each test takes the entry of the golden log with this variant, puts canaries in its values and
//! its names, and searches the bytes of the bundle for them.

use std::path::PathBuf;

use data_encoding::{BASE64_NOPAD, HEXLOWER};

use super::names::{Names, header, meta};
use super::*;
use crate::entry::{Decision, ItemValue, NOT_IN_BUNDLE, PersonAction, SignedNote, chain, frame};
use crate::ids::{DeviceId, Epoch, RequestId, TenantId};
use crate::numbers::Cursor;
use crate::random::SeededRandomness;

const CANARY: &str = "qZ7canary";

/// Returns every form in which a text could stand in a file: as it is, as UTF-16, escaped, in
/// hexadecimal digits, and as base64 at each of the three alignments.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
    let mut forms = vec![
        text.as_bytes().to_vec(),
        units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
        units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
        escaped.into_bytes(),
        HEXLOWER.encode(text.as_bytes()).into_bytes(),
    ];
    for before in 0..3 {
        let padded = [&vec![0; before], text.as_bytes()].concat();
        let whole = padded.len() / 3 * 3;
        let encoded = BASE64_NOPAD.encode(&padded[..whole]);
        forms.push(encoded.as_bytes()[4 * before.min(1)..].to_vec());
    }
    forms
}

#[track_caller]
fn assert_has_no(bytes: &[u8], text: &str) {
    for form in forms(text) {
        let is_there = bytes.windows(form.len()).any(|at| at == form.as_slice());
        assert!(!is_there, "{text} is there as {:?}", String::from_utf8_lossy(&form));
    }
}

/// Names with canaries in them.
struct Marked;

impl Names for Marked {
    fn record(&mut self, key: &RecordKey) -> RecordKey {
        RecordKey::parse(key.entity.as_str(), &format!("{CANARY}{}", key.id)).unwrap()
    }
    fn actor(&mut self, actor: &Actor) -> Actor {
        Actor::parse(&format!("{CANARY}{actor}")).unwrap()
    }
    fn op(&mut self, id: OpId) -> OpId {
        id
    }
    fn unit(&mut self, id: UnitId) -> UnitId {
        id
    }
    fn request(&mut self, id: RequestId) -> RequestId {
        id
    }
    fn device(&mut self, id: DeviceId) -> DeviceId {
        id
    }
    fn epoch(&mut self, id: Epoch) -> Epoch {
        id
    }
    fn tenant(&mut self, id: TenantId) -> TenantId {
        id
    }
    fn digest(&mut self, digest: Hash) -> Hash {
        digest
    }
    fn cursor(&mut self, _: &Cursor) -> Cursor {
        Cursor::new(format!("{CANARY}-cursor").into_bytes()).unwrap()
    }
    fn foreign(&mut self, _: &str) -> String {
        format!("{CANARY}-foreign")
    }
    fn note(&mut self, note: &SignedNote) -> SignedNote {
        SignedNote { keys: vec![format!("device/{CANARY}+01+02")], ..note.clone() }
    }
}

/// Where an entry has canaries.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    Values,
    NamesToo,
}

fn golden() -> Vec<Entry> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/format-2");
    let bytes = std::fs::read(folder.join("every-variant.log")).unwrap();
    let (mut at, mut entries) = (16, Vec::new());
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        entries.push(Entry::decode(&bytes[at + 4..at + 4 + length]).unwrap());
        at += 4 + length;
    }
    entries
}

/// Returns the stored bytes of an entry with canaries in all items.
fn with_canaries(entry: &Entry, in_names: Where) -> Vec<u8> {
    let contents = contents(entry);
    let items: Vec<_> = (0..)
        .zip(&entry.items)
        .map(|(index, _)| {
            let text = match contents.get(&index) {
                Some(Content::Values(_)) => format!(
                    r#"{{"name":"{CANARY}","nested":{{"{CANARY}":["{CANARY}\n",{{"a":"{CANARY}"}}]}}}}"#
                ),
                Some(Content::Declarations) => r#"{"entities":{}}"#.to_owned(),
                Some(Content::Text) | None => format!("no: {CANARY}"),
            };
            Item::Present { salt: [7; 16], value: ItemValue::Bytes(text.into_bytes()) }
        })
        .collect();
    let (mut header_of, mut meta_of) = (entry.header.clone(), entry.meta.clone());
    if in_names == Where::NamesToo {
        (header_of, meta_of) = (header(&header_of, &mut Marked), meta(&meta_of, &mut Marked));
    }
    let write = |bytes: &mut Vec<u8>| codec::encode_onto(bytes, &meta_of);
    frame::write(&header_of, write, &items, &Hash::ZERO).unwrap().bytes
}

fn redacted(stored: &[u8], wanted: Wanted) -> (Vec<u8>, Redactor) {
    let mut redactor = Redactor::new(wanted);
    let entry = Entry::decode(stored).unwrap();
    redactor.learn(&entry);
    redactor.settle(&entry);
    let bytes = redactor.redact(stored, &mut SeededRandomness::from_number(7)).unwrap();
    (bytes, redactor)
}

/// Checks the entries of the golden log that have a variant.
#[track_caller]
fn hides(has: impl Fn(&Meta) -> bool) {
    let entries: Vec<_> = golden().into_iter().filter(|entry| has(&entry.meta)).collect();
    assert!(!entries.is_empty(), "the golden log has no such entry");
    for entry in &entries {
        default_hides_values(entry);
        hidden_ids_hide_names(entry);
    }
}

#[track_caller]
fn default_hides_values(entry: &Entry) {
    let stored = with_canaries(entry, Where::Values);
    let (bytes, _) = redacted(&stored, Wanted::default());
    assert_has_no(&bytes, CANARY);
    let (before, after) = (Entry::decode(&stored).unwrap(), Entry::decode(&bytes).unwrap());
    assert!(!after.told, "its names may leave, so it is whole");
    assert_eq!((after.hash, after.content), (before.hash, before.content));
    assert_eq!((after.meta, after.header), (before.meta, before.header));
    for (hidden, item) in after.items.iter().zip(&before.items) {
        assert_eq!(hidden.commitment(), item.commitment());
    }
}

#[track_caller]
fn hidden_ids_hide_names(entry: &Entry) {
    let stored = with_canaries(entry, Where::NamesToo);
    let wanted = Wanted { hides_ids: true, ..Wanted::default() };
    let (bytes, _) = redacted(&stored, wanted);
    assert_has_no(&bytes, CANARY);
    let (before, after) = (Entry::decode(&stored).unwrap(), Entry::decode(&bytes).unwrap());
    assert!(after.told);
    assert_eq!((after.hash, after.content), (before.hash, before.content));
    assert_eq!(after.header.hlc, before.header.hlc);
    // Without these nobody can compute the hash of the content from a guess.
    assert_ne!(after.header.epoch, before.header.epoch);
    let hidden = after.items.iter().filter(|item| item.bytes().is_none());
    assert!(hidden.into_iter().all(|item| item.commitment() == Hash::ZERO));
    let ids = Found::of(&before).ops.into_iter().map(|id| *id.as_bytes());
    for id in ids.chain(Found::of(&before).units.into_iter().map(|id| *id.as_bytes())) {
        assert!(!bytes.windows(16).any(|at| at == id), "an id of an op or a unit is there");
    }
}

/// Makes one test for each variant, and a function that does not compile without one.
macro_rules! one_test_each {
    ($every:ident of $kind:ty, $has:ident: $($test:ident => $variant:pat,)*) => {
        $(#[test]
        fn $test() {
            hides(|meta| $has(meta, |one| matches!(one, $variant)));
        })*

        /// A variant without a test is missing here, and this does not compile.
        #[expect(dead_code, reason = "it is there to be compiled")]
        fn $every(one: &$kind) {
            match one { $($variant => {})* }
        }
    };
}

fn kind(meta: &Meta, is: impl Fn(&Meta) -> bool) -> bool {
    is(meta)
}

fn control(meta: &Meta, is: impl Fn(&Control) -> bool) -> bool {
    matches!(meta, Meta::Control(control) if is(control))
}

fn decision(meta: &Meta, is: impl Fn(&Decision) -> bool) -> bool {
    let Meta::Control(Control::Decided(all) | Control::PersonActed(_, all)) = meta else {
        return false;
    };
    all.iter().any(is)
}

fn action(meta: &Meta, is: impl Fn(&PersonAction) -> bool) -> bool {
    matches!(meta, Meta::Control(Control::PersonActed(action, _)) if is(action))
}

one_test_each! { every_kind of Meta, kind:
    an_intent_leaves_no_value => Meta::Intent(_),
    an_answer_leaves_no_value => Meta::Upstream(_),
    a_control_entry_leaves_no_value => Meta::Control(_),
}

one_test_each! { every_control of Control, control:
    an_opening_leaves_no_value => Control::Opened(_),
    a_plan_leaves_no_value => Control::Planned(_),
    decisions_leave_no_value => Control::Decided(_),
    an_act_of_a_person_leaves_no_value => Control::PersonActed(..),
    a_new_epoch_leaves_no_value => Control::EpochStarted { .. },
    a_session_leaves_no_value => Control::Session(_),
    a_silence_leaves_no_value => Control::Silence(_),
    authors_leave_no_value => Control::Authors(_),
    a_note_leaves_no_value => Control::Note(_),
    an_erasure_leaves_no_value => Control::Erased(_),
    a_baseline_leaves_no_value => Control::Baseline(_),
    a_trimming_leaves_no_value => Control::Trimmed(_),
}

one_test_each! { every_action of PersonAction, action:
    a_retry_of_a_person_leaves_no_value => PersonAction::Retry,
    a_reason_to_discard_does_not_leave => PersonAction::Discard { .. },
    an_undo_leaves_no_value => PersonAction::Undo,
    a_resolution_of_a_person_leaves_no_value => PersonAction::Resolve,
    a_resumption_leaves_no_value => PersonAction::Resume,
    an_acceptance_leaves_no_value => PersonAction::AcceptServer,
    a_handing_over_of_a_person_leaves_no_value => PersonAction::HandOver,
}

one_test_each! { every_decision of Decision, decision:
    an_acked_unit_leaves_no_value => Decision::Acked { .. },
    a_tried_unit_leaves_no_value => Decision::Tried { .. },
    a_requeued_unit_leaves_no_value => Decision::Requeued { .. },
    a_conflict_leaves_no_value => Decision::Conflicted(_),
    a_superseded_op_leaves_no_value => Decision::Superseded { .. },
    dropped_fields_leave_no_value => Decision::Dropped { .. },
    raised_fields_leave_no_value => Decision::Raised { .. },
    a_record_brought_back_leaves_no_value => Decision::BroughtBack { .. },
    a_message_of_a_refusal_does_not_leave => Decision::DeadLettered { .. },
    a_retried_op_leaves_no_value => Decision::Retried { .. },
    a_discarded_op_leaves_no_value => Decision::Discarded { .. },
    a_cancelled_op_leaves_no_value => Decision::Cancelled(_),
    a_park_leaves_no_value => Decision::Parked { .. },
    the_end_of_a_park_leaves_no_value => Decision::Unparked { .. },
    a_resolved_conflict_leaves_no_value => Decision::Resolved { .. },
    an_accepted_server_leaves_no_value => Decision::ServerAccepted { .. },
    a_server_read_leaves_no_value => Decision::ServerRead,
    an_adopted_record_leaves_no_value => Decision::Adopted { .. },
    an_upcast_leaves_no_value => Decision::Upcast { .. },
    suspected_units_leave_no_value => Decision::Suspected { .. },
    restamped_ops_leave_no_value => Decision::Restamped { .. },
    a_tenant_leaves_no_value => Decision::BelongsTo { .. },
    a_row_set_aside_does_not_leave => Decision::SetAside { .. },
    a_foreign_cursor_leaves_no_value => Decision::ReadForeign { .. },
    a_handed_over_op_leaves_no_value => Decision::HandedOver { .. },
    a_record_let_go_leaves_no_value => Decision::LetGo { .. },
}

#[test]
fn a_hidden_item_reads_as_not_in_this_bundle_and_never_as_nothing() {
    let entries = golden();
    let entry = entries.iter().find(|entry| matches!(entry.meta, Meta::Intent(_))).unwrap();
    let (bytes, _) = redacted(&with_canaries(entry, Where::Values), Wanted::default());
    let read = Entry::decode(&bytes).unwrap().fields(0).unwrap().unwrap();
    let seq = entry.header.seq;
    assert_eq!(read.as_str(), format!(r#"{{"{NOT_IN_BUNDLE}":"values of entry {seq}"}}"#));
}

#[test]
fn a_shown_field_is_told_and_all_shown_fields_are_proven() {
    let entries = golden();
    let entry = entries.iter().find(|entry| matches!(entry.meta, Meta::Intent(_))).unwrap();
    let stored = with_canaries(entry, Where::Values);
    let of = |shown: &[&str]| {
        let shown = shown.iter().map(|text| text.parse().unwrap()).collect();
        let (bytes, redactor) = redacted(&stored, Wanted { shown, ..Wanted::default() });
        let item = Entry::decode(&bytes).unwrap().items.remove(0);
        (item, redactor.counts().told_fields)
    };
    let Meta::Intent(intent) = &entry.meta else { panic!("it is an intent") };
    let entity = &intent.ops[0].key.entity;
    let (item, told) = of(&[&format!("{entity}.name")]);
    assert!(matches!(item, Item::Hidden { told, .. } if told == br#"{"name":"qZ7canary"}"#));
    assert!(told > 0);
    for all in
        [&[format!("{entity}.*")][..], &[format!("{entity}.name"), format!("{entity}.nested")]]
    {
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        assert!(matches!(of(&all).0, Item::Present { .. }), "the commitment is over all fields");
    }
    assert!(of(&["other.*"]).0.is_hidden());
    for wrong in ["lead", "lead.", ".name", "Lead.name", ""] {
        assert!(wrong.parse::<Shown>().is_err(), "{wrong}");
    }
}

#[test]
fn the_same_name_has_one_pseudonym_and_another_bundle_another_one() {
    let entries = golden();
    let told = |seed: u64| {
        let mut redactor = Redactor::new(Wanted { hides_ids: true, ..Wanted::default() });
        let mut random = SeededRandomness::from_number(seed);
        for entry in &entries {
            redactor.learn(entry);
        }
        for entry in &entries {
            redactor.redact(&with_canaries(entry, Where::Values), &mut random).unwrap();
        }
        (redactor.records().clone(), redactor.counts().told_entries)
    };
    let ((one, count), (other, _)) = (told(1), told(2));
    assert_eq!(count, entries.len() as u64);
    assert!(!one.is_empty() && one.keys().eq(other.keys()));
    let distinct: BTreeSet<_> = one.values().collect();
    assert_eq!(distinct.len(), one.len(), "no two records have the same pseudonym");
    assert!(one.iter().zip(&other).all(|(one, other)| one.1 != other.1));
}

#[test]
fn a_told_entry_proves_its_place_and_a_changed_hash_of_its_content_shows() {
    let entries = golden();
    let stored = with_canaries(&entries[1], Where::Values);
    let (mut bytes, _) = redacted(&stored, Wanted { hides_ids: true, ..Wanted::default() });
    let follows = |bytes: &[u8]| {
        let entry = Entry::decode(bytes).unwrap();
        chain::link(&Hash::ZERO, &entry.content) == entry.hash
    };
    assert!(follows(&bytes));
    bytes[4] ^= 1;
    assert!(!follows(&bytes));
}
