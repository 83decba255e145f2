//! An app's own projections: folds of record changes `(before, after)`, kept in the same
//! transaction as the append.
//!
//! ```text
//!   effects of a round ──► (before, after) of each record whose visible image changed ──► fold ──► table `app-<name>`
//!   a new version, a rebuild ──► (nothing, present) of every record ──► fold ──► the table, from empty
//! ```
//!
//! Invariants:
//! 1. A live projection is the fold of all changes so far: its table changes in the same commit as
//!    the record.
//! 2. A fault of a projection's author affects this projection only. An error or a panic marks the
//!    projection as broken in the same commit. It is not called any more, and the write succeeds. A
//!    broken projection cannot be read. It is folded again when its version changes, or by a
//!    rebuild.
//! 3. A fault of the disk never counts as a fault of the app, whatever the fold does with the
//!    error: the commit fails.
//! 4. A table is never both out of date and live. If a book has a projection that the writing app
//!    did not register, that projection is removed first. It is folded again when it is registered
//!    again.
//!
//! What it is not: a way to see how a record came about (that is the history), or to change
//! records. A panic is caught only if the app is built with unwinding.

mod read;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fieldbook_core::log::StoreError;
use fieldbook_core::rows::StoredRecord;
use fieldbook_core::{
    EntityRules, EntityType, Fields, FieldsJson, Form, RecordKey, Schema, limits,
};
use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::access::{DiskTables, decode};
use crate::effects::RecordEffect;
use crate::read::Snapshot;
use crate::tables;

pub use table::{KeyValue, PROJECTION_KEY_BYTES, PROJECTION_VALUE_BYTES, ProjectionTable};

/// A fold of record changes that an app declares, with a table of its own.
///
/// The fold must depend only on the difference between `before` and `after`. Different changes that
/// lead to the same records must give the same table, byte for byte. Then a rebase needs no undo
/// log, and folding the present records from nothing gives the same table as following each change.
/// So a fold subtracts `before`, adds `after`, and removes a row whose sum is zero. It uses no
/// clock, no randomness, and no state outside the table.
///
/// ```
/// use fieldbook_projections::{Projection, ProjectionError, ProjectionTable, RecordChange};
///
/// /// How many leads there are in each stage.
/// struct LeadsByStage;
///
/// impl Projection for LeadsByStage {
///     fn name(&self) -> &str {
///         "leads_by_stage"
///     }
///
///     fn version(&self) -> u32 {
///         1
///     }
///
///     fn fold(&self, change: &RecordChange<'_>, table: &mut ProjectionTable<'_>) -> Result<(), ProjectionError> {
///         for (fields, step) in [(change.before, -1), (change.after, 1)] {
///             let Some(stage) = fields.and_then(|fields| fields.get("stage")?.as_str()) else { continue };
///             let count = match table.get(stage.as_bytes())? {
///                 Some(bytes) => i64::from_be_bytes(
///                     bytes.try_into().map_err(|_| ProjectionError::new("not_a_count"))?,
///                 ),
///                 None => 0,
///             };
///             match count + step {
///                 0 => table.remove(stage.as_bytes())?,
///                 count => table.put(stage.as_bytes(), &count.to_be_bytes())?,
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Projection: Send + Sync {
    /// Returns the projection's name, which is also in the name of its table: lower-case letters,
    /// digits and `_`, at most 63 bytes.
    fn name(&self) -> &str;

    /// Returns the version of the fold. Increase it whenever the fold would give another table. The
    /// table is then folded again when the book is opened.
    fn version(&self) -> u32;

    /// Folds the change of one record. It runs within the write transaction, so it should be quick.
    ///
    /// # Errors
    /// [`ProjectionError`] if the change cannot be folded. The error breaks the projection but not
    /// the write.
    fn fold(
        &self,
        change: &RecordChange<'_>,
        table: &mut ProjectionTable<'_>,
    ) -> Result<(), ProjectionError>;
}

/// A record whose visible image changed. At least one of `before` and `after` is present, and they
/// differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecordChange<'a> {
    /// The record.
    pub key: &'a RecordKey,
    /// The fields that the app read before; `None` for no such record, and in a fold from nothing.
    pub before: Option<&'a Fields>,
    /// The fields that the app reads now; `None` if the record no longer exists.
    pub after: Option<&'a Fields>,
}

/// The reason why a fold failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The error of the app.
    #[error("the projection cannot fold a change: {code}")]
    App {
        /// A short code of the app's own. It is stored and shown, so it should hold no value of a
        /// record.
        code: String,
    },
    /// A key or a value is larger than [`PROJECTION_KEY_BYTES`] or [`PROJECTION_VALUE_BYTES`].
    #[error(
        "a projection's key is over {PROJECTION_KEY_BYTES} bytes or a value over {PROJECTION_VALUE_BYTES}"
    )]
    TooLarge,
    /// The disk failed. The whole commit fails, whatever the fold returns.
    #[error("the projection's table cannot be read or written")]
    Table,
}

impl ProjectionError {
    /// Makes the app's own error from a short code. At most 64 bytes of it are kept.
    pub fn new(code: impl Into<String>) -> Self {
        Self::App { code: code.into() }
    }
}

/// A projection that cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProjection {
    /// A name breaks the rule.
    #[error("a projection's name is not a lower-case letter and then at most 62 of a-z, 0-9 and _")]
    Name,
    /// Another projection has this name.
    #[error("two projections have the same name: each needs its own")]
    Twice,
}

/// The stored state of one projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionRow {
    /// The version of the fold that made the table.
    pub version: u32,
    /// The cause, if the projection is broken.
    pub broken: Option<Broken>,
    /// The forms in which the fold read records, by entity type; none of a type whose records it
    /// read as they are stored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forms: BTreeMap<EntityType, Form>,
}

/// The cause of a broken projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The app's code, or `panicked`, `too_large` or `table`.
    pub code: String,
    /// The record whose change could not be folded.
    pub key: RecordKey,
}

/// The projections that an app registered, and the state of each.
#[derive(Default)]
pub struct Projections {
    registered: Vec<Registered>,
    /// Projections that the book has and the app did not register.
    strays: Vec<String>,
    /// The rules of the entity types whose records are read through upcasters.
    readings: BTreeMap<EntityType, EntityRules>,
}

struct Registered {
    projection: Arc<dyn Projection>,
    name: String,
    version: u32,
    state: ProjectionState,
}

#[derive(PartialEq, Eq)]
enum ProjectionState {
    /// The projection has to be folded from nothing.
    Stale,
    /// The projection follows changes.
    Live,
    Broken,
}

impl Projections {
    /// Registers an app's projection. It will be folded from nothing unless [`Self::read_states`]
    /// finds it up to date.
    ///
    /// # Errors
    /// [`InvalidProjection`] if its name breaks the rule or is in use already.
    pub fn register(&mut self, projection: Arc<dyn Projection>) -> Result<(), InvalidProjection> {
        let (name, version) = (projection.name().to_owned(), projection.version());
        EntityType::parse(&name).map_err(|_| InvalidProjection::Name)?;
        if self.names().any(|other| other == name) {
            return Err(InvalidProjection::Twice);
        }
        self.registered.push(Registered {
            projection,
            name,
            version,
            state: ProjectionState::Stale,
        });
        Ok(())
    }

    /// Folds records as the app with this schema reads them.
    pub fn read_by(&mut self, schema: &Schema) {
        let read = schema.declared().filter(|(_, rules)| rules.form().is_some());
        self.readings = read.map(|(entity, rules)| (entity.clone(), rules.for_reading())).collect();
    }

    /// Returns the names of the registered projections.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.registered.iter().map(|registered| registered.name.as_str())
    }

    /// Reads the state of each projection. Call it before anything is written with this value: a
    /// projection without a state does not follow changes.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn read_states(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (rows, forms) = (snapshot.projections()?, forms_of(&self.readings));
        let is_present =
            |row: &&ProjectionRow, version| row.version == version && row.forms == forms;
        for registered in &mut self.registered {
            let row = rows.iter().find(|(name, _)| *name == registered.name).map(|(_, row)| row);
            registered.state = match row.filter(|row| is_present(row, registered.version)) {
                None => ProjectionState::Stale,
                Some(ProjectionRow { broken: Some(_), .. }) => ProjectionState::Broken,
                Some(_) => ProjectionState::Live,
            };
        }
        let is_stray =
            |name: &String| self.registered.iter().all(|registered| registered.name != *name);
        self.strays = rows.into_iter().map(|(name, _)| name).filter(is_stray).collect();
        Ok(())
    }

    /// Returns whether a projection has to be folded from nothing ([`Self::fold_stale`]).
    pub fn is_stale(&self) -> bool {
        self.registered.iter().any(|registered| registered.state == ProjectionState::Stale)
    }

    /// Returns whether a commit has to call [`Self::follow`]: a projection follows changes, or a
    /// projection that the app did not register has to be removed.
    pub fn follows(&self) -> bool {
        let live =
            self.registered.iter().any(|registered| registered.state == ProjectionState::Live);
        live || !self.strays.is_empty()
    }

    /// Folds the changes of a round in all live projections.
    ///
    /// If a projection breaks, this value records it before the commit. If the transaction is then
    /// not committed, this value must not be used any more.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn follow(
        &mut self,
        tables: &mut DiskTables<'_>,
        effects: &[RecordEffect],
    ) -> Result<(), StoreError> {
        let mut changes = effects.iter().filter(|effect| effect.before != effect.after).peekable();
        if changes.peek().is_none() {
            return Ok(());
        }
        let transaction = tables.transaction();
        self.take_strays_away(transaction)?;
        let mut folding = self.folding(transaction, &ProjectionState::Live)?;
        for effect in changes {
            folding.fold(&effect.key, effect.before.as_ref(), effect.after.as_ref())?;
        }
        Ok(())
    }

    /// Folds the stale projections from the present records.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails or a row cannot be read.
    pub fn fold_stale(&mut self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        for registered in self.registered.iter().filter(|one| one.state == ProjectionState::Stale) {
            take_away(transaction, &registered.name)?;
        }
        let records = transaction
            .open_table(tables::RECORDS)
            .map_err(StoreError::during("opening a table"))?;
        let mut folding = self.folding(transaction, &ProjectionState::Stale)?;
        for row in records.iter().map_err(StoreError::during("reading rows"))? {
            let (key, stored) = row.map_err(StoreError::during("reading rows"))?;
            let key = RecordKey::from_bytes(key.value()).ok_or(StoreError::Corrupt {
                what: "a key of a table that is folded from the log",
                seq: None,
                source: None,
            })?;
            let row: StoredRecord = decode(stored.value())?;
            if let Some(image) = row.image() {
                folding.fold(&key, None, Some(image))?;
            }
        }
        drop(folding);
        let forms = forms_of(&self.readings);
        for registered in
            self.registered.iter_mut().filter(|one| one.state == ProjectionState::Stale)
        {
            registered.state = ProjectionState::Live;
            let (version, forms) = (registered.version, forms.clone());
            put_row(
                transaction,
                &registered.name,
                &ProjectionRow { version, broken: None, forms },
            )?;
        }
        Ok(())
    }

    /// Folds all projections from the present records, broken ones too, and removes the projections
    /// that the app did not register.
    ///
    /// # Errors
    /// As for [`Self::fold_stale`].
    pub fn fold_anew(&mut self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let held = {
            let table = transaction.open_table(tables::PROJECTIONS);
            read::names(&table.map_err(StoreError::during("opening a table"))?)?
        };
        held.iter().try_for_each(|name| take_away(transaction, name))?;
        self.strays.clear();
        self.registered.iter_mut().for_each(|registered| registered.state = ProjectionState::Stale);
        if self.registered.is_empty() { Ok(()) } else { self.fold_stale(transaction) }
    }

    /// Opens the tables of the projections of one state.
    fn folding<'t>(
        &mut self,
        transaction: &'t WriteTransaction,
        state: &ProjectionState,
    ) -> Result<Folding<'t, '_>, StoreError> {
        let chosen = self.registered.iter_mut().filter(|one| one.state == *state);
        let open = chosen.map(|one| {
            let table = ProjectionTable::open(transaction, &one.name)?;
            Ok((one, table))
        });
        let open = open.collect::<Result<_, StoreError>>()?;
        Ok(Folding { transaction, open, readings: &self.readings })
    }

    fn take_strays_away(&mut self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        self.strays.drain(..).try_for_each(|name| take_away(transaction, &name))
    }
}

impl fmt::Debug for Projections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Returns the forms in which records are read by these rules.
fn forms_of(readings: &BTreeMap<EntityType, EntityRules>) -> BTreeMap<EntityType, Form> {
    let forms = readings.iter();
    forms.filter_map(|(entity, rules)| Some((entity.clone(), rules.form()?))).collect()
}

/// The projections of one state that fold changes, each with its table.
struct Folding<'t, 'p> {
    transaction: &'t WriteTransaction,
    open: Vec<(&'p mut Registered, ProjectionTable<'t>)>,
    readings: &'p BTreeMap<EntityType, EntityRules>,
}

impl Folding<'_, '_> {
    fn fold(
        &mut self,
        key: &RecordKey,
        before: Option<&FieldsJson>,
        after: Option<&FieldsJson>,
    ) -> Result<(), StoreError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let damaged = |fault| StoreError::corrupt("stored fields", None, fault);
        let rules = self.readings.get(&key.entity);
        let as_read = |stored: &FieldsJson| {
            let values = rules
                .map_or_else(|| stored.to_fields(), |rules| rules.read_values(stored.as_str()));
            values.map_err(damaged)
        };
        let before = before.map(as_read).transpose()?;
        let after = after.map(as_read).transpose()?;
        if before == after {
            return Ok(());
        }
        let change = RecordChange { key, before: before.as_ref(), after: after.as_ref() };
        for (registered, table) in &mut self.open {
            let folded =
                catch_unwind(AssertUnwindSafe(|| registered.projection.fold(&change, table)));
            if let Some(failure) = table.take_failure() {
                return Err(failure);
            }
            let code = match folded {
                Ok(Ok(())) => continue,
                Ok(Err(ProjectionError::App { code })) => cut(code),
                Ok(Err(ProjectionError::TooLarge)) => "too_large".to_owned(),
                // No disk failure was noted, so the app itself made this error.
                Ok(Err(ProjectionError::Table)) => "table".to_owned(),
                // The panic's text may quote a record; the app's panic hook has it.
                Err(_panic) => "panicked".to_owned(),
            };
            tracing::error!(
                projection = registered.name,
                code,
                "a projection broke: fix it and raise its version"
            );
            let broken = Some(Broken { code, key: key.clone() });
            registered.state = ProjectionState::Broken;
            let (version, forms) = (registered.version, forms_of(self.readings));
            put_row(self.transaction, &registered.name, &ProjectionRow { version, broken, forms })?;
        }
        self.open.retain(|(registered, _)| registered.state != ProjectionState::Broken);
        Ok(())
    }
}

/// Removes a projection's table and its row.
fn take_away(transaction: &WriteTransaction, name: &str) -> Result<(), StoreError> {
    transaction
        .delete_table(tables::app(&tables::app_name(name)))
        .map_err(StoreError::during("taking a table away"))?;
    let mut rows = transaction
        .open_table(tables::PROJECTIONS)
        .map_err(StoreError::during("opening a table"))?;
    drop(rows.remove(name.as_bytes()).map_err(StoreError::during("taking a row away"))?);
    Ok(())
}

fn put_row(
    transaction: &WriteTransaction,
    name: &str,
    row: &ProjectionRow,
) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(row).map_err(|fault| {
        StoreError::corrupt("a projection's row cannot be written", None, fault)
    })?;
    let mut rows = transaction
        .open_table(tables::PROJECTIONS)
        .map_err(StoreError::during("opening a table"))?;
    drop(
        rows.insert(name.as_bytes(), bytes.as_slice())
            .map_err(StoreError::during("writing a row"))?,
    );
    Ok(())
}

/// Cuts a long code at a character's edge.
fn cut(mut code: String) -> String {
    code.truncate(
        (0..=limits::CODE_BYTES).rev().find(|at| code.is_char_boundary(*at)).unwrap_or(0),
    );
    code
}
