//! Verifying: every hash computed anew from the stored bytes.
//!
//! Checks, in this order, entry by entry; the first that fails is what is said of the entry:
//! 1. seqs run from 1 without gaps;
//! 2. the bytes have the frame of a known format;
//! 3. the header names the place where the entry stands;
//! 4. the clock grows;
//! 5. the stored hash is the one that follows from the entry before and from this entry's bytes;
//! 6. the bytes read as an entry that this program knows.
//!
//! [`verify`] ends at the first damage. [`survey`] goes on behind it: the next entry is held against the hash that the damaged
//! one carries, so that one damage is told once; where even that does not read, the next entry is taken at its word.
//!
//! What it is not: proof against whoever can write the file. They can build another chain that verifies; only a head that
//! someone else knows tells the two apart (`docs/log-format.md`).

use redb::ReadableTable;

use super::entries::Head;
use super::error::{StoreError, guarded};
use crate::entry::{EntryError, Meta, chain, frame::Frame};
use crate::ids::Epoch;
use crate::numbers::{Hash, Seq};
use crate::time::Hlc;

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
    /// Its bytes are those that were sealed, but this program cannot read them as an entry.
    #[error("its bytes are those that were sealed, but they do not read as an entry")]
    Undecodable {
        /// How that shows.
        #[source]
        source: EntryError,
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

/// Looks at a whole log and tells `on_damage` of everything that is wrong with it, in the order of entries. What it returns
/// counts every entry that is there. Ends early where the table itself does not read, which is told last.
///
/// `on_progress` hears the number of entries looked at, every thousand or so and at the end.
pub fn survey(
    table: &impl ReadableTable<u64, &'static [u8]>,
    mut on_progress: impl FnMut(u64),
    mut on_damage: impl FnMut(Damage),
) -> Verified {
    let mut walk = Walk::default();
    let mut rows = match guarded(|| table.iter().map_err(StoreError::during(READING))) {
        Ok(rows) => rows,
        Err(error) => {
            on_damage(walk.unreadable(error));
            return walk.done;
        }
    };
    loop {
        let next = guarded(|| {
            let Some(row) = rows.next() else { return Ok(false) };
            let (key, stored) = row.map_err(StoreError::during(READING))?;
            walk.step_over(Seq::new(key.value()), stored.value(), &mut on_damage);
            Ok(true)
        });
        match next {
            Ok(true) if walk.done.entries.is_multiple_of(PROGRESS_ENTRIES) => on_progress(walk.done.entries),
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                let error: StoreError = error;
                on_damage(walk.unreadable(error));
                break;
            }
        }
    }
    on_progress(walk.done.entries);
    walk.done
}

/// Checks the next entry, and returns whether there was one.
pub(super) fn walk_on(
    rows: &mut redb::Range<'_, u64, &'static [u8]>,
    walk: &mut Walk,
) -> Result<bool, Damage> {
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
    /// The hash of the entry before is not known, since that one does not read.
    unlinked: bool,
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
        if frame.hash != computed && !self.unlinked {
            return Err(damage(DamageKind::HashDiffers { stored: frame.hash, computed }));
        }
        // Its content is hashed already, so only the meta part is read.
        Meta::read(&frame).map_err(|source| damage(DamageKind::Undecodable { source }))?;
        self.unlinked = false;
        self.done.entries += 1;
        self.done.erased_items += frame.erased() as u64;
        self.done.head =
            Some(Head { seq, hash: frame.hash, hlc: frame.header.hlc, epoch: frame.header.epoch });
        Ok(())
    }

    /// Checks the next entry, tells of what is wrong with it, and goes on behind it.
    pub(super) fn step_over(&mut self, place: Seq, stored: &[u8], on_damage: &mut impl FnMut(Damage)) {
        let mut checked = self.step(Some(place), stored);
        if let Err(Damage { kind: DamageKind::Missing { .. }, .. }) = &checked {
            // What is there is looked at all the same, without the hash of an entry that is not.
            if let Some(damage) = checked.err() {
                on_damage(damage);
            }
            self.go_on_behind(Seq::new(place.number().saturating_sub(1)), None);
            checked = self.step(Some(place), stored);
        }
        if let Err(damage) = checked {
            on_damage(damage);
            self.done.entries += 1;
            self.go_on_behind(place, Frame::parse(stored).ok().filter(|frame| frame.header.seq == place));
        }
    }

    /// Goes on as if this entry were what it says of itself.
    fn go_on_behind(&mut self, seq: Seq, frame: Option<Frame<'_>>) {
        self.unlinked = frame.is_none();
        let before = self.done.head;
        self.done.head = match (frame, before) {
            (Some(frame), before) => Some(Head {
                seq,
                hash: frame.hash,
                // A clock that leapt is told once, not of every entry behind it.
                hlc: frame.header.hlc.min(before.map_or(frame.header.hlc, |before| before.hlc)),
                epoch: frame.header.epoch,
            }),
            (None, Some(before)) => Some(Head { seq, ..before }),
            (None, None) => {
                Some(Head { seq, hash: Hash::ZERO, hlc: Hlc::ZERO, epoch: Epoch::from_bytes([0; 16]) })
            }
        };
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
pub(super) const READING: &str = "verifying the log";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Control, Draft, FORMAT, Header, Meta, Opened, seal};
    use crate::ids::DeviceId;
    use crate::time::WallTime;

    /// An answer was stored that could never be read back, and `verify`, which looked at hashes only, called it intact.
    #[test]
    fn an_entry_that_was_sealed_but_does_not_read_is_damage() {
        let device = DeviceId::from_bytes([1; 16]);
        let opened = Opened { device, made_by: "somebody".to_owned() };
        let draft = Draft::control(Control::Opened(opened));
        let header = Header {
            format: FORMAT,
            kind: Meta::kind(&draft.meta),
            epoch: Epoch::from_bytes([2; 16]),
            seq: Seq::new(1),
            hlc: Hlc::ZERO,
            wall: WallTime::from_milliseconds(0),
            actor: "ann".parse().unwrap(),
        };
        let mut bytes = seal(&header, &draft, &Hash::ZERO).unwrap().bytes;
        Walk::default().step(None, &bytes).unwrap();
        let (meta, hash) = {
            let frame = Frame::parse(&bytes).unwrap();
            (frame.meta.to_vec(), frame.hash)
        };
        let place = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|at| at == part).unwrap();
        let at = place(&bytes, &meta);
        bytes[at] = 0xfe;
        // Sealed as it is, by whoever wrote it.
        let at = place(&bytes, hash.as_bytes());
        let sealed = chain::link(&Hash::ZERO, &Frame::parse(&bytes).unwrap().content());
        bytes[at..at + 32].copy_from_slice(sealed.as_bytes());
        let damage = Walk::default().step(None, &bytes).unwrap_err();
        assert!(matches!(damage.kind, DamageKind::Undecodable { .. }), "{damage:?}");
    }
}
