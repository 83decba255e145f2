//! The snapshot of the last commit, shared by all reads until the next commit: taking a snapshot
//! costs more than reading a record.
//!
//! ```text
//!   writer   ·········· begins ── commit ── forgets ── replies
//!   kept     S0 ─────────┘        none        │ S1, after a read
//!   read     S0              S0, then S1        S1
//! ```
//!
//! Invariants:
//! 1. A read that begins after a write has returned reads that write.
//! 2. A later read never returns an older state, whichever methods are used. During a commit no
//!    snapshot is kept, and a kept snapshot was taken after the last commit.
//! 3. Every commit drops the snapshot, so it holds no more space in the file than a new snapshot
//!    would.

use std::sync::Arc;

use fieldbook_core::locks::RwLock;
use fieldbook_projections::Snapshot;

use crate::book::{Book, read, write};
use crate::error::Error;

/// The kept snapshot.
#[derive(Default)]
pub(crate) struct Latest(RwLock<Kept>);

#[derive(Default)]
struct Kept {
    snapshot: Option<Arc<Snapshot>>,
    /// The number of dropped snapshots.
    commits: u64,
    under_way: bool,
}

impl Latest {
    /// Drops the snapshot, and keeps none until [`Self::forget`]: a snapshot taken during the
    /// commit may be from before or after it.
    pub(crate) fn commit_begins(&self) {
        let mut kept = write(&self.0);
        kept.snapshot = None;
        kept.under_way = true;
    }

    /// Drops a snapshot from before a commit. It is called before anybody learns of that commit.
    pub(crate) fn forget(&self) {
        let mut kept = write(&self.0);
        kept.snapshot = None;
        kept.commits += 1;
        kept.under_way = false;
    }

    fn snapshot(
        &self,
        begin: impl FnOnce() -> Result<Snapshot, Error>,
    ) -> Result<Arc<Snapshot>, Error> {
        let (commits, under_way) = {
            let kept = read(&self.0);
            if let Some(snapshot) = &kept.snapshot {
                return Ok(Arc::clone(snapshot));
            }
            (kept.commits, kept.under_way)
        };
        let fresh = Arc::new(begin()?);
        if !under_way {
            let mut kept = write(&self.0);
            // If a commit came in between, this may be the state before it: right for this read,
            // too old to keep.
            if kept.commits == commits && !kept.under_way {
                kept.snapshot = Some(Arc::clone(&fresh));
            }
        }
        Ok(fresh)
    }
}

impl Book {
    /// Returns the snapshot of the last commit. A caller holds it no longer than one call.
    pub(crate) fn latest(&self) -> Result<Arc<Snapshot>, Error> {
        self.shared.latest.snapshot(|| self.shared.snapshot())
    }
}

#[cfg(test)]
mod tests {
    use fieldbook_core::log::Store;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::options::BookOptions;

    /// Reads, and returns whether the read took a new snapshot.
    fn begins(latest: &Latest, book: &Book, meanwhile: impl FnOnce()) -> bool {
        let mut began = false;
        let begin = || {
            began = true;
            let snapshot = book.shared.snapshot();
            meanwhile();
            snapshot
        };
        assert!(latest.snapshot(begin).is_ok());
        began
    }

    #[test]
    fn what_was_begun_before_or_amid_a_commit_is_not_kept() {
        let book = BookOptions::new("ann").map(|options| {
            Store::with_backend(InMemoryBackend::new(), &options.store)
                .map_err(Error::from)
                .and_then(|store| Book::start(store, options))
        });
        let Ok(Ok(book)) = book else { panic!("a book in memory opens") };
        let latest = Latest::default();
        assert!(begins(&latest, &book, || {}), "nothing was kept");
        assert!(!begins(&latest, &book, || {}), "kept until the next commit");
        latest.commit_begins();
        assert!(
            begins(&latest, &book, || {}) && begins(&latest, &book, || {}),
            "amid a commit nothing is"
        );
        assert!(
            begins(&latest, &book, || latest.forget()),
            "what was begun amid it is not kept after it"
        );
        assert!(begins(&latest, &book, || latest.commit_begins()), "nor what a commit overtakes");
        latest.forget();
        assert!(begins(&latest, &book, || {}));
        assert!(!begins(&latest, &book, || {}));
    }
}
