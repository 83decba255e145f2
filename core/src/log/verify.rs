//! Verifies a log: computes every hash again from the stored bytes.
//!
//! The checks of each entry, in this order. The first check that fails is the entry's damage:
//! 1. seqs run from 1 without gaps, except in the baseline of a log whose beginning was trimmed
//!    ([`crate::entry::Baseline`]);
//! 2. the bytes have the frame of a known format;
//! 3. the header names the entry's own place;
//! 4. the clock grows;
//! 5. the stored hash follows from the entry before and from this entry's bytes;
//! 6. the bytes can be read as an entry that this program knows.
//!
//! At the end, a trimmed log has to have an entry that names its baseline.
//!
//! [`verify`] ends at the first damage. [`survey`] continues after it: it compares the next entry
//! with the hash that the damaged entry carries, so that one damage is reported once. If that hash
//! cannot be read either, the hash of the next entry is not checked.
//!
//! What it is not: proof against anybody who can write the file. They can build another chain that
//! verifies. Only a head that somebody else knows distinguishes the two (`docs/log-format.md`).

use redb::ReadableTable;

use super::entries::Head;
use super::error::{StoreError, catch_storage_panic};
use crate::entry::{Baseline, Control, EntryError, Meta, Receipt, chain, frame::Frame};
use crate::ids::Epoch;
use crate::numbers::{Hash, Seq};
use crate::time::Hlc;

/// A log that verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// The number of its entries.
    pub entries: u64,
    /// The number of erased items. Their commitments verify.
    pub erased_items: u64,
    /// The number of items that a bundle left out. Their commitments are part of the hashes.
    pub hidden_items: u64,
    /// The number of entries of which a bundle only tells. Their places verify, and nothing proves
    /// what is told.
    pub told_entries: u64,
    /// The last of the entries that were trimmed from its beginning; none if it is whole. An
    /// entry behind it names it.
    pub trimmed: Option<Receipt>,
    /// Its last entry; none if it is empty.
    pub head: Option<Head>,
}

/// The first damage of a log.
#[derive(Debug, thiserror::Error)]
#[error("entry {seq} is damaged: {kind}")]
pub struct Damage {
    /// The entry.
    pub seq: Seq,
    /// The damage.
    #[source]
    pub kind: DamageKind,
}

/// The damage of an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DamageKind {
    /// There is no entry at this place, but there are later ones.
    #[error("it is missing; the next one is entry {next}")]
    Missing {
        /// The next entry that is there.
        next: Seq,
    },
    /// Its bytes do not have the frame of an entry.
    #[error("its bytes cannot be read")]
    Unframed {
        /// The fault of the frame.
        #[source]
        source: EntryError,
    },
    /// Its header names another place.
    #[error("it names entry {named} as its place")]
    Misplaced {
        /// The place in its header.
        named: Seq,
    },
    /// Its clock is not after the clock of the entry before.
    #[error("its clock does not advance after the entry before")]
    ClockNotGrowing,
    /// Its bytes, or those of the entry before, were altered after it was sealed.
    #[error("its hash is {stored}, but its bytes give {computed}")]
    HashDiffers {
        /// The hash that it carries.
        stored: Hash,
        /// The hash that follows from the bytes.
        computed: Hash,
    },
    /// Its bytes are the sealed ones, but this program cannot read them as an entry.
    #[error("its bytes are the sealed ones, but they cannot be read as an entry")]
    Undecodable {
        /// The fault of the content.
        #[source]
        source: EntryError,
    },
    /// Entries are missing before it, and no entry behind it names what stands in their place.
    #[error(
        "the entries before it are missing, and nothing in the log vouches for what stands in their place"
    )]
    Unvouched,
    /// The entry could not be read at all.
    #[error("it could not be read")]
    Unreadable {
        /// The error of the store or the stream.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Verifies a whole log. Calls `on_progress` with the number of verified entries, about every
/// thousand and at the end.
///
/// # Errors
/// [`Damage`] for the first entry that was altered after it was sealed.
pub fn verify(
    table: &impl ReadableTable<u64, &'static [u8]>,
    mut on_progress: impl FnMut(u64),
) -> Result<Verified, Damage> {
    let mut walk = Walk::default();
    let mut rows = catch_storage_panic(|| table.iter().map_err(StoreError::during(READING)))
        .map_err(|error| walk.unreadable(error))?;
    while catch_storage_panic(|| Ok(walk_on(&mut rows, &mut walk)))
        .unwrap_or_else(|error: StoreError| Err(walk.unreadable(error)))?
    {
        if walk.done.entries.is_multiple_of(PROGRESS_ENTRIES) {
            on_progress(walk.done.entries);
        }
    }
    on_progress(walk.done.entries);
    walk.end()
}

/// Checks a whole log and passes all damage to `on_damage`, in the order of the entries. The result
/// counts every entry that exists. The check ends early if the table itself cannot be read, which
/// is the last damage that it reports.
///
/// `on_progress` receives the number of checked entries, about every thousand and at the end.
pub fn survey(
    table: &impl ReadableTable<u64, &'static [u8]>,
    mut on_progress: impl FnMut(u64),
    mut on_damage: impl FnMut(Damage),
) -> Verified {
    let mut walk = Walk::default();
    let mut rows = match catch_storage_panic(|| table.iter().map_err(StoreError::during(READING))) {
        Ok(rows) => rows,
        Err(error) => {
            on_damage(walk.unreadable(error));
            return walk.done;
        }
    };
    loop {
        let next = catch_storage_panic(|| {
            let Some(row) = rows.next() else { return Ok(false) };
            let (key, stored) = row.map_err(StoreError::during(READING))?;
            walk.step_over(Seq::new(key.value()), stored.value(), &mut on_damage);
            Ok(true)
        });
        match next {
            Ok(true) if walk.done.entries.is_multiple_of(PROGRESS_ENTRIES) => {
                on_progress(walk.done.entries)
            }
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
    walk.ended(on_damage)
}

/// Checks the next entry. Returns whether there was one.
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

/// A chain that was checked up to some entry.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) done: Verified,
    /// The hash of the entry before is unknown, because that entry cannot be read.
    unlinked: bool,
    /// Entries may be told, and items hidden: this is a bundle.
    pub(super) in_bundle: bool,
    /// The first entry that a baseline lacks, until its joint comes.
    gap: Option<Seq>,
    /// The joint: the place and the hash of the last trimmed entry, and the sealed hash.
    joint: Option<(Receipt, Hash)>,
    /// The joints that entries behind them name.
    named: Vec<(Receipt, Hash)>,
}

impl Walk {
    /// Checks the next entry. `place` is its place, if it is known from outside its own header.
    pub(super) fn step(&mut self, place: Option<Seq>, stored: &[u8]) -> Result<(), Damage> {
        let frame = Frame::parse(stored);
        let gap = self.next();
        let over_gap = frame.as_ref().ok().filter(|frame| {
            place.is_none_or(|place| place == frame.header.seq) && self.is_over_gap(frame)
        });
        let seq = over_gap.map_or(gap, |frame| frame.header.seq);
        let damage = |kind| Damage { seq, kind };
        if let Some(next) = place.filter(|place| *place != seq) {
            return Err(damage(DamageKind::Missing { next }));
        }
        let frame = frame.map_err(|source| damage(DamageKind::Unframed { source }))?;
        let hidden = frame.hidden() as u64;
        if !self.in_bundle && (frame.is_told() || hidden > 0) {
            return Err(damage(DamageKind::Unframed { source: EntryError::OnlyInBundle }));
        }
        if frame.header.seq != seq {
            return Err(damage(DamageKind::Misplaced { named: frame.header.seq }));
        }
        let before = self.done.head;
        if before.is_some_and(|before| frame.header.hlc <= before.hlc) {
            return Err(damage(DamageKind::ClockNotGrowing));
        }
        let previous = before.map_or(Hash::ZERO, |before| before.hash);
        let (stored, computed) = (frame.sealed_hash(), chain::link(&previous, &frame.content()));
        if stored != computed && !self.unlinked {
            return Err(damage(DamageKind::HashDiffers { stored, computed }));
        }
        // The content was hashed already, so only the meta part is read.
        let meta =
            Meta::read(&frame).map_err(|source| damage(DamageKind::Undecodable { source }))?;
        if seq != gap {
            self.gap = self.gap.or(Some(gap));
        }
        self.note_baseline(&frame, &meta).map_err(damage)?;
        self.unlinked = false;
        self.done.entries += 1;
        self.done.erased_items += frame.erased() as u64;
        self.done.hidden_items += hidden;
        self.done.told_entries += u64::from(frame.is_told());
        self.done.head =
            Some(Head { seq, hash: frame.hash, hlc: frame.header.hlc, epoch: frame.header.epoch });
        Ok(())
    }

    /// Returns whether an entry comes after a gap in a baseline: it was sealed after the entry before
    /// the gap.
    fn is_over_gap(&self, frame: &Frame<'_>) -> bool {
        let may_be = frame.header.seq > self.next() && self.joint.is_none() && !self.unlinked;
        let before = self.done.head.filter(|_| may_be);
        before.is_some_and(|before| {
            chain::link(&before.hash, &frame.content()) == frame.sealed_hash()
        })
    }

    /// Notes what an entry says of a baseline.
    fn note_baseline(&mut self, frame: &Frame<'_>, meta: &Meta) -> Result<(), DamageKind> {
        let is_joint =
            matches!(meta, Meta::Control(Control::Baseline(Baseline { state: Some(_), .. })));
        if is_joint != frame.joint().is_some() || (is_joint && self.joint.is_some()) {
            return Err(DamageKind::Undecodable { source: EntryError::KindDiffers });
        }
        if let Some(sealed) = frame.joint() {
            self.joint = Some((Receipt { seq: frame.header.seq, hash: frame.hash }, sealed));
            self.gap = None;
        }
        if let Meta::Control(Control::Trimmed(trimmed)) = meta {
            self.named.push((trimmed.upto, trimmed.baseline));
        }
        Ok(())
    }

    /// Returns whether the last entry is the joint.
    pub(super) fn is_at_joint(&self) -> bool {
        let last = self.done.head.map(|head| head.seq);
        self.joint.is_some_and(|(upto, _)| Some(upto.seq) == last)
    }

    /// Adds what another part of the same log has, which comes after this one.
    pub(super) fn add(&mut self, after: Self) {
        let Verified { entries, erased_items, hidden_items, told_entries, trimmed: _, head } =
            after.done;
        self.done.entries += entries;
        self.done.erased_items += erased_items;
        self.done.hidden_items += hidden_items;
        self.done.told_entries += told_entries;
        self.done.head = head;
        self.gap = self.gap.or(after.gap);
        self.joint = self.joint.or(after.joint);
        self.named.extend(after.named);
    }

    /// Ends the walk: a baseline needs its joint, and an entry that names it.
    pub(super) fn end(self) -> Result<Verified, Damage> {
        if let (Some(seq), Some(head)) = (self.gap, self.done.head) {
            return Err(Damage { seq, kind: DamageKind::Missing { next: head.seq } });
        }
        if let Some(joint) = self.joint.filter(|joint| !self.named.contains(joint)) {
            return Err(Damage { seq: joint.0.seq, kind: DamageKind::Unvouched });
        }
        Ok(Verified { trimmed: self.joint.map(|(upto, _)| upto), ..self.done })
    }

    /// Ends the walk, and passes damage on.
    pub(super) fn ended(self, mut on_damage: impl FnMut(Damage)) -> Verified {
        let done = self.done;
        self.end().unwrap_or_else(|damage| {
            on_damage(damage);
            done
        })
    }

    /// Checks the next entry, reports its damage, and continues after it.
    pub(super) fn step_over(
        &mut self,
        place: Seq,
        stored: &[u8],
        on_damage: &mut impl FnMut(Damage),
    ) {
        let mut checked = self.step(Some(place), stored);
        if let Err(Damage { kind: DamageKind::Missing { .. }, .. }) = &checked {
            // An entry after a gap is checked too, without the hash of the missing entry.
            if let Some(damage) = checked.err() {
                on_damage(damage);
            }
            self.go_on_behind(Seq::new(place.number().saturating_sub(1)), None);
            checked = self.step(Some(place), stored);
        }
        if let Err(damage) = checked {
            on_damage(damage);
            self.done.entries += 1;
            self.go_on_behind(
                place,
                Frame::parse(stored).ok().filter(|frame| frame.header.seq == place),
            );
        }
    }

    /// Continues as if the entry's own description of itself were right.
    fn go_on_behind(&mut self, seq: Seq, frame: Option<Frame<'_>>) {
        self.unlinked = frame.is_none();
        let before = self.done.head;
        self.done.head = match (frame, before) {
            (Some(frame), before) => Some(Head {
                seq,
                hash: frame.hash,
                // A clock that jumped is reported once, not for every entry after it.
                hlc: frame.header.hlc.min(before.map_or(frame.header.hlc, |before| before.hlc)),
                epoch: frame.header.epoch,
            }),
            (None, Some(before)) => Some(Head { seq, ..before }),
            (None, None) => Some(Head {
                seq,
                hash: Hash::ZERO,
                hlc: Hlc::ZERO,
                epoch: Epoch::from_bytes([0; 16]),
            }),
        };
    }

    /// Returns the place of the next entry.
    pub(super) fn next(&self) -> Seq {
        self.done.head.map_or(Seq::ZERO, |head| head.seq).next()
    }

    pub(super) fn unreadable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Damage {
        Damage { seq: self.next(), kind: DamageKind::Unreadable { source: source.into() } }
    }
}

const PROGRESS_ENTRIES: u64 = 1024;
pub(super) const READING: &str = "verifying the log";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Draft, FORMAT, Header, Opened, seal};
    use crate::ids::DeviceId;
    use crate::time::WallTime;

    /// An answer was stored that could never be read back. `verify` checked hashes only, and called
    /// it intact.
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
        let place = |bytes: &[u8], part: &[u8]| {
            bytes.windows(part.len()).position(|at| at == part).unwrap()
        };
        let at = place(&bytes, &meta);
        bytes[at] = 0xfe;
        // The entry was sealed in this state by its writer.
        let at = place(&bytes, hash.as_bytes());
        let sealed = chain::link(&Hash::ZERO, &Frame::parse(&bytes).unwrap().content());
        bytes[at..at + 32].copy_from_slice(sealed.as_bytes());
        let damage = Walk::default().step(None, &bytes).unwrap_err();
        assert!(matches!(damage.kind, DamageKind::Undecodable { .. }), "{damage:?}");
    }
}
