//! Exchanges that share a commit: its cost, and the effect of one exchange on the others.

use fieldbook_core::entry::Receipt;
use fieldbook_core::protocol::{HeadClaim, Outcome, Unit, UnitChange};
use fieldbook_core::{
    Actor, DeviceId, DeviceKey, Epoch, FieldsJson, Hash, Hlc, OpId, OpKind, RecordKey, RequestId,
    Seq, UnitId, Version, limits,
};
use redb::{ReadableDatabase, ReadableTable};

use super::super::support::{Disk, IDENTITY};
use super::super::tables;
use super::*;

struct Bench {
    disk: Disk,
    database: Database,
}

impl Bench {
    fn new() -> Self {
        let disk = Disk::default();
        Self { database: disk.database(), disk }
    }

    /// Applies some exchanges together. Returns the result, how many were worked on, and how often
    /// the disk was synced.
    fn tried(&self, jobs: &[Job]) -> (Result<Vec<Answer>, StateError>, usize, usize) {
        let (before, mut tried) = (self.disk.syncs(), 0);
        let done = commit_some(&self.database, IDENTITY, jobs, &mut tried);
        (done, tried, self.disk.syncs() - before)
    }

    fn has(&self, key: &str) -> bool {
        let (snapshot, key) =
            (self.database.begin_read().unwrap(), key.parse::<RecordKey>().unwrap());
        let table = snapshot.open_table(tables::RECORDS).unwrap();
        let key = tables::record_key(&tables::tenant_key(&Tenant::local()), &key);
        table.get(key.as_slice()).unwrap().is_some()
    }

    /// Overwrites the row of a record with invalid bytes.
    fn damage(&self, key: &str) {
        let (transaction, key) =
            (self.database.begin_write().unwrap(), key.parse::<RecordKey>().unwrap());
        let tenant = tables::tenant_key(&Tenant::local());
        {
            let places = transaction.open_table(tables::RECORDS).unwrap();
            let place = places.get(tables::record_key(&tenant, &key).as_slice()).unwrap().unwrap();
            let (version, index) = tables::place_from(place.value()).unwrap();
            let at = tables::feed_key(&tenant, &key.entity, version, index);
            transaction
                .open_table(tables::FEED)
                .unwrap()
                .insert(at.as_slice(), [255].as_slice())
                .unwrap();
        }
        transaction.commit().unwrap();
    }
}

fn job(number: u8, bytes: usize, base: Option<Version>) -> Job {
    let change = UnitChange {
        key: format!("lead/{number}").parse().unwrap(),
        kind: if base.is_some() { OpKind::Update } else { OpKind::Create },
        base,
        ops: vec![OpId::from_bytes([number; 16])],
        edited_at: Hlc::from_bits(1 << 16),
        older: Vec::new(),
        schema_version: 1,
        fields: Some(FieldsJson::parse(&format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes))).unwrap()),
    };
    let unit = Unit {
        id: UnitId::from_bytes([number; 16]),
        changes: vec![change],
        earlier_units: Vec::new(),
    };
    let empty = ExchangeRequest::new(
        RequestId::from_bytes([3; 16]),
        DeviceId::from_bytes([number; 16]),
        Epoch::from_bytes([5; 16]),
        Actor::parse("ann").unwrap(),
    );
    job_of(ExchangeRequest { units: vec![unit], ..empty })
}

fn job_of(request: ExchangeRequest) -> Job {
    Job {
        tenant: Tenant::local(),
        request: Arc::new(request),
        now: WallTime::from_milliseconds(1_800_000_000_000),
        caller: Caller::Anyone,
        quota: Quota::default(),
    }
}

/// Makes a request of a device with a key, whose head claim has more contents than allowed.
fn refused(number: u8) -> Job {
    let head = Receipt { seq: Seq::new(1), hash: Hash::ZERO };
    let contents = vec![Hash::ZERO; limits::ANCHOR_DIGESTS + 1];
    let head = Some(HeadClaim { anchor: None, contents, seq: head.seq, hash: head.hash });
    let device_key = Some(DeviceKey::from_bytes([number; 32]));
    job_of(ExchangeRequest {
        head,
        device_key,
        ..ExchangeRequest::clone(&job(number, 10, None).request)
    })
}

fn is_applied(answer: &Answer) -> bool {
    let outcome = answer.as_ref().ok().and_then(|accepted| accepted.outcomes.first());
    outcome.is_some_and(|told| matches!(told.outcome, Outcome::Applied { .. }))
}

#[test]
fn sixteen_exchanges_are_made_durable_by_as_many_syncs_as_one() {
    let bench = Bench::new();
    let (_, _, alone) = bench.tried(&[job(0, 10, None)]);
    let jobs: Vec<_> = (1..=16).map(|number| job(number, 10, None)).collect();
    let (done, tried, syncs) = bench.tried(&jobs);
    let answers = done.unwrap();
    assert!(answers.len() == 16 && answers.iter().all(is_applied), "{answers:?}");
    assert_eq!((tried, syncs), (16, alone));
}

#[test]
fn one_that_is_refused_has_written_nothing_and_takes_nobody_with_it() {
    let bench = Bench::new();
    let (done, ..) = bench.tried(&[job(1, 10, None), refused(2), job(3, 10, None)]);
    let answers = done.unwrap();
    assert!(is_applied(&answers[0]) && is_applied(&answers[2]), "{answers:?}");
    assert!(matches!(answers[1], Err(StoreExchangeError::Refused(_))), "{answers:?}");
    assert!(bench.has("lead/1") && !bench.has("lead/2") && bench.has("lead/3"));
    // Not even its key is remembered: the device may return with another key.
    let key = Some(DeviceKey::from_bytes([77; 32]));
    let other =
        ExchangeRequest { device_key: key, ..ExchangeRequest::clone(&job(2, 10, None).request) };
    assert!(is_applied(&bench.tried(&[job_of(other)]).0.unwrap()[0]));
}

#[test]
fn one_that_meets_damage_fails_alone() {
    let bench = Bench::new();
    bench.tried(&[job(1, 10, None)]).0.unwrap();
    bench.damage("lead/1");
    let edit = || Job {
        request: Arc::new(ExchangeRequest {
            units: vec![Unit {
                id: UnitId::from_bytes([99; 16]),
                ..job(1, 20, Some(Version::new(1))).request.units[0].clone()
            }],
            ..ExchangeRequest::clone(&job(1, 20, None).request)
        }),
        ..job(1, 20, None)
    };
    let (done, tried, _) = bench.tried(&[job(2, 10, None), edit(), job(3, 10, None)]);
    assert!(matches!(done, Err(StateError::Damaged(_))), "{done:?}");
    assert!(tried == 2 && !bench.has("lead/2"), "all of the transaction is given up");

    // Each exchange has its own answer, in whatever rounds the exchanges are applied.
    let rounds = Rounds::new();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let (rounds, database) = (&rounds, &bench.database);
        let all = (2..=12).map(|number| if number == 7 { edit() } else { job(number, 10, None) });
        let threads: Vec<_> = all
            .map(|Job { tenant, request, now, caller, quota }| {
                scope.spawn(move || {
                    let incoming = Incoming {
                        tenant: &tenant,
                        request: &request,
                        now,
                        caller: &caller,
                        quota: &quota,
                    };
                    rounds.accept(database, IDENTITY, incoming, None)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|answer| is_applied(answer)).count(), 10, "{answers:?}");
    assert!(
        matches!(answers[5], Err(StoreExchangeError::State(StateError::Damaged(_)))),
        "{answers:?}"
    );
}

#[test]
fn a_commit_is_made_once_there_was_enough_work_for_one() {
    let bench = Bench::new();
    let jobs: Vec<_> = (1..=8).map(|number| job(number, 900_000, None)).collect();
    let (done, tried, _) = bench.tried(&jobs);
    assert!(done.unwrap().len() == tried && (2..=4).contains(&tried), "{tried}");
    assert!(bench.has("lead/1") && !bench.has("lead/8"));
}
