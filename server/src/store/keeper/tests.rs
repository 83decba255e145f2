//! A store whose disk is full, fails, or is replaced by another disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use fieldbook_core::authority::{Caller, Quota};
use fieldbook_core::protocol::{ExchangeAnswer, Outcome, Unit, UnitChange};
use fieldbook_core::{
    Actor, DeviceId, Epoch, FieldsJson, Hlc, OpId, OpKind, RequestId, UnitId, WallTime,
};
use redb::StorageBackend;

use super::super::Tenant;
use super::*;

/// A disk that outlives its store.
#[derive(Debug, Clone, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
    failing: Arc<AtomicBool>,
}

impl Disk {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap()
    }

    fn opened(&self) -> Result<Store, OpenStoreError> {
        let path = Path::new("disk");
        let database = redb::Builder::new()
            .set_check_integrity_on_open(true)
            .create_with_backend(self.clone())
            .map_err(|error| super::super::database_error(path, error))?;
        if !self.bytes().is_empty() && super::super::identify(&database, path).is_err() {
            super::super::fill_database(&database).unwrap();
        }
        Store::on_database(database, path)
    }

    fn keeper(&self) -> Arc<Keeper> {
        let store = self.opened().unwrap();
        let (to_open, to_probe) = (self.clone(), self.clone());
        let probe = move || {
            if to_probe.full.load(Ordering::SeqCst) {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        };
        Arc::new(Keeper::with(store, Box::new(move || to_open.opened()), Box::new(probe)))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let bytes = self.bytes();
        let found = bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        let mut bytes = self.bytes();
        if len > bytes.len() && self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        bytes.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.failing.load(Ordering::SeqCst) {
            Err(io::Error::other("the disk fails"))
        } else {
            Ok(())
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        self.bytes()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn request(units: Vec<Unit>) -> ExchangeRequest {
    ExchangeRequest {
        units,
        page_limit: 10_000,
        ..ExchangeRequest::new(
            RequestId::from_bytes([3; 16]),
            DeviceId::from_bytes([4; 16]),
            Epoch::from_bytes([5; 16]),
            Actor::parse("ann").unwrap(),
        )
    }
}

/// Sends one large record under a number.
fn send(keeper: &Keeper, number: u8) -> Result<Outcome, StoreExchangeError> {
    let fields = format!(r#"{{"text":"{}"}}"#, "x".repeat(300_000));
    let change = UnitChange {
        key: format!("lead/{number}").parse().unwrap(),
        kind: OpKind::Create,
        base: None,
        ops: vec![OpId::from_bytes([number; 16])],
        edited_at: Hlc::from_bits(1 << 16),
        older: Vec::new(),
        schema_version: 1,
        fields: Some(FieldsJson::parse(&fields).unwrap()),
    };
    let unit = Unit {
        id: UnitId::from_bytes([number; 16]),
        changes: vec![change],
        earlier_units: Vec::new(),
    };
    let answer = exchange(keeper, &request(vec![unit]))?;
    Ok(answer.outcomes.into_iter().next().unwrap().outcome)
}

fn exchange(
    keeper: &Keeper,
    request: &ExchangeRequest,
) -> Result<ExchangeAnswer, StoreExchangeError> {
    let now = WallTime::from_milliseconds(1_800_000_000_000);
    let (tenant, quota) = (Tenant::local(), Quota::default());
    let request = &Arc::new(request.clone());
    let incoming =
        Incoming { tenant: &tenant, request, now, caller: &Caller::Anyone, quota: &quota };
    let mut changes = Vec::new();
    let exchange = || {
        let accepted = keeper.accept(incoming, None)?;
        let answer = keeper.answer(incoming, accepted, |change| changes.push(change))?;
        Ok(ExchangeAnswer { changes, ..answer })
    };
    // The exchange blocks, and a thread of the runtime must not block.
    std::thread::scope(|scope| scope.spawn(exchange).join().unwrap())
}

/// Returns how many records can be read, page by page; none while nothing can be read.
fn records(keeper: &Keeper) -> Option<usize> {
    let (mut cursors, mut count) = (BTreeMap::new(), 0);
    loop {
        let answer =
            exchange(keeper, &ExchangeRequest { cursors: cursors.clone(), ..request(Vec::new()) });
        let answer = answer.ok()?;
        count += answer.changes.len();
        cursors.extend(answer.cursors);
        if !answer.more {
            return Some(count);
        }
    }
}

/// Waits until a condition is true. The runtime's time advances by itself while all tasks wait.
async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never comes to hold");
}

/// After one full disk every write was refused until a restart, while `health` reported that all
/// was well.
#[tokio::test]
async fn a_store_whose_disk_was_full_is_read_meanwhile_and_written_once_there_is_room() {
    let disk = Disk::default();
    let keeper = disk.keeper();
    let keeping = tokio::spawn(Arc::clone(&keeper).keep());
    assert!(matches!(send(&keeper, 1), Ok(Outcome::Applied { .. })) && keeper.is_ready());

    disk.full.store(true, Ordering::SeqCst);
    let mut taken = 1;
    let failed = loop {
        match send(&keeper, taken + 1) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, StoreExchangeError::State(StateError::Storage(_))), "{failed:?}");
    assert!(!keeper.is_ready());

    until(|| records(&keeper).is_some()).await;
    let found = records(&keeper).unwrap();
    assert!(found >= usize::from(taken), "what was acknowledged is there: {found} of {taken}");
    assert!(
        matches!(send(&keeper, 100), Err(StoreExchangeError::OutOfReach)),
        "nothing is written"
    );
    assert!(!keeper.is_ready(), "it says that it cannot");

    disk.full.store(false, Ordering::SeqCst);
    until(|| keeper.is_ready()).await;
    for number in 1..=taken + 1 {
        let outcome = send(&keeper, number).unwrap();
        assert!(
            matches!(outcome, Outcome::Applied { .. } | Outcome::Duplicate { .. }),
            "{outcome:?}"
        );
    }
    assert_eq!(records(&keeper), Some(usize::from(taken) + 1));
    keeping.abort();
}

#[tokio::test]
async fn a_commit_that_failed_is_resolved_by_sending_it_again() {
    let disk = Disk::default();
    let keeper = disk.keeper();
    let keeping = tokio::spawn(Arc::clone(&keeper).keep());
    send(&keeper, 1).unwrap();
    for number in 2..5 {
        disk.failing.store(true, Ordering::SeqCst);
        assert!(send(&keeper, number).is_err());
        disk.failing.store(false, Ordering::SeqCst);
        until(|| keeper.is_ready()).await;
        let outcome = send(&keeper, number).unwrap();
        assert!(
            matches!(outcome, Outcome::Applied { .. } | Outcome::Duplicate { .. }),
            "{outcome:?}"
        );
        assert_eq!(records(&keeper), Some(usize::from(number)));
    }
    keeping.abort();
}

#[tokio::test]
async fn another_store_in_the_place_of_the_one_that_failed_is_not_served() {
    let (disk, other) = (Disk::default(), Disk::default());
    drop(other.opened().unwrap());
    let keeper = disk.keeper();
    let keeping = tokio::spawn(Arc::clone(&keeper).keep());
    send(&keeper, 1).unwrap();
    disk.failing.store(true, Ordering::SeqCst);
    assert!(send(&keeper, 2).is_err());
    let own = std::mem::replace(&mut *disk.bytes(), other.bytes().clone());
    disk.failing.store(false, Ordering::SeqCst);
    tokio::time::sleep(2 * PAUSE).await;
    assert!(records(&keeper).is_none() && !keeper.is_ready());
    *disk.bytes() = own;
    until(|| keeper.is_ready()).await;
    assert!(records(&keeper) >= Some(1));
    keeping.abort();
}
