//! Makes the baseline of a log: what its entries up to a quiet moment came to.
//!
//! A moment is *quiet* if no op is pending and no unit is unanswered, no conflict is open, and no
//! commit goes on behind it. Only then does no later entry name a place before it.
//!
//! What it does not do: write. [`fieldbook_core::log::copy_trimmed`] does.

use std::collections::BTreeSet;

use fieldbook_core::entry::{
    Baseline, BaselineRecord, BaselineState, ChangeMeta, Control, Draft, Entry, Extent, Items, Meta,
};
use fieldbook_core::log::{BaselineDraft, StoreError};
use fieldbook_core::rows::{Confirmed, RecordRow, StateRow};
use fieldbook_core::{ConflictId, FieldsJson, OpPlace, Randomness, RecordKey, Schema, Seq, UnitId};

use crate::log_view::{CachedLog, LogView};
use crate::read::Snapshot;
use crate::rebuild::{Rebuilt, fold_with};

/// The most records of a part of a baseline. A read of one record in the past reads a whole part.
const PART_RECORDS: usize = 500;
/// The bytes of fields after which a part ends.
const PART_BYTES: usize = 512 * 1024;

/// What keeps entries from being trimmed: they are named by something that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptBy {
    /// An op is pending.
    Op {
        /// The record.
        key: RecordKey,
        /// The op.
        place: OpPlace,
        /// Whether it is a dead letter.
        dead: bool,
    },
    /// A unit has no final answer.
    Unit {
        /// The unit.
        id: UnitId,
        /// The entry that planned it.
        planned: Seq,
    },
    /// A conflict is open.
    Conflict {
        /// The record.
        key: RecordKey,
        /// The conflict.
        id: ConflictId,
    },
    /// A record of an entity type that was not declared then, and was adopted later.
    Undeclared {
        /// The record.
        key: RecordKey,
    },
    /// Another server was accepted, and was not read to its end.
    Rereading,
}

/// A quiet moment of a log, with all tables as they were.
pub struct Quiet {
    upto: Seq,
    rebuilt: Rebuilt,
    kept: BTreeSet<Seq>,
}

/// Finds the last quiet moment up to an entry. Returns it, and what keeps a later one from being
/// quiet. `progress` is called with every folded entry; the log is folded up to there, mostly
/// twice.
///
/// # Errors
/// [`StoreError`] if an entry or a row cannot be read.
pub fn last_quiet(
    snapshot: &Snapshot,
    schema: &Schema,
    upto: Seq,
    mut progress: impl FnMut(Seq),
) -> Result<(Option<Quiet>, Option<KeptBy>), StoreError> {
    let still: BTreeSet<_> = snapshot.undeclared()?.into_iter().collect();
    let (mut upto, mut kept_by) = (upto, None);
    loop {
        let found = fold_to_quiet(snapshot, schema, upto, &mut progress)?;
        let Some(quiet) = found.quiet else {
            return Ok((None, kept_by.or(found.kept_by)));
        };
        kept_by = kept_by.or(found.kept_by);
        if quiet < found.upto {
            upto = quiet;
            continue;
        }
        let tables = found.rebuilt.tables();
        let open = tables.conflicts.iter().find(|(_, row)| row.open);
        let adopted = tables.undeclared.iter().find(|row| !still.contains(*row));
        let (at, by) = match (open, adopted) {
            (Some(((seq, number), row)), _) => {
                let id = ConflictId { seq: *seq, number: *number };
                (*seq, KeptBy::Conflict { key: row.key.clone(), id })
            }
            (None, Some((key, seq, _))) => (*seq, KeptBy::Undeclared { key: key.clone() }),
            (None, None) => {
                let kept = found.kept.into_iter().filter(|seq| *seq < quiet).collect();
                return Ok((Some(Quiet { upto: quiet, rebuilt: found.rebuilt, kept }), kept_by));
            }
        };
        kept_by = kept_by.or(Some(by));
        upto = Seq::new(at.number().saturating_sub(1));
    }
}

/// A fold, with the last quiet moment in it.
struct Folded {
    upto: Seq,
    rebuilt: Rebuilt,
    quiet: Option<Seq>,
    kept_by: Option<KeptBy>,
    kept: BTreeSet<Seq>,
}

fn fold_to_quiet(
    snapshot: &Snapshot,
    schema: &Schema,
    upto: Seq,
    progress: &mut impl FnMut(Seq),
) -> Result<Folded, StoreError> {
    let entries = snapshot.entries()?;
    let (mut quiet, mut last) = (None, None);
    // The log up to there must verify by itself: an archive is made of it.
    let mut vouched = true;
    let mut stays = Stays::default();
    let mut upto_there = Seq::ZERO;
    let rebuilt = fold_with(&entries, schema, upto, |entry, rebuilt| {
        let seq = entry.header.seq;
        if begins_commit(entry) {
            quiet = last.or(quiet);
        }
        let stays = stays.look(entry);
        match &entry.meta {
            Meta::Control(Control::Baseline(_)) => vouched = false,
            Meta::Control(Control::Trimmed(_)) => vouched = true,
            _ => {}
        }
        last = (!stays && vouched && is_quiet(rebuilt)).then_some(seq);
        upto_there = seq;
        progress(seq);
    })?;
    let next = CachedLog::new(&entries).entry(upto_there.next())?;
    if next.is_none_or(|next| begins_commit(&next)) {
        quiet = last.or(quiet);
    }
    let kept_by = if quiet == Some(upto_there) { None } else { what_keeps(&rebuilt) };
    Ok(Folded { upto: upto_there, rebuilt, quiet, kept_by, kept: stays.all() })
}

/// Returns whether an entry is the first of its commit, as far as the entries before it need to
/// know: it is not a consequence of the entry before.
const fn begins_commit(entry: &Entry) -> bool {
    !matches!(
        entry.meta,
        Meta::Control(Control::Decided(_) | Control::Authors(_) | Control::Note(_))
    )
}

fn is_quiet(rebuilt: &Rebuilt) -> bool {
    let tables = rebuilt.tables();
    rebuilt.tail().is_empty()
        && tables.units.is_empty()
        && tables.dead_letters.is_empty()
        && !tables.state.rereading
}

fn what_keeps(rebuilt: &Rebuilt) -> Option<KeptBy> {
    let tables = rebuilt.tables();
    if let Some((place, row)) = rebuilt.tail().first_key_value() {
        let dead = tables.dead_letters.contains_key(&row.op);
        return Some(KeptBy::Op { key: row.key.clone(), place: *place, dead });
    }
    if let Some((id, row)) = tables.units.iter().min_by_key(|(_, row)| row.planned) {
        return Some(KeptBy::Unit { id: *id, planned: row.planned });
    }
    tables.state.rereading.then_some(KeptBy::Rereading)
}

/// The entries that a baseline keeps: how the log began, its present epoch, the last opening and the
/// last declarations, and what was erased.
#[derive(Default)]
struct Stays {
    begun: Option<Seq>,
    epoch: Option<Seq>,
    session: Option<Seq>,
    declared: Option<Seq>,
    erased: BTreeSet<Seq>,
}

impl Stays {
    /// Takes note of an entry. Returns whether it is one of those.
    fn look(&mut self, entry: &Entry) -> bool {
        let seq = entry.header.seq;
        let Meta::Control(control) = &entry.meta else { return false };
        match control {
            Control::Opened(_) => self.begun = Some(seq),
            Control::EpochStarted { .. } => self.epoch = Some(seq),
            Control::Session(session) => {
                self.session = Some(seq);
                self.declared = session.schema.map(|_| seq).or(self.declared);
            }
            Control::Erased(_) => drop(self.erased.insert(seq)),
            _ => return false,
        }
        true
    }

    fn all(self) -> BTreeSet<Seq> {
        let single = [self.begun, self.epoch, self.session, self.declared];
        self.erased.into_iter().chain(single.into_iter().flatten()).collect()
    }
}

impl Quiet {
    /// Returns the last entry of the moment.
    pub const fn upto(&self) -> Seq {
        self.upto
    }

    /// Makes the baseline.
    ///
    /// # Errors
    /// [`StoreError`] if an entry cannot be read.
    pub fn baseline(
        &self,
        snapshot: &Snapshot,
        randomness: &mut dyn Randomness,
    ) -> Result<BaselineDraft, StoreError> {
        let tables = self.rebuilt.tables();
        let mut records: Vec<_> = tables.records.iter().collect();
        records.sort_unstable_by_key(|(key, _)| key.to_bytes());
        let mut parts = Parts { done: Vec::new(), part: Part::default(), randomness };
        for (key, row) in records {
            let Some(confirmed) = &row.confirmed else { continue };
            parts.add(changed(key, confirmed), row, confirmed.fields.clone());
        }
        let log = snapshot.log()?;
        for (key, seq, number) in &tables.undeclared {
            let (change, fields) = undeclared(&log, *seq, *number)?;
            debug_assert_eq!(change.key, *key);
            parts.add(change, &RecordRow::default(), fields);
        }
        let cursors = tables.cursors.iter();
        let state = BaselineState {
            cursors: cursors
                .map(|(entity, row)| (entity.clone(), row.cursor.clone(), row.synced_at))
                .collect(),
            ..state_of(&tables.state)
        };
        let joint = Baseline { records: Vec::new(), state: Some(state) };
        let joint = Draft::control(Control::Baseline(joint));
        Ok(BaselineDraft { kept: self.kept.clone(), parts: parts.end(), joint })
    }
}

impl std::fmt::Debug for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Quiet(entry {})", self.upto)
    }
}

fn changed(key: &RecordKey, confirmed: &Confirmed) -> ChangeMeta {
    ChangeMeta {
        key: key.clone(),
        version: confirmed.version,
        extent: if confirmed.deleted { Extent::Deleted } else { Extent::Whole },
        edited_at: confirmed.edited_at,
        op: confirmed.op,
        older: confirmed.older.clone(),
        floor: confirmed.floor,
        fields: None,
        undeclared: false,
    }
}

/// Reads a change of a record whose entity type was not declared.
fn undeclared(
    log: &impl LogView,
    seq: Seq,
    number: u32,
) -> Result<(ChangeMeta, FieldsJson), StoreError> {
    let entry = log.existing(seq)?;
    let at = usize::try_from(number).unwrap_or(usize::MAX);
    let change = match &entry.meta {
        Meta::Upstream(upstream) => upstream.changes.get(at),
        Meta::Control(Control::Baseline(baseline)) => {
            baseline.records.get(at).map(|record| &record.change)
        }
        _ => None,
    };
    let change = change
        .ok_or_else(|| StoreError::corrupt("an undeclared record", seq, "it is not there"))?;
    let fields = change.fields.map(|item| log.item(seq, item)).transpose()?.flatten();
    Ok((change.clone(), fields.unwrap_or_default()))
}

fn state_of(state: &StateRow) -> BaselineState {
    BaselineState {
        server: state.server,
        tenant: state.tenant,
        highest: state.highest,
        set_aside: state.set_aside.clone(),
        foreign_cursors: state.foreign_cursors.clone(),
        anchor: state.anchor,
        server_time: state.server_time,
        synced_at: state.synced_at,
        parks: state.parks.clone(),
        had_other_server: state.had_other_server,
        cursors: Vec::new(),
    }
}

/// The parts of a baseline that is being made.
struct Parts<'r> {
    done: Vec<Draft>,
    part: Part,
    randomness: &'r mut dyn Randomness,
}

#[derive(Default)]
struct Part {
    records: Vec<BaselineRecord>,
    items: Items,
    bytes: usize,
}

impl Parts<'_> {
    fn add(&mut self, change: ChangeMeta, row: &RecordRow, fields: FieldsJson) {
        let has_fields = change.extent != Extent::Deleted;
        let part = &mut self.part;
        part.bytes += fields.as_bytes().len();
        let item = has_fields.then(|| part.items.add_fields(&fields, self.randomness));
        let change = ChangeMeta { fields: item, ..change };
        part.records.push(BaselineRecord { change, synced_at: row.synced_at });
        if part.records.len() >= PART_RECORDS || part.bytes >= PART_BYTES {
            self.end_part();
        }
    }

    fn end_part(&mut self) {
        let Part { records, items, .. } = std::mem::take(&mut self.part);
        if !records.is_empty() {
            let meta = Meta::Control(Control::Baseline(Baseline { records, state: None }));
            self.done.push(Draft { meta, items });
        }
    }

    fn end(mut self) -> Vec<Draft> {
        self.end_part();
        self.done
    }
}
