//! Entries for the tests: the two deterministic logs of `tests/golden/format-2`.
//!
//! They never change after the first release. Later additions go into a new log. No book could have
//! written the second log: its entries name missing things. A log that folds is in
//! [`super::folded`].

use fieldbook_core::entry::{
    AppVersion, Authored, Baseline, BaselineRecord, Cancelled, CancelledReason, ChangeMeta,
    Conflicted, ConflictedField, Control, Decision, Draft, Erased, ErasedRecords, Extent,
    FieldsSource, Intent, Item, Items, LastStop, Meta, OpMeta, Opened, OutcomeClass, OutcomeMeta,
    ParkScope, PersonAction, Planned, PlannedChange, PlannedOp, PlannedUnit, Receipt, ResolvedBy,
    Restamp, Session, SignedNote, Silence, Trimmed, Upstream, Winner,
};
use fieldbook_core::log::{Appender, Stamp, Store, StoreOptions, commit, entries, read_head};
use fieldbook_core::note::{NoteKind, SignError, Signer, Statement, sign};
use fieldbook_core::record::{EditStamp, FieldWrites};
use fieldbook_core::{
    Actor, Cursor, DeviceId, EntityType, Epoch, Hash, Hlc, OpId, OpKind, OpPlace, Policy,
    RecordKey, RequestId, SeededRandomness, Seq, ServerEpoch, ServerId, TenantId, UnitId, Version,
    WallTime, declared_digest,
};
use redb::backends::InMemoryBackend;

/// 2018-10-15T18:37:45Z.
pub(crate) const START: WallTime = WallTime::from_milliseconds(1_539_628_665_000);

pub(crate) fn stamp(number: u64) -> Stamp {
    let wall =
        WallTime::from_milliseconds(START.milliseconds() + i64::try_from(number).unwrap() * 1_000);
    Stamp {
        epoch: Epoch::from_bytes([0xe0; 16]),
        hlc: Hlc::at(wall),
        wall,
        actor: Actor::parse("rep-7").unwrap(),
    }
}

pub(crate) fn memory_store() -> Store {
    Store::with_backend(InMemoryBackend::new(), &StoreOptions::default()).unwrap()
}

/// Appends drafts in one commit, with the stamps that follow from their places.
pub(crate) fn append_all(store: &Store, drafts: impl IntoIterator<Item = Draft>) {
    let head = read_head(&entries(&store.begin_read().unwrap()).unwrap()).unwrap();
    let transaction = store.begin_write().unwrap();
    let mut appender = Appender::open(&transaction, head).unwrap();
    for draft in drafts {
        let number = appender.head().map_or(1, |head| head.seq.number() + 1);
        appender.append(draft, stamp(number)).unwrap();
    }
    drop(appender);
    commit(transaction).unwrap();
}

/// Makes one small intent; each `number` makes another one.
pub(crate) fn intent(number: u64) -> Draft {
    let mut random = SeededRandomness::from_number(number);
    let mut items = Items::default();
    let fields = items.add(format!("{{\"n\":{number}}}"), &mut random);
    let key = RecordKey::parse("lead", &number.to_string()).unwrap();
    Draft {
        meta: Meta::Intent(Intent {
            ops: vec![op(OpKind::Create, key, Some(fields), &mut random)],
        }),
        items,
    }
}

/// The example of `docs/log-format.md`: a book that was opened, and one lead created in it.
pub(crate) fn example() -> Vec<Draft> {
    let mut random = SeededRandomness::from_number(1);
    let opened = Opened { device: DeviceId::new(START, &mut random), made_by: "0.1.0".to_owned() };
    let mut items = Items::default();
    let fields = items.add(r#"{"name":"Ann","phone":"555"}"#, &mut random);
    let create = op(OpKind::Create, lead("42"), Some(fields), &mut random);
    vec![
        Draft::control(Control::Opened(opened)),
        Draft { meta: Meta::Intent(Intent { ops: vec![create] }), items },
    ]
}

/// Every variant of every type of the meta part, and an item that was erased.
pub(crate) fn every_variant() -> Vec<Draft> {
    let mut random = SeededRandomness::from_number(2);
    let mut drafts = example();
    drafts.push(every_op_kind(&mut random));
    drafts.push(every_planned(&mut random));
    drafts.push(every_answer(&mut random));
    drafts.push(every_decision(&mut random));
    drafts.extend(every_verb(&mut random));
    drafts.push(Draft::control(Control::EpochStarted {
        epoch: Epoch::from_bytes([0xe0; 16]),
        anchored: Some(Receipt { seq: Seq::new(5), hash: Hash::from_bytes([0xab; 32]) }),
    }));
    drafts.push(Draft::control(Control::EpochStarted {
        epoch: Epoch::from_bytes([0xe0; 16]),
        anchored: None,
    }));
    drafts.extend(every_session(&mut random));
    drafts.push(silences());
    drafts.push(authors());
    drafts.extend(notes());
    drafts.push(erased(ErasedRecords::only([lead("43"), lead("42")]), 7));
    drafts.push(erased(ErasedRecords::except([]), 300));
    drafts.extend(trimmed(&mut random));
    drafts
}

/// A part of a baseline, and what says that entries were trimmed, with and without an archive.
fn trimmed(random: &mut SeededRandomness) -> [Draft; 3] {
    let mut items = Items::default();
    let change = |id: &str, extent, fields| ChangeMeta {
        key: lead(id),
        version: Version::new(300),
        extent,
        edited_at: Hlc::at(START),
        op: OpId::from_bytes([3; 16]),
        older: Vec::new(),
        floor: None,
        fields,
        undeclared: false,
    };
    let fields = items.add(r#"{"name":"Ann"}"#, random);
    let changes = [change("42", Extent::Whole, Some(fields)), change("43", Extent::Deleted, None)];
    let records = changes.map(|change| BaselineRecord {
        synced_at: (change.extent == Extent::Whole).then_some(START),
        change,
    });
    let part = Baseline { records: records.into(), state: None };
    let upto = Receipt { seq: Seq::new(7), hash: Hash::from_bytes([0xab; 32]) };
    let said = |archive| {
        let baseline = Hash::from_bytes([0xba; 32]);
        Draft::control(Control::Trimmed(Trimmed { upto, baseline, entries: 300, archive }))
    };
    [
        Draft { meta: Meta::Control(Control::Baseline(part)), items },
        said(None),
        said(Some(Hash::from_bytes([0xee; 32]))),
    ]
}

pub(crate) fn erased(records: ErasedRecords, items: u64) -> Draft {
    Draft::control(Control::Erased(Erased { records, items }))
}

/// Every way in which a program stopped, with and without the declarations.
pub(crate) fn every_session(random: &mut SeededRandomness) -> Vec<Draft> {
    let app = AppVersion { name: "CRM".to_owned(), version: "7.1".to_owned() };
    let stops = [LastStop::None, LastStop::Clean, LastStop::Unclean];
    let drafts = stops.map(|last_stop| {
        let is_first = last_stop == LastStop::None;
        let mut items = Items::default();
        let schema = is_first.then(|| items.add(DECLARED, random));
        let session = Session {
            program: "fieldbook 0.1.0".to_owned(),
            app: is_first.then(|| app.clone()),
            system: "android 14".to_owned(),
            utc_offset: (!is_first).then_some(if last_stop == LastStop::Clean {
                345
            } else {
                -180
            }),
            last_stop,
            schema_digest: declared_digest(DECLARED.as_bytes()),
            schema,
        };
        Draft { meta: Meta::Control(Control::Session(session)), items }
    });
    drafts.into()
}

/// Declarations as a book records them.
const DECLARED: &str =
    r#"{"entities":{"lead":{"references":[{"field":"company","entity":"company"}]}}}"#;

pub(crate) fn authors() -> Draft {
    let named = [("ben", vec![0, 300]), ("eve", vec![1])];
    let named = named.map(|(actor, changes)| {
        let actor = Actor::parse(actor).unwrap();
        Authored { actor, changes }
    });
    Draft::control(Control::Authors(named.into()))
}

/// A receipt with two signatures, a checkpoint, and a note that nobody knows. The signatures are of
/// nobody: `signed.log` has real ones.
pub(crate) fn notes() -> [Draft; 3] {
    let signer = |name| NobodySigns(name);
    let (host, device) = (signer("sync.example.com"), signer("device/phone"));
    let stated = Statement {
        kind: NoteKind::Receipt,
        device: DeviceId::from_bytes([1; 16]),
        epoch: Epoch::from_bytes([0xe0; 16]),
        seq: Seq::new(2),
        hash: Hash::from_bytes([0xab; 32]),
        at: START,
    };
    let keys = |signers: &[&dyn Signer]| signers.iter().map(|one| one.verifier()).collect();
    let by: [&dyn Signer; 2] = [&host, &signer("server/0")];
    let receipt = SignedNote { note: sign(&stated, &by).unwrap(), keys: keys(&by) };
    let stated = Statement { kind: NoteKind::Checkpoint, ..stated };
    let checkpoint = sign(&stated, &[&device]).unwrap();
    let unknown = checkpoint.replace("checkpoint/v1", "checkpoint/v9");
    let [checkpoint, unknown] =
        [checkpoint, unknown].map(|note| SignedNote { note, keys: Vec::new() });
    [receipt, checkpoint, unknown].map(|signed| Draft::control(Control::Note(signed)))
}

struct NobodySigns(&'static str);

impl Signer for NobodySigns {
    fn verifier(&self) -> String {
        format!("{}+07070707+AQ==", self.0)
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        Ok([7; 64])
    }
}

pub(crate) fn silences() -> Draft {
    let codes = vec![("dns".to_owned(), 30), ("timeout".to_owned(), 8)];
    let to = WallTime::from_milliseconds(START.milliseconds() + 7_200_000);
    let long = Silence { from: START, to, attempts: 38, codes, answers: 0 };
    let codes = vec![("http_502".to_owned(), 300)];
    let many = Silence { from: to, to, attempts: 300, codes, answers: 269 };
    Draft::control(Control::Silence(vec![long, many]))
}

fn lead(id: &str) -> RecordKey {
    RecordKey::parse("lead", id).unwrap()
}

fn op(kind: OpKind, key: RecordKey, fields: Option<u32>, random: &mut SeededRandomness) -> OpMeta {
    OpMeta {
        id: OpId::new(START, random),
        key,
        kind,
        edited_at: Hlc::at(START),
        clock_capped: false,
        base: None,
        schema_version: 1,
        fields,
        cites: None,
    }
}

/// Makes a transaction with one op of each kind. The fields of its first op were erased.
fn every_op_kind(random: &mut SeededRandomness) -> Draft {
    let mut items = Items::default();
    items.add(r#"{"name":"Erased Person"}"#, random);
    items.add(r#"{"phone":null,"stage":"hot"}"#, random);
    // The text is longer than a chunk of BLAKE3, so that the second verifier has to know the tree
    // of chunks.
    items.add(format!(r#"{{"note":"{}"}}"#, "größer als ein Block. ".repeat(150)), random);
    let mut items: Vec<Item> = items.into();
    items[0] = Item::Erased { commitment: items[0].commitment() };

    let mut update = op(OpKind::Update, lead("Ünïcode / 7"), Some(1), random);
    update.base = Some(Version::new(300));
    update.clock_capped = true;
    let mut delete = op(OpKind::Delete, lead("44"), None, random);
    delete.base = Some(Version::new(70_000));
    let mut replace =
        op(OpKind::Replace, RecordKey::parse("visit_note", "v-1").unwrap(), Some(2), random);
    replace.cites = Some(OpId::new(START, random));
    replace.schema_version = 251;
    let create = op(OpKind::Create, lead("43"), Some(0), random);
    Draft {
        meta: Meta::Intent(Intent { ops: vec![create, update, delete, replace] }),
        items: items.into(),
    }
}

fn planned_op(seq: u64, index: u32, random: &mut SeededRandomness) -> PlannedOp {
    PlannedOp { id: OpId::new(START, random), place: OpPlace { seq: Seq::new(seq), index } }
}

fn every_planned(random: &mut SeededRandomness) -> Draft {
    let mut items = Items::default();
    let folded = items.add(r#"{"name":"Ann","stage":"hot"}"#, random);
    let sources = [
        (OpKind::Create, FieldsSource::OfOp(OpPlace { seq: Seq::new(2), index: 0 })),
        (OpKind::Update, FieldsSource::Item(Seq::new(4), folded)),
        (OpKind::Delete, FieldsSource::Nothing),
    ];
    let changes = sources.into_iter().map(|(kind, fields)| PlannedChange {
        key: lead(kind.as_str()),
        kind,
        ops: vec![planned_op(2, 0, random), planned_op(3, 1, random)],
        base: (kind != OpKind::Create).then_some(Version::new(12)),
        edited_at: Hlc::at(START).next(),
        older: vec![FieldWrites {
            edited_at: Hlc::at(START),
            op: OpId::from_bytes([0x0e; 16]),
            fields: vec!["name".to_owned(), "stage".to_owned()],
        }],
        schema_version: 1,
        fields,
    });
    let unit = PlannedUnit {
        changes: changes.collect(),
        id: UnitId::from_bytes([0x11; 16]),
        actor: Actor::parse("rep-7").unwrap(),
        digest: Hash::from_bytes([0xd1; 32]),
        earlier_units: vec![UnitId::from_bytes([0x10; 16])],
    };
    let reasons = [
        CancelledReason::CreatedAndDeleted,
        CancelledReason::Undone,
        CancelledReason::NoEffect,
        CancelledReason::LocalOnly,
        CancelledReason::AlreadyApplied,
    ];
    let cancelled = reasons.map(|reason| Cancelled {
        key: lead("45"),
        ops: vec![planned_op(3, 0, random)],
        reason,
    });
    let meta =
        Meta::Control(Control::Planned(Planned { units: vec![unit], cancelled: cancelled.into() }));
    Draft { meta, items }
}

fn every_answer(random: &mut SeededRandomness) -> Draft {
    let mut items = Items::default();
    let message = items.add("phone: not a number", random);
    let image = items.add(r#"{"name":"Ann"}"#, random);
    let classes = [
        OutcomeClass::Applied,
        OutcomeClass::Duplicate,
        OutcomeClass::Stale,
        OutcomeClass::Transient,
        OutcomeClass::Rejected,
        OutcomeClass::Unsupported,
        OutcomeClass::Unauthorized,
        OutcomeClass::Ahead,
    ];
    let outcomes = classes.map(|class| {
        let (accepted, rejected) =
            (class == OutcomeClass::Applied, class == OutcomeClass::Rejected);
        OutcomeMeta {
            unit: UnitId::from_bytes([0x11; 16]),
            class,
            code: if accepted { "" } else { "invalid_phone" }.to_owned(),
            message: rejected.then_some(message),
            versions: if accepted { vec![(lead("42"), Version::new(1 << 40))] } else { vec![] },
        }
    });
    let extents = [Extent::Whole, Extent::Partial, Extent::Deleted];
    let changes = extents.map(|extent| ChangeMeta {
        key: lead("46"),
        version: Version::new(250),
        extent,
        edited_at: Hlc::at(START),
        op: OpId::new(START, random),
        older: vec![FieldWrites {
            edited_at: Hlc::ZERO,
            op: OpId::from_bytes([0x0e; 16]),
            fields: vec!["name".to_owned(), "gone".to_owned()],
        }],
        floor: (extent == Extent::Whole)
            .then_some(EditStamp { edited_at: Hlc::ZERO.next(), op: OpId::from_bytes([0x0f; 16]) }),
        fields: (extent != Extent::Deleted).then_some(image),
        undeclared: extent == Extent::Partial,
    });
    let upstream = Upstream {
        request: RequestId::from_bytes([0x22; 16]),
        server: ServerId::from_bytes([0x33; 16]),
        epoch: ServerEpoch::from_bytes([0x44; 16]),
        server_time: WallTime::from_milliseconds(-1),
        outcomes: outcomes.into(),
        changes: changes.into(),
        cursors: vec![(EntityType::parse("lead").unwrap(), Cursor::new(vec![0, 1, 0xff]).unwrap())],
        receipt: Some(Receipt { seq: Seq::new(4), hash: Hash::from_bytes([0xcd; 32]) }),
    };
    Draft { meta: Meta::Upstream(upstream), items }
}

fn every_decision(random: &mut SeededRandomness) -> Draft {
    let mut items = Items::default();
    let decisions = decisions(&mut items, random);
    Draft { meta: Meta::Control(Control::Decided(decisions)), items }
}

fn decisions(items: &mut Items, random: &mut SeededRandomness) -> Vec<Decision> {
    let unit = UnitId::from_bytes([0x11; 16]);
    let planned = Seq::new(4);
    let message = items.add("phone: not a number", random);
    let code = "busy".to_owned();
    let dead = OpId::from_bytes([0x55; 16]);
    let cancelled = Cancelled { key: lead("45"), ops: vec![], reason: CancelledReason::Undone };
    let mut decisions = vec![
        Decision::Acked { unit, planned, versions: vec![(lead("42"), Version::new(65_536))] },
        Decision::Tried { unit, planned, tries: 2, code: code.clone(), retry_at: START },
        Decision::Requeued { unit, planned },
        Decision::Conflicted(conflicted(items, random)),
        Decision::Superseded { key: lead("42"), op: planned_op(2, 0, random) },
        Decision::Dropped {
            key: lead("42"),
            op: planned_op(2, 0, random),
            fields: vec!["phone".to_owned()],
        },
        Decision::Raised {
            key: lead("42"),
            op: planned_op(3, 1, random),
            fields: vec!["phone".to_owned()],
            edited_at: Hlc::at(START),
            values: Some(message),
        },
        Decision::BroughtBack { key: lead("42"), op: planned_op(3, 1, random), read: message },
        Decision::DeadLettered {
            unit,
            planned,
            tries: 5,
            code: code.clone(),
            message: Some(message),
            answered: true,
        },
        Decision::Retried { key: lead("42"), op: planned_op(3, 1, random) },
        Decision::Discarded { key: lead("42"), op: planned_op(3, 1, random) },
        Decision::Cancelled(cancelled),
    ];
    let scopes = [
        ParkScope::Actor(Actor::parse("rep-7").unwrap()),
        ParkScope::Entity(EntityType::parse("visit_note").unwrap()),
        ParkScope::Op(dead),
        ParkScope::Server(ServerId::from_bytes([0x33; 16]), ServerEpoch::from_bytes([0x45; 16])),
        ParkScope::Protocol,
        ParkScope::Tenant(TenantId::from_bytes([0x47; 16])),
    ];
    decisions
        .extend(scopes.into_iter().map(|scope| Decision::Parked { scope, code: code.clone() }));
    decisions.push(Decision::Unparked { scope: ParkScope::Protocol });
    decisions.push(Decision::Resolved {
        key: lead("42"),
        op: planned_op(3, 1, random),
        winner: Winner::Remote,
        merged: Some(message),
    });
    let server = Some((ServerId::from_bytes([9; 16]), ServerEpoch::from_bytes([10; 16])));
    decisions.push(Decision::ServerAccepted { server });
    decisions.push(Decision::ServerRead);
    decisions.push(Decision::Adopted { key: lead("42"), seq: Seq::new(4), number: 70_000 });
    decisions.push(Decision::Upcast {
        key: lead("42"),
        op: planned_op(3, 1, random),
        schema_version: 2,
        fields: message,
    });
    let units = vec![(unit, planned), (UnitId::from_bytes([0x12; 16]), Seq::new(70_000))];
    decisions.push(Decision::Suspected { units, times: 0, code: code.clone(), retry_at: None });
    decisions.push(Decision::Suspected {
        units: vec![(unit, planned)],
        times: 3,
        code,
        retry_at: Some(START),
    });
    let edited_at = Hlc::at(START);
    let restamp = Restamp { key: lead("42"), op: planned_op(3, 1, random), edited_at };
    decisions.push(Decision::Restamped { server_time: START, ops: vec![restamp] });
    decisions.push(Decision::BelongsTo { tenant: TenantId::from_bytes([11; 16]) });
    let row = Some(items.add(r#"{"key":"OrderLine/7","version":7}"#, random));
    let (fault, version) = ("key".to_owned(), Some(Version::new(7)));
    decisions.push(Decision::SetAside {
        fault,
        version,
        name: items.add("OrderLine/7", random),
        row,
    });
    let cursor = Cursor::new(vec![0, 7]).unwrap();
    decisions.push(Decision::ReadForeign { entity: "OrderLine".to_owned(), cursor });
    decisions.push(Decision::HandedOver {
        key: lead("42"),
        op: planned_op(3, 1, random),
        to: Actor::parse("rep-8").unwrap(),
    });
    decisions.push(Decision::LetGo { key: lead("43"), version: Version::new(8) });
    decisions
}

/// Every policy and every winner.
fn conflicted(items: &mut Items, random: &mut SeededRandomness) -> Conflicted {
    let rules = [
        (Policy::LastWriteWins, Winner::Local),
        (Policy::ServerWins, Winner::Remote),
        (Policy::DeviceWins, Winner::Local),
        (Policy::Max, Winner::Merged),
        (Policy::Min, Winner::Merged),
        (Policy::AppendUnique, Winner::Merged),
        (Policy::Manual, Winner::Undecided),
        (Policy::Function, Winner::Local),
    ];
    let fields = rules.map(|(rule, winner)| ConflictedField {
        name: rule.as_str().to_owned(),
        rule,
        winner,
    });
    Conflicted {
        key: lead("42"),
        op: planned_op(3, 1, random),
        kind: OpKind::Update,
        edited_at: Hlc::at(START),
        version: Version::new(48),
        extent: Extent::Whole,
        remote_edited_at: Hlc::at(START).next(),
        fields: fields.into(),
        winner: Winner::Remote,
        rule: Policy::LastWriteWins,
        base: items.add(r#"{"stage":"new"}"#, random),
        local: items.add(r#"{"stage":"hot"}"#, random),
        remote: items.add(r#"{"stage":"won"}"#, random),
        merged: Some(items.add(r#"{"stage":"hot"}"#, random)),
        functions: vec![
            ResolvedBy { field: Some("function".to_owned()), function: "longest".to_owned() },
            ResolvedBy { field: None, function: "fullest".to_owned() },
        ],
    }
}

fn every_verb(random: &mut SeededRandomness) -> Vec<Draft> {
    let mut items = Items::default();
    let reason = items.add("typed twice", random);
    let actions = [
        PersonAction::Retry,
        PersonAction::Discard { reason },
        PersonAction::Undo,
        PersonAction::Resolve,
        PersonAction::Resume,
        PersonAction::AcceptServer,
        PersonAction::HandOver,
    ];
    let drafts = actions.into_iter().map(|action| Draft {
        items: if matches!(action, PersonAction::Discard { .. }) {
            items.clone()
        } else {
            Items::default()
        },
        meta: Meta::Control(Control::PersonActed(action, vec![])),
    });
    drafts.collect()
}
