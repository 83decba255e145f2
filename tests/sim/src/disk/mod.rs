//! A disk in memory. It remembers which writes were synced, for a power loss, and can be made to
//! fail.
//!
//! ```text
//!   redb ── write, set_len ──► content (what reads return)  + pending (what a power loss may lose)
//!        ── sync ───────────► durable = durable with pending, pending = nothing
//! ```
//!
//! Invariants:
//! 1. An image of the disk always has all synced writes.
//! 2. Unsynced writes are lost by sectors of 512 bytes, each independently, or by bytes; a change
//!    of length is lost whole.
//! 3. A byte that was written has its old or its new value. Only [`Loss::Filled`] has neither, and
//!    never in the first page, because an engine must be able to rely on that much.
//!
//! What it is not: a disk that lies about syncing. [`Failing::LostSync`] reports its loss.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;
/// The size of the first page. In it redb keeps the two slots between which a commit switches.
const FIRST_PAGE: u64 = 4096;

/// A disk, and the handle of the harness while a book uses it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    content: Vec<u8>,
    platter: Platter,
    mutations: u64,
    fault: Option<Fault>,
    failing: Failing,
    tripped: bool,
    recording: Option<Vec<Change>>,
}

/// The state of a disk from which a power loss makes images.
#[derive(Debug, Clone, Default)]
pub struct Platter {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// A change of a disk.
#[derive(Clone)]
pub enum Change {
    /// Bytes were written.
    Write {
        /// The place of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Arc<[u8]>,
    },
    /// The length was set.
    SetLength(u64),
    /// All earlier writes became durable.
    Sync,
}

/// The loss at a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// Nothing: the disk had written everything of its own accord, or only the process was killed.
    Nothing,
    /// Everything that was not synced.
    Everything,
    /// Only this one of the unsynced changes is kept, from 0.
    Only(usize),
    /// Every unsynced change except this one is kept, from 0.
    AllBut(usize),
    /// Each unsynced sector is kept with a probability of one half. New sectors that are lost read
    /// as zeros, or as garbage.
    Sectors {
        /// Which sectors.
        seed: u64,
        /// Whether new sectors hold garbage.
        garbage: bool,
    },
    /// Each unsynced sector is kept with a probability of one third. Of another third only some
    /// bytes are kept.
    Bytes {
        /// The choice of sectors and bytes.
        seed: u64,
    },
    /// Each unsynced sector is kept with a probability of one half. Lost sectors beyond the first
    /// page hold neither the old nor the new bytes, but zeros or garbage.
    Filled {
        /// Which sectors.
        seed: u64,
        /// Whether they hold garbage; otherwise zeros.
        garbage: bool,
    },
}

/// The behaviour of a disk that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Failing {
    /// It reports an input or output error. For ever means that it cannot be read either.
    #[default]
    Error,
    /// It reports that it is full, and can still be read.
    Full,
    /// It writes the first half, and then reports a failure.
    Short,
    /// It reports once that a sync failed, drops the unsynced writes, and treats them as written
    /// from then on, like some kernels.
    LostSync,
}

/// When and how a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// How many further changes (writes, lengths, syncs) succeed.
    pub after: u64,
    /// Whether everything fails from then on; otherwise only that one change.
    pub forever: bool,
}

impl SimDisk {
    /// Makes an empty disk.
    pub fn empty() -> Self {
        Self::with_platter(Platter::default())
    }

    /// Makes a disk with these bytes, durably.
    pub fn holding(bytes: Vec<u8>) -> Self {
        Self::with_platter(Platter { durable: bytes, pending: Vec::new() })
    }

    /// Makes a disk after a kill of the process: reads return all writes, and unsynced ones can
    /// still be lost.
    pub fn with_platter(platter: Platter) -> Self {
        let content = platter.image(Loss::Nothing);
        let state = State {
            content,
            platter,
            mutations: 0,
            fault: None,
            failing: Failing::default(),
            tripped: false,
            recording: None,
        };
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

    /// Returns the recorded changes.
    pub fn recording(&self) -> Vec<Change> {
        self.state().recording.clone().unwrap_or_default()
    }

    /// Arranges a failure, and replaces an earlier arrangement.
    pub fn fail(&self, fault: Fault) {
        self.fail_as(fault, Failing::Error);
    }

    /// Arranges a failure of a kind, and replaces an earlier arrangement.
    pub fn fail_as(&self, fault: Fault, failing: Failing) {
        let mut state = self.state();
        state.fault = Some(fault);
        state.failing = failing;
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

    /// Returns the number of changes.
    pub fn changes(&self) -> u64 {
        self.state().mutations
    }

    /// Returns whether there are unsynced changes.
    pub fn is_dirty(&self) -> bool {
        !self.state().platter.pending.is_empty()
    }

    /// Returns the state from which a power loss now would make images.
    pub fn platter(&self) -> Platter {
        self.state().platter.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    /// Applies the next change.
    pub fn take(&mut self, change: &Change) {
        match change {
            Change::Sync => {
                for change in std::mem::take(&mut self.pending) {
                    apply(&mut self.durable, &change, |_| Kept::Whole);
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
            Loss::Sectors { seed, .. } | Loss::Bytes { seed } | Loss::Filled { seed, .. } => seed,
            _ => 0,
        });
        for (number, change) in self.pending.iter().enumerate() {
            let whole = match loss {
                Loss::Nothing => Some(true),
                Loss::Everything => Some(false),
                Loss::Only(lost) => Some(number != lost),
                Loss::AllBut(kept) => Some(number == kept),
                Loss::Sectors { .. } | Loss::Bytes { .. } | Loss::Filled { .. } => None,
            };
            let before = bytes.len();
            match whole {
                Some(true) => apply(&mut bytes, change, |_| Kept::Whole),
                Some(false) => {}
                None => apply(&mut bytes, change, |at| fate(loss, at, &mut dice)),
            }
            let garbage = matches!(
                loss,
                Loss::Sectors { garbage: true, .. } | Loss::Filled { garbage: true, .. }
            );
            if garbage && matches!(change, Change::SetLength(_)) {
                bytes.iter_mut().skip(before).for_each(|byte| *byte = GARBAGE);
            }
        }
        bytes
    }
}

/// The content of lost sectors with garbage.
const GARBAGE: u8 = 0xa5;

/// The fate of an unsynced sector.
enum Kept {
    Whole,
    Not,
    /// The bytes of the sector between these two places are kept, counted round.
    Partly(usize, usize),
    Filled(u8),
}

fn fate(loss: Loss, at: u64, dice: &mut Dice) -> Kept {
    match loss {
        Loss::Bytes { .. } => match dice.below(3) {
            0 => Kept::Whole,
            1 => Kept::Not,
            _ => Kept::Partly(dice.index(SECTOR), dice.index(SECTOR)),
        },
        _ if dice.chance(500) => Kept::Whole,
        Loss::Filled { garbage, .. } if at >= FIRST_PAGE => {
            Kept::Filled(if garbage { GARBAGE } else { 0 })
        }
        _ => Kept::Not,
    }
}

/// Does a change, sector by sector as far as each is kept.
fn apply(bytes: &mut Vec<u8>, change: &Change, mut fate: impl FnMut(u64) -> Kept) {
    match change {
        Change::Sync => {}
        Change::SetLength(length) => {
            // A length that is kept in part is the old one.
            if !matches!(fate(0), Kept::Not) {
                bytes.resize(usize::try_from(*length).unwrap_or(usize::MAX), 0);
            }
        }
        Change::Write { offset, bytes: written } => {
            let mut at = usize::try_from(*offset).unwrap_or(usize::MAX);
            let mut rest = written.as_ref();
            while !rest.is_empty() {
                let (part, after) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                match fate(at as u64) {
                    Kept::Whole => put(bytes, at, part),
                    Kept::Not => {}
                    Kept::Filled(with) => put(bytes, at, &vec![with; part.len()]),
                    Kept::Partly(from, to) => put_partly(bytes, at, part, from, to),
                }
                at += part.len();
                rest = after;
            }
        }
    }
}

/// Writes the bytes between the two offsets; if the first is later, the bytes outside them.
fn put_partly(bytes: &mut Vec<u8>, at: usize, part: &[u8], from: usize, to: usize) {
    for (place, byte) in part.iter().enumerate() {
        let is_between =
            if from < to { (from..to).contains(&place) } else { !(to..from).contains(&place) };
        if is_between {
            put(bytes, at + place, &[*byte]);
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
    /// Counts a change and returns an error if it must fail.
    fn admit(&mut self) -> io::Result<()> {
        self.mutations += 1;
        let failing = self.failing;
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
                Err(broken(failing))
            }
        }
    }

    fn reads_fail(&self) -> bool {
        self.failing == Failing::Error
            && self.fault.is_some_and(|fault| fault.forever && fault.after == 0 && self.tripped)
    }

    fn does(&mut self, change: Change) {
        apply(&mut self.content, &change, |_| Kept::Whole);
        if let Some(recording) = &mut self.recording {
            recording.push(change.clone());
        }
        self.platter.take(&change);
    }
}

fn broken(failing: Failing) -> io::Error {
    match failing {
        Failing::Full => io::ErrorKind::StorageFull.into(),
        _ => io::Error::other("the simulated disk fails here"),
    }
}

impl StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if state.reads_fail() {
            return Err(broken(state.failing));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = start.checked_add(out.len()).and_then(|end| state.content.get(start..end));
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.admit()?;
        state.does(Change::SetLength(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        let admitted = state.admit();
        match admitted {
            Ok(()) => state.does(Change::Sync),
            Err(_) if state.failing == Failing::LostSync => state.platter.pending.clear(),
            Err(_) => {}
        }
        admitted
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let admitted = state.admit();
        let written = match (&admitted, state.failing) {
            (Ok(()), _) => bytes,
            (Err(_), Failing::Short) => bytes.split_at(bytes.len() / 2).0,
            (Err(_), _) => &[],
        };
        if !written.is_empty() {
            state.does(Change::Write { offset, bytes: written.into() });
        }
        admitted
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
mod tests;
