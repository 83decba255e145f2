//! Two programs with one book: one holds it, another asks for it, and the holder lends it.
//!
//! ```text
//!   asker:   takes the turn ───── tries to open, again and again ─── opens ─── gives the turn back
//!   holder:        looks once a second: somebody asks? ─► suspends ─► waits ─────────► takes the turn ─► resumes
//! ```
//!
//! Invariants:
//! 1. Nobody is forced: a holder that does not lend keeps the book, and an asker gives up after its
//!    time.
//! 2. A lent book is a suspended one. Its holder resumes it when the other has let go of it, unless
//!    the app has suspended it itself.
//! 3. A holder has its book for a second at least before it lends it again. An asker has the turn
//!    until it has opened the book, so the holder does not come first.
//! 4. Every claim is a lock of the operating system: what a killed program held is free.
//! 5. The thread that looks keeps the book open for one look at a time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use fieldbook_core::Clock;
use fieldbook_core::log::turn::{Place, Wants, Which, look};
use fieldbook_core::log::{Program, Store, StoreError};
use fieldbook_core::rules::lend::{Lend, Role, lend};

use crate::book::{Book, Shared};
use crate::error::Error;
use crate::guests::{Guest, Guests};
use crate::options::BookOptions;
use crate::origin::Origin;

/// The time between two looks of a holder, and the least time that it has its book.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The time between two tries of an asker.
const TRY_EVERY: Duration = Duration::from_millis(10);
/// The time between two tries of a holder to have its book back.
const BACK_EVERY: Duration = Duration::from_millis(50);
/// The number of these tries for which a holder keeps the turn, before others may ask for one.
const KEEPS_TURN: u32 = 18;

/// The rule of an app for lending.
pub(crate) type Lends = Arc<dyn Fn(&Program) -> Lend + Send + Sync>;

/// How a program uses its book together with others.
#[derive(Clone)]
pub(crate) struct Sharing {
    pub(crate) role: Role,
    /// `None` if the program never lends.
    pub(crate) lends: Option<Lends>,
}

impl Sharing {
    pub(crate) fn by_role(role: Role) -> Self {
        Self { role, lends: Some(Arc::new(move |asker| lend(role, asker.role))) }
    }
}

/// Why a book has no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Away {
    #[default]
    No,
    /// The app has suspended it.
    Suspended,
    /// It is lent, and comes back by itself.
    Lent,
}

/// The place of a book among the programs that use it.
#[derive(Default)]
pub(crate) struct Seat {
    /// `None` if the book does not take part.
    of: Option<Of>,
    pub(crate) away: Away,
    /// That this program holds the book.
    holder: Option<Place>,
    /// The turn, while the program waits to have its book back.
    back: Option<Place>,
    /// The number of tries to have it back.
    tries: u32,
    /// Whether a thread of this program asks for the book.
    asks: bool,
    /// Ends the thread when the book is dropped.
    thread: Option<Ends>,
}

struct Of {
    sharing: Sharing,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    app: Option<String>,
}

impl Of {
    fn program(&self) -> Program {
        Program::this(self.sharing.role, self.clock.now().wall, self.app.clone())
    }
}

impl Seat {
    pub(crate) fn new(
        sharing: Option<Sharing>,
        path: Option<&Path>,
        clock: &Arc<dyn Clock>,
        app: Option<String>,
    ) -> Self {
        let of = sharing.zip(path).map(|(sharing, path)| Of {
            sharing,
            path: path.to_owned(),
            clock: Arc::clone(clock),
            app,
        });
        Self { of, ..Self::default() }
    }

    /// Says that this program has the book open.
    pub(crate) fn take(&mut self) {
        (self.away, self.back, self.tries) = (Away::No, None, 0);
        let Some(of) = &self.of else { return };
        let program = of.program();
        for _ in 0..5 {
            match Place::take(&of.path, Which::Holder, &program, Wants::Nothing) {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)), // somebody looks
                Ok(place) => {
                    self.holder = place;
                    return;
                }
                // The folder may be read-only. Then nobody learns who has the book.
                Err(_) => return,
            }
        }
    }

    /// Says nothing any more: the file is about to be closed.
    pub(crate) fn leave(&mut self, away: Away) {
        (self.holder, self.back, self.away) = (None, None, away);
    }

    /// Returns what to do about a program that asks now.
    fn asked(&self) -> Lend {
        let Some(of) = &self.of else { return Lend::No };
        match (look(&of.path, Which::Turn), &of.sharing.lends) {
            (Some((asker, Wants::Book)), Some(lends)) => lends(&asker),
            _ => Lend::No,
        }
    }

    /// Takes the turn to have the book back. Returns whether the program has it. It gives the turn
    /// up for a moment now and then, so that a third program can ask.
    fn wait_for_return(&mut self) -> bool {
        self.tries += 1;
        if self.asks || self.tries > KEEPS_TURN {
            (self.tries, self.back) = (0, None);
            return false;
        }
        if self.back.is_none()
            && let Some(of) = &self.of
        {
            let taken = Place::take(&of.path, Which::Turn, &of.program(), Wants::Return);
            self.back = taken.ok().flatten();
        }
        self.back.is_some()
    }
}

impl Book {
    /// Opens an existing book like [`Self::open`], and asks for it if another program has it: a
    /// program that lends ([`BookOptions::shares_as`]) then lets go of it. It tries for `wait`,
    /// which blocks the thread. The book is this program's until it is closed, or lent in turn.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use fieldbook::host::Role;
    /// use fieldbook::{Book, BookOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("crm.book");
    /// # Book::create_new(&path, BookOptions::new("ann")?)?.close()?;
    /// // In a background run of the system. A window of the app keeps its book by default.
    /// let options = BookOptions::new("ann")?.app("crm", "2.1").shares_as(Role::Background);
    /// let book = Book::open_within(&path, options, Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Self::open`]. [`StoreError::AlreadyOpen`] says who has the book, if that is known.
    pub fn open_within(
        path: impl AsRef<Path>,
        mut options: BookOptions,
        wait: Duration,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let sharing = options.sharing.get_or_insert(Sharing { role: Role::Interface, lends: None });
        let role = sharing.role;
        let program = Program::this(role, options.clock.now().wall, options.app_in_words());
        let (schema, of_store) = (&options.schema, options.store);
        let store = asking(path, &program, wait, || {
            schema.refuse(path, &of_store)?;
            Ok(Store::open(path, &of_store)?)
        })?;
        Self::start(store, options)
    }

    /// Resumes the book like [`Self::resume`], and asks for it if another program has it, for at
    /// most `wait`: a window that comes to the front takes its book back from another one.
    ///
    /// # Errors
    /// Those of [`Self::resume`].
    pub fn resume_within(&self, wait: Duration) -> Result<(), Error> {
        let (path, program) = {
            let mut origin = self.shared.origin();
            let Some(of) = &origin.seat.of else { return self.resume_with(&mut origin) };
            let asker = (of.path.clone(), of.program());
            // This program asks now, instead of waiting.
            (origin.seat.back, origin.seat.asks) = (None, true);
            asker
        };
        let resumed = asking(&path, &program, wait, || self.resume());
        self.shared.origin().seat.asks = false;
        resumed
    }

    /// Looks whether somebody asks, or whether a lent book can be had back. Returns the time until
    /// the next look.
    fn look_around(&self) -> Duration {
        let mut origin = self.shared.origin();
        match origin.seat.away {
            Away::Suspended => LOOK_EVERY,
            Away::No => {
                let lends = match origin.seat.asked() {
                    Lend::No => false,
                    Lend::WhenIdle => self.shared.syncing.try_lock().is_ok(),
                    Lend::AtOnce => true,
                };
                if lends && let Err(error) = self.suspend_with(&mut origin, Away::Lent) {
                    tracing::error!(%error, "the book was lent, and its file not closed well");
                }
                if lends { TRY_EVERY } else { LOOK_EVERY }
            }
            Away::Lent => self.have_back(&mut origin),
        }
    }

    fn have_back(&self, origin: &mut Origin) -> Duration {
        if !origin.seat.wait_for_return() {
            return BACK_EVERY;
        }
        match self.resume_with(origin) {
            Ok(()) => LOOK_EVERY,
            Err(error) if is_open_elsewhere(&error) => BACK_EVERY,
            Err(error) => {
                tracing::error!(%error, "a lent book cannot be resumed");
                origin.seat.back = None;
                LOOK_EVERY
            }
        }
    }
}

/// Calls `open` until it does not fail because another program has the book, or the time is over.
/// Meanwhile this program has the turn to ask, or waits for it.
fn asking<T>(
    path: &Path,
    program: &Program,
    wait: Duration,
    mut open: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let (mut turn, mut waited) = (None, Duration::ZERO);
    loop {
        if turn.is_none() && path.exists() {
            // If the turn cannot be taken at all, the book may come free all the same.
            turn = match Place::take(path, Which::Turn, program, Wants::Book) {
                Ok(None) => None,
                Ok(Some(place)) => Some(Some(place)),
                Err(_) => Some(None),
            };
        }
        let is_over = waited >= wait;
        if turn.is_some() || is_over || !path.exists() {
            match open() {
                Err(error) if is_open_elsewhere(&error) && !is_over => {}
                opened => return opened,
            }
        }
        // Counted by its own sleeps: no clock decides how often it tries.
        std::thread::sleep(TRY_EVERY);
        waited += TRY_EVERY;
    }
}

fn is_open_elsewhere(error: &Error) -> bool {
    matches!(error, Error::Store(error) if matches!(**error, StoreError::AlreadyOpen { .. }))
}

/// Ends the thread of a book when it is dropped.
struct Ends(Arc<Signal>);

impl Drop for Ends {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

#[derive(Default)]
struct Signal {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Waits so long. Returns whether the thread has to end.
    fn wait(&self, wait: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(ended, wait, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Shared {
    /// Says that this program has the book, and starts the thread that looks who asks for it, if
    /// the program lends.
    ///
    /// # Errors
    /// [`Error::Store`] if the system gives no thread.
    pub(crate) fn take_seat(self: &Arc<Self>) -> Result<(), Error> {
        let mut origin = self.origin();
        if self.store.is_read_only() {
            origin.seat = Seat::default();
        }
        origin.seat.take();
        if origin.seat.of.as_ref().is_some_and(|of| of.sharing.lends.is_some()) {
            let signal = Arc::new(Signal::default());
            origin.seat.thread = Some(Ends(Arc::clone(&signal)));
            let (book, guests) = (Arc::downgrade(self), Arc::clone(&self.guests));
            let thread = std::thread::Builder::new().name("fieldbook-lends".to_owned());
            drop(
                thread
                    .spawn(move || looks(&book, &guests, &signal))
                    .map_err(StoreError::disk("starting the thread that lends the book"))?,
            );
        }
        Ok(())
    }
}

fn looks(book: &Weak<Shared>, guests: &Arc<Guests>, signal: &Signal) {
    let mut wait = LOOK_EVERY;
    while !signal.wait(wait) {
        let guest = guests.enter(book);
        let Some(open) = guest.as_ref().and_then(Guest::book) else { return };
        wait = open.look_around();
    }
}
