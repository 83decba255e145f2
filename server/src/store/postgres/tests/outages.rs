//! Connections that break at every place of an exchange, and two servers at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fieldbook_core::authority::{Caller, Quota};
use fieldbook_core::protocol::{
    ExchangeAnswer, ExchangeRequest, HeadClaim, Outcome, Unit, UnitChange,
};
use fieldbook_core::{
    Actor, Cursor, DeviceId, DeviceKey, Epoch, FieldsJson, Hash, Hlc, OpId, OpKind, RequestId, Seq,
    UnitId, WallTime,
};
use tokio::runtime::Runtime;

use super::super::connections::FLIGHTS;
use super::super::{Postgres, PostgresUrl};
use super::cluster::{self, Cluster};
use super::proxy::{Cut, Proxy};
use super::support::{answered, tenant};
use crate::store::{Incoming, StoreExchangeError};

const NOW: WallTime = WallTime::from_milliseconds(1_800_000_000_000);

fn unit(number: u64, name: &str) -> Unit {
    let change = UnitChange {
        key: name.parse().unwrap(),
        kind: OpKind::Create,
        base: None,
        ops: vec![OpId::from_bytes([9; 16])],
        edited_at: Hlc::from_bits(1 << 16),
        older: Vec::new(),
        schema_version: 1,
        fields: Some(FieldsJson::parse(r#"{"a":1}"#).unwrap()),
    };
    let id = UnitId::from_bytes((u128::from(number) + 1).to_be_bytes());
    Unit { id, changes: vec![change], earlier_units: Vec::new() }
}

fn request(device: u8, units: Vec<Unit>) -> ExchangeRequest {
    ExchangeRequest {
        units,
        ..ExchangeRequest::new(
            RequestId::from_bytes([3; 16]),
            DeviceId::from_bytes([device; 16]),
            Epoch::from_bytes([5; 16]),
            Actor::parse("ann").unwrap(),
        )
    }
}

/// A request with everything that an exchange may write: a key, a head and units.
fn whole(device: u8, units: Vec<Unit>) -> ExchangeRequest {
    let head = HeadClaim { anchor: None, contents: Vec::new(), seq: Seq::new(1), hash: Hash::ZERO };
    let device_key = Some(DeviceKey::from_seed(&[device; 32]));
    ExchangeRequest { head: Some(head), device_key, page_limit: 100, ..request(device, units) }
}

fn exchanged(
    store: &Postgres,
    of: &str,
    request: &ExchangeRequest,
) -> Result<ExchangeAnswer, StoreExchangeError> {
    let (of, request) = (tenant(of), Arc::new(request.clone()));
    let (caller, quota) = (Caller::Anyone, Quota::default());
    let incoming =
        Incoming { tenant: &of, request: &request, now: NOW, caller: &caller, quota: &quota };
    answered(incoming, store)
}

/// Reads all records of a tenant, page by page, as a device does.
fn pulled(store: &Postgres, of: &str) -> BTreeMap<String, u64> {
    let mut ask = ExchangeRequest {
        others: Some(Cursor::default()),
        page_limit: 50,
        ..request(200, Vec::new())
    };
    let mut all = BTreeMap::new();
    loop {
        let answer = exchanged(store, of, &ask).unwrap();
        for change in answer.changes {
            let before = all.insert(change.key.to_string(), change.version.number());
            assert_eq!(before, None, "{} came twice", change.key);
        }
        ask.others = answer.others.or(ask.others);
        if !answer.more {
            return all;
        }
    }
}

struct Bench {
    runtime: Runtime,
    cluster: &'static Cluster,
    name: String,
}

impl Bench {
    fn new() -> Option<Self> {
        let cluster = cluster::shared()?;
        let runtime = Runtime::new().unwrap();
        let name = runtime.block_on(cluster.database());
        Some(Self { runtime, cluster, name })
    }

    fn open(&self) -> Postgres {
        let url = PostgresUrl::parse(&self.cluster.url(&self.name)).unwrap();
        self.runtime.block_on(Postgres::open(&url)).unwrap()
    }

    fn sql(&self, text: &str) {
        self.runtime.block_on(async {
            self.cluster.client(&self.name).await.batch_execute(text).await.unwrap();
        });
    }
}

/// What 0048 promises of round trips.
#[test]
fn an_exchange_with_units_is_three_round_trips_whatever_its_units() {
    let Some(bench) = Bench::new() else { return };
    let store = bench.open();
    exchanged(&store, "acme", &request(1, vec![unit(1, "lead/1")])).unwrap();
    let trips = |request: &ExchangeRequest| {
        let before = FLIGHTS.get();
        exchanged(&store, "acme", request).unwrap();
        FLIGHTS.get() - before
    };
    let units = |from: u64, count: u64| -> Vec<_> {
        (from..from + count)
            .map(|number| unit(number, &format!("t{}/{number}", number % 7)))
            .collect()
    };
    assert_eq!(trips(&whole(2, units(10, 1))), 3);
    assert_eq!(trips(&whole(3, units(100, 500))), 3);
    assert_eq!(trips(&whole(3, units(100, 500))), 3, "the same again");
    assert_eq!(trips(&ExchangeRequest { page_limit: 1, ..request(4, Vec::new()) }), 2);
    assert_eq!(
        trips(&ExchangeRequest { page_limit: 1, ..whole(3, Vec::new()) }),
        2,
        "a known head"
    );
    assert_eq!(trips(&whole(5, Vec::new())), 4, "a new key and a new head");
}

/// Whatever answer of the database is lost, the retry of the device applies its unit once: a commit
/// whose answer is lost is found by the id of its unit.
#[test]
fn a_connection_that_breaks_before_or_after_any_answer_loses_nothing_and_applies_nothing_twice() {
    let Some(bench) = Bench::new() else { return };
    let proxy = Proxy::new(bench.cluster.socket());
    let direct = bench.open();
    let store = bench.runtime.block_on(Postgres::open(&proxy.url(&bench.name))).unwrap();
    let (mut number, mut failed, mut in_doubt) = (0, 0, 0);
    for cut in [Cut::Before, Cut::After] {
        for at in 1.. {
            number += 1;
            let name = format!("lead/{number}");
            let device = u8::try_from(number).unwrap();
            let request = whole(device, vec![unit(number, &name)]);
            proxy.cut(at, cut);
            let first = exchanged(&store, "acme", &request);
            let was_reached = proxy.answers.load(Ordering::SeqCst) >= at;
            proxy.cut(usize::MAX, cut);
            failed += usize::from(first.is_err());
            let again = exchanged(&store, "acme", &request).unwrap();
            let is_duplicate = matches!(again.outcomes[0].outcome, Outcome::Duplicate { .. });
            in_doubt += usize::from(first.is_err() && is_duplicate);
            assert!(is_duplicate || first.is_err(), "{again:?}");
            assert!(again.receipt.is_some());
            let present = pulled(&direct, "acme");
            assert_eq!(present.get(&name), Some(&number), "{present:?}");
            if !was_reached {
                break;
            }
        }
    }
    println!("{number} exchanges, {failed} without an answer, {in_doubt} of these were stored");
    assert!(failed > 4 && in_doubt > 0, "{failed} {in_doubt}");
}

/// The process of the connection ends in the middle of the statement that stores, and at the commit.
#[test]
fn a_backend_that_is_terminated_while_it_stores_or_commits_has_stored_nothing() {
    let Some(bench) = Bench::new() else { return };
    let store = bench.open();
    exchanged(&store, "acme", &whole(1, vec![unit(1, "lead/1")])).unwrap();
    bench.sql(
        "create function ended() returns trigger language plpgsql as \
         $$begin perform pg_terminate_backend(pg_backend_pid()); return null; end$$",
    );
    let mut number = 1;
    for table in ["tenant", "record", "unit", "entity", "part", "anchor", "head", "device"] {
        for when in ["after insert or update on", "deferred"] {
            number += 1;
            let trigger = if when == "deferred" {
                format!(
                    "create constraint trigger ends after insert or update on fieldbook.{table} \
                     deferrable initially deferred for each row execute function ended()"
                )
            } else {
                format!(
                    "create trigger ends {when} fieldbook.{table} \
                     for each row execute function ended()"
                )
            };
            bench.sql(&trigger);
            let name = format!("lead/{number}");
            let device = u8::try_from(number).unwrap();
            let request = whole(device, vec![unit(number, &name)]);
            let error = exchanged(&store, "acme", &request).unwrap_err();
            assert!(matches!(error, StoreExchangeError::State(_)), "{table}: {error:?}");
            assert_eq!(pulled(&store, "acme").get(&name), None, "{table} {when}");
            bench.sql(&format!("drop trigger ends on fieldbook.{table}"));
            let again = exchanged(&store, "acme", &request).unwrap();
            assert!(matches!(again.outcomes[0].outcome, Outcome::Applied { .. }), "{table}");
        }
    }
    assert_eq!(pulled(&store, "acme").len() as u64, number);
}

/// Two servers write for one tenant while a device pulls. In READ COMMITTED a page that is read
/// before its last commit is behind its cursor, and the device never sees what is between.
#[test]
fn cursor_not_ahead() {
    let Some(bench) = Bench::new() else { return };
    let (one, two, reader) = (bench.open(), bench.open(), bench.open());
    let (mut seen, mut pulls) = (BTreeSet::new(), 0);
    std::thread::scope(|scope| {
        let writers = [(0, &one), (1, &two)].map(|(writer, store)| {
            scope.spawn(move || {
                for number in 0..400 {
                    let number = 2 * number + writer;
                    let units = vec![unit(number, &format!("t{}/{number}", number % 3))];
                    exchanged(store, "acme", &request(1, units)).unwrap();
                }
            })
        });
        let mut ask = ExchangeRequest {
            others: Some(Cursor::default()),
            page_limit: 5,
            ..request(200, Vec::new())
        };
        loop {
            // Also if one of them failed: its failure is the test's.
            let is_last = writers.iter().all(|writer| writer.is_finished());
            let answer = exchanged(&reader, "acme", &ask).unwrap();
            pulls += 1;
            for change in &answer.changes {
                assert!(seen.insert(change.key.to_string()), "{} came twice", change.key);
            }
            ask.others = answer.others.or(ask.others);
            if is_last && !answer.more && pulls >= 1_000 {
                break;
            }
        }
    });
    assert_eq!(seen.len(), 800, "in {pulls} pulls");
    let present = pulled(&reader, "acme");
    let versions: BTreeSet<_> = present.values().copied().collect();
    assert_eq!(versions, (1..=800).collect(), "each unit has a commit of its own");
}

/// A tenant that waits for its own lock does not hold up another one.
#[test]
fn a_tenant_whose_lock_is_held_delays_no_other_tenant_and_no_reader() {
    let Some(bench) = Bench::new() else { return };
    let store = bench.open();
    exchanged(&store, "acme", &request(1, vec![unit(1, "lead/1")])).unwrap();
    let holder = bench.runtime.block_on(bench.cluster.client(&bench.name));
    let lock = "begin; select * from fieldbook.tenant where tenant = 'acme' for update";
    bench.runtime.block_on(holder.batch_execute(lock)).unwrap();
    std::thread::scope(|scope| {
        for number in 2..20 {
            let store = &store;
            scope.spawn(move || {
                let units = vec![unit(number, &format!("lead/{number}"))];
                exchanged(store, "acme", &request(1, units)).unwrap();
            });
        }
        exchanged(&store, "other", &request(1, vec![unit(1, "lead/1")])).unwrap();
        assert_eq!(pulled(&store, "other").len(), 1);
        assert_eq!(pulled(&store, "acme").len(), 1);
        bench.runtime.block_on(holder.batch_execute("commit")).unwrap();
    });
    assert_eq!(pulled(&store, "acme").len(), 19);
}

/// Several servers that start at once on an empty database are one server.
#[test]
fn servers_that_start_at_the_same_time_make_the_tables_once() {
    let Some(bench) = Bench::new() else { return };
    let identities: BTreeSet<_> = std::thread::scope(|scope| {
        let open = || {
            let store = bench.open();
            (format!("{:?}", store.identity()), store.verifiers())
        };
        let servers: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
        servers.into_iter().map(|server| server.join().unwrap()).collect()
    });
    assert_eq!(identities.len(), 1, "{identities:?}");
}
