//! Checks of a device's book against the server, and mending. A plain comparison of the model with
//! the ledger says what a check has to find.
//!
//! A device differs from a sound server only if an answer left a record out
//! ([`Action::LeaveOut`](crate::action::Action::LeaveOut)): the device's cursor passed over it.
//!
//! Laws:
//! 1. A check that ends reports the records in which the model and the ledger differ, each with
//!    both versions, and each of them was left out once.
//! 2. A check sends nothing. A second one finds the same, and leaves no entry but one that lowers
//!    stamps.
//! 3. Mending moves no cursor, ends no op that its own entries do not account for, and leaves the
//!    records that the model says: those of the server, except where only a person can decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fieldbook::audit::entry::Receipt;
use fieldbook::record::Version;
use fieldbook::sync::protocol::{CompareRequest, ExchangeAnswer, ExchangeRequest};
use fieldbook::sync::{
    BoxFuture, CheckError, Difference, Differing, Mended, Received, ReceivedComparison, Remote,
    RemoteError,
};
use fieldbook::{Book, Error, RecordKey};

use super::oracle::has_read;
use super::{World, get};
use crate::app::knows;
use crate::broken::{Broken, ensure};
use crate::device::Device;
use crate::ledger::{Ledger, Registers};
use crate::server::Server;

/// The name of these laws.
const CHECK: &str = "check";

/// A record as a device and the server have it: its version, and whether it is there.
type Sides = ((Version, bool), (Version, bool));

impl World {
    /// Lets a device check its records with the server, and mend what differs.
    pub(super) fn check_with_server(
        &mut self,
        number: usize,
        mends: bool,
    ) -> Result<Option<usize>, Broken> {
        let device = get(&mut self.devices, number)?;
        if device.cut_off {
            return Ok(None);
        }
        if self.setup.one_shot {
            device.reopen(&self.server.ledger)?;
        }
        // A check waits for the exchange before it, and that one is given up here.
        device.open = None;
        let Some(found) = self.compare(number)? else { return Ok(Some(number)) };
        let entries = self.device(number)?.model.entries;
        if let Some(again) = self.compare(number)? {
            // An answer may lower stamps that the answer before it raised.
            let model = &self.device(number)?.model;
            let left = (entries + 1..=model.entries).find(|entry| !model.upkeep.contains(entry));
            ensure(left.is_none(), CHECK, || format!("a check left the entry {left:?}"))?;
            let lists = |one: &Difference| {
                (one.missing.clone(), one.extra.clone(), one.other_version.clone())
            };
            ensure(lists(&found) == lists(&again), CHECK, || {
                format!("a check found {found:?}, and the next one {again:?}")
            })?;
            if mends {
                self.mend(number, &again)?;
            }
        }
        Ok(Some(number))
    }

    /// Checks, and judges what the check reports; `None` if it did not end.
    fn compare(&mut self, number: usize) -> Result<Option<Difference>, Broken> {
        let checked = self.with_server(number, |book, server| block_on(book.check(server)))?;
        let Some(Ok(found)) = checked else { return Ok(None) };
        self.settle(number)?;
        let device = get(&mut self.devices, number)?;
        let (wanted, ledger) = (differing(device, &self.server.ledger), &self.server.ledger);
        judge(&found, &wanted)?;
        ensure(!found.more && found.set_aside == 0, CHECK, || format!("{found:?}"))?;
        let stray = wanted.keys().find(|key| !device.left_out.contains(*key));
        ensure(stray.is_none(), CHECK, || {
            format!(
                "{} differs from the server in {stray:?}, which was never left out",
                device.actor
            )
        })?;
        let is_compared = |key: &&RecordKey| knows(device.version, &key.entity);
        let keys: Vec<_> = self.keys.iter().filter(is_compared).collect();
        let live = keys.iter().filter(|key| sides(device, ledger, key).0.1).count();
        let held = keys.iter().filter_map(|key| device.model.records.get(*key));
        let waiting = held.filter(|held| !held.tail.is_empty()).count();
        let counted = (found.records_compared, found.pending);
        ensure(counted == (live as u64, waiting as u64), CHECK, || {
            format!("{counted:?} records were compared and wait, of {live} and {waiting}")
        })?;
        self.stats.checks += 1;
        self.stats.differences += wanted.len() as u64;
        Ok(Some(found))
    }

    /// Mends, and judges what that leaves.
    fn mend(&mut self, number: usize, found: &Difference) -> Result<(), Broken> {
        let device = get(&mut self.devices, number)?;
        let before = differing(device, &self.server.ledger);
        let (cursors, pending) = (device.model.cursors.clone(), device.model.pending());
        let expected = Expected::of(device, &before);
        let mended = self.with_server(number, |book, server| block_on(book.mend(server, found)))?;
        let Some(mended) = mended else { return Ok(()) };
        self.settle(number)?;
        let device = get(&mut self.devices, number)?;
        let after = differing(device, &self.server.ledger);
        match &mended {
            Ok(mended) => {
                ensure(!expected.is_set_back, CHECK, || format!("{before:?} was mended"))?;
                expected.check(mended)?;
                let left: BTreeSet<_> = after.keys().cloned().collect();
                ensure(left == expected.left, CHECK, || {
                    format!("{after:?} is left after {before:?} was mended")
                })?;
            }
            Err(CheckError::SetBack { .. }) => {
                let same = expected.is_set_back && before == after;
                ensure(same, CHECK, || format!("{before:?} counts as set back"))?;
            }
            Err(_) => return Ok(()),
        }
        let model = &device.model;
        ensure(model.cursors == cursors, CHECK, || {
            format!("mending moved the cursors from {cursors:?} to {:?}", model.cursors)
        })?;
        ensure(model.pending() <= pending, CHECK, || "mending wrote ops".to_owned())?;
        let version = device.version;
        let unread = unread(device, &self.server.ledger);
        let stays = |key: &RecordKey| {
            after.contains_key(key) || !knows(version, &key.entity) || unread.contains(key)
        };
        device.left_out.retain(stays);
        self.stats.mended += (before.len() - after.len()) as u64;
        Ok(())
    }

    /// Mends every device from which an answer kept a record.
    pub(super) fn mend_all(&mut self) -> Result<(), Broken> {
        for number in 0..self.devices.len() {
            if self.device(number)?.left_out.is_empty() {
                continue;
            }
            self.check_with_server(number, true)?;
            self.settle(number)?;
            let device = get(&mut self.devices, number)?;
            let left = differing(device, &self.server.ledger);
            ensure(left.is_empty(), CHECK, || {
                format!("{} is healed and mended, and differs in {left:?}", device.actor)
            })?;
            let unread = unread(device, &self.server.ledger);
            device.left_out.retain(|key| unread.contains(key));
            self.check(number, false)?;
        }
        Ok(())
    }

    /// Runs a call of a book that asks the server itself; `None` if the disk made it fail.
    fn with_server<T>(
        &mut self,
        number: usize,
        call: impl FnOnce(&Book, &dyn Remote) -> Result<T, CheckError>,
    ) -> Result<Option<Result<T, CheckError>>, Broken> {
        let device = get(&mut self.devices, number)?;
        let direct = Direct { now: self.now, asked: Mutex::new(Asked::new(&mut self.server)) };
        let done = call(device.book()?, &direct);
        let Asked { exchanges, broken, .. } =
            direct.asked.into_inner().unwrap_or_else(PoisonError::into_inner);
        let result = match done {
            Err(CheckError::Book(error)) => device.called(Err::<T, Error>(error))?.map(Ok),
            done => {
                device.called(Ok(()))?;
                Some(done)
            }
        };
        broken.map_or(Ok(()), Err)?;
        self.stats.exchanges += exchanges.len() as u64;
        for (request, answer, anchored) in &exchanges {
            ensure(request.units.is_empty(), CHECK, || format!("a check sends {request:?}"))?;
            self.check_head(number, request, answer, *anchored)?;
        }
        Ok(result)
    }
}

/// What mending has to do.
#[derive(Debug, Default)]
struct Expected {
    fetched: u64,
    let_go: u64,
    left: BTreeSet<RecordKey>,
    /// Whether the server has an older version of some record.
    is_set_back: bool,
}

impl Expected {
    fn of(device: &Device, differing: &BTreeMap<RecordKey, Sides>) -> Self {
        let mut expected = Self::default();
        for (key, ((own, _), (theirs, is_there))) in differing {
            let held = device.model.records.get(key);
            let waits = held.is_some_and(|held| !held.tail.is_empty());
            if theirs > own {
                expected.fetched += 1;
            } else if theirs < own && *theirs > Version::default() {
                expected.is_set_back = true;
            } else if waits {
                expected.left.insert(key.clone());
            } else if *is_there {
                expected.fetched += 1;
            } else {
                expected.let_go += 1;
            }
        }
        expected
    }

    fn check(&self, mended: &Mended) -> Result<(), Broken> {
        let left: BTreeSet<_> = mended.left.iter().cloned().collect();
        let same =
            (mended.fetched, mended.let_go, &left) == (self.fetched, self.let_go, &self.left);
        ensure(same, CHECK, || format!("mending did {mended:?}, not {self:?}"))
    }
}

/// Returns the records in which a device and the server differ, as they are confirmed.
fn differing(device: &Device, ledger: &Ledger) -> BTreeMap<RecordKey, Sides> {
    let held = device.model.records.keys();
    let keys: BTreeSet<_> = held.chain(ledger.now.current.keys()).collect();
    let keys = keys.into_iter().filter(|key| knows(device.version, &key.entity));
    let sides = keys.map(|key| (key.clone(), sides(device, ledger, key)));
    let differ = sides.filter(|(_, ((own, is_own), (theirs, is_theirs)))| {
        is_own != is_theirs || (*is_own && own != theirs)
    });
    differ.collect()
}

fn sides(device: &Device, ledger: &Ledger, key: &RecordKey) -> Sides {
    let own = device.model.records.get(key).map(|held| {
        let image = held.confirmed.as_ref().and_then(Registers::image);
        (held.version.unwrap_or_default(), image.is_some())
    });
    let theirs = ledger.now.current.get(key).map(|at| (at.version, at.image.is_some()));
    (own.unwrap_or_default(), theirs.unwrap_or_default())
}

/// Checks that a check reports these records, each in its list.
fn judge(found: &Difference, wanted: &BTreeMap<RecordKey, Sides>) -> Result<(), Broken> {
    let known = |version: Version| Some(version).filter(|version| *version > Version::default());
    let list = |fits: fn(bool, bool) -> bool| -> Vec<Differing> {
        let fits = wanted.iter().filter(|(_, (own, theirs))| fits(own.1, theirs.1));
        let listed = fits.map(|(key, (own, theirs))| Differing {
            key: key.clone(),
            book: known(own.0),
            server: known(theirs.0),
        });
        listed.collect()
    };
    let same = found.missing == list(|own, _| !own)
        && found.extra == list(|_, theirs| !theirs)
        && found.other_version == list(|own, theirs| own && theirs);
    ensure(same, CHECK, || format!("a check finds {found:?}, and {wanted:?} differ"))
}

/// The server as a book's own run reaches it: every message arrives.
struct Direct<'w> {
    now: i64,
    asked: Mutex<Asked<'w>>,
}

struct Asked<'w> {
    server: &'w mut Server,
    /// The requests with their answers, and the head that was anchored before.
    exchanges: Vec<(ExchangeRequest, ExchangeAnswer, Option<Receipt>)>,
    broken: Option<Broken>,
}

impl<'w> Asked<'w> {
    const fn new(server: &'w mut Server) -> Self {
        Self { server, exchanges: Vec::new(), broken: None }
    }
}

impl<'w> Direct<'w> {
    fn asked(&self) -> MutexGuard<'_, Asked<'w>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &ExchangeRequest) -> Result<Received, RemoteError> {
        let mut asked = self.asked();
        let author = (request.device, request.epoch);
        let anchored = asked.server.ledger.now.anchors.get(&author).copied();
        let answer = match asked.server.treat(request, self.now, None) {
            Ok(reply) => reply.result?,
            Err(broken) => {
                asked.broken.get_or_insert(broken);
                return Err(RemoteError::new(fieldbook::sync::protocol::Failure::Unreachable {
                    code: "connect",
                }));
            }
        };
        asked.exchanges.push((request.clone(), answer.clone(), anchored));
        Ok(Received { answer, bytes_sent: 1, bytes_received: 1 })
    }
}

impl Remote for Direct<'_> {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        Box::pin(std::future::ready(self.answer(request)))
    }

    fn compare<'a>(
        &'a self,
        request: &'a CompareRequest,
    ) -> BoxFuture<'a, Result<ReceivedComparison, RemoteError>> {
        let answer = self.asked().server.compare(request, self.now);
        let received = answer.map_err(RemoteError::from).map(|answer| ReceivedComparison {
            answer,
            bytes_sent: 1,
            bytes_received: 1,
        });
        Box::pin(std::future::ready(received))
    }
}

/// Waits for a future that never has to wait.
fn block_on<T>(future: impl Future<Output = Result<T, CheckError>>) -> Result<T, CheckError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.unwrap_or_else(|_| unreachable!("BUG: a runtime without drivers"));
    runtime.block_on(future)
}

/// Returns the records whose present version a device has not read. When nothing differs, these are
/// deletions of records that the device never had: it has no row that a mend could change.
fn unread(device: &Device, ledger: &Ledger) -> BTreeSet<RecordKey> {
    let stored = ledger.now.current.iter();
    let unread = stored.filter(|(key, stored)| !has_read(device, key, stored));
    unread.map(|(key, _)| key.clone()).collect()
}
