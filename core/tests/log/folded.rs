//! Entries for the tests: two logs in which every entry and every decision changes something,
//! unlike those of [`super::samples`]. Their folded tables are golden too
//! (`projections/tests/golden_tables.rs`).
//!
//! Each record is named after the end of its op.

use std::collections::BTreeSet;

use fieldbook_core::entry::{
    Baseline, BaselineRecord, BaselineState, Cancelled, CancelledReason, ChangeMeta, Conflicted,
    ConflictedField, Control, Decision, Draft, ErasedRecords, Extent, FieldsSource, Intent, Items,
    Meta, OpMeta, Opened, OutcomeClass, OutcomeMeta, ParkScope, PersonAction, Planned,
    PlannedChange, PlannedOp, PlannedUnit, Receipt, Restamp, Trimmed, Upstream, Winner,
};
use fieldbook_core::log::{
    Appender, BaselineDraft, Store, commit, copy_trimmed, entries, places_for, read_head,
};
use fieldbook_core::record::{EditStamp, FieldWrites};
use fieldbook_core::{
    Actor, Cursor, DeviceId, EntityType, Epoch, Hash, Hlc, OpId, OpKind, OpPlace, Policy,
    RecordKey, RequestId, SeededRandomness, Seq, ServerEpoch, ServerId, TenantId, UnitId, Version,
    WallTime,
};

use super::samples::{self, START};

/// The records that the server has before anything is typed, each of which gets an update.
const UPDATED: [&str; 20] = [
    "acked",
    "tried",
    "suspected",
    "dissolved",
    "dead",
    "retried",
    "discarded",
    "given-up",
    "superseded",
    "annulled",
    "dropped",
    "emptied",
    "raised",
    "raised-whole",
    "brought-back",
    "open",
    "resolved",
    "restamped",
    "upcast",
    "refers",
];
/// The records of those that are sent, one unit each.
const SENT: [&str; 8] =
    ["acked", "tried", "suspected", "dissolved", "dead", "retried", "emptied", "given-up"];
/// The entry with the updates.
const UPDATES: u64 = 3;
/// The entry with the plan.
const PLAN: u64 = 5;

/// Entries while they are put together.
struct Story {
    random: SeededRandomness,
    drafts: Vec<Draft>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let opened =
            Opened { device: DeviceId::from_bytes([0xd0; 16]), made_by: "0.1.0".to_owned() };
        Self {
            random: SeededRandomness::from_number(seed),
            drafts: vec![Draft::control(Control::Opened(opened))],
        }
    }

    fn push(&mut self, meta: Meta, items: Items) {
        self.drafts.push(Draft { meta, items });
    }

    /// Appends a transaction of ops, each with its kind, its record and its fields.
    fn write(&mut self, ops: &[(OpKind, &str, &str)]) {
        let (mut items, seq) = (Items::default(), self.drafts.len() as u64 + 1);
        let ops = ops.iter().zip(0..).map(|((kind, id, fields), index)| OpMeta {
            id: op_of(seq, index).id,
            key: lead(id),
            kind: *kind,
            edited_at: at(seq),
            clock_capped: false,
            base: Some(Version::new(5)),
            schema_version: 1,
            fields: (*kind != OpKind::Delete).then(|| items.add(*fields, &mut self.random)),
            cites: None,
        });
        let ops = ops.collect();
        self.push(Meta::Intent(Intent { ops }), items);
    }

    fn told(&mut self, changes: Vec<ChangeMeta>, outcomes: Vec<OutcomeMeta>, items: Items) {
        let upstream = Upstream {
            request: RequestId::from_bytes([0x22; 16]),
            server: ServerId::from_bytes([0x33; 16]),
            epoch: ServerEpoch::from_bytes([0x44; 16]),
            server_time: START,
            outcomes,
            changes,
            cursors: vec![(EntityType::parse("lead").unwrap(), Cursor::new(vec![0, 1]).unwrap())],
            receipt: Some(Receipt { seq: Seq::new(1), hash: Hash::from_bytes([0xcd; 32]) }),
        };
        self.push(Meta::Upstream(upstream), items);
    }

    fn decided(&mut self, decisions: Vec<Decision>, items: Items) {
        self.push(Meta::Control(Control::Decided(decisions)), items);
    }

    fn item(&mut self, items: &mut Items, text: &str) -> u32 {
        items.add(text, &mut self.random)
    }
}

fn lead(id: &str) -> RecordKey {
    RecordKey::parse("lead", id).unwrap()
}

/// The time of an entry.
fn at(seq: u64) -> Hlc {
    Hlc::at(WallTime::from_milliseconds(START.milliseconds() + i64::try_from(seq).unwrap() * 1_000))
}

fn op_of(seq: u64, index: u8) -> PlannedOp {
    let mut id = [0xa0; 16];
    (id[14], id[15]) = (u8::try_from(seq).unwrap(), index);
    PlannedOp {
        id: OpId::from_bytes(id),
        place: OpPlace { seq: Seq::new(seq), index: index.into() },
    }
}

/// The update of a record.
fn update(id: &str) -> PlannedOp {
    let index = UPDATED.iter().position(|updated| *updated == id).unwrap();
    op_of(UPDATES, u8::try_from(index).unwrap())
}

/// The unit with the update of a record.
fn unit(id: &str) -> UnitId {
    UnitId::from_bytes(
        [0x60 + u8::try_from(SENT.iter().position(|sent| *sent == id).unwrap()).unwrap(); 16],
    )
}

fn theirs(number: u8) -> OpId {
    OpId::from_bytes([number; 16])
}

/// The server's state of a record.
fn row(id: &str, version: u64, edited_at: Hlc, fields: Option<u32>) -> ChangeMeta {
    ChangeMeta {
        key: lead(id),
        version: Version::new(version),
        extent: if fields.is_some() { Extent::Whole } else { Extent::Deleted },
        edited_at,
        op: theirs(0x0b),
        older: Vec::new(),
        floor: None,
        fields,
        undeclared: false,
    }
}

/// The log of one server, with every decision except those that need another server.
pub(crate) fn every_fold() -> Vec<Draft> {
    let mut story = Story::new(3);
    confirmed(&mut story);
    let updates: Vec<_> = UPDATED.iter().map(|id| (OpKind::Update, *id, new_fields(id))).collect();
    story.write(&updates);
    story.write(&[
        (OpKind::Create, "created", r#"{"name":"Cleo"}"#),
        (OpKind::Replace, "replaced", r#"{"name":"Rita"}"#),
        (OpKind::Delete, "made-anew", ""),
        (OpKind::Create, "made-anew", r#"{"name":"Mara"}"#),
        (OpKind::Delete, "deleted", ""),
    ]);
    planned(&mut story);
    answered(&mut story);
    of_units(&mut story);
    of_conflicts(&mut story);
    of_the_book(&mut story);
    by_a_person(&mut story);
    story.drafts.push(Draft::control(Control::EpochStarted {
        epoch: Epoch::from_bytes([0xe1; 16]),
        anchored: None,
    }));
    story.drafts.extend(samples::every_session(&mut story.random));
    story.drafts.push(samples::silences());
    story.drafts.push(samples::authors());
    story.drafts.extend(samples::notes());
    story.drafts
}

fn new_fields(id: &str) -> &'static str {
    if id == "refers" { r#"{"company":"2","phone":"2"}"# } else { r#"{"name":"mine","phone":"2"}"# }
}

/// The server's state of each record before the user types anything.
fn confirmed(story: &mut Story) {
    let mut items = Items::default();
    let fields = story.item(&mut items, r#"{"name":"Ann","phone":"1","stage":"new"}"#);
    let others = ["replaced", "made-anew", "deleted", "let-go"];
    let changes = UPDATED.iter().chain(&others).map(|id| ChangeMeta {
        older: vec![FieldWrites {
            edited_at: at(0),
            op: theirs(0x0a),
            fields: vec!["name".to_owned(), "taken_away".to_owned()],
        }],
        floor: Some(EditStamp { edited_at: Hlc::ZERO.next(), op: theirs(0x09) }),
        ..row(id, 5, at(1), Some(fields))
    });
    let changes = changes.collect();
    story.told(changes, Vec::new(), items);
}

fn planned(story: &mut Story) {
    let units = SENT.iter().map(|id| PlannedUnit {
        id: unit(id),
        actor: Actor::parse("rep-7").unwrap(),
        changes: vec![PlannedChange {
            key: lead(id),
            kind: OpKind::Update,
            ops: vec![update(id)],
            base: Some(Version::new(5)),
            edited_at: at(UPDATES),
            older: Vec::new(),
            schema_version: 1,
            fields: FieldsSource::OfOp(update(id).place),
        }],
        digest: Hash::from_bytes([0xd1; 32]),
        earlier_units: Vec::new(),
    });
    let cancelled = Cancelled {
        key: lead("annulled"),
        ops: vec![update("annulled")],
        reason: CancelledReason::NoEffect,
    };
    let planned = Planned { units: units.collect(), cancelled: vec![cancelled] };
    story.push(Meta::Control(Control::Planned(planned)), Items::default());
}

/// The writes of others in the meantime: whole records, parts, a deletion, and records of an
/// unknown type.
fn answered(story: &mut Story) {
    let mut items = Items::default();
    let whole =
        story.item(&mut items, r#"{"company":"1","name":"theirs","phone":"9","stage":"won"}"#);
    let part = story.item(&mut items, r#"{"stage":"lost"}"#);
    let note = story.item(&mut items, r#"{"text":"kept aside"}"#);
    let met =
        ["dissolved", "superseded", "dropped", "emptied", "raised", "open", "resolved", "refers"];
    let older = |names: &[&str]| FieldWrites {
        edited_at: at(2),
        op: theirs(0x0c),
        fields: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut changes: Vec<_> = met
        .iter()
        .map(|id| ChangeMeta { older: vec![older(&["phone"])], ..row(id, 9, at(4), Some(whole)) })
        .collect();
    changes.push(ChangeMeta { extent: Extent::Partial, ..row("deleted", 9, at(4), Some(part)) });
    changes.push(row("brought-back", 9, at(4), None));
    changes.push(row("raised-whole", 9, at(4), None));
    for (id, version) in [("taken-in", 3), ("kept-aside", 4)] {
        let key = RecordKey::parse("visit", id).unwrap();
        changes.push(ChangeMeta {
            key,
            undeclared: true,
            ..row("unused", version, at(4), Some(note))
        });
    }
    let outcomes = vec![OutcomeMeta {
        unit: unit("acked"),
        class: OutcomeClass::Applied,
        code: String::new(),
        message: None,
        versions: vec![(lead("acked"), Version::new(9))],
    }];
    story.told(changes, outcomes, items);
}

/// The decisions about units.
fn of_units(story: &mut Story) {
    let (mut items, planned) = (Items::default(), Seq::new(PLAN));
    let message = story.item(&mut items, "phone: not a number");
    let dead = |id: &str, answered| Decision::DeadLettered {
        unit: unit(id),
        planned,
        tries: 2,
        code: "invalid_phone".to_owned(),
        message: Some(message),
        answered,
    };
    let code = || "busy".to_owned();
    let decisions = vec![
        Decision::Acked {
            unit: unit("acked"),
            planned,
            versions: vec![(lead("acked"), Version::new(9))],
        },
        Decision::Tried { unit: unit("tried"), planned, tries: 1, code: code(), retry_at: START },
        Decision::Suspected {
            units: vec![(unit("suspected"), planned)],
            times: 1,
            code: code(),
            retry_at: Some(START),
        },
        Decision::Requeued { unit: unit("dissolved"), planned },
        dead("dead", true),
        dead("retried", true),
        dead("emptied", true),
        dead("given-up", false),
        Decision::Superseded { key: lead("superseded"), op: update("superseded") },
    ];
    story.decided(decisions, items);
}

fn conflicted(id: &str, winner: Winner, values: [u32; 3]) -> Decision {
    Decision::Conflicted(conflict(id, winner, values))
}

fn conflict(id: &str, winner: Winner, [base, local, remote]: [u32; 3]) -> Conflicted {
    let field = ConflictedField { name: "name".to_owned(), rule: Policy::Manual, winner };
    Conflicted {
        key: lead(id),
        op: update(id),
        kind: OpKind::Update,
        edited_at: at(UPDATES),
        version: Version::new(9),
        extent: Extent::Whole,
        remote_edited_at: at(4),
        fields: vec![field],
        winner,
        rule: Policy::Manual,
        base,
        local,
        remote,
        merged: None,
        functions: Vec::new(),
    }
}

/// The decisions about ops because of conflicts, upcasters and clocks.
fn of_conflicts(story: &mut Story) {
    let mut items = Items::default();
    let mut item = |text: &str| story.item(&mut items, text);
    let values =
        [item(r#"{"name":"Ann"}"#), item(r#"{"name":"mine"}"#), item(r#"{"name":"theirs"}"#)];
    let (merged, read) =
        (item(r#"{"name":"both"}"#), item(r#"{"name":"mine","phone":"2","stage":"new"}"#));
    let upcast = item(r#"{"telephone":"2","title":"mine"}"#);
    let name = || vec!["name".to_owned()];
    let (raised, restamped) = (at(4).next(), Hlc::at(START).next());
    let raise = |id: &str, fields, values| Decision::Raised {
        key: lead(id),
        op: update(id),
        fields,
        edited_at: raised,
        values,
    };
    let decisions = vec![
        conflicted("dropped", Winner::Remote, values),
        Decision::Dropped { key: lead("dropped"), op: update("dropped"), fields: name() },
        Decision::Dropped { key: lead("emptied"), op: update("emptied"), fields: Vec::new() },
        conflicted("raised", Winner::Merged, values),
        raise("raised", name(), Some(merged)),
        raise("raised-whole", Vec::new(), None),
        raise("brought-back", Vec::new(), None),
        Decision::BroughtBack { key: lead("brought-back"), op: update("brought-back"), read },
        conflicted("open", Winner::Undecided, values),
        Decision::Parked { scope: ParkScope::Op(update("open").id), code: "conflict".to_owned() },
        conflicted("resolved", Winner::Undecided, values),
        Decision::Parked {
            scope: ParkScope::Op(update("resolved").id),
            code: "conflict".to_owned(),
        },
        Decision::Restamped {
            server_time: START,
            ops: vec![Restamp {
                key: lead("restamped"),
                op: update("restamped"),
                edited_at: restamped,
            }],
        },
        Decision::Upcast {
            key: lead("upcast"),
            op: update("upcast"),
            schema_version: 2,
            fields: upcast,
        },
    ];
    story.decided(decisions, items);
}

/// The decisions about the book as a whole.
fn of_the_book(story: &mut Story) {
    let mut items = Items::default();
    let (name, row) =
        (story.item(&mut items, "OrderLine/7"), story.item(&mut items, r#"{"version":7}"#));
    let scopes = [
        ParkScope::Actor(Actor::parse("rep-7").unwrap()),
        ParkScope::Entity(EntityType::parse("visit").unwrap()),
        ParkScope::Server(ServerId::from_bytes([0x33; 16]), ServerEpoch::from_bytes([0x45; 16])),
        ParkScope::Protocol,
        ParkScope::Tenant(TenantId::from_bytes([0x47; 16])),
    ];
    let mut decisions: Vec<_> =
        scopes.map(|scope| Decision::Parked { scope, code: "busy".to_owned() }).into();
    let visit = RecordKey::parse("visit", "taken-in").unwrap();
    // The index of the change: the changes of leads come before it.
    decisions.extend([
        Decision::Unparked { scope: ParkScope::Protocol },
        Decision::Adopted { key: visit, seq: Seq::new(6), number: 11 },
        Decision::BelongsTo { tenant: TenantId::from_bytes([11; 16]) },
        Decision::SetAside {
            fault: "key".to_owned(),
            version: Some(Version::new(7)),
            name,
            row: Some(row),
        },
        Decision::ReadForeign {
            entity: "OrderLine".to_owned(),
            cursor: Cursor::new(vec![0, 7]).unwrap(),
        },
        Decision::LetGo { key: lead("let-go"), version: Version::new(5) },
    ]);
    story.decided(decisions, items);
}

/// The actions of a person, one by one.
fn by_a_person(story: &mut Story) {
    let mut items = Items::default();
    let (reason, merged) =
        (story.item(&mut items, "typed twice"), story.item(&mut items, r#"{"name":"both"}"#));
    let retried = Decision::Retried { key: lead("retried"), op: update("retried") };
    let discarded = Decision::Discarded { key: lead("discarded"), op: update("discarded") };
    let undone =
        Cancelled { key: lead("created"), ops: vec![op_of(4, 0)], reason: CancelledReason::Undone };
    let (key, op) = (lead("resolved"), update("resolved"));
    let resolved = vec![
        Decision::Resolved { key: key.clone(), op, winner: Winner::Merged, merged: Some(merged) },
        Decision::Unparked { scope: ParkScope::Op(op.id) },
        Decision::Raised {
            key,
            op,
            fields: vec!["name".to_owned()],
            edited_at: at(4).next(),
            values: Some(merged),
        },
    ];
    let resumed = Decision::Unparked { scope: ParkScope::Actor(Actor::parse("rep-7").unwrap()) };
    let handed_over = Decision::HandedOver {
        key: lead("open"),
        op: update("open"),
        to: Actor::parse("rep-8").unwrap(),
    };
    let actions = [
        (PersonAction::Retry, vec![retried]),
        (PersonAction::Discard { reason }, vec![discarded]),
        (PersonAction::Undo, vec![Decision::Cancelled(undone)]),
        (PersonAction::Resolve, resolved),
        (PersonAction::Resume, vec![resumed]),
        (PersonAction::HandOver, vec![handed_over]),
    ];
    for (action, decisions) in actions {
        story.push(Meta::Control(Control::PersonActed(action, decisions)), items.clone());
    }
}

/// The log of a book whose server was replaced by another one, which has only one of its records.
pub(crate) fn another_server() -> Vec<Draft> {
    let mut story = Story::new(4);
    confirmed(&mut story);
    story.write(&[
        (OpKind::Update, "tried", r#"{"name":"mine"}"#),
        (OpKind::Update, "acked", r#"{"name":"mine"}"#),
        (OpKind::Update, "dead", r#"{"name":"mine"}"#),
    ]);
    let change = |id: &str, op| PlannedChange {
        key: lead(id),
        kind: OpKind::Update,
        ops: vec![op_of(UPDATES, op)],
        base: Some(Version::new(5)),
        edited_at: at(UPDATES),
        older: Vec::new(),
        schema_version: 1,
        fields: FieldsSource::OfOp(op_of(UPDATES, op).place),
    };
    let unit = PlannedUnit {
        id: UnitId::from_bytes([0x60; 16]),
        actor: Actor::parse("rep-7").unwrap(),
        changes: vec![change("tried", 0), change("acked", 1)],
        digest: Hash::from_bytes([0xd1; 32]),
        earlier_units: Vec::new(),
    };
    let planned = Planned { units: vec![unit], cancelled: Vec::new() };
    story.push(Meta::Control(Control::Planned(planned)), Items::default());
    let server = Some((ServerId::from_bytes([9; 16]), ServerEpoch::from_bytes([10; 16])));
    let accepted =
        Control::PersonActed(PersonAction::AcceptServer, vec![Decision::ServerAccepted { server }]);
    story.push(Meta::Control(accepted), Items::default());
    let mut items = Items::default();
    let fields = story.item(&mut items, r#"{"name":"theirs"}"#);
    story.told(vec![row("acked", 1, at(2), Some(fields))], Vec::new(), items);
    let mut items = Items::default();
    let read = story.item(&mut items, r#"{"name":"mine","phone":"1","stage":"new"}"#);
    let brought_back = Decision::BroughtBack { key: lead("dead"), op: op_of(UPDATES, 2), read };
    story.decided(vec![brought_back, Decision::ServerRead], items);
    story.drafts
}

/// A log of which the values of some records were erased, and then those of all records without an
/// op. Afterwards one of them comes again.
pub(crate) fn erased() -> Vec<Draft> {
    let mut story = Story::new(5);
    confirmed(&mut story);
    story.write(&[
        (OpKind::Update, "tried", r#"{"name":"mine"}"#),
        (OpKind::Update, "open", r#"{"name":"mine"}"#),
    ]);
    let mut items = Items::default();
    let [base, local, remote] = ["1", "mine", "theirs"]
        .map(|name| story.item(&mut items, &format!(r#"{{"name":"{name}"}}"#)));
    let conflict = Conflicted {
        op: op_of(UPDATES, 1),
        ..conflict("open", Winner::Undecided, [base, local, remote])
    };
    story.decided(vec![Decision::Conflicted(conflict)], items);
    let some = ["acked", "tried", "replaced"].map(lead);
    story.drafts.push(samples::erased(ErasedRecords::only(some), 3));
    story
        .drafts
        .push(samples::erased(ErasedRecords::except(["open", "tried", "dead"].map(lead)), 18));
    let mut items = Items::default();
    let fields = story.item(&mut items, r#"{"name":"theirs"}"#);
    story.told(vec![row("acked", 5, at(1), Some(fields))], Vec::new(), items);
    story.drafts
}

/// What the first entries of [`trimmed`] came to: a record with other stamps in it, a deleted one,
/// and one whose entity type was not declared.
fn baseline_draft(story: &mut Story) -> BaselineDraft {
    let mut items = Items::default();
    let [known, unknown] = [r#"{"name":"Ann","phone":"1"}"#, r#"{"title":"x"}"#]
        .map(|text| story.item(&mut items, text));
    let older = vec![FieldWrites {
        edited_at: at(0),
        op: theirs(0x0a),
        fields: vec!["name".to_owned(), "taken_away".to_owned()],
    }];
    let floor = Some(EditStamp { edited_at: Hlc::ZERO.next(), op: theirs(0x09) });
    let synced_at = Some(WallTime::from_milliseconds(START.milliseconds() + 2_000));
    let changes = [
        ChangeMeta { older, floor, ..row("acked", 5, at(1), Some(known)) },
        row("deleted", 6, at(2), None),
        ChangeMeta { undeclared: true, ..row("undeclared", 7, at(2), Some(unknown)) },
    ];
    let records = changes.map(|change| BaselineRecord {
        synced_at: synced_at.filter(|_| !change.undeclared),
        change,
    });
    let part = Baseline { records: records.into(), state: None };
    let state = BaselineState {
        server: Some((ServerId::from_bytes([0x33; 16]), ServerEpoch::from_bytes([0x44; 16]))),
        tenant: Some(TenantId::from_bytes([0x55; 16])),
        highest: Version::new(7),
        set_aside: vec![(0x1234, Version::new(3))],
        foreign_cursors: vec![("Lead!".to_owned(), Cursor::new(vec![7]).unwrap())],
        anchor: Some(Receipt { seq: Seq::new(5), hash: Hash::from_bytes([0xcd; 32]) }),
        server_time: Some((START, START)),
        synced_at,
        parks: vec![(ParkScope::Protocol, "protocol".to_owned())],
        had_other_server: true,
        cursors: vec![(
            EntityType::parse("lead").unwrap(),
            Cursor::new(vec![0, 1]).unwrap(),
            START,
        )],
    };
    BaselineDraft {
        kept: BTreeSet::from([Seq::new(1)]),
        parts: vec![Draft { meta: Meta::Control(Control::Baseline(part)), items }],
        joint: Draft::control(Control::Baseline(Baseline {
            records: Vec::new(),
            state: Some(state),
        })),
    }
}

/// A log whose first five entries were trimmed, and that went on: the baseline at the places 1, 4 and 5.
pub(crate) fn trimmed() -> Store {
    let mut story = Story::new(6);
    for _ in 0..4 {
        confirmed(&mut story);
    }
    let baseline = baseline_draft(&mut story);
    story.write(&[(OpKind::Update, "acked", r#"{"name":"mine"}"#)]);
    let adopted = Decision::Adopted { key: lead("undeclared"), seq: Seq::new(4), number: 2 };
    story.decided(vec![adopted], Items::default());
    let (whole, store) = (samples::memory_store(), samples::memory_store());
    samples::append_all(&whole, story.drafts);
    let (log, transaction) =
        (entries(&whole.begin_read().unwrap()).unwrap(), store.begin_write().unwrap());
    let places = places_for(&log, Seq::new(5), &baseline).unwrap().unwrap();
    let said = copy_trimmed(&log, &transaction, &baseline, &places).unwrap();
    let said = Trimmed { archive: Some(Hash::from_bytes([0xee; 32])), ..said };
    let mut appender = Appender::open(&transaction, read_head(&log).unwrap()).unwrap();
    appender.append(Draft::control(Control::Trimmed(said)), samples::stamp(8)).unwrap();
    drop(appender);
    commit(transaction).unwrap();
    store
}
