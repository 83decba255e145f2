//! Verifying: every hash computed anew from the stored bytes.
//!
//! Checks, in this order, entry by entry; the first that fails is reported:
//! 1. seqs run from 1 without gaps;
//! 2. the bytes have the frame of a known format;
//! 3. the header names the place where the entry stands;
//! 4. the clock grows;
//! 5. the stored hash is the one that follows from the entry before and from this entry's bytes.
//!
//! What it is not: proof against whoever can write the file. They can build another chain that verifies; only a head that
//! someone else knows tells the two apart (`docs/log-format.md`).

use redb::ReadableTable;

use super::entries::Head;
use super::error::{StoreError, guarded};
use crate::entry::{EntryError, chain, frame::Frame};
use crate::numbers::{Hash, Seq};

/// A log that verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// How many entries it has.
    pub entries: u64,
    /// How many of their items were erased; their commitments verify.
    pub erased_items: u64,
    /// Its last entry; none if it is empty.
    pub head: Option<Head>,
}

/// The first thing that is wrong with a log.
#[derive(Debug, thiserror::Error)]
#[error("entry {seq} is damaged: {kind}")]
pub struct Damage {
    /// The entry.
    pub seq: Seq,
    /// What is wrong with it.
    #[source]
    pub kind: DamageKind,
}

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DamageKind {
    /// There is no entry at this place, but there are later ones.
    #[error("it is missing; the next one is entry {next}")]
    Missing {
        /// The next entry that is there.
        next: Seq,
    },
    /// Its bytes are not an entry's.
    #[error("its bytes do not read")]
    Unframed {
        /// How that shows.
        #[source]
        source: EntryError,
    },
    /// It says that it stands elsewhere.
    #[error("it names entry {named} as its place")]
    Misplaced {
        /// The place that it names.
        named: Seq,
    },
    /// Its clock is not after that of the entry before.
    #[error("its clock does not go on from the entry before")]
    ClockNotGrowing,
    /// Its bytes, or those of the entry before, are not what they were when it was sealed.
    #[error("its hash is {stored}, but its bytes make {computed}")]
    HashDiffers {
        /// The hash it carries.
        stored: Hash,
        /// The hash that follows from the bytes.
        computed: Hash,
    },
    /// It could not be read at all.
    #[error("it could not be read")]
    Unreadable {
        /// What the store or the stream said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Verifies a whole log, and calls `on_progress` with the number of entries done, every thousand or so and at the end.
///
/// # Errors
/// [`Damage`] for the first entry that is not as it was sealed.
pub fn verify(
    table: &impl ReadableTable<u64, &'static [u8]>,
    mut on_progress: impl FnMut(u64),
) -> Result<Verified, Damage> {
    let mut walk = Walk::default();
    let mut rows = guarded(|| table.iter().map_err(StoreError::during(READING)))
        .map_err(|error| walk.unreadable(error))?;
    while guarded(|| Ok(walk_on(&mut rows, &mut walk)))
        .unwrap_or_else(|error: StoreError| Err(walk.unreadable(error)))?
    {
        if walk.done.entries.is_multiple_of(PROGRESS_ENTRIES) {
            on_progress(walk.done.entries);
        }
    }
    on_progress(walk.done.entries);
    Ok(walk.done)
}

/// Checks the next entry, and returns whether there was one.
fn walk_on(rows: &mut redb::Range<'_, u64, &'static [u8]>, walk: &mut Walk) -> Result<bool, Damage> {
    let Some(row) = rows.next() else {
        return Ok(false);
    };
    let (key, stored) = row.map_err(|error| walk.unreadable(StoreError::during(READING)(error)))?;
    walk.step(Some(Seq::new(key.value())), stored.value())?;
    Ok(true)
}

/// A chain followed so far.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) done: Verified,
}

impl Walk {
    /// Checks the next entry. `place` is where it stands, if something else than its own header says so.
    pub(super) fn step(&mut self, place: Option<Seq>, stored: &[u8]) -> Result<(), Damage> {
        let seq = self.next();
        let damage = |kind| Damage { seq, kind };
        if let Some(next) = place.filter(|place| *place != seq) {
            return Err(damage(DamageKind::Missing { next }));
        }
        let frame = Frame::parse(stored).map_err(|source| damage(DamageKind::Unframed { source }))?;
        if frame.header.seq != seq {
            return Err(damage(DamageKind::Misplaced { named: frame.header.seq }));
        }
        let before = self.done.head;
        if before.is_some_and(|before| frame.header.hlc <= before.hlc) {
            return Err(damage(DamageKind::ClockNotGrowing));
        }
        let previous = before.map_or(Hash::ZERO, |before| before.hash);
        let computed = chain::link(&previous, &frame.content());
        if frame.hash != computed {
            return Err(damage(DamageKind::HashDiffers { stored: frame.hash, computed }));
        }
        self.done.entries += 1;
        self.done.erased_items += frame.erased() as u64;
        self.done.head = Some(Head { seq, hash: computed, hlc: frame.header.hlc, epoch: frame.header.epoch });
        Ok(())
    }

    /// Returns the place of the entry to come.
    pub(super) fn next(&self) -> Seq {
        self.done.head.map_or(Seq::ZERO, |head| head.seq).next()
    }

    pub(super) fn unreadable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Damage {
        Damage { seq: self.next(), kind: DamageKind::Unreadable { source: source.into() } }
    }
}

const PROGRESS_ENTRIES: u64 = 1024;
const READING: &str = "verifying the log";
