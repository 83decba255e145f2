//! A book that lets go of its file for a while, and takes it again.
//!
//! ```text
//!   suspend: runs are cut ─► calls of runs end ─► the writer's round ends ─► lists in files are written ─► close
//!   resume:  open ─► the same log? the same declarations? ─► tail, tables and projections anew ─► watchers, lists, runs
//! ```
//!
//! Invariants:
//! 1. After [`Book::suspend`] has returned, the process holds no lock of the file. What was written
//!    is durable, and the file says that it was closed.
//! 2. Handles, receivers, live lists and workers stay valid. While the book is suspended, a call
//!    that needs the file fails with [`Error::Suspended`], and lists and workers wait.
//! 3. A resumed book is in the state in which an opening finds the file. The file goes on from
//!    where it was: its log has the last entry that this book knows.
//! 4. A resume that fails leaves the book suspended.
//!
//! What it does not do: wait for an app's snapshot ([`Book::at`], [`Book::read`]). Its reads fail
//! from then on.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use fieldbook_core::entry::LastStop;
use fieldbook_core::locks::{Condvar, Mutex, MutexGuard};
use fieldbook_core::log::{Head, Store, entries, read_entry};
use fieldbook_core::rules::clock::ServerTime;
use fieldbook_core::{RecordKey, Seq};
use fieldbook_projections::touched;
use tokio::sync::watch;

use crate::book::{Book, Shared, WriterState, write};
use crate::error::Error;
use crate::lend::Away;
use crate::origin::{Found, Origin};

/// Whether a book is suspended, and who is in a call that must end before.
pub(crate) struct Suspension {
    /// The number of suspensions and resumes: odd while the book is suspended.
    turns: watch::Sender<u64>,
    /// The number of calls of runs into the book.
    calls: Mutex<usize>,
    ended: Condvar,
}

impl Default for Suspension {
    fn default() -> Self {
        Self { turns: watch::Sender::new(0), calls: Mutex::default(), ended: Condvar::default() }
    }
}

/// Returns whether a book with this number of turns is suspended.
pub(crate) const fn is_suspended(turns: u64) -> bool {
    turns % 2 == 1
}

/// A call of a run into the book. No suspension happens during it.
pub(crate) struct Call<'a>(&'a Suspension);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        *self.0.calls() -= 1;
        self.0.ended.notify_all();
    }
}

impl Suspension {
    pub(crate) fn turns(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }

    pub(crate) fn is_suspended(&self) -> bool {
        is_suspended(*self.turns.borrow())
    }

    /// Begins a call of a run.
    ///
    /// # Errors
    /// [`Error::Suspended`].
    pub(crate) fn enter(&self) -> Result<Call<'_>, Error> {
        let mut calls = self.calls();
        if self.is_suspended() {
            return Err(Error::Suspended);
        }
        *calls += 1;
        Ok(Call(self))
    }

    /// Cuts runs, and waits until none is in a call.
    fn begin(&self) {
        let mut calls = self.calls();
        self.turns.send_modify(|turns| *turns += 1);
        while *calls > 0 {
            calls = self.ended.wait(calls).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self) {
        self.turns.send_modify(|turns| *turns += 1);
    }

    fn calls(&self) -> MutexGuard<'_, usize> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Lets go of the file: when the call returns, the file is closed and this process holds no
    /// lock of it, so another program can open it. An app calls it when it goes to the background:
    /// some systems kill an app that holds a lock of a shared file while it is suspended.
    ///
    /// Everything of the book stays valid: handles, live lists, receivers, background sync. Writes
    /// that were begun are committed. A run that is under way is dropped like one whose time is
    /// over: what it sent without an answer is sent again later, under the same ids. A read that is
    /// under way may fail. Until [`Self::resume`], a call that needs the file fails with
    /// [`Error::Suspended`]; background sync and live lists wait. [`Self::status`] shows what was
    /// known last. A book that is suspended already stays so, and one that is lent
    /// ([`BookOptions::shares_as`](crate::BookOptions::shares_as)) does not resume by itself any
    /// more.
    ///
    /// The call takes about as long as two small writes. It waits for a write, or an answer of a
    /// server, that is being committed.
    ///
    /// ```
    /// use fieldbook::{Book, BookOptions, Error, Fields};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("ann")?)?;
    /// book.suspend()?; // the app goes to the background
    /// let write = book.records().create("lead/1".parse()?, Fields::parse("{}")?);
    /// assert!(matches!(write, Err(Error::Suspended)));
    ///
    /// book.resume()?; // the app comes back
    /// book.records().create("lead/1".parse()?, Fields::parse("{}")?)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails while the file is closed: the book is suspended all the
    /// same, and the next opening repairs the file. [`Error::Misuse`] for a book that is no file.
    pub fn suspend(&self) -> Result<(), Error> {
        self.suspend_with(&mut self.shared.origin(), Away::Suspended)
    }

    pub(crate) fn suspend_with(&self, origin: &mut Origin, away: Away) -> Result<(), Error> {
        if origin.reopen.is_none() {
            return Err(Error::Misuse("only a book in a file can be suspended"));
        }
        origin.seat.leave(away);
        if self.shared.suspension.is_suspended() {
            return Ok(());
        }
        self.shared.suspension.begin();
        self.shared.run_is_over();
        self.shared.live.write_files(self);
        self.shared.let_go()
    }

    /// Takes the file again after [`Self::suspend`]. If another program wrote to it meanwhile, the
    /// book reads that as an opening does: what it declares is adopted and built, live lists tell
    /// what changed, and the receivers of [`Self::watch`] get the changed records. Background sync
    /// goes on at once. A book that is not suspended stays as it is.
    ///
    /// # Errors
    /// Those of [`Self::open`], such as [`StoreError::AlreadyOpen`](crate::error::StoreError) while
    /// another program has the file; [`Error::NotTheSame`] if the file was replaced by another book
    /// or an older copy, or another program declared other entity types or indexes than this book
    /// was opened by. The book stays suspended, and the call can be made again.
    pub fn resume(&self) -> Result<(), Error> {
        self.resume_with(&mut self.shared.origin())
    }

    pub(crate) fn resume_with(&self, origin: &mut Origin) -> Result<(), Error> {
        if !self.shared.suspension.is_suspended() {
            return Ok(());
        }
        let known = self.take_up(origin)?;
        if let Err(error) = self.catch_up() {
            // The cause is what the app has to know; the close is that of any failed opening.
            drop(self.shared.let_go());
            return Err(error);
        }
        origin.seat.take();
        self.shared.review_all();
        self.shared.suspension.end();
        self.shared.refresh_status();
        self.shared.live.all_changed();
        self.shared.tell_changes_since(known);
        Ok(())
    }

    /// Returns whether the book is suspended, by [`Self::suspend`] or because it is lent.
    pub fn is_suspended(&self) -> bool {
        self.shared.suspension.is_suspended()
    }

    /// Opens the file and puts what it has in the place of what was known. Returns the last entry
    /// that was known.
    fn take_up(&self, origin: &mut Origin) -> Result<Seq, Error> {
        let shared = &self.shared;
        let mut writer = shared.writer.lock().map_err(|_| Error::Interrupted)?;
        let Some(reopen) = &origin.reopen else { return Err(Error::Suspended) };
        let store = reopen()?;
        if let Err(error) = goes_on_from(&store, writer.head) {
            store.close()?;
            return Err(error);
        }
        let (store, found) = origin.read(store, &mut writer.projections)?;
        if found.in_force.record != origin.record || found.indexes != shared.indexes {
            drop(found);
            store.close()?;
            return Err(Error::NotTheSame(
                "another program has declared other entity types or indexes for this book",
            ));
        }
        let known = writer.head;
        let others_wrote = found.head != known;
        if others_wrote || store.stopped_before() == LastStop::Unclean {
            writer.opening = Some(Box::new(origin.opening(store.stopped_before())));
        }
        shared.put(&mut writer, store, found, others_wrote);
        Ok(known.map_or(Seq::ZERO, |head| head.seq))
    }
}

/// Checks that the log of a store has the last entry that is known.
fn goes_on_from(store: &Store, known: Option<Head>) -> Result<(), Error> {
    let Some(known) = known else { return Ok(()) };
    let entry = read_entry(&entries(&store.begin_read()?)?, known.seq)?;
    if entry.is_some_and(|entry| entry.hash == known.hash) {
        return Ok(());
    }
    Err(Error::NotTheSame("the file was replaced by another book or an older copy of this one"))
}

impl Shared {
    pub(crate) fn origin(&self) -> MutexGuard<'_, Origin> {
        // A panic leaves the book suspended or not: both are sound.
        self.origin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the store, after the round that is under way.
    fn let_go(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.at_rest = false;
        let store = self.store.take();
        self.let_go_of_snapshots();
        drop(writer);
        store.map_or(Ok(()), |store| Ok(store.close()?))
    }

    /// Puts a store and what was read of it in their places.
    fn put(&self, writer: &mut WriterState, store: Store, found: Found, others_wrote: bool) {
        writer.head = found.head;
        self.failed.store(false, Ordering::SeqCst);
        let stored = found.state.server_time;
        let remembered = stored.map(|(server, wall)| ServerTime::remembered(server, wall));
        self.remember_server_time(remembered);
        if others_wrote {
            self.forget_position();
        }
        *write(&self.state) = found.state;
        self.forget_attention();
        self.store.put(store);
        self.follow(found.following);
        self.latest.forget();
    }

    /// Tells the watchers which records changed after an entry.
    fn tell_changes_since(&self, known: Seq) {
        if self.changes.receiver_count() == 0 {
            return;
        }
        match self.changed_since(known) {
            Ok(keys) if keys.is_empty() => {}
            // It is no error if nobody receives.
            Ok(keys) => drop(self.changes.send(keys.into())),
            // The next read of the log tells the app.
            Err(error) => tracing::error!(%error, "what changed meanwhile cannot be read"),
        }
    }

    fn changed_since(&self, known: Seq) -> Result<Vec<RecordKey>, Error> {
        let snapshot = self.snapshot()?;
        let (log, last) = (snapshot.log()?, snapshot.last_seq()?);
        let mut keys = Vec::new();
        for seq in known.next().number()..=last.number() {
            let entry = fieldbook_projections::LogView::existing(&log, Seq::new(seq))?;
            keys.extend(touched(&entry, &log)?.keys);
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }
}
