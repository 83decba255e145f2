//! Takes the answer of a sound server, changes one part of it, and expects a refusal.

use std::collections::BTreeMap;

use super::*;
use crate::entry::SignedNote;
use crate::fields::FieldsJson;
use crate::ids::{DeviceId, OpId, RequestId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::note::{KEY_BYTES, NOTE_KEYS, NoteKind, SignError, Signer, Statement, sign};
use crate::numbers::Hash;
use crate::op::OpKind;
use crate::protocol::{HeadClaim, UnitChange, UnitOutcome};
use crate::record::FieldWrites;
use crate::rules::test_view;
use crate::time::{Hlc, WallTime};

const NOW: WallTime = WallTime::from_milliseconds(1_800_000_000_000);

fn key() -> RecordKey {
    RecordKey::parse("lead", "1").unwrap()
}

fn unit() -> UnitId {
    UnitId::from_bytes([4; 16])
}

fn receipt(seq: u64) -> Receipt {
    Receipt { seq: Seq::new(seq), hash: Hash::from_bytes([9; 32]) }
}

fn request() -> ExchangeRequest {
    let change = UnitChange {
        key: key(),
        kind: OpKind::Update,
        base: Some(Version::new(7)),
        ops: vec![OpId::from_bytes([1; 16])],
        edited_at: Hlc::at(NOW),
        older: Vec::new(),
        schema_version: 1,
        fields: Some(FieldsJson::default()),
    };
    let Receipt { seq, hash } = receipt(40);
    ExchangeRequest {
        head: Some(HeadClaim { anchor: None, contents: Vec::new(), seq, hash }),
        units: vec![Unit { id: unit(), changes: vec![change], earlier_units: Vec::new() }],
        page_limit: 10,
        ..ExchangeRequest::new(
            RequestId::from_bytes([1; 16]),
            DeviceId::from_bytes([2; 16]),
            Epoch::from_bytes([3; 16]),
            Actor::parse("ann").unwrap(),
        )
    }
}

fn written(edited_at: Hlc, field: &str) -> FieldWrites {
    FieldWrites { edited_at, op: OpId::from_bytes([6; 16]), fields: vec![field.to_owned()] }
}

fn change(version: u64) -> Change {
    Change {
        key: RecordKey::parse("lead", "2").unwrap(),
        version: Version::new(version),
        edited_at: Hlc::at(NOW),
        op: OpId::from_bytes([5; 16]),
        by: None,
        older: vec![written(Hlc::ZERO, "a")],
        floor: None,
        deleted: false,
        partial: false,
        fields: Some(FieldsJson::default()),
    }
}

fn applied(version: u64) -> Outcome {
    Outcome::Applied {
        versions: BTreeMap::from([(key(), Version::new(version))]),
        current: Vec::new(),
    }
}

fn answer() -> ExchangeAnswer {
    ExchangeAnswer {
        server_time: NOW,
        outcomes: vec![UnitOutcome { unit: unit(), outcome: applied(9) }],
        changes: vec![change(8)],
        receipt: Some(receipt(40)),
        ..test_view::answer()
    }
}

fn known() -> KnownOfServer {
    KnownOfServer {
        anchor: Some(receipt(30)),
        highest: Version::new(7),
        epoch: Some(Epoch::from_bytes([3; 16])),
        epoch_from: Seq::new(20),
    }
}

fn changed(change_it: impl FnOnce(&mut ExchangeAnswer)) -> Result<(), &'static str> {
    let mut answer = answer();
    change_it(&mut answer);
    credible(&request(), &answer, &known())
}

#[test]
fn what_a_sound_server_says_passes() {
    assert_eq!(changed(|_| ()), Ok(()));
    assert_eq!(
        changed(|answer| answer.receipt = Some(receipt(30))),
        Ok(()),
        "what is anchored already"
    );
    assert_eq!(changed(|answer| answer.forked = Some(receipt(25))), Ok(()));
    assert_eq!(
        changed(|answer| answer.server_time = WallTime::default()),
        Ok(()),
        "its clock stands still"
    );
    let restored = limits::EPOCH_COMMITS + 7;
    assert_eq!(changed(|answer| answer.changes[0].version = Version::new(restored)), Ok(()));
    let first = KnownOfServer::default();
    let far = ExchangeAnswer { changes: vec![change(limits::VERSION_MOST)], ..answer() };
    assert_eq!(credible(&request(), &far, &first), Ok(()), "of this epoch nothing is known yet");
}

#[test]
fn what_cannot_be_is_refused_with_its_code() {
    type Change = Box<dyn FnOnce(&mut ExchangeAnswer)>;
    let version = |number| Version::new(number);
    let cases: Vec<(&str, Change)> = vec![
        ("server_time", Box::new(|a| a.server_time = WallTime::from_milliseconds(i64::MAX))),
        ("server_time", Box::new(|a| a.server_time = WallTime::from_milliseconds(-1))),
        ("stamp", Box::new(|a| a.changes[0].edited_at = Hlc::from_bits(u64::MAX))),
        ("stamp", Box::new(|a| a.changes[0].older.push(written(Hlc::from_bits(u64::MAX), "b")))),
        (
            "stamp",
            Box::new(|a| a.changes[0].floor = Some(written(Hlc::from_bits(u64::MAX), "").stamp())),
        ),
        ("version", Box::new(move |a| a.changes[0].version = version(u64::MAX))),
        ("version", Box::new(move |a| a.changes[0].version = version(limits::VERSION_MOST + 1))),
        ("version", Box::new(move |a| a.changes[0].version = version(0))),
        (
            "version_leap",
            Box::new(move |a| a.changes[0].version = version(8 + limits::VERSION_LEAP)),
        ),
        ("version", Box::new(|a| a.outcomes[0].outcome = applied(u64::MAX))),
        ("version", Box::new(|a| a.outcomes[0].outcome = applied(0))),
        ("version_leap", Box::new(|a| a.outcomes[0].outcome = applied(8 + limits::VERSION_LEAP))),
        ("outcome", Box::new(|a| a.outcomes.push(a.outcomes[0].clone()))),
        (
            "outcome",
            Box::new(|a| {
                let entity = EntityType::parse("note").unwrap();
                a.outcomes[0].outcome = Outcome::Unsupported { entity, code: "unknown".into() };
            }),
        ),
        ("receipt", Box::new(|a| a.receipt = Some(receipt(41)))),
        ("receipt", Box::new(|a| a.receipt = Some(receipt(u64::MAX)))),
        ("forked", Box::new(|a| a.forked = Some(receipt(19)))),
        ("too_many_changes", Box::new(|a| a.changes = vec![change(8); limits::ANSWER_CHANGES + 1])),
        (
            "older",
            Box::new(|a| {
                a.changes[0].older.push(written(Hlc::ZERO, &"n".repeat(limits::OLDER_BYTES)))
            }),
        ),
        (
            "older",
            Box::new(|a| {
                a.changes[0].older = vec![written(Hlc::ZERO, ""); limits::OLDER_BYTES / 28]
            }),
        ),
    ];
    for (number, (code, change_it)) in cases.into_iter().enumerate() {
        assert_eq!(changed(change_it), Err(code), "case {number}");
    }
}

#[test]
fn who_claimed_no_head_gets_no_word_of_one() {
    let request = ExchangeRequest { head: None, units: Vec::new(), ..request() };
    let bare = ExchangeAnswer { outcomes: Vec::new(), ..answer() };
    assert_eq!(credible(&request, &bare, &known()), Err("receipt"));
    let forked = ExchangeAnswer { receipt: None, forked: Some(receipt(40)), ..bare };
    assert_eq!(credible(&request, &forked, &known()), Err("forked"));
}

#[test]
fn an_outcome_of_a_unit_that_was_not_sent_is_not_looked_at() {
    let mut told = answer();
    told.outcomes.push(UnitOutcome { unit: UnitId::from_bytes([6; 16]), outcome: applied(10) });
    assert_eq!(credible(&request(), &told, &known()), Ok(()));
    drop_unasked(&request(), &mut told);
    assert_eq!(told.outcomes, answer().outcomes);
}

struct NobodySigns;

impl Signer for NobodySigns {
    fn verifier(&self) -> String {
        "server/a+07070707+AQ==".to_owned()
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        Ok([7; 64])
    }
}

fn stated() -> Statement {
    let Receipt { seq, hash } = receipt(40);
    let (device, epoch) = (request().device, request().epoch);
    Statement { kind: NoteKind::Receipt, device, epoch, seq, hash, at: NOW }
}

fn signed(stated: &Statement) -> SignedNote {
    SignedNote { note: sign(stated, &[&NobodySigns]).unwrap(), keys: vec![NobodySigns.verifier()] }
}

#[test]
fn a_note_is_about_the_receipt_of_its_answer_or_is_refused() {
    let said = |signed: SignedNote| changed(|answer| answer.signed = Some(signed));
    assert_eq!(said(signed(&stated())), Ok(()));
    let right = signed(&stated());
    let other_hash = Hash::from_bytes([8; 32]);
    let wrong = [
        signed(&Statement { kind: NoteKind::Checkpoint, ..stated() }),
        signed(&Statement { device: DeviceId::from_bytes([9; 16]), ..stated() }),
        signed(&Statement { epoch: Epoch::from_bytes([9; 16]), ..stated() }),
        signed(&Statement { seq: Seq::new(39), ..stated() }),
        signed(&Statement { hash: other_hash, ..stated() }),
        SignedNote { note: stated().text(), ..right.clone() },
        SignedNote { note: "x".repeat(1 << 20), ..right.clone() },
        SignedNote { keys: vec![String::new(); NOTE_KEYS + 1], ..right.clone() },
        SignedNote { keys: vec!["k".repeat(KEY_BYTES + 1)], ..right.clone() },
        SignedNote { keys: vec!["k\n".to_owned()], ..right.clone() },
    ];
    for (number, wrong) in wrong.into_iter().enumerate() {
        assert_eq!(said(wrong), Err("note"), "case {number}");
    }
    let without = ExchangeAnswer { receipt: None, signed: Some(right), ..answer() };
    assert_eq!(credible(&request(), &without, &known()), Err("note"));
}

#[test]
fn a_note_of_a_later_version_passes_and_is_not_recorded() {
    let mut later = signed(&stated());
    later.note = later.note.replace("receipt/v1", "receipt/v2");
    let told = ExchangeAnswer { signed: Some(later), ..answer() };
    assert_eq!(credible(&request(), &told, &known()), Ok(()));
    assert_eq!(note::of(&told), None);
    let told = ExchangeAnswer { signed: Some(signed(&stated())), ..answer() };
    assert_eq!(note::of(&told), told.signed.as_ref());
}
