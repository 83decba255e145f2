//! Trims the log: an archive of its oldest entries, and a baseline in their place.
//!
//! ```text
//!   a quiet moment ─► archive: written, synced, verified ─► a new file: baseline, joint, the rest ─► put in place
//! ```
//!
//! Invariants:
//! 1. Whatever was confirmed, pending or shown as failed before is so afterwards. The log from the
//!    joint on has its bytes and its hashes.
//! 2. At every moment there is the former book or the new one, whole. An archive is on the disk and
//!    verified before the book changes.
//! 3. An entry goes only if its hash is in reach of a receipt of the server. If there never was a
//!    receipt, an archive has to have it.
//!
//! What it does not do: write over the blocks of the former file.

use std::path::PathBuf;

use fieldbook_core::entry::{Control, Trimmed};
use fieldbook_core::log::{
    BaselineDraft, BaselinePlaces, Store, copy_trimmed, places_for, read_entry,
};
use fieldbook_core::{Hash, Seq, WallTime};
use fieldbook_projections::{KeptBy, Snapshot, last_quiet};

use crate::archive::write_archive;
use crate::at::{Moment, find};
use crate::book::{Book, Shared};
use crate::error::Error;
use crate::rewrite::{alone, new_store};

/// What is to be trimmed from the beginning of a log ([`Book::compact`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    before: Moment,
    archive: Option<PathBuf>,
}

impl Compaction {
    /// Trims what came before a moment, and at that moment.
    pub const fn before(moment: Moment) -> Self {
        Self { before: moment, archive: None }
    }

    /// Writes the trimmed entries to a new file first. It is an exported log
    /// ([`read_export`](crate::audit::read_export) reads it); if its name ends in `.gz`, it is
    /// compressed, which needs the feature `archive`.
    #[must_use]
    pub fn archive_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.archive = Some(path.into());
        self
    }
}

/// When a log is trimmed without anybody asking for it ([`Book::compaction_due`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// A smaller file is left as it is, in bytes.
    pub at_least_bytes: u64,
    /// What is younger stays, in milliseconds.
    pub keep_milliseconds: u64,
    /// The folder for archives; none to trim only what the server has a receipt for.
    pub archives: Option<PathBuf>,
}

/// What a compaction takes and leaves, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionPlan {
    /// The last entry that is trimmed; none if there is nothing to trim.
    pub upto: Option<Seq>,
    /// The time of that entry, by the log's clock.
    pub at: Option<WallTime>,
    /// The number of rows that go out of the log.
    pub entries: u64,
    /// The bytes of the rows up to there as they are.
    pub bytes: u64,
    /// The bytes of the fields that the baseline has in their place.
    pub baseline_bytes: u64,
    /// The number of records that the baseline has.
    pub records: u64,
    /// The last entry that was asked for.
    pub wanted: Seq,
    /// Why less is trimmed than was asked for; none if all is.
    pub kept_by: Option<KeptBack>,
    /// The sum of the archive, once it is written.
    pub archive: Option<Hash>,
}

/// Why entries are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptBack {
    /// They are named by something that has not ended.
    Live(KeptBy),
    /// No receipt of the server reaches them. A book without any receipt needs an archive instead.
    NotAnchored {
        /// The last entry that a receipt is for.
        anchored: Option<Seq>,
    },
    /// The baseline would be as long as what it stands for.
    NothingToGain,
}

/// What a compaction writes.
struct Ready {
    baseline: BaselineDraft,
    places: BaselinePlaces,
    upto: Seq,
}

impl Book {
    /// Returns what a compaction would take and leave. Nothing is written. `progress` is called
    /// with each entry that is folded; the log is folded up to the moment, mostly twice, in memory.
    ///
    /// # Errors
    /// [`Error::NoSuchEntry`], [`Error::Trimmed`]; [`Error::Store`] if the log cannot be read.
    pub fn plan_compaction(
        &self,
        how: &Compaction,
        progress: impl FnMut(Seq),
    ) -> Result<CompactionPlan, Error> {
        Ok(self.shared.draft_compaction(how, progress)?.0)
    }

    /// Returns the compaction that a policy asks for now; none if the file is small, or nothing in
    /// it is old enough. It reads the size of the file and one entry.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn compaction_due(&self, policy: &CompactionPolicy) -> Result<Option<Compaction>, Error> {
        if self.audit().used_bytes()? < policy.at_least_bytes {
            return Ok(None);
        }
        let now = self.shared.clock.now().wall;
        let keep = i64::try_from(policy.keep_milliseconds).unwrap_or(i64::MAX);
        let before = WallTime::from_milliseconds(now.milliseconds().saturating_sub(keep));
        let snapshot = self.shared.snapshot()?;
        let oldest = snapshot.state()?.trimmed.unwrap_or(Seq::ZERO).next();
        let oldest = read_entry(&snapshot.entries()?, oldest)?;
        if oldest.is_none_or(|entry| entry.header.hlc.wall() > before) {
            return Ok(None);
        }
        let how = Compaction::before(Moment::Time(before));
        let Some(folder) = &policy.archives else { return Ok(Some(how)) };
        let name = format!("{}-{}.fblog", before.milliseconds(), snapshot.last_seq()?);
        Ok(Some(how.archive_to(folder.join(name))))
    }

    /// Trims the log: the oldest entries go, and a baseline with the records as they were stands in
    /// their place. The book is closed, and its file gets smaller. There must be no other handle to
    /// the book: shut down its background sync first.
    ///
    /// What is pending, unanswered, failed or undecided stays with everything behind it, and so do
    /// all records. The history before the joint goes, and with it the conflicts that ended there.
    ///
    /// ```
    /// use fieldbook::audit::{Compaction, Moment};
    /// # use fieldbook::{Book, BookOptions, Fields};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("crm.book");
    /// let book = Book::create_new(&path, BookOptions::new("ann")?)?;
    /// book.records().create("lead/42".parse()?, Fields::parse(r#"{"name":"Bo"}"#)?)?;
    /// let how = Compaction::before(Moment::Back(0)).archive_to(folder.path().join("old.fblog"));
    /// // The creation was never sent, so nothing is trimmed.
    /// let done = book.compact(&how, |_| {})?;
    /// assert_eq!(done.upto, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InUse`] if there is another handle; [`Error::ReadOnly`]; [`Error::NoSuchEntry`];
    /// [`Error::Trimmed`]; [`Error::Store`] if the archive exists already, the log is damaged, or
    /// the disk fails. The book is unchanged then, and closed, unless there is another handle.
    pub fn compact(
        self,
        how: &Compaction,
        progress: impl FnMut(Seq),
    ) -> Result<CompactionPlan, Error> {
        let shared = alone(self)?;
        let (mut plan, ready) = shared.draft_compaction(how, progress)?;
        let Some(ready) = ready else {
            Self::store_of(shared).ok_or(Error::Suspended)?.close()?;
            return Ok(plan);
        };
        plan.archive = match &how.archive {
            Some(path) => Some(write_archive(&shared.store, ready.upto, path)?),
            None => None,
        };
        shared.replace_file(TRIMMING, |shared, new| {
            shared.write_trimmed(|| new_store(new), ready, plan.archive)
        })?;
        Ok(plan)
    }
}

const TRIMMING: &str = "writing the book without its oldest entries";

impl Shared {
    fn draft_compaction(
        &self,
        how: &Compaction,
        progress: impl FnMut(Seq),
    ) -> Result<(CompactionPlan, Option<Ready>), Error> {
        let snapshot = self.snapshot()?;
        let wanted = find(&snapshot, how.before)?.seq;
        let state = snapshot.state()?;
        let anchored = state.anchor.map(|receipt| receipt.seq);
        let in_reach = anchored.unwrap_or(Seq::ZERO).max(state.trimmed.unwrap_or(Seq::ZERO));
        // Without a receipt for the last trimmed entry, what comes behind it cannot be claimed on
        // top of an earlier receipt.
        let needs_receipt = how.archive.is_none() || anchored.is_some();
        let is_out_of_reach = needs_receipt && wanted > in_reach;
        let asked = if is_out_of_reach { in_reach } else { wanted };
        let mut plan = CompactionPlan::nothing(wanted);
        plan.kept_by = is_out_of_reach.then_some(KeptBack::NotAnchored { anchored });
        if asked <= state.trimmed.unwrap_or(Seq::ZERO) {
            return Ok((plan, None));
        }
        let (quiet, kept_by) = last_quiet(&snapshot, &self.schema, asked, progress)?;
        let kept_by = kept_by.filter(|by| self.is_live(&snapshot, by));
        plan.kept_by = kept_by.map(KeptBack::Live).or(plan.kept_by);
        let is_new = |upto: Seq| state.trimmed.is_none_or(|trimmed| upto > trimmed);
        let Some(quiet) = quiet.filter(|quiet| is_new(quiet.upto())) else {
            return Ok((plan, None));
        };
        let mut writer = self.writer.lock().map_err(|_| Error::Interrupted)?;
        let baseline = quiet.baseline(&snapshot, &mut *writer.randomness)?;
        drop(writer);
        let log = snapshot.entries()?;
        let Some(places) = places_for(&log, quiet.upto(), &baseline)? else {
            plan.kept_by = Some(KeptBack::NothingToGain);
            return Ok((plan, None));
        };
        let last = read_entry(&log, quiet.upto())?;
        plan.upto = Some(quiet.upto());
        plan.at = last.map(|entry| entry.header.hlc.wall());
        (plan.entries, plan.bytes) = (places.gone, places.bytes);
        (plan.records, plan.baseline_bytes) = size_of(&baseline);
        let upto = quiet.upto();
        Ok((plan, Some(Ready { baseline, places, upto })))
    }

    /// Returns whether what kept entries then does so now. What has ended since only moves the quiet
    /// moment back a little.
    fn is_live(&self, snapshot: &Snapshot, by: &KeptBy) -> bool {
        let tail = self.tail();
        match by {
            KeptBy::Op { place, .. } => tail.op(*place).is_some(),
            KeptBy::Unit { id, .. } => tail.units().any(|(unit, _)| unit == id),
            KeptBy::Conflict { id, .. } => {
                snapshot.conflict(*id).ok().flatten().is_some_and(|row| row.open)
            }
            _ => true,
        }
    }

    /// Writes a new store with the trimmed log, if there is anything to trim.
    #[cfg(feature = "simulation")]
    pub(crate) fn write_compacted(
        &self,
        how: &Compaction,
        new: impl FnOnce() -> Result<Store, Error>,
    ) -> Result<CompactionPlan, Error> {
        let (plan, ready) = self.draft_compaction(how, |_| {})?;
        ready.map_or(Ok(()), |ready| self.write_trimmed(new, ready, None))?;
        Ok(plan)
    }

    /// Writes a new store with the trimmed log.
    fn write_trimmed(
        &self,
        new: impl FnOnce() -> Result<Store, Error>,
        ready: Ready,
        archive: Option<Hash>,
    ) -> Result<(), Error> {
        let Ready { baseline, places, .. } = ready;
        self.write_anew(new, |log, copy| {
            let trimmed = copy_trimmed(log, copy, &baseline, &places)?;
            Ok(Some(Control::Trimmed(Trimmed { archive, ..trimmed })))
        })
    }
}

/// Returns the number of records of a baseline, and the bytes of their fields.
fn size_of(baseline: &BaselineDraft) -> (u64, u64) {
    let drafts = baseline.parts.iter();
    let records = drafts.clone().filter_map(|part| match &part.meta {
        fieldbook_core::entry::Meta::Control(Control::Baseline(part)) => {
            Some(part.records.len() as u64)
        }
        _ => None,
    });
    (records.sum(), drafts.map(|part| part.items.bytes() as u64).sum())
}

impl CompactionPlan {
    const fn nothing(wanted: Seq) -> Self {
        Self {
            upto: None,
            at: None,
            entries: 0,
            bytes: 0,
            baseline_bytes: 0,
            records: 0,
            wanted,
            kept_by: None,
            archive: None,
        }
    }
}
