//! What a book records of an opening: the program, its system and its zone, how the program before
//! stopped, and the app's declarations. And how a program without the app opens the book by them.
//!
//! ```text
//!   first write of an opening ─► [Session] [Silence] entry of the write ─► one commit
//!                                    └─ the declarations, if the book has not got them
//! ```
//!
//! Invariants:
//! 1. An opening that writes nothing records nothing.
//! 2. A program that opens by recorded declarations records the same bytes again, so they never
//!    lose what that program does not know.
//! 3. A book whose declarations name functions that the program lacks is not opened for writing,
//!    unless the program asks for it. The file is unchanged then.

use std::path::Path;
use std::sync::Arc;

use fieldbook_core::entry::{
    AppVersion, Control, Draft, Entry, Items, LastStop, Meta, Session as SessionMeta,
};
use fieldbook_core::log::{Store, StoreOptions, catch_storage_panic, entries_from, read_entry};
use fieldbook_core::rows::FOLD_VERSION;
use fieldbook_core::{
    Clock, Declared, EntityRules, Hash, Hook, HookKind, Now, Randomness, Schema, Seq,
    declared_digest,
};
use fieldbook_projections::Snapshot;
use redb::ReadableTable;

use crate::audit::Audit;
use crate::error::Error;

/// The program with its version, as the log names it.
pub(crate) const PROGRAM: &str = concat!("fieldbook ", env!("CARGO_PKG_VERSION"));

/// Where the declarations come from.
pub(crate) enum Source {
    /// The app declares them.
    App(Box<Schema>),
    /// The book has recorded them.
    Book {
        /// Whether the book may be written without the functions of the app.
        without_hooks: bool,
    },
}

/// The declarations in force.
pub(crate) struct InForce {
    pub(crate) schema: Schema,
    /// The declarations as they are recorded.
    pub(crate) record: Vec<u8>,
    /// The functions of the app that this program lacks.
    pub(crate) lacking: Vec<Hook>,
}

impl InForce {
    fn of_app(schema: Schema) -> Self {
        let record = Declared::of(&schema).to_bytes();
        Self { schema, record, lacking: Vec::new() }
    }

    fn of_book(record: Option<Vec<u8>>) -> Self {
        let open = Schema::open(EntityRules::default());
        let Some(record) = record else { return Self::of_app(open) };
        match Declared::read(&record) {
            Ok(declared) => Self { schema: declared.schema(), lacking: declared.hooks(), record },
            Err(_) => {
                let kind = HookKind::Unknown { member: "the whole schema".to_owned() };
                Self { schema: open, record, lacking: vec![Hook { entity: None, kind }] }
            }
        }
    }
}

impl Source {
    /// Returns the declarations in force in a store.
    ///
    /// # Errors
    /// [`Error::LacksRules`] if the store is to be written and the program lacks functions;
    /// [`Error::Store`] if the log cannot be read.
    pub(crate) fn reconcile(&self, store: &Store) -> Result<InForce, Error> {
        let without_hooks = match self {
            Self::App(schema) => return Ok(InForce::of_app(Schema::clone(schema))),
            Self::Book { without_hooks } => *without_hooks,
        };
        let in_force = InForce::of_book(recorded(&Snapshot::new(store.begin_read()?))?);
        if in_force.lacking.is_empty() || without_hooks || store.is_read_only() {
            return Ok(in_force);
        }
        Err(Error::LacksRules { hooks: in_force.lacking })
    }

    /// Returns the schema by which the log is folded, without a look at any table. A fold calls no
    /// function of the app.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub(crate) fn to_fold(
        &self,
        entries: &impl ReadableTable<u64, &'static [u8]>,
    ) -> Result<Schema, Error> {
        match self {
            Self::App(schema) => Ok(Schema::clone(schema)),
            Self::Book { .. } => Ok(InForce::of_book(recorded_in_log(entries)?).schema),
        }
    }

    /// Refuses a file whose declarations name functions that the program lacks, before it is opened
    /// for writing: opening a file for writing changes it.
    ///
    /// # Errors
    /// As for [`Self::reconcile`].
    pub(crate) fn refuse(&self, path: &Path, options: &StoreOptions) -> Result<(), Error> {
        if options.read_only || !matches!(self, Self::Book { without_hooks: false }) {
            return Ok(());
        }
        let looking = Store::open(path, &StoreOptions { read_only: true, ..*options })?;
        let read = catch_storage_panic(|| recorded(&Snapshot::new(looking.begin_read()?)));
        let lacking = InForce::of_book(read?).lacking;
        if lacking.is_empty() { Ok(()) } else { Err(Error::LacksRules { hooks: lacking }) }
    }
}

/// Returns the last recorded declarations; none if the book has none, or they were erased.
fn recorded(snapshot: &Snapshot) -> Result<Option<Vec<u8>>, Error> {
    let entries = snapshot.entries()?;
    let entry = match snapshot.state() {
        Ok(state) if state.format == FOLD_VERSION => match state.declared {
            Some(seq) => read_entry(&entries, seq)?,
            None => None,
        },
        // The tables are of another version of the fold, or damaged: the log has all of it.
        _ => return recorded_in_log(&entries),
    };
    Ok(entry.as_ref().and_then(schema_of).map(<[u8]>::to_vec))
}

fn recorded_in_log(
    entries: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<Option<Vec<u8>>, Error> {
    let mut last = None;
    for entry in entries_from(entries, Seq::ZERO) {
        last = schema_of(&entry?).map(<[u8]>::to_vec).or(last);
    }
    Ok(last)
}

fn schema_of(entry: &Entry) -> Option<&[u8]> {
    match &entry.meta {
        Meta::Control(Control::Session(session)) => entry.item(session.schema?),
        _ => None,
    }
}

/// What is recorded with the first write of an opening.
pub(crate) struct Opening {
    pub(crate) app: Option<AppVersion>,
    pub(crate) system: String,
    pub(crate) last_stop: LastStop,
    pub(crate) record: Vec<u8>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Opening {
    /// Makes the entry. `declared` is the last entry with declarations. If it is damaged, they are
    /// recorded again.
    pub(crate) fn draft(
        &self,
        declared: Option<&Entry>,
        now: Now,
        randomness: &mut dyn Randomness,
    ) -> Draft {
        let (mut items, schema_digest) = (Items::default(), declared_digest(&self.record));
        let is_new = declared.and_then(digest_of) != Some(schema_digest);
        let schema = is_new.then(|| items.add(self.record.clone(), randomness));
        let session = SessionMeta {
            program: PROGRAM.to_owned(),
            app: self.app.clone(),
            system: self.system.clone(),
            utc_offset: self.clock.utc_offset(now.wall),
            last_stop: self.last_stop,
            schema_digest,
            schema,
        };
        Draft { meta: Meta::Control(Control::Session(session)), items }
    }
}

/// Returns the digest of the declarations that an entry has.
fn digest_of(entry: &Entry) -> Option<Hash> {
    match &entry.meta {
        Meta::Control(Control::Session(session)) => Some(session.schema_digest),
        _ => None,
    }
}

impl<'b> Audit<'b> {
    /// Returns the functions of the app that the book names and this program lacks. There are none
    /// unless the book was opened with
    /// [`BookOptions::recorded_schema`](crate::BookOptions::recorded_schema).
    pub fn lacking(&self) -> &'b [Hook] {
        &self.book.shared.lacking
    }
}
