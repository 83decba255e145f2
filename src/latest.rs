//! The snapshot of the last commit, shared by all reads until the next one: beginning to read costs more than reading a
//! record.
//!
//! Invariants:
//! 1. Whoever begins to read after a write has returned reads what it wrote.
//! 2. It is let go with every commit, so it keeps no room in the file that a snapshot taken now would not keep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use fieldbook_projections::Snapshot;

use crate::book::{Book, read, write};
use crate::error::Error;

/// Where the snapshot is kept.
#[derive(Default)]
pub(crate) struct Latest {
    commits: AtomicU64,
    kept: RwLock<Option<Arc<Snapshot>>>,
}

impl Latest {
    /// Lets go of what was before a commit. Called before anyone hears of that commit.
    pub(crate) fn forget(&self) {
        self.commits.fetch_add(1, Ordering::SeqCst);
        write(&self.kept).take();
    }

    fn snapshot(&self, begin: impl FnOnce() -> Result<Snapshot, Error>) -> Result<Arc<Snapshot>, Error> {
        if let Some(kept) = read(&self.kept).as_ref() {
            return Ok(Arc::clone(kept));
        }
        let commits = self.commits.load(Ordering::SeqCst);
        let fresh = Arc::new(begin()?);
        let mut kept = write(&self.kept);
        // If a commit came in between, this may be the state before it: good enough for us, too old to be kept.
        if self.commits.load(Ordering::SeqCst) == commits {
            *kept = Some(Arc::clone(&fresh));
        }
        Ok(fresh)
    }
}

impl Book {
    /// Returns the snapshot of the last commit. Not to be held longer than a call.
    pub(crate) fn latest(&self) -> Result<Arc<Snapshot>, Error> {
        self.shared.latest.snapshot(|| self.snapshot())
    }
}
