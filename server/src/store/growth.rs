//! The cost of an exchange does not grow with the size of the store. The test counts pages of the
//! file, with nothing cached.

use std::sync::Arc;

use fieldbook_core::authority::{Caller, Quota};
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, HeadClaim, Unit, UnitChange};
use fieldbook_core::{
    Actor, Cursor, DeviceId, DeviceKey, Epoch, FieldsJson, Hash, Hlc, OpId, OpKind, RequestId, Seq,
    UnitId, Version, WallTime,
};

use super::support::Disk;
use super::{Incoming, Store, Tenant};

/// A store, and how much was put into it.
struct Grown {
    disk: Disk,
    store: Store,
    number: u64,
}

/// How many pages each kind of exchange read.
#[derive(Debug)]
struct Costs {
    nothing_new: usize,
    page: usize,
    create: usize,
    update: usize,
    again: usize,
}

fn id(number: u64) -> [u8; 16] {
    // The ids are spread, as random ids are.
    u128::from_le_bytes(blake3::hash(&number.to_le_bytes()).as_bytes()[..16].try_into().unwrap())
        .to_be_bytes()
}

fn change(name: &str, kind: OpKind, base: Option<u64>) -> UnitChange {
    let fields = format!(r#"{{"text":"{}"}}"#, "x".repeat(80));
    UnitChange {
        key: name.parse().unwrap(),
        kind,
        base: base.map(Version::new),
        ops: vec![OpId::from_bytes([9; 16])],
        edited_at: Hlc::from_bits((1 << 16) + base.unwrap_or_default()),
        older: Vec::new(),
        schema_version: 1,
        fields: (kind != OpKind::Delete).then(|| FieldsJson::parse(&fields).unwrap()),
    }
}

impl Grown {
    fn new() -> Self {
        let disk = Disk::default();
        let store = Store::on_database(disk.database(), std::path::Path::new("disk")).unwrap();
        Self { disk, store, number: 0 }
    }

    fn exchange(&self, request: ExchangeRequest) -> ExchangeAnswer {
        let (tenant, request) = (Tenant::local(), Arc::new(request));
        let now = WallTime::from_milliseconds(1_800_000_000_000);
        let (caller, quota) = (Caller::Anyone, Quota::default());
        let incoming =
            Incoming { tenant: &tenant, request: &request, now, caller: &caller, quota: &quota };
        let accepted = self.store.accept(incoming, None).unwrap();
        let mut changes = Vec::new();
        let answer = self.store.answer(incoming, accepted, |change| changes.push(change)).unwrap();
        ExchangeAnswer { changes, ..answer }
    }

    fn request(&self) -> ExchangeRequest {
        let (device, epoch) = (DeviceId::from_bytes(id(u64::MAX)), Epoch::from_bytes([5; 16]));
        ExchangeRequest::new(
            RequestId::from_bytes([3; 16]),
            device,
            epoch,
            Actor::parse("ann").unwrap(),
        )
    }

    /// Sends units of one change each, as many at a time as fit a turn.
    fn send(&mut self, changes: Vec<UnitChange>) {
        for some in changes.chunks(500) {
            let units = some.iter().map(|change| {
                self.number += 1;
                Unit {
                    id: UnitId::from_bytes(id(self.number)),
                    changes: vec![change.clone()],
                    earlier_units: Vec::new(),
                }
            });
            let units: Vec<_> = units.collect();
            let count = units.len();
            assert_eq!(
                self.exchange(ExchangeRequest { units, ..self.request() }).outcomes.len(),
                count
            );
        }
    }

    /// Makes this many devices claim a head, each with a key.
    fn enrol(&mut self, devices: u64) {
        self.send(creates(0..200));
        for number in 0..devices {
            let head = HeadClaim {
                anchor: None,
                contents: Vec::new(),
                seq: Seq::new(1),
                hash: Hash::ZERO,
            };
            let device = DeviceId::from_bytes(id(1_000_000 + number));
            let key = Some(DeviceKey::from_seed(&blake3::hash(&number.to_le_bytes()).into()));
            let claim =
                ExchangeRequest { device, device_key: key, head: Some(head), ..self.request() };
            assert!(self.exchange(claim).receipt.is_some());
        }
    }

    /// Adds records of this many entity types. The last records are of one type, because the cost
    /// of a page depends on its news.
    fn spread(&mut self, types: u64) {
        let records = (0..2_000).map(|number| match number {
            0..1_000 => format!("type_{}/{number:06}", number % types),
            _ => format!("lead/{number:06}"),
        });
        self.send(records.map(|name| change(&name, OpKind::Create, None)).collect());
    }

    fn pull(&self, after: u64, page_limit: u32) -> ExchangeAnswer {
        let others = Some(Cursor::new(after.to_be_bytes().to_vec()).unwrap());
        self.exchange(ExchangeRequest { others, page_limit, ..self.request() })
    }

    fn counted<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> (usize, T) {
        let before = self.disk.reads();
        let done = work(self);
        (self.disk.reads() - before, done)
    }

    fn costs(&mut self) -> Costs {
        let last = self.number;
        let (nothing_new, answer) = self.counted(|grown| grown.pull(last, 5_000));
        assert!(answer.changes.is_empty() && !answer.more);
        let (page, answer) = self.counted(|grown| grown.pull(last / 2, 100));
        assert_eq!(answer.changes.len(), 100);
        let (create, ()) =
            self.counted(|grown| grown.send(vec![change("lead/new", OpKind::Create, None)]));
        let (update, ()) = self
            .counted(|grown| grown.send(vec![change("lead/new", OpKind::Update, Some(last + 1))]));
        self.number -= 1;
        let (again, ()) = self
            .counted(|grown| grown.send(vec![change("lead/new", OpKind::Update, Some(last + 1))]));
        Costs { nothing_new, page, create, update, again }
    }
}

/// Asserts that the costs are equal or almost equal. A tree with ten times as many rows is at most
/// one level higher, and at the sizes here rarely.
fn assert_flat(few: &Costs, many: &Costs) {
    for (what, few, many) in [
        ("nothing new", few.nothing_new, many.nothing_new),
        ("a page", few.page, many.page),
        ("a create", few.create, many.create),
        ("an update", few.update, many.update),
        ("a unit again", few.again, many.again),
    ] {
        assert!(many * 10 <= few * 11, "{what}: {few} pages read, {many} at ten times the size");
    }
}

/// Compares a store with a store that is ten times as large, made by `grow`.
fn holds_for(grow: impl Fn(&mut Grown, u64), few: u64) {
    let costs = [few, 10 * few].map(|count| {
        let mut grown = Grown::new();
        grow(&mut grown, count);
        grown.costs()
    });
    assert_flat(&costs[0], &costs[1]);
}

fn creates(range: std::ops::Range<u64>) -> Vec<UnitChange> {
    range.map(|number| change(&format!("lead/{number:06}"), OpKind::Create, None)).collect()
}

#[test]
fn exchanges_cost_the_same_at_ten_times_the_records_and_the_units_that_are_remembered() {
    holds_for(|grown, records| grown.send(creates(0..records)), 4_500);
}

#[test]
fn exchanges_cost_the_same_at_ten_times_the_tombstones() {
    let bury = |grown: &mut Grown, records| {
        grown.send(creates(0..records));
        let versions = 1..=records;
        let deletes = versions.map(|version| {
            change(&format!("lead/{:06}", version - 1), OpKind::Delete, Some(version))
        });
        grown.send(deletes.collect());
    };
    holds_for(bury, 400);
}

#[test]
fn exchanges_cost_the_same_at_ten_times_the_devices() {
    holds_for(Grown::enrol, 300);
}

#[test]
fn exchanges_cost_the_same_at_ten_times_the_entity_types() {
    holds_for(Grown::spread, 10);
}

#[test]
fn a_store_from_before_it_kept_when_types_were_changed_is_looked_through_and_then_keeps_it() {
    let mut grown = Grown::new();
    let names = ["lead/1", "note/1", "task/1"];
    grown.send(names.map(|name| change(name, OpKind::Create, None)).to_vec());
    let transaction = grown.store.database.begin_write().unwrap();
    transaction.delete_table(super::tables::TYPES).unwrap();
    transaction.commit().unwrap();
    let keys = |answer: ExchangeAnswer| {
        answer.changes.into_iter().map(|change| change.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys(grown.pull(1, 10)), ["note/1", "task/1"]);
    grown.send(vec![change("lead/1", OpKind::Update, Some(1))]);
    assert_eq!(keys(grown.pull(0, 10)), ["note/1", "task/1", "lead/1"]);
    assert_eq!(keys(grown.pull(2, 10)), ["task/1", "lead/1"]);
    assert_eq!(keys(grown.pull(3, 10)), ["lead/1"]);
    assert!(grown.pull(4, 10).changes.is_empty());
}

/// Prints the cost of exchanges as a store grows, for `docs/benchmarks.md`.
#[test]
#[ignore = "it takes minutes: run it with --ignored --nocapture"]
fn curves() {
    for devices in [1, 10, 100, 1_000, 10_000] {
        let mut grown = Grown::new();
        grown.enrol(devices);
        println!("{devices} devices: {:?}", grown.costs());
    }
    for types in [1, 10, 100, 900] {
        let mut grown = Grown::new();
        grown.spread(types);
        println!("{types} entity types: {:?}", grown.costs());
    }
    for records in [1_000, 10_000, 100_000] {
        let mut grown = Grown::new();
        grown.send(creates(0..records));
        println!("{records} records: {:?}", grown.costs());
    }
}
