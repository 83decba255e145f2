//! The bodies of the fuzz targets: plain functions over bytes, run by libFuzzer in `fuzz/` and over the kept corpora by an
//! ordinary test. A finding is a panic.

use std::fmt::Debug;
use std::sync::Arc;

use fieldbook::entry::{Control, Draft, Entry, EntryKind, FORMAT, Header, Items, Meta, chain, seal};
use fieldbook::protocol::{ExchangeAnswer, ExchangeRequest, Outcome};
use fieldbook::{
    Actor, Ask, Book, BookOptions, EntityRules, Epoch, Fields, FieldsJson, Hash, Hlc, Mutation, Next, OpKind,
    RecordKey, Schema, SeededRandomness, Seq, ServerEpoch, ServerId, WallTime, limits, rows,
};
use fieldbook_core::authority::{AuthorityRead, Caller, MemoryAuthority, Quota, exchange};
use fieldbook_core::codec::{self, Stored};
use fieldbook_core::rules::Image;
use fieldbook_core::rules::admit::admit;
use fieldbook_core::rules::coalesce::{Folded, Step};
use serde_json::{Map, Value, json};

use crate::action::{Action, Edit, Kind, Setup};
use crate::clock::SimClock;
use crate::disk::{Loss, SimDisk};
use crate::server::{Trouble, Verdict};
use crate::world::World;

/// A fuzz target's body.
pub type Target = fn(&[u8]);

/// Every target, by the name that its corpus has.
pub const TARGETS: &[(&str, Target)] = &[
    ("entry_decode", entry_decode),
    ("exchange_answer", exchange_answer),
    ("exchange_request", exchange_request),
    ("fields_admit", fields_admit),
    ("coalesce", coalesce),
    ("rows", rows),
    ("world", world),
];

/// Stored bytes of an entry: whatever reads as one keeps its hashes, and no change to a sealed one goes unnoticed.
pub fn entry_decode(data: &[u8]) {
    if let Ok(entry) = Entry::decode(data) {
        assert_eq!(Entry::decode(data).ok().as_ref(), Some(&entry), "BUG: the same bytes read in two ways");
    }
    let (sealed, before) = sealed_entry();
    let mut changed = sealed.clone();
    for place in data.chunks_exact(3) {
        if let [high, low, by] = *place {
            let at = usize::from(u16::from_be_bytes([high, low])) % changed.len().max(1);
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= by;
            }
        }
    }
    if let Ok(entry) = Entry::decode(&changed) {
        let holds = chain::link(&before, &entry.content) == entry.hash;
        assert_eq!(holds, changed == sealed, "BUG: a changed entry still follows from the one before");
    }
}

/// A real entry, and the hash of the one before it.
fn sealed_entry() -> (Vec<u8>, Hash) {
    let mut random = SeededRandomness::from_number(1);
    let mut items = Items::default();
    let message = items.add("a value that can be erased", &mut random);
    let meta = Meta::Control(Control::Verb(fieldbook::entry::Verb::Discard { reason: message }, Vec::new()));
    let Ok(actor) = Actor::parse("someone") else { return Default::default() };
    let header = Header {
        format: FORMAT,
        kind: EntryKind::Control,
        epoch: Epoch::from_bytes([7; 16]),
        seq: Seq::new(41),
        hlc: Hlc::from_bits(1 << 40),
        wall: WallTime::from_milliseconds(1_767_225_600_000),
        actor,
    };
    let before = Hash::from_bytes([9; 32]);
    let sealed = seal(&header, &Draft { meta, items }, &before);
    (sealed.map(|sealed| sealed.bytes).unwrap_or_default(), before)
}

/// An answer of a server: what does not parse is refused, and what does leaves a whole book. In text, `$UNIT`, `$REQUEST`
/// and `$KEY` stand for what the book has just sent.
pub fn exchange_answer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((book, request)) = book_with_a_request() else { return };
    let unit = request.units.first().map(|unit| unit.id.to_string()).unwrap_or_default();
    let text = text.replace("$UNIT", &unit).replace("$REQUEST", &request.request.to_string());
    let text = text.replace("$KEY", "lead/1");
    let Ok(mut answer) = serde_json::from_str::<ExchangeAnswer>(&text) else { return };
    let again = serde_json::to_string(&answer).ok().and_then(|text| serde_json::from_str(&text).ok());
    assert_eq!(again.as_ref(), Some(&answer), "BUG: an answer does not read back");
    answer.request = request.request;
    let taken = book.take(&request, answer.clone());
    assert!(taken.is_ok(), "BUG: an answer broke the book: {taken:?}");
    let entries = book.entries(Seq::new(1), usize::MAX).map(|entries| entries.len());
    let taken = book.take(&request, answer);
    assert!(taken.is_ok(), "BUG: a repeated answer broke the book: {taken:?}");
    let verified = book.verify(|_| {});
    assert!(matches!(verified, Ok(Ok(_))), "BUG: the log does not verify: {verified:?}");
    let differs = book.check_tables();
    assert!(
        matches!(differs, Ok(None)),
        "BUG: the tables are not what the log says: {differs:?}, {entries:?}"
    );
}

fn book_with_a_request() -> Option<(Book, ExchangeRequest)> {
    let options = BookOptions::new("someone").ok()?;
    let options = options
        .clock(Arc::new(SimClock::new(1_767_225_600_000)))
        .cache_bytes(1024 * 1024)
        .randomness(Box::new(SeededRandomness::from_number(1)));
    let book = Book::on_backend(SimDisk::empty(), options).ok()?;
    let key = RecordKey::parse("lead", "1").ok()?;
    book.create(key.clone(), Fields::from_iter([("a".to_owned(), json!(1))])).ok()?;
    let ask = Ask {
        first: true,
        push: true,
        pull: true,
        batch_ops: limits::BATCH_OPS,
        batch_bytes: limits::BATCH_BYTES,
        page_limit: 10,
    };
    let Next::Exchange(request) = book.prepare(&ask).ok()? else { return None };
    book.update(key, Fields::from_iter([("b".to_owned(), json!(2))])).ok()?;
    Some((book, request))
}

/// A request to the server's rules: refused or answered, and answered the same when it comes again.
pub fn exchange_request(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<ExchangeRequest>(data) else { return };
    let again = serde_json::to_vec(&request).ok().and_then(|text| serde_json::from_slice(&text).ok());
    assert_eq!(again.as_ref(), Some(&request), "BUG: a request does not read back");
    let mut server = MemoryAuthority::new(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([2; 16]));
    let now = WallTime::from_milliseconds(1_767_225_600_000);
    let treat =
        |server: &mut MemoryAuthority| exchange(server, &request, now, &Caller::Anyone, &Quota::default());
    let Ok(first) = treat(&mut server) else { return };
    let commit = server.last_commit();
    let Ok(second) = treat(&mut server) else {
        panic!("BUG: a request was taken once and refused when it came again")
    };
    for outcome in first.outcomes {
        let again = second.outcomes.iter().find(|again| again.unit == outcome.unit);
        match (outcome.outcome, again.map(|again| &again.outcome)) {
            (Outcome::Applied { versions, .. }, Some(Outcome::Duplicate { versions: again })) => {
                assert_eq!(versions, *again, "BUG: a unit got other versions the second time");
            }
            (Outcome::Applied { .. }, again) => {
                panic!("BUG: a unit that was applied is {again:?} the second time")
            }
            _ => {}
        }
    }
    assert_eq!(server.last_commit(), commit, "BUG: a repeated request changed something");
}

/// Fields from text: every way of reading them agrees, and an admitted mutation changes what it says and nothing else.
pub fn fields_admit(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (image, patch) = text.split_once('\n').unwrap_or(("{}", text));
    let (quick, full) = (FieldsJson::parse(patch), Fields::parse(patch));
    assert_eq!(quick.is_ok(), full.is_ok(), "BUG: the quick check and the full parse disagree");
    let (Ok(json), Ok(patch), Ok(image)) = (quick, full, Fields::parse(image)) else { return };
    assert_eq!(json, patch.to_json(), "BUG: the same fields have two texts");
    assert_eq!(FieldsJson::parse(json.as_str()).ok(), Some(json), "BUG: stored text is not read back");
    let Ok(key) = RecordKey::parse("lead", "1") else { return };
    let image = (choice & 1 == 1).then(|| image.into_image());
    let mutation = match choice >> 1 & 3 {
        0 => Mutation::create(key, patch),
        1 => Mutation::update(key, patch),
        2 => Mutation::replace(key, patch),
        _ => Mutation::delete(key),
    };
    let Ok(admitted) = admit(&Schema::open(EntityRules::default()), image.as_ref(), &mutation) else {
        return;
    };
    let asked = applied(image.clone(), mutation.kind, &mutation.fields);
    match admitted {
        Some(admitted) => {
            assert_eq!(
                applied(image, mutation.kind, &admitted.fields),
                asked,
                "BUG: the op does something else"
            );
        }
        None => assert_eq!(image, asked, "BUG: a change was taken for none"),
    }
}

fn applied(image: Option<Fields>, kind: OpKind, fields: &Fields) -> Option<Fields> {
    let mut image = Image { fields: image, before_deletion: None };
    image.apply(kind, fields);
    image.fields
}

/// Ops of a record: what they come to does what they do one by one.
pub fn coalesce(data: &[u8]) {
    let Some((&start, rest)) = data.split_first() else { return };
    let exists = start & 1 == 1;
    let start =
        Image { fields: exists.then(|| small_fields(start >> 1).into_image()), before_deletion: None };
    let (mut one_by_one, mut folded) = (start.clone(), Folded::Nothing);
    for (at, bytes) in (1..).zip(rest.chunks_exact(2).take(64)) {
        let [kind, fields] = *bytes else { return };
        let kind = match kind & 3 {
            0 => OpKind::Create,
            1 => OpKind::Update,
            2 => OpKind::Delete,
            _ => OpKind::Replace,
        };
        let fields = if kind == OpKind::Delete { Fields::new() } else { small_fields(fields) };
        one_by_one.apply(kind, &fields);
        folded = folded.then(Step { kind, fields, edited_at: Hlc::from_bits(at) }, exists);
    }
    let mut at_once = start;
    if let Folded::Change(change) = folded {
        assert!(
            change.stamps.values().all(|stamp| *stamp <= change.edited_at),
            "BUG: a stamp after the last edit"
        );
        at_once.apply(change.kind, &change.fields);
    }
    assert_eq!(one_by_one.fields, at_once.fields, "BUG: the folded change does something else");
}

/// Up to three fields, each absent, null or a number.
fn small_fields(bits: u8) -> Fields {
    let named = ["a", "b", "c"].into_iter().zip([bits & 3, bits >> 2 & 3, bits >> 4 & 3]);
    let present = named.filter(|(_, choice)| *choice > 0);
    present
        .map(|(name, choice)| (name.to_owned(), if choice == 1 { Value::Null } else { json!(choice) }))
        .collect()
}

/// Stored rows and meta parts: what reads is written such that it reads the same.
pub fn rows(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    match choice % 8 {
        0 => reads_back::<rows::RecordRow>(rest),
        1 => reads_back::<rows::UnitRow>(rest),
        2 => reads_back::<rows::ConflictRow>(rest),
        3 => reads_back::<rows::DeadLetterRow>(rest),
        4 => reads_back::<rows::TailRow>(rest),
        5 => reads_back::<rows::CursorRow>(rest),
        6 => reads_back::<rows::StateRow>(rest),
        _ => reads_back::<Meta>(rest),
    }
}

fn reads_back<T: Stored + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = codec::decode::<T>(bytes) else { return };
    let Ok(written) = codec::encode(&value) else { panic!("BUG: what was read cannot be written") };
    assert_eq!(
        codec::decode::<T>(&written).ok(),
        Some(value),
        "BUG: what was written reads as something else"
    );
}

/// A whole small world: two devices that write, exchange, lose, repeat and reorder as the bytes say, and then agree.
pub fn world(data: &[u8]) {
    let Some((&start, rest)) = data.split_first() else { return };
    let setup = Setup {
        seed: 1,
        devices: 2,
        records: 1,
        policy: start & 7,
        whole_record: start & 8 != 0,
        undo_window: 0,
        priorities: false,
        mutual_references: start & 16 != 0,
        late_answers: start & 32 != 0,
        clock_errors: Vec::new(),
    };
    let Ok(mut world) = World::new(setup) else { return };
    let actions = rest.chunks_exact(3).take(60).filter_map(|bytes| match *bytes {
        [what, device, choice] => Some(small_action(what, device, choice)),
        _ => None,
    });
    let mut broken = None;
    for action in actions {
        broken = broken.or_else(|| world.step(&action).err());
    }
    let broken = broken.or_else(|| world.heal().and_then(|()| world.settle_all()).err());
    assert!(broken.is_none(), "BUG: {broken:?}");
}

fn small_action(what: u8, device: u8, choice: u8) -> Action {
    let (device, message) = (usize::from(device), usize::from(choice));
    let edit = |kind| {
        let fields: Map<String, Value> = small_fields(choice).into_map();
        let fields = if kind == Kind::Delete { Map::new() } else { fields };
        Edit { kind, note: choice & 64 != 0, record: 0, fields }
    };
    let trouble = |verdict| Some(Trouble::Unit { number: message, verdict });
    match what % 16 {
        0 => Action::Write { device, edit: edit(Kind::Save) },
        1 => Action::Write { device, edit: edit(Kind::Update) },
        2 => Action::Write { device, edit: edit(Kind::Delete) },
        3 => Action::Write { device, edit: edit(Kind::Replace) },
        4 => Action::Transaction {
            device,
            edits: vec![edit(Kind::Save), edit(Kind::Update), edit(Kind::Delete)],
        },
        5 | 6 => Action::Begin { device, push: true, pull: choice & 1 == 0, batch: 4, page: 2 },
        7 | 8 => Action::Deliver { message, trouble: None },
        9 => Action::Deliver { message, trouble: trouble(Verdict::Transient) },
        10 => Action::Deliver { message, trouble: Some(Trouble::AppliedThenBusy) },
        11 => Action::Deliver { message, trouble: trouble(Verdict::Rejected) },
        12 => Action::Drop { message },
        13 => Action::Duplicate { message },
        14 => Action::Advance { milliseconds: u64::from(choice) * 60_000 },
        _ => Action::Crash { device, loss: Loss::Everything, killed: choice & 1 == 0 },
    }
}
