//! The cost limits of one request, and the rule that everything accepted can be read.

use std::cell::Cell;
use std::convert::Infallible;

use super::*;
use crate::digest::Digest;
use crate::names::RecordId;

/// A store that counts the bytes that are read and written of records.
struct Counting {
    inner: MemoryAuthority,
    bytes: Cell<usize>,
    lookups: Cell<usize>,
}

impl Counting {
    fn new(inner: MemoryAuthority) -> Self {
        Self { inner, bytes: Cell::new(0), lookups: Cell::new(0) }
    }

    fn count(&self, id: &RecordId, row: &Row) {
        self.bytes.set(self.bytes.get() + row.stored_bytes(id));
    }
}

impl AuthorityRead for Counting {
    type Error = Infallible;

    fn identity(&self) -> Result<(ServerId, ServerEpoch), Infallible> {
        self.inner.identity()
    }

    fn last_commit(&self) -> Result<Version, Infallible> {
        self.inner.last_commit()
    }

    fn newest_time(&self) -> Result<Option<WallTime>, Infallible> {
        self.inner.newest_time()
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Row>, Infallible> {
        let row = self.inner.record(key)?;
        row.iter().for_each(|row| self.count(&key.id, row));
        Ok(row)
    }

    fn place(&self, key: &RecordKey) -> Result<Option<RowPlace>, Infallible> {
        self.lookups.set(self.lookups.get() + 1);
        self.inner.place(key)
    }

    fn has_records(&self, entity: &EntityType) -> Result<bool, Infallible> {
        self.inner.has_records(entity)
    }

    fn unit(&self, id: &UnitId) -> Result<Option<UnitMemory>, Infallible> {
        self.lookups.set(self.lookups.get() + 1);
        self.inner.unit(id)
    }

    fn anchor(&self, device: &DeviceId, epoch: &Epoch) -> Result<Option<Receipt>, Infallible> {
        self.inner.anchor(device, epoch)
    }

    fn device_key(&self, device: &DeviceId) -> Result<Option<Hash>, Infallible> {
        self.inner.device_key(device)
    }

    fn anchors(&self, device: &DeviceId, epoch: &Epoch) -> Result<Vec<Receipt>, Infallible> {
        self.inner.anchors(device, epoch)
    }

    fn epochs(&self, device: &DeviceId) -> Result<Vec<Epoch>, Infallible> {
        self.inner.epochs(device)
    }

    fn entities_after(&self, commit: Version) -> Result<Vec<EntityType>, Infallible> {
        self.inner.entities_after(commit)
    }

    fn feed(
        &self,
        entity: &EntityType,
        from: (Version, u32),
    ) -> Result<impl Iterator<Item = Result<FeedItem, Infallible>>, Infallible> {
        self.inner.feed(entity, from)
    }

    fn digests(&self) -> Result<Option<Vec<(EntityType, Digest)>>, Infallible> {
        self.inner.digests()
    }

    fn parts(&self, entity: &EntityType) -> Result<Option<Vec<Digest>>, Infallible> {
        self.inner.parts(entity)
    }

    fn versions(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
    ) -> Result<impl Iterator<Item = Result<IdVersion, Infallible>>, Infallible> {
        self.inner.versions(entity, after)
    }
}

impl AuthorityState for Counting {
    fn set_last_commit(&mut self, commit: Version) -> Result<(), Infallible> {
        self.inner.set_last_commit(commit)
    }

    fn set_newest_time(&mut self, time: WallTime) -> Result<(), Infallible> {
        self.inner.set_newest_time(time)
    }

    fn set_record(
        &mut self,
        key: &RecordKey,
        before: Option<&RowPlace>,
        row: &Row,
    ) -> Result<(), Infallible> {
        self.count(&key.id, row);
        self.inner.set_record(key, before, row)
    }

    fn digest(&self, entity: &EntityType, part: Option<u8>) -> Result<Digest, Infallible> {
        self.inner.digest(entity, part)
    }

    fn set_digest(
        &mut self,
        entity: &EntityType,
        part: Option<u8>,
        digest: Digest,
    ) -> Result<(), Infallible> {
        self.inner.set_digest(entity, part, digest)
    }

    fn usage(&self) -> Result<Usage, Infallible> {
        self.inner.usage()
    }

    fn set_usage(&mut self, usage: &Usage) -> Result<(), Infallible> {
        self.inner.set_usage(usage)
    }

    fn set_unit(&mut self, id: &UnitId, memory: &UnitMemory) -> Result<(), Infallible> {
        self.inner.set_unit(id, memory)
    }

    fn set_device_key(&mut self, device: &DeviceId, fingerprint: &Hash) -> Result<(), Infallible> {
        self.inner.set_device_key(device, fingerprint)
    }

    fn set_anchor(
        &mut self,
        device: &DeviceId,
        epoch: &Epoch,
        anchor: &Receipt,
    ) -> Result<(), Infallible> {
        self.inner.set_anchor(device, epoch, anchor)
    }
}

/// Sends units until each has an outcome, like a device. Returns the outcomes and the number of
/// requests. The cost of a request exceeds its budget by at most one record.
#[track_caller]
fn worked_off(state: &mut Counting, mut units: Vec<Unit>) -> (Vec<Outcome>, usize) {
    let (mut outcomes, mut requests) = (Vec::new(), 0);
    while !units.is_empty() {
        (state.bytes, state.lookups) = (Cell::new(0), Cell::new(0));
        let sent = request(units.clone());
        let answer = exchange(state, &sent, NOW, &Caller::Anyone, &Quota::default()).unwrap();
        assert!(!answer.outcomes.is_empty(), "a request without progress");
        for outcome in answer.outcomes {
            assert_eq!(outcome.unit, units.remove(0).id, "a unit overtook another");
            outcomes.push(outcome.outcome);
        }
        requests += 1;
        assert!(
            state.bytes.get() <= limits::WORK_BYTES + 2 * limits::OP_BYTES,
            "{}",
            state.bytes.get()
        );
        assert!(state.lookups.get() <= limits::WORK_BYTES / 1024, "{}", state.lookups.get());
    }
    (outcomes, requests)
}

/// Makes this many records of a megabyte.
fn with_large_records(count: u64) -> Counting {
    let mut state = store();
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(limits::OP_BYTES - 100));
    for number in 0..count {
        applied(
            &mut state,
            10_000 + number,
            vec![change(&format!("lead/{number}"), OpKind::Create, None, &large)],
        );
    }
    Counting::new(state)
}

fn small_update(record: u64, base: u64) -> UnitChange {
    change(&format!("lead/{record}"), OpKind::Update, Some(base), r#"{"b":1}"#)
}

/// A request of 52 kB held the only writer for 53 seconds and needed 3.3 GB: each of its small
/// updates read and built a whole large record, and the total was checked only at the end.
#[test]
fn small_updates_of_large_records_are_worked_off_within_each_requests_budget() {
    let mut state = with_large_records(4);
    let units: Vec<_> = (0..70).map(|n| unit(n, vec![small_update(n % 4, 1 + n)])).collect();
    let (outcomes, requests) = worked_off(&mut state, units);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied { .. })));
    assert!(requests > 1, "{requests}");
}

/// A request of many units had the only writer until all its 64 MiB of work was done, and all other
/// requests waited.
#[test]
fn a_request_of_many_units_has_the_writer_for_one_turn_and_the_rest_comes_again() {
    let mut state = with_large_records(4);
    let units: Vec<_> = (0..40).map(|n| unit(n, vec![small_update(n % 4, 1 + n)])).collect();
    let answer =
        exchange(&mut state, &request(units.clone()), NOW, &Caller::Anyone, &Quota::default())
            .unwrap();
    assert!(answer.outcomes.len() > 1, "a turn is for several units");
    assert!(state.bytes.get() <= limits::TURN_BYTES, "{}", state.bytes.get());
    let (outcomes, _) = worked_off(&mut state, units);
    assert!(
        outcomes.iter().all(|outcome| {
            matches!(outcome, Outcome::Applied { .. } | Outcome::Duplicate { .. })
        })
    );
}

/// A usual import must not need more requests than before.
#[test]
fn a_usual_batch_is_treated_in_one_turn() {
    let mut state = Counting::new(store());
    let fields =
        format!(r#"{{"a":"{}"}}"#, "x".repeat(limits::BATCH_BYTES / limits::BATCH_OPS - 200));
    let units: Vec<_> = (0..limits::BATCH_OPS as u64)
        .map(|n| unit(n, vec![change(&format!("lead/{n}"), OpKind::Create, None, &fields)]))
        .collect();
    assert_eq!(worked_off(&mut state, units).1, 1);
    let units: Vec<_> = (0..limits::REQUEST_UNITS as u64)
        .map(|n| unit(1_000 + n, vec![create(&format!("note/{n}"))]))
        .collect();
    assert_eq!(worked_off(&mut state, units).1, 1);
}

#[test]
fn one_unit_that_updates_too_many_large_records_is_rejected_before_they_are_built() {
    let mut state = with_large_records(60);
    let all = (0..60).map(|n| small_update(n, 1 + n)).collect();
    let (outcomes, _) =
        worked_off(&mut state, vec![unit(1, all), unit(2, vec![small_update(3, 4)])]);
    assert!(matches!(&outcomes[0], Outcome::Rejected { code, .. } if code == "unit_too_large"));
    assert!(matches!(outcomes[1], Outcome::Applied { .. }), "the unit after it was not applied");
}

/// The unit makes its records smaller, so no size is ever too large. But each record has to be read
/// for it.
#[test]
fn one_unit_that_shrinks_too_many_large_records_at_once_is_rejected_for_its_work() {
    let mut state = with_large_records(60);
    let shrink =
        |n: u64| change(&format!("lead/{n}"), OpKind::Update, Some(1 + n), r#"{"a":null}"#);
    let (outcomes, _) = worked_off(&mut state, vec![unit(1, (0..60).map(shrink).collect())]);
    assert!(matches!(&outcomes[0], Outcome::Rejected { code, .. } if code == "unit_too_large"));
    let (outcomes, _) = worked_off(&mut state, vec![unit(2, (0..20).map(shrink).collect())]);
    assert!(matches!(outcomes[0], Outcome::Applied { .. }));
}

#[test]
fn large_records_are_deleted_without_being_read() {
    let mut state = with_large_records(60);
    let all =
        (0..60).map(|n| change(&format!("lead/{n}"), OpKind::Delete, Some(1 + n), "")).collect();
    let (outcomes, requests) = worked_off(&mut state, vec![unit(1, all)]);
    assert!(matches!(outcomes[0], Outcome::Applied { .. }) && requests == 1);
    assert!(state.bytes.get() < 10_000);
}

#[test]
fn stale_units_that_each_show_a_large_record_are_worked_off_within_each_requests_budget() {
    let mut state = with_large_records(3);
    // Each unit is stale in its last change only.
    let units: Vec<_> = (0..40)
        .map(|n| unit(n, vec![small_update(0, 1), small_update(1, 2), create("lead/2")]))
        .collect();
    let (outcomes, _) = worked_off(&mut state, units);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Stale { .. })));
}

#[test]
fn long_lists_of_earlier_units_are_looked_up_within_each_requests_budget() {
    let mut state = Counting::new(store());
    let former: Vec<_> = (0..1_000).map(|n| UnitId::from_bytes(id(50_000 + n))).collect();
    let units = (0..300)
        .map(|n| Unit {
            earlier_units: former.clone(),
            ..unit(n, vec![create(&format!("lead/{n}"))])
        })
        .collect();
    let (outcomes, requests) = worked_off(&mut state, units);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied { .. })));
    assert!(requests > 3, "{requests}");
}

#[test]
fn the_largest_honest_batch_of_small_changes_is_worked_off_in_a_few_turns() {
    let mut state = Counting::new(store());
    let units = (0..1_000)
        .map(|n| unit(n, (0..10).map(|m| create(&format!("lead/{n}.{m}"))).collect()))
        .collect();
    assert_eq!(worked_off(&mut state, units).1, 6);
}

/// Makes a new device that reads all pages as if they came from the network.
#[track_caller]
fn read_by_a_fresh_device(state: &mut MemoryAuthority) -> BTreeMap<RecordKey, Change> {
    let (mut cursors, mut read) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let answer = answered(state, &pull(cursors.clone(), limits::PAGE_CHANGES));
        let (answer, more) = (as_read(&answer), answer.more);
        cursors.extend(answer.cursors);
        read.extend(answer.changes.into_iter().map(|change| (change.key.clone(), change)));
        if !more {
            return read;
        }
    }
}

/// Writes an answer and reads it, within a device's limits.
#[track_caller]
fn as_read(answer: &ExchangeAnswer) -> ExchangeAnswer {
    let text = serde_json::to_vec(answer).unwrap();
    assert!(text.len() <= limits::ANSWER_BYTES, "an answer of {} bytes", text.len());
    let fields: usize = answer.changes.iter().map(|change| change.size().fields).sum();
    assert!(
        text.len() - fields <= limits::META_BYTES,
        "{} bytes besides the fields",
        text.len() - fields
    );
    serde_json::from_slice(&text).unwrap()
}

/// Makes the largest possible change, in bytes that are sent: each of its fields has its own write,
/// a time of 20 digits, and the shortest possible name.
fn wide(name: &str, base: Option<u64>, fields: usize) -> UnitChange {
    let names: Vec<_> = (0..fields).map(|n| format!("{n:x}")).collect();
    let text: Vec<_> = names.iter().map(|name| format!("\"{name}\":0")).collect();
    let mut wide = change(name, OpKind::Replace, base, &format!("{{{}}}", text.join(",")));
    let edited_at = Hlc::from_bits(Hlc::at(NOW).to_bits() - 1);
    let write = |(number, name)| FieldWrites {
        edited_at,
        op: OpId::from_bytes(id(number)),
        fields: vec![name],
    };
    wide.older = (1_000..).zip(names).map(write).collect();
    wide
}

/// Twelve wide records locked a tenant out for good: the stamps of their fields were not counted,
/// so the commit was larger than any answer that a device reads.
#[test]
fn a_commit_of_wide_records_is_rejected_before_it_locks_everybody_out() {
    let mut state = store();
    let all = (0..1_000).map(|n| wide(&format!("lead/{n}"), None, 400)).collect();
    assert_eq!(rejected(&mut state, 1, all), "unit_too_large");
    let some: Vec<_> = (0..100).map(|n| wide(&format!("lead/{n}"), None, 400)).collect();
    applied(&mut state, 2, some);
    assert_eq!(
        rejected(&mut state, 3, vec![wide("lead/x", None, limits::RECORD_FIELDS + 1)]),
        "too_many_fields"
    );
    applied(&mut state, 4, vec![wide("lead/x", None, limits::RECORD_FIELDS)]);
    // The record has the most fields already, so a small update that adds a field is rejected.
    let grow = change("lead/x", OpKind::Update, Some(2), r#"{"another":1}"#);
    assert_eq!(rejected(&mut state, 5, vec![grow]), "too_many_fields");
    assert_eq!(read_by_a_fresh_device(&mut state).len(), 101);
}

/// A store from before the stamps were counted may have such a commit. It is read without the extra
/// stamps.
#[test]
fn a_commit_from_before_stamps_were_counted_can_be_read_all_the_same() {
    let mut state = store();
    let wide = wide("lead/0", None, 90_000);
    let placing = row::Placing { version: Version::new(1), index: 0 };
    let author = Actor::parse("ann").unwrap();
    let row::Effect::Row(row) =
        row::changed(row::PresentState::Never, &wide, &author, placing).unwrap()
    else {
        panic!()
    };
    for n in 0..18 {
        state
            .set_record(&key(&format!("lead/{n}")), None, &Row { index: n, ..row.clone() })
            .unwrap();
    }
    state.set_last_commit(Version::new(1)).unwrap();
    let read = read_by_a_fresh_device(&mut state);
    let images = read.values().map(|change| change.fields.as_ref().unwrap().as_str().len());
    assert_eq!((read.len(), images.min()), (18, wide.fields.map(|fields| fields.as_str().len())));
}

/// 22 requests gave a tenant 212,000 entity types, and every request of every device names a cursor
/// for each.
#[test]
fn a_tenant_has_a_limited_number_of_entity_types_and_goes_on_with_those_it_has() {
    let mut state = store();
    let one_each =
        |from: usize, to: usize| (from..to).map(|n| create(&format!("t{n}/1"))).collect::<Vec<_>>();
    applied(&mut state, 1, one_each(0, 600));
    assert_eq!(rejected(&mut state, 2, one_each(600, 1_001)), "too_many_entity_types");
    applied(&mut state, 3, one_each(600, 1_000));
    assert_eq!(rejected(&mut state, 4, one_each(1_000, 1_001)), "too_many_entity_types");
    // Existing entity types still work, even if the last record of the type was deleted.
    applied(&mut state, 5, vec![change("t999/1", OpKind::Delete, Some(2), ""), create("t7/2")]);
    applied(&mut state, 6, vec![create("t999/2")]);
    assert_eq!(state.usage().unwrap().entity_types, 1_000);
    assert_eq!(read_by_a_fresh_device(&mut state).len(), 1_002);
}

#[track_caller]
fn within(
    state: &mut MemoryAuthority,
    number: u64,
    changes: Vec<UnitChange>,
    quota: &Quota,
) -> Outcome {
    let sent = request(vec![unit(number, changes)]);
    exchange(state, &sent, NOW, &Caller::Anyone, quota).unwrap().outcomes.remove(0).outcome
}

/// Without these limits, one tenant could fill the disk for all.
#[test]
fn a_tenant_without_room_reads_deletes_and_shrinks_and_goes_on_once_there_is_room() {
    let mut state = store();
    let two = Quota { records: Some(2), bytes: Some(4_000), ..Quota::default() };
    let is_full = |outcome: &Outcome| matches!(outcome, Outcome::Transient { code, retry_after_milliseconds: Some(_), .. } if code == "quota_exceeded");
    let is_applied = |outcome: &Outcome| matches!(outcome, Outcome::Applied { .. });
    assert!(is_applied(&within(&mut state, 1, vec![create("lead/1"), create("lead/2")], &two)));
    let before = state.clone();
    assert!(is_full(&within(&mut state, 2, vec![create("lead/3")], &two)));
    assert_eq!(state, before, "a unit without room changed the store");
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(4_000));
    let grow = change("lead/1", OpKind::Update, Some(1), &large);
    assert!(is_full(&within(&mut state, 3, vec![grow], &two)));
    let same = change("lead/1", OpKind::Update, Some(1), r#"{"a":2}"#);
    assert!(
        is_applied(&within(&mut state, 4, vec![same], &two)),
        "a write that needs no more room works"
    );
    assert!(is_applied(&within(
        &mut state,
        5,
        vec![change("lead/2", OpKind::Delete, Some(1), "")],
        &two
    )));
    assert_eq!(answered(&mut state, &pull(BTreeMap::new(), 10)).changes.len(), 2);
    // The same unit is accepted once the operator gives more room.
    let more = Quota { records: Some(3), ..two };
    assert!(is_applied(&within(&mut state, 2, vec![create("lead/3")], &more)));
}

#[test]
fn what_a_tenant_keeps_is_counted_as_it_changes() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1"), create("note/2")]);
    applied(&mut state, 2, vec![change("lead/1", OpKind::Update, Some(1), r#"{"b":"longer"}"#)]);
    applied(&mut state, 3, vec![change("note/2", OpKind::Delete, Some(1), "")]);
    stale(&mut state, 4, vec![create("lead/1")]);
    let rows: usize = state.records().map(|(key, row)| row.stored_bytes(&key.id)).sum();
    let mut counted = Usage { records: 2, bytes: rows as u64, entity_types: 2 };
    (0..3).for_each(|_| counted.remember_unit());
    assert_eq!(state.usage().unwrap(), counted);
}

/// A page keeps the next record of each entity type in memory. With a thousand large records that
/// was a gigabyte for every reader.
#[test]
fn a_page_over_many_entity_types_of_large_records_is_in_the_order_of_commits() {
    let mut state = store();
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(20_000));
    for n in 0..40u64 {
        let names = [format!("t{}/{n}", n % 20), format!("t{}/{n}", (n + 7) % 20)];
        let changes = names.iter().map(|name| change(name, OpKind::Create, None, &large)).collect();
        applied(&mut state, n, changes);
    }
    let answer = answered(&mut state, &pull(BTreeMap::new(), 1_000));
    let versions: Vec<_> = answer.changes.iter().map(|change| change.version.number()).collect();
    assert_eq!(versions, (1..=40).flat_map(|version| [version, version]).collect::<Vec<_>>());
}
