//! A disk in memory that remembers what was synced, for power loss, and can be made to fail.
//!
//! ```text
//!   redb ── write, set_len ──► content (what reads see)   + pending (what a power loss may lose)
//!        ── sync ───────────► durable = durable with pending, pending = nothing
//! ```
//!
//! Invariants:
//! 1. An image of the disk never lacks what was synced.
//! 2. Unsynced writes are lost by sectors of 512 bytes, each by itself; a change of length is lost whole.
//!
//! What it is not: a disk that lies about syncing, or one that tears a sector.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A disk, and the handle by which the harness holds it while a book uses it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    content: Vec<u8>,
    platter: Platter,
    mutations: u64,
    fault: Option<Fault>,
    tripped: bool,
    recording: Option<Vec<Change>>,
}

/// What a power loss would leave, depending on what is lost.
#[derive(Debug, Clone, Default)]
pub struct Platter {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// Something done to a disk.
#[derive(Clone)]
pub enum Change {
    /// Bytes were written.
    Write {
        /// Where.
        offset: u64,
        /// Which.
        bytes: Arc<[u8]>,
    },
    /// The length was set.
    SetLength(u64),
    /// All that came before was made durable.
    Sync,
}

/// What is lost when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// Nothing: the disk had written everything of its own accord, or only the process was killed.
    Nothing,
    /// Everything that was not synced.
    Everything,
    /// Only this one of the unsynced changes, from 0.
    Only(usize),
    /// Every unsynced change but this one, from 0.
    AllBut(usize),
    /// Each unsynced sector with one chance in two. What was never written there reads as zeros, or as garbage.
    Sectors {
        /// Which sectors.
        seed: u64,
        /// Whether new ground holds garbage.
        garbage: bool,
    },
}

/// When and how a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// How many further changes (writes, lengths, syncs) succeed.
    pub after: u64,
    /// Whether everything fails from then on; else only that one change.
    pub forever: bool,
}

impl SimDisk {
    /// Makes an empty disk.
    pub fn empty() -> Self {
        Self::with_platter(Platter::default())
    }

    /// Makes a disk that holds these bytes, durably.
    pub fn holding(bytes: Vec<u8>) -> Self {
        Self::with_platter(Platter { durable: bytes, pending: Vec::new() })
    }

    /// Makes a disk after a kill of the process: reads see everything, and what was not synced can still be lost.
    pub fn with_platter(platter: Platter) -> Self {
        let content = platter.image(Loss::Nothing);
        let state = State { content, platter, mutations: 0, fault: None, tripped: false, recording: None };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Starts to record every change.
    pub fn record(&self) {
        self.state().recording = Some(Vec::new());
    }

    /// Returns how many changes were recorded so far.
    pub fn recorded(&self) -> usize {
        self.state().recording.as_ref().map_or(0, Vec::len)
    }

    /// Returns what was recorded.
    pub fn recording(&self) -> Vec<Change> {
        self.state().recording.clone().unwrap_or_default()
    }

    /// Arranges a failure, in place of one arranged before.
    pub fn fail(&self, fault: Fault) {
        let mut state = self.state();
        state.fault = Some(fault);
        state.tripped = false;
    }

    /// Calls an arranged failure off.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Returns whether an arranged failure has happened.
    pub fn has_failed(&self) -> bool {
        self.state().tripped
    }

    /// Returns how many changes there were.
    pub fn changes(&self) -> u64 {
        self.state().mutations
    }

    /// Returns whether something was not synced.
    pub fn is_dirty(&self) -> bool {
        !self.state().platter.pending.is_empty()
    }

    /// Returns what a power loss now would work on.
    pub fn platter(&self) -> Platter {
        self.state().platter.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    /// Takes the next change.
    pub fn take(&mut self, change: &Change) {
        match change {
            Change::Sync => {
                for change in std::mem::take(&mut self.pending) {
                    apply(&mut self.durable, &change, |_| true);
                }
            }
            change => self.pending.push(change.clone()),
        }
    }

    /// Returns how many changes were not synced.
    pub fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// Returns the disk after a power loss.
    pub fn image(&self, loss: Loss) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let mut dice = Dice::new(match loss {
            Loss::Sectors { seed, .. } => seed,
            _ => 0,
        });
        for (number, change) in self.pending.iter().enumerate() {
            let whole = match loss {
                Loss::Nothing => Some(true),
                Loss::Everything => Some(false),
                Loss::Only(lost) => Some(number != lost),
                Loss::AllBut(kept) => Some(number == kept),
                Loss::Sectors { .. } => None,
            };
            let before = bytes.len();
            match whole {
                Some(true) => apply(&mut bytes, change, |_| true),
                Some(false) => {}
                None => apply(&mut bytes, change, |_| dice.chance(500)),
            }
            if matches!(loss, Loss::Sectors { garbage: true, .. }) && matches!(change, Change::SetLength(_)) {
                bytes.iter_mut().skip(before).for_each(|byte| *byte = 0xa5);
            }
        }
        bytes
    }
}

/// Does a change, sector by sector as far as each is kept.
fn apply(bytes: &mut Vec<u8>, change: &Change, mut keep: impl FnMut(u64) -> bool) {
    match change {
        Change::Sync => {}
        Change::SetLength(length) => {
            if keep(0) {
                bytes.resize(usize::try_from(*length).unwrap_or(usize::MAX), 0);
            }
        }
        Change::Write { offset, bytes: written } => {
            let mut at = usize::try_from(*offset).unwrap_or(usize::MAX);
            let mut rest = written.as_ref();
            while !rest.is_empty() {
                let (part, after) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                if keep(at as u64) {
                    put(bytes, at, part);
                }
                at += part.len();
                rest = after;
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    let end = at.saturating_add(part.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(at..end) {
        place.copy_from_slice(part);
    }
}

impl State {
    /// Counts a change and says whether it may happen.
    fn admit(&mut self) -> io::Result<()> {
        self.mutations += 1;
        match &mut self.fault {
            None => Ok(()),
            Some(fault) if fault.after > 0 => {
                fault.after -= 1;
                Ok(())
            }
            Some(fault) => {
                self.tripped = true;
                if !fault.forever {
                    self.fault = None;
                }
                Err(broken())
            }
        }
    }

    fn reads_fail(&self) -> bool {
        self.fault.is_some_and(|fault| fault.forever && fault.after == 0 && self.tripped)
    }

    fn did(&mut self, change: Change) {
        if let Some(recording) = &mut self.recording {
            recording.push(change.clone());
        }
        self.platter.take(&change);
    }
}

fn broken() -> io::Error {
    io::Error::other("the simulated disk fails here")
}

impl StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if state.reads_fail() {
            return Err(broken());
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = start.checked_add(out.len()).and_then(|end| state.content.get(start..end));
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.admit()?;
        let change = Change::SetLength(length);
        apply(&mut state.content, &change, |_| true);
        state.did(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.admit()?;
        state.did(Change::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.admit()?;
        let change = Change::Write { offset, bytes: bytes.into() };
        apply(&mut state.content, &change, |_| true);
        state.did(change);
        Ok(())
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({} bytes)", self.state().content.len())
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(f, "Write({} bytes at {offset})", bytes.len()),
            Self::SetLength(length) => write!(f, "SetLength({length})"),
            Self::Sync => f.write_str("Sync"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(disk: &SimDisk, offset: u64, byte: u8) {
        disk.write(offset, &[byte; 1_024]).unwrap();
    }

    #[test]
    fn what_was_synced_survives_every_loss() {
        let disk = SimDisk::empty();
        disk.set_len(4_096).unwrap();
        written(&disk, 0, 1);
        disk.sync_data().unwrap();
        written(&disk, 1_024, 2);
        let platter = disk.platter();
        for loss in [Loss::Everything, Loss::AllBut(0), Loss::Sectors { seed: 3, garbage: true }] {
            let image = platter.image(loss);
            assert_eq!(image.len(), 4_096);
            assert!(image[..1_024].iter().all(|byte| *byte == 1), "{loss:?}");
        }
        assert!(platter.image(Loss::Everything)[1_024..].iter().all(|byte| *byte == 0));
        assert!(platter.image(Loss::Nothing)[1_024..2_048].iter().all(|byte| *byte == 2));
    }

    #[test]
    fn unsynced_writes_are_lost_by_sectors() {
        let disk = SimDisk::empty();
        disk.write(0, &[7; 64 * SECTOR]).unwrap();
        let image = disk.platter().image(Loss::Sectors { seed: 1, garbage: false });
        let kept = image.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 7)).count();
        let lost = image.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 0)).count();
        assert_eq!(kept + lost, image.len().div_ceil(SECTOR), "no sector is torn");
        assert!(kept > 10 && lost > 10, "{kept} kept, {lost} lost");
    }

    #[test]
    fn a_failure_comes_once_or_stays() {
        let disk = SimDisk::empty();
        disk.fail(Fault { after: 1, forever: false });
        assert!(disk.write(0, &[1]).is_ok() && disk.write(0, &[2]).is_err() && disk.write(0, &[3]).is_ok());
        disk.fail(Fault { after: 0, forever: true });
        assert!(disk.sync_data().is_err() && disk.write(0, &[4]).is_err() && disk.has_failed());
        assert!(disk.read(0, &mut [0]).is_err());
    }
}
