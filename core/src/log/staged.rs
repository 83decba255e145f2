//! A disk that can be read and repaired, and then left unchanged.
//!
//! ```text
//!   redb ── writes ──► journal (memory) ── go_live() ──► disk, in the same order with the same syncs
//!                        │
//!                        └── dropped: nothing reaches the disk
//! ```
//!
//! redb writes to a file when it opens it: at least a flag, and after a crash a whole repair. None
//! of that may reach the disk until the file has proved to be a book that opens.
//!
//! Invariants:
//! 1. Before [`Staged::go_live`] the disk is only read. After it, every call goes directly to the
//!    disk.
//! 2. A read returns the last write, in both states.
//! 3. After [`GiveUp`] every call fails, and nothing more reaches the disk.
//! 4. A stage that never goes live keeps only the content to read, not the order of the writes.
//! 5. Going live repeats exactly the recorded calls. So a crash during it has the same effect as a
//!    crash while redb itself opens the file.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

const BLOCK: usize = 4096;

/// A backend with two users: redb, and the code that decides whether it may write.
pub(super) struct Staged<B>(Arc<Inner<B>>);

/// Separates the stage from its disk for good, even if redb still holds the stage.
#[derive(Debug, Clone, Default)]
pub(super) struct GiveUp(Arc<AtomicBool>);

impl GiveUp {
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

struct Inner<B> {
    disk: B,
    given_up: GiveUp,
    live: AtomicBool,
    stage: Mutex<Stage>,
}

#[derive(Default)]
struct Stage {
    /// The calls to repeat on the disk when it goes live; none if it never does.
    journal: Option<Vec<Change>>,
    /// The blocks that differ from the disk, by their number.
    blocks: BTreeMap<u64, Box<[u8]>>,
    /// The staged length. Until it is first needed, it is the disk's own length.
    length: Option<u64>,
    /// The place from which the disk's bytes were cut off at some time.
    cut: Option<u64>,
}

enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLength(u64),
    Sync,
}

impl<B: StorageBackend> Staged<B> {
    /// Stages a disk. A read-only stage never goes live.
    pub(super) fn new(disk: B, read_only: bool) -> Self {
        let (given_up, live) = (GiveUp::default(), AtomicBool::new(false));
        let stage = Stage { journal: (!read_only).then(Vec::new), ..Stage::default() };
        Self(Arc::new(Inner { disk, given_up, live, stage: Mutex::new(stage) }))
    }

    pub(super) fn give_up(&self) -> GiveUp {
        self.0.given_up.clone()
    }

    pub(super) fn second_hand(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Repeats the recorded calls on the disk, and ends the staging.
    pub(super) fn go_live(&self) -> io::Result<()> {
        let mut stage = self.stage();
        let Some(journal) = stage.journal.take() else {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        };
        for change in journal {
            match change {
                Change::Write { offset, bytes } => self.0.disk.write(offset, &bytes)?,
                Change::SetLength(length) => self.0.disk.set_len(length)?,
                Change::Sync => self.0.disk.sync_data()?,
            }
        }
        *stage = Stage::default();
        self.0.live.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns the disk if the stage is live.
    fn live(&self) -> Option<&B> {
        self.0.live.load(Ordering::Acquire).then_some(&self.0.disk)
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // A stage that a panic left half-written is only ever dropped: opening failed.
        self.0.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stage {
    fn length(&mut self, disk: &impl StorageBackend) -> io::Result<u64> {
        match self.length {
            Some(length) => Ok(length),
            None => Ok(*self.length.insert(disk.len()?)),
        }
    }

    fn read(&mut self, disk: &impl StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.length(disk)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_disk(disk, offset, out)?;
        let first = offset / BLOCK as u64;
        for (number, block) in self.blocks.range(first..end.div_ceil(BLOCK as u64)) {
            overlay(block, number * BLOCK as u64, offset, out);
        }
        Ok(())
    }

    /// Reads from the disk. Bytes that it never had, or that were cut off, are zero.
    fn read_disk(&self, disk: &impl StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = disk.len()?.min(self.cut.unwrap_or(u64::MAX)).saturating_sub(offset);
        let count = usize::try_from(there).map_or(out.len(), |there| there.min(out.len()));
        let (there, beyond) = out.split_at_mut(count);
        beyond.fill(0);
        if there.is_empty() { Ok(()) } else { disk.read(offset, there) }
    }

    fn write(&mut self, disk: &impl StorageBackend, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        for number in offset / BLOCK as u64..end.div_ceil(BLOCK as u64) {
            let start = number * BLOCK as u64;
            let mut block = match self.blocks.remove(&number) {
                Some(block) => block,
                None => {
                    let mut block = vec![0; BLOCK].into_boxed_slice();
                    self.read_disk(disk, start, &mut block)?;
                    block
                }
            };
            overlay(bytes, offset, start, &mut block);
            self.blocks.insert(number, block);
        }
        let length = self.length(disk)?;
        self.length = Some(length.max(end));
        if let Some(journal) = &mut self.journal {
            journal.push(Change::Write { offset, bytes: bytes.to_vec() });
        }
        Ok(())
    }

    fn set_length(&mut self, disk: &impl StorageBackend, length: u64) -> io::Result<()> {
        if length < self.length(disk)? {
            self.cut = Some(self.cut.map_or(length, |cut| cut.min(length)));
            self.blocks.split_off(&length.div_ceil(BLOCK as u64));
            if let Some(block) = self.blocks.get_mut(&(length / BLOCK as u64)) {
                let kept = usize::try_from(length % BLOCK as u64).unwrap_or(0);
                block.iter_mut().skip(kept).for_each(|byte| *byte = 0);
            }
        }
        self.length = Some(length);
        self.journal.iter_mut().for_each(|journal| journal.push(Change::SetLength(length)));
        Ok(())
    }
}

/// Copies the part of `from`, which starts at `from_offset`, that overlaps `to`, which starts at
/// `to_offset`.
fn overlay(from: &[u8], from_offset: u64, to_offset: u64, to: &mut [u8]) {
    let skipped = |by: u64| usize::try_from(by).unwrap_or(usize::MAX);
    let from = from.iter().skip(skipped(to_offset.saturating_sub(from_offset)));
    let to = to.iter_mut().skip(skipped(from_offset.saturating_sub(to_offset)));
    to.zip(from).for_each(|(to, from)| *to = *from);
}

impl<B: StorageBackend> StorageBackend for Staged<B> {
    fn len(&self) -> io::Result<u64> {
        self.0.given_up.check()?;
        match self.live() {
            Some(disk) => disk.len(),
            None => self.stage().length(&self.0.disk),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.given_up.check()?;
        match self.live() {
            Some(disk) => disk.read(offset, out),
            None => self.stage().read(&self.0.disk, offset, out),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.given_up.check()?;
        match self.live() {
            Some(disk) => disk.set_len(length),
            None => self.stage().set_length(&self.0.disk, length),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.given_up.check()?;
        match self.live() {
            Some(disk) => disk.sync_data(),
            None => {
                self.stage().journal.iter_mut().for_each(|journal| journal.push(Change::Sync));
                Ok(())
            }
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.given_up.check()?;
        match self.live() {
            Some(disk) => disk.write(offset, bytes),
            None => self.stage().write(&self.0.disk, offset, bytes),
        }
    }

    fn close(&self) -> io::Result<()> {
        self.0.disk.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.disk.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.disk.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.disk.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.disk.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.disk.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.disk.query_lock_range(start, end)
    }
}

impl<B: fmt::Debug> fmt::Debug for Staged<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Staged({:?})", self.0.disk)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLength(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (0..20_000u64, proptest::collection::vec(any::<u8>(), 1..6_000));
        let step = prop_oneof![
            write.prop_map(|(offset, bytes)| Step::Write(offset, bytes)),
            (0..20_000u64).prop_map(Step::SetLength),
        ];
        proptest::collection::vec(step, 0..12)
    }

    fn play(disk: &impl StorageBackend, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Write(offset, bytes) => {
                    let end = offset + bytes.len() as u64;
                    if disk.len().unwrap() < end {
                        disk.set_len(end).unwrap();
                    }
                    disk.write(*offset, bytes).unwrap();
                }
                Step::SetLength(length) => disk.set_len(*length).unwrap(),
            }
        }
        disk.sync_data().unwrap();
    }

    fn whole(disk: &impl StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0xaa; usize::try_from(disk.len().unwrap()).unwrap()];
        disk.read(0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn a_stage_reads_like_the_disk_it_becomes(before in steps(), staged in steps(), after in steps()) {
            let plain = InMemoryBackend::new();
            play(&plain, &before);
            let disk = InMemoryBackend::new();
            play(&disk, &before);
            let stage = Staged::new(disk, false);

            let untouched = whole(&stage.0.disk);
            play(&plain, &staged);
            play(&stage, &staged);
            prop_assert!(whole(&stage) == whole(&plain));
            prop_assert!(whole(&stage.0.disk) == untouched, "the disk changed before the stage was live");

            stage.go_live().unwrap();
            prop_assert!(whole(&stage.0.disk) == whole(&plain));
            play(&plain, &after);
            play(&stage, &after);
            prop_assert!(whole(&stage.0.disk) == whole(&plain));
        }
    }
}
