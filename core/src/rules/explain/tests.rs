//! Each row of the table, each reason and its words. `tests/explain.rs` has the explanations of
//! real books.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;
use crate::entry::{
    ConflictedField, FieldsSource, ParkScope, PlannedChange, PlannedOp, ResolvedBy, Winner,
};
use crate::fields::Fields;
use crate::ids::{OpId, ServerEpoch, ServerId, TenantId, UnitId};
use crate::names::Actor;
use crate::numbers::{Hash, Seq, Version};
use crate::op::OpKind;
use crate::record::Pending;
use crate::rows::{Confirmed, DeadLetterRow, UnitRow};
use crate::rules::plan::Hold;
use crate::rules::status::{Awaited, OpState, ParkReason, UserAction};
use crate::schema::Policy;
use crate::tail::Tail;
use crate::time::Hlc;

/// A value of a field, which no explanation may contain.
const SECRET: &str = "canary-8d1c";

/// The known facts of `lead/1`: none at first.
#[derive(Default)]
struct Record {
    row: RecordRow,
    tail: Tail,
    holds: BTreeMap<OpPlace, Hold>,
    dead: BTreeMap<OpId, DeadLetterRow>,
    conflicts: Vec<(ConflictId, ConflictRow)>,
    authors: Vec<Option<Actor>>,
    undeclared: bool,
    book_synced_at: Option<WallTime>,
    sending: BTreeSet<UnitId>,
    written_at: BTreeMap<Seq, WallTime>,
}

impl Record {
    /// Makes a record that was created in entry 1 and updated in the entries after it.
    fn with_ops(count: u8) -> Self {
        let mut known = Self::default();
        known.row.visible = Visible::Own(secret());
        for seq in 1..=count {
            let kind = if seq == 1 { OpKind::Create } else { OpKind::Update };
            known.row.tail.push(reference(seq, kind));
            known.tail.insert(place(seq), tail_row(seq, kind));
        }
        known
    }

    fn holding(mut self, seq: u8, hold: Hold) -> Self {
        self.holds.insert(place(seq), hold);
        self
    }

    /// Puts an op into a unit that was planned in entry 9.
    fn planned(mut self, seq: u8, tries: u32) -> Self {
        let row = UnitRow { tries, ..unit_row(seq) };
        self.tail.put_unit(unit(), &row);
        self.written_at.insert(Seq::new(9), at(9));
        self
    }

    /// Lets an exchange with that unit run.
    fn on_its_way(mut self) -> Self {
        self.sending.insert(unit());
        self
    }

    fn refused(mut self, seq: u8) -> Self {
        let letter = DeadLetterRow {
            key: key(),
            op: planned(seq),
            kind: OpKind::Create,
            actor: actor("ann"),
            unit: unit(),
            code: "invalid".to_owned(),
            message: "a lead needs a name".to_owned(),
            tries: 3,
            first_at: at(3),
            last_at: at(5),
            recorded: Seq::new(10),
        };
        self.dead.insert(letter.op.id, letter);
        self
    }

    fn meeting(mut self, open: bool) -> Self {
        self.conflicts.push((ConflictId { seq: Seq::new(47), number: 2 }, conflict_row(open)));
        self
    }

    fn confirmed(mut self, deleted: bool) -> Self {
        let fields = secret();
        let edited_at = Hlc::from_bits(0);
        let (op, older, floor) = (OpId::from_bytes([0; 16]), Vec::new(), None);
        let version = Version::new(7);
        self.row.confirmed =
            Some(Confirmed { version, edited_at, op, older, floor, deleted, fields });
        self
    }

    #[track_caller]
    fn explained(&self) -> Explanation {
        let open = self
            .conflicts
            .iter()
            .filter(|(_, row)| row.open)
            .map(|(id, row)| (row.op.id, *id))
            .collect();
        let explanation = explain(&Facts {
            key: &key(),
            row: &self.row,
            known: Known {
                tail: &self.tail,
                holds: &self.holds,
                dead: &self.dead,
                open: &open,
                sending: &self.sending,
                written_at: &self.written_at,
            },
            conflicts: &self.conflicts,
            authors: &self.authors,
            undeclared: self.undeclared,
            entity_synced_at: None,
            book_synced_at: self.book_synced_at,
        });
        let shown = format!(
            "{explanation} {explanation:?} {}",
            serde_json::to_string(&explanation).unwrap()
        );
        assert!(!shown.contains(SECRET), "{shown}");
        assert_eq!(explanation.ops.len(), self.row.tail.len());
        for op in &explanation.ops {
            let told = format!("Change {},", op.place);
            assert!(
                explanation.sentences.iter().any(|sentence| sentence.starts_with(&told)),
                "{explanation}"
            );
        }
        explanation
    }

    #[track_caller]
    fn says(&self, sentence: &str) {
        let explanation = self.explained();
        assert!(explanation.sentences.iter().any(|said| said.contains(sentence)), "{explanation}");
    }
}

#[test]
fn an_op_of_a_transaction_names_the_records_that_go_with_it() {
    let of_transaction = |others: &[&str]| {
        let mut known = Record::with_ops(1);
        let ops = u32::try_from(others.len() + 1).unwrap();
        known
            .tail
            .insert(place(1), TailRow { transaction_ops: ops, ..tail_row(1, OpKind::Create) });
        for (index, other) in (1..).zip(others) {
            let row = TailRow {
                op: OpId::from_bytes([100 + index; 16]),
                key: other.parse().unwrap(),
                transaction_ops: ops,
                ..tail_row(1, OpKind::Create)
            };
            known.tail.insert(OpPlace { seq: Seq::new(1), index: index.into() }, row);
        }
        known
    };
    of_transaction(&["note/7"]).says(
        "It is one of 2 changes that the server takes together or not at all, with those of note/7.",
    );
    of_transaction(&["note/7", "note/7", "note/8"]).says("those of note/7 and note/8.");
    of_transaction(&["note/1", "note/2", "note/3", "note/4", "note/5"])
        .says("one of 6 changes that the server takes together or not at all, with those of note/1, note/2, note/3 and others.");
    let alone = Record::with_ops(2).explained();
    assert!(alone.ops.iter().all(|op| op.together_with.is_empty() && op.transaction_ops == 1));
    assert!(!alone.to_string().contains("together"));
}

fn key() -> RecordKey {
    RecordKey::parse("lead", "1").unwrap()
}

fn other() -> RecordKey {
    RecordKey::parse("person", "2").unwrap()
}

fn actor(name: &str) -> Actor {
    Actor::parse(name).unwrap()
}

fn unit() -> UnitId {
    UnitId::from_bytes([200; 16])
}

fn place(seq: u8) -> OpPlace {
    OpPlace { seq: Seq::new(seq.into()), index: 0 }
}

fn planned(seq: u8) -> PlannedOp {
    PlannedOp { id: OpId::from_bytes([seq; 16]), place: place(seq) }
}

/// Returns a time of the first day, this many seconds after midnight.
fn at(seconds: i64) -> WallTime {
    WallTime::from_milliseconds(seconds * 1_000)
}

fn secret() -> crate::fields::FieldsJson {
    Fields::from_value(json!({ "name": SECRET })).unwrap().to_json()
}

fn reference(seq: u8, kind: OpKind) -> Pending {
    let edited_at = Hlc::from_bits(seq.into());
    Pending { named: Some(secret()), ..Pending::new(planned(seq).id, place(seq), kind, edited_at) }
}

fn tail_row(seq: u8, kind: OpKind) -> TailRow {
    TailRow {
        op: planned(seq).id,
        key: key(),
        kind,
        actor: actor("ann"),
        edited_at: Hlc::from_bits(seq.into()),
        made_at: at(seq.into()),
        schema_version: 1,
        upcast: None,
        transaction_ops: 1,
        bytes: 10,
        references: Vec::new(),
        led_away: Vec::new(),
    }
}

fn unit_row(seq: u8) -> UnitRow {
    let change = PlannedChange {
        key: key(),
        kind: OpKind::Create,
        ops: vec![planned(seq)],
        base: None,
        edited_at: Hlc::from_bits(seq.into()),
        older: Vec::new(),
        schema_version: 1,
        fields: FieldsSource::Nothing,
    };
    UnitRow {
        planned: Seq::new(9),
        number: 0,
        actor: actor("ann"),
        changes: vec![change],
        records: vec![None],
        digest: Hash::default(),
        earlier_units: Vec::new(),
        tries: 0,
        code: String::new(),
        first_try: None,
        retry_at: None,
        suspicion: None,
    }
}

/// Makes a conflict: the first op met version 7, and both had changed two fields. The server won
/// one of them by a rule of the app.
fn conflict_row(open: bool) -> ConflictRow {
    ConflictRow {
        key: key(),
        op: planned(1),
        kind: OpKind::Update,
        edited_at: Hlc::from_bits(1),
        version: Version::new(7),
        extent: Extent::Partial,
        remote_edited_at: Hlc::from_bits(2),
        fields: vec![
            ConflictedField {
                name: "name".to_owned(),
                rule: Policy::Function,
                winner: Winner::Remote,
            },
            ConflictedField {
                name: "stage".to_owned(),
                rule: Policy::LastWriteWins,
                winner: Winner::Local,
            },
        ],
        winner: Winner::Merged,
        rule: Policy::LastWriteWins,
        base: secret(),
        local: secret(),
        remote: secret(),
        merged: Some(secret()),
        functions: vec![ResolvedBy {
            field: Some("name".to_owned()),
            function: "longest".to_owned(),
        }],
        at: at(60),
        open,
    }
}

fn parked(scope: ParkScope) -> Hold {
    Hold::Parked { scope, code: "stop".to_owned() }
}

/// Makes the hold of the first op, parked by a stored code.
fn parked_op(code: &str) -> Hold {
    Hold::Parked { scope: ParkScope::Op(planned(1).id), code: code.to_owned() }
}

#[test]
fn a_record_without_a_tail_is_synced_or_unknown() {
    let unknown = Record::default().explained();
    assert_eq!((unknown.state, unknown.seen), (RecordState::Unknown, Seen::Nothing));
    let synced = Record::default().confirmed(false).explained();
    assert_eq!((synced.state, synced.seen), (RecordState::Synced, Seen::AsConfirmed));
    let deleted = Record::default().confirmed(true).explained();
    assert_eq!((deleted.state, deleted.seen), (RecordState::Synced, Seen::DeletedByServer));
}

#[test]
fn an_explanation_prints_its_sentences_each_on_its_line() {
    let explanation = Record::with_ops(2).explained();
    let printed = explanation.to_string();
    assert!(explanation.sentences.len() > 1, "{printed}");
    assert_eq!(printed.lines().collect::<Vec<_>>(), explanation.sentences);
}

#[test]
fn an_explanation_begins_with_what_the_user_sees_and_what_the_server_confirmed() {
    let begins = |known: Record, sentences: &[&str]| {
        let explanation = known.explained();
        let told = explanation.sentences.iter().take(sentences.len());
        assert!(told.zip(sentences).all(|(told, begin)| told.starts_with(begin)), "{explanation}");
        explanation
    };
    let unknown = begins(Record::default(), &["This device knows no record lead/1."]);
    assert!(!unknown.to_string().contains("confirmed"), "{unknown}");
    begins(
        Record::default().confirmed(false),
        &[
            "The user sees lead/1 as the server has it.",
            "The server confirmed version r7, edited at ",
        ],
    );
    begins(
        Record::default().confirmed(true),
        &[
            "The user does not see lead/1: it is deleted at the server.",
            "The server confirmed its deletion as version r7",
        ],
    );
    begins(
        Record::with_ops(2),
        &[
            "The user sees lead/1 with 2 changes of this device that the server has not confirmed.",
            "The server has not confirmed any version of it yet.",
        ],
    );
    let mut refused = Record::with_ops(1).confirmed(false);
    refused.row.visible = Visible::AsConfirmed;
    begins(refused, &["The user sees lead/1 as the server confirmed it."]);
}

#[test]
fn fields_that_were_resolved_alike_are_told_together() {
    let mut known = Record::with_ops(1).meeting(false);
    let (_, conflict) = known.conflicts.first_mut().unwrap();
    conflict.functions.clear();
    for field in &mut conflict.fields {
        (field.rule, field.winner) = (Policy::Max, Winner::Remote);
    }
    known.says("both sides had changed `name` and `stage`; the server won (max)");
}

#[test]
fn each_row_of_the_table_stands_where_it_says() {
    let dead = || Record::with_ops(2).refused(1).holding(2, Hold::DeadCreate);
    let op = || parked_op("conflict");
    for (known, state) in [
        (Record::with_ops(1), RecordState::Pending),
        (Record::with_ops(1).planned(1, 0), RecordState::WaitingForNetwork),
        (Record::with_ops(1).planned(1, 1), RecordState::Pending),
        (Record::with_ops(1).planned(1, 0).on_its_way(), RecordState::InFlight),
        (Record::with_ops(1).planned(1, 2).on_its_way(), RecordState::InFlight),
        (Record::with_ops(1).holding(1, Hold::LocalOnly), RecordState::Held),
        (Record::with_ops(1).holding(1, op()), RecordState::Parked),
        (Record::with_ops(1).holding(1, Hold::NoUpcaster { from: 1, to: 2 }), RecordState::Parked),
        (Record::with_ops(1).holding(1, op()).meeting(false), RecordState::Parked),
        (Record::with_ops(1).holding(1, op()).meeting(true), RecordState::InConflict),
        (
            Record::with_ops(1).holding(1, parked(ParkScope::Protocol)).meeting(true),
            RecordState::Parked,
        ),
        (dead(), RecordState::DeadLettered),
    ] {
        assert_eq!(known.explained().state, state, "{}", known.explained());
    }
}

#[test]
fn what_waits_behind_its_own_record_stands_where_that_does() {
    let behind = Record::with_ops(2).planned(1, 0).on_its_way().holding(2, Hold::Behind(unit()));
    assert_eq!(behind.explained().state, RecordState::InFlight);
    assert_eq!(behind.explained().decided_by, Some(place(1)));
    behind
        .says("Change 2, an update by ann at 1970-01-01T00:00:02.000Z, waits behind change 1 of the record.");
    // This happened: "which is in flight", for a change that something in the network had refused
    // for a day.
    let refused =
        Hold::NotLetThrough { until: Some(at(30)), code: "http_403".to_owned(), times: 3 };
    let behind =
        Record::with_ops(2).planned(1, 0).holding(1, refused).holding(2, Hold::Behind(unit()));
    behind.says("waits behind change 1, which is not let through (http_403)");
    let after = Record::with_ops(2).holding(2, Hold::After(place(1)));
    assert_eq!(after.explained().state, RecordState::Pending, "as the record's status says");
    after.says("waits for change 1 of the record, which goes first");
}

#[test]
fn what_is_refused_for_good_shows_what_the_server_said_and_not_why_it_is_held() {
    let known = Record::with_ops(1).refused(1).holding(1, Hold::LocalOnly);
    known.says("was refused by the server for good after 3 tries at 1970-01-01T00:00:05.000Z");
    known.says("invalid, \"a lead needs a name\"");
    known.says("It waits for ann, or whoever helps them, to retry it, correct it or discard it");
}

/// Offline, nothing left the device, but the explanation was that the record was in flight.
#[test]
fn what_was_never_sent_waits_for_the_network_and_is_not_in_flight() {
    let planned = Record::with_ops(1).planned(1, 0);
    planned.says("waits for the network since entry 9 (1970-01-01T00:00:09.000Z)");
    assert_eq!(planned.explained().ops[0].awaits, Awaited::Network);
    let sent = Record::with_ops(1).planned(1, 0).on_its_way();
    sent.says(
        "was sent (entry 9, ready since 1970-01-01T00:00:09.000Z), and the server has not answered yet",
    );
    assert_eq!(sent.explained().ops[0].awaits, Awaited::Answer);
}

#[test]
fn what_the_server_put_off_says_how_often() {
    Record::with_ops(1)
        .planned(1, 1)
        .says("was put off 1 time by the server, and the next sync sends it again");
    Record::with_ops(1).planned(1, 2).on_its_way().says("was sent again (entry 9");
    let backing_off = Hold::BackingOff { until: at(30), code: "busy".to_owned() };
    Record::with_ops(1)
        .planned(1, 2)
        .holding(1, backing_off)
        .says("(busy), and 2 of 5 tries are used");
}

#[test]
fn every_reason_to_hold_has_its_own_words() {
    let holds = [
        (Hold::UndoWindow { until: at(5) }, "as long as it can still be undone"),
        (Hold::WaitsFor(other()), "waits for person/2, which has to reach the server first"),
        (Hold::DeadCreate, "waits for the record's creation, which the server refused"),
        (
            Hold::NotLetThrough { until: None, code: "http_502".to_owned(), times: 0 },
            "a request with it and others was not let through (http_502)",
        ),
        (
            Hold::NotLetThrough { until: Some(at(30)), code: "http_502".to_owned(), times: 3 },
            "is held until 1970-01-01T00:00:30.000Z: something between this device and the server does not let this change \
             through, or the server fails over it (http_502, 3 times alone)",
        ),
        (Hold::UnmeteredNetwork, "waits for an unmetered network"),
        (Hold::OtherActor(actor("ann")), "waits until ann, who made it, uses this device again"),
        // This happened: "an update by bob waits until ann, who made it".
        (
            Hold::OtherActor(actor("bob")),
            "waits until bob uses this device again, whose change goes before it",
        ),
        (Hold::LocalOnly, "stays on this device"),
        (Hold::TargetDeleted(other()), "refers to person/2, which was deleted"),
        (Hold::Refused { reason: "no price".to_owned() }, "corrected first (\"no price\")"),
        (Hold::TooLarge { bytes: 1_200_000 }, "would take 1200000 bytes of at most 1048576"),
        (Hold::NoUpcaster { from: 1, to: 2 }, "(schema version 1 of 2)"),
        (parked(ParkScope::Actor(actor("ann"))), "did not accept the credentials (stop)"),
        (parked(ParkScope::Entity(key().entity)), "does not take this type of record"),
        (parked(ParkScope::Op(planned(1).id)), "another version of this program stopped it (stop)"),
        (
            parked(ParkScope::Server(
                ServerId::from_bytes([1; 16]),
                ServerEpoch::from_bytes([2; 16]),
            )),
            "a different or restored server answered (stop)",
        ),
        (parked(ParkScope::Protocol), "the server speaks another version of the protocol"),
    ];
    for (hold, words) in holds {
        Record::with_ops(1).holding(1, hold).says(words);
    }
}

/// The explanation of an op behind a change in conflict was a conflict of its own, so people looked
/// for a conflict that did not exist.
#[test]
fn what_waits_behind_a_conflict_names_the_change_that_met_it() {
    let behind = Record::with_ops(2).holding(2, parked_op("conflict")).meeting(true);
    behind.says("waits behind change 1, which met conflict 47.2: a person has to choose there");
    assert!(!behind.explained().to_string().contains("since it met"), "{}", behind.explained());
    assert_eq!(behind.explained().state, RecordState::InConflict);
    let worn_out = Record::with_ops(2).holding(2, parked_op("stale"));
    worn_out.says("waits behind change 1, which is stopped, since others changed the record");
    assert_eq!(worn_out.explained().state, RecordState::Parked);
}

/// The explanation of an op parked as "stale", "ahead" or "upcast" was a conflict. There was none
/// to choose in, so nobody could move the op.
#[test]
fn what_is_parked_without_a_conflict_says_why_and_what_moves_it() {
    for (code, reason, words) in [
        (
            "stale",
            ParkReason::WornOut,
            "others changed the record before each of its 20 attempts reached the server",
        ),
        (
            "ahead",
            ParkReason::Ahead,
            "the server called the time at which it was made too far ahead",
        ),
        (
            "upcast",
            ParkReason::UpcastTooLarge,
            "this version of the app turns it into more than a record may hold",
        ),
        ("conflict", ParkReason::Conflict, "it met a conflict (conflict)"),
        ("of a later version", ParkReason::Unknown, "another version of this program stopped it"),
    ] {
        let known = Record::with_ops(1).holding(1, parked_op(code));
        known.says(&format!("is stopped, since {words}"));
        known.says("ann, or whoever helps them");
        let explained = known.explained();
        let OpState::Parked { reason: found, .. } = explained.ops[0].state else {
            panic!("{explained}")
        };
        assert_eq!((found, explained.state), (reason, RecordState::Parked));
        assert_eq!(explained.ops[0].actions, [UserAction::Retry, UserAction::Discard], "{code}");
        assert_eq!(explained.ops[0].awaits, Awaited::Person);
    }
}

/// An open conflict is the reason why an op waits, whatever held the op before.
#[test]
fn what_is_in_conflict_is_moved_by_a_choice_and_by_nothing_else() {
    for code in ["conflict", "stale"] {
        let explained = Record::with_ops(1).holding(1, parked_op(code)).meeting(true).explained();
        assert_eq!(explained.state, RecordState::InConflict);
        assert_eq!(explained.ops[0].actions, [UserAction::Choose]);
    }
}

#[test]
fn what_is_parked_says_when_it_goes_on_and_whom_it_waits_for() {
    let tenant = ParkScope::Tenant(TenantId::from_bytes([3; 16]));
    let remedies = [
        (parked(ParkScope::Actor(actor("ann"))), "It waits for ann to sign in again."),
        (parked(ParkScope::Entity(key().entity)), "when the app or the server is upgraded"),
        (parked(ParkScope::Protocol), "when the app is upgraded."),
        (parked(tenant), "It waits for ann to sign in to the tenant that the book belongs to."),
        (Hold::NoUpcaster { from: 1, to: 2 }, "to a version that declares the upcaster"),
    ];
    for (hold, words) in remedies {
        Record::with_ops(1).holding(1, hold).says(words);
    }
    let open = Record::with_ops(1).holding(1, parked_op("conflict")).meeting(true);
    open.says(
        "It waits for ann, or whoever helps them, to choose a side; it stays on the screen until then.",
    );
    let held = Record::with_ops(1).holding(1, Hold::OtherActor(actor("ben"))).explained();
    assert_eq!(held.ops[0].awaits, Awaited::Actor { actor: actor("ben") });
}

#[test]
fn a_conflict_says_who_won_which_field_and_by_which_rule() {
    let settled = Record::with_ops(1).meeting(false);
    settled.says(
        "Conflict 47.2, found at 1970-01-01T00:01:00.000Z: when change 1 (an update) met version r7, both sides had \
         changed `name` and `stage`; in `name` the server won (the app's rule \"longest\") and in `stage` this device \
         won (last_write_wins).",
    );
    Record::with_ops(1).meeting(true).says("someone has to choose a side");
    let by_ben = Record { authors: vec![Some(actor("ben"))], ..Record::with_ops(1).meeting(false) };
    by_ben.says("met version r7 by ben, both sides had changed");
}

#[test]
fn what_no_one_declares_is_said_to_be_kept() {
    let known = Record { undeclared: true, book_synced_at: Some(at(90)), ..Record::default() };
    known.says("does not declare records of type lead: it is kept until it does");
    known.says("The server last answered this device at 1970-01-01T00:01:30.000Z.");
    Record::default().says("The server has never answered this device.");
}

#[test]
fn as_data_a_conflict_lists_its_fields_and_functions() {
    let explanation = Record::with_ops(1).meeting(false).explained();
    let conflict = &serde_json::to_value(explanation).unwrap()["conflicts"][0];
    let fields =
        serde_json::json!([["name", "function", "remote"], ["stage", "last_write_wins", "local"]]);
    assert_eq!(conflict["fields"], fields);
    assert_eq!(conflict["functions"], serde_json::json!([["name", "longest"]]));
}
