//! What the notes of a log prove, with the keys that the reader trusts.
//!
//! ```text
//!   every stored entry ─► Notes::look          the notes, and the places that they are about
//!   those places       ─► Notes::learn         the entries that this log has there
//!   trusted keys       ─► Notes::weigh ─► Evidence: faults, and a level for each range of entries
//! ```
//!
//! Invariants:
//! 1. A key counts only if the reader names it. A key in the log proves nothing, because whoever
//!    can write the file can write a key of their own and sign with it.
//! 2. A note counts only if the log has the very entry that it states, of the same device and
//!    epoch. A note of another entry is a fault, whoever signed it.
//! 3. A note of a trimmed entry neither proves nor contradicts anything.
//! 4. A level is never above what was checked. Entries after the last proof are [`Level::Chained`].

use std::collections::{BTreeMap, BTreeSet};

use super::keys::VerifierKey;
use super::{Note, NoteKind, Statement};
use crate::entry::frame::Frame;
use crate::entry::{Control, EntryKind, Meta, SignedNote};
use crate::ids::{DeviceId, Epoch};
use crate::numbers::{Hash, Seq};
use crate::time::WallTime;

/// How sure an entry is, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Its hash follows from its bytes and from the entry before. Whoever can write the file can
    /// make such an entry.
    Chained,
    /// A key of the device that the reader trusts signed it or a later entry. That says who vouched
    /// for it, and not when.
    Signed,
    /// A key of a server that the reader trusts signed it or a later entry. The device could not
    /// make it later, nor otherwise.
    Anchored,
}

impl Level {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chained => "chained",
            Self::Signed => "signed",
            Self::Anchored => "anchored",
        }
    }
}

/// A note of a log, which states something that this program knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundNote {
    /// The entry with the note.
    pub seq: Seq,
    /// What the note states.
    pub statement: Statement,
    /// The note.
    pub signed: SignedNote,
}

/// The notes of a log.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    device: Option<DeviceId>,
    last: Seq,
    /// The joint of a log whose beginning was trimmed.
    joint: Seq,
    found: Vec<FoundNote>,
    there: BTreeMap<Seq, (Epoch, Hash)>,
}

/// A signature that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What it proves.
    pub level: Level,
    /// The last entry that it covers; it covers all entries before, too.
    pub upto: Seq,
    /// The time of the signer's clock.
    pub at: WallTime,
    /// The key.
    pub key: VerifierKey,
    /// The entry with the note.
    pub noted: Seq,
}

/// A note that contradicts its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteFault {
    /// The log has another entry at the place.
    #[error(
        "the note in entry {noted} states another entry {stated} than this log has: the log was rewritten, or the note \
         is of another log"
    )]
    OtherEntry {
        /// The entry with the note.
        noted: Seq,
        /// The entry that it is about.
        stated: Seq,
    },
    /// A signature names a trusted key and is not by it.
    #[error("the note in entry {noted} names a key that was given, and is not signed by it")]
    Forged {
        /// The entry with the note.
        noted: Seq,
    },
}

impl NoteFault {
    /// Returns the entry with the note.
    pub const fn noted(&self) -> Seq {
        match self {
            Self::OtherEntry { noted, .. } | Self::Forged { noted } => *noted,
        }
    }
}

/// What the notes of a log prove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The proofs, the greatest level first. Each covers more entries than those before it.
    pub proofs: Vec<Proof>,
    /// What contradicts the log.
    pub faults: Vec<NoteFault>,
    /// The keys that the log itself names, with the first entry that does.
    pub named: Vec<(String, Seq)>,
    /// The last entry for which there is a receipt, by whatever key.
    pub receipt: Option<Seq>,
    /// The last entry of the log.
    pub last: Seq,
}

/// The most signatures by a trusted key that are found to be false. A log with more is forged.
const FALSE_MOST: usize = 16;

impl Notes {
    /// Looks at the next stored entry. Bytes that are no entry have no note; verifying the log
    /// reports them.
    pub fn look(&mut self, stored: &[u8]) {
        let Ok(frame) = Frame::parse(stored) else { return };
        self.last = self.last.max(frame.header.seq);
        if frame.joint().is_some() {
            self.joint = frame.header.seq;
        }
        let may_have = Frame::kind_of(stored) == Some(EntryKind::Control)
            && frame.meta.first_chunk() == Some(&NOTED);
        let is_first = frame.header.seq == Seq::ZERO.next();
        if !may_have && !is_first {
            return;
        }
        match Meta::read(&frame) {
            Ok(Meta::Control(Control::Opened(opened))) if is_first => {
                self.device = Some(opened.device);
            }
            Ok(Meta::Control(Control::Note(signed))) => {
                let parsed = Note::parse(&signed.note).ok();
                if let Some(statement) = parsed.and_then(|note| note.statement()) {
                    self.found.push(FoundNote { seq: frame.header.seq, statement, signed });
                }
            }
            _ => {}
        }
    }

    /// Returns all notes, in the order of the log.
    pub fn found(&self) -> &[FoundNote] {
        &self.found
    }

    /// Returns the places that the notes are about.
    pub fn places(&self) -> BTreeSet<Seq> {
        self.found.iter().map(|note| note.statement.seq).collect()
    }

    /// Learns of a stored entry that a note is about.
    pub fn learn(&mut self, stored: &[u8]) {
        if let Ok(frame) = Frame::parse(stored) {
            self.there.insert(frame.header.seq, (frame.header.epoch, frame.hash));
        }
    }

    /// Returns what the notes prove to a reader who trusts these keys. The hashes of the log have
    /// to be checked separately.
    pub fn weigh(&self, keys: &[VerifierKey]) -> Evidence {
        let mut evidence = Evidence { last: self.last, ..Evidence::default() };
        let mut fitting = Vec::new();
        for note in &self.found {
            for key in &note.signed.keys {
                if !evidence.named.iter().any(|(known, _)| known == key) {
                    evidence.named.push((key.clone(), note.seq));
                }
            }
            let (noted, stated) = (note.seq, note.statement.seq);
            if stated < self.joint {
                // The entry was trimmed, so its note proves nothing here and contradicts nothing.
                continue;
            }
            if self.fits(note) {
                fitting.push(note);
            } else {
                evidence.faults.push(NoteFault::OtherEntry { noted, stated });
            }
        }
        let receipts = fitting.iter().filter(|note| note.statement.kind == NoteKind::Receipt);
        evidence.receipt = receipts.map(|note| note.statement.seq).max();
        fitting.sort_by_key(|note| std::cmp::Reverse(note.statement.seq));
        for (level, kind) in LEVELS {
            let of_kind = fitting.iter().filter(|note| note.statement.kind == kind);
            let covered = evidence.proofs.last().map_or(Seq::ZERO, |proof| proof.upto);
            let more = of_kind.take_while(|note| note.statement.seq > covered);
            let proof = prove(level, more.copied(), keys, &mut evidence.faults);
            evidence.proofs.extend(proof);
        }
        evidence
    }

    fn fits(&self, note: &FoundNote) -> bool {
        let Statement { device, epoch, seq, hash, .. } = note.statement;
        seq < note.seq
            && self.device == Some(device)
            && self.there.get(&seq) == Some(&(epoch, hash))
    }
}

/// Finds the greatest entry that a trusted key signed.
fn prove<'a>(
    level: Level,
    notes: impl Iterator<Item = &'a FoundNote>,
    keys: &[VerifierKey],
    faults: &mut Vec<NoteFault>,
) -> Option<Proof> {
    for note in notes {
        let Ok(parsed) = Note::parse(&note.signed.note) else { continue };
        let may = keys.iter().filter(|key| note.statement.kind.may_be_by(key.name()));
        for key in may {
            let named = parsed.signatures.iter().filter(|one| key.is_named_by(one));
            let mut is_named = false;
            for signature in named {
                if key.verifies(parsed.text, signature) {
                    let (upto, at) = (note.statement.seq, note.statement.at);
                    return Some(Proof { level, upto, at, key: key.clone(), noted: note.seq });
                }
                is_named = true;
            }
            if is_named {
                faults.push(NoteFault::Forged { noted: note.seq });
            }
            if faults.len() >= FALSE_MOST {
                return None;
            }
        }
    }
    None
}

impl Evidence {
    /// Returns the level of an entry, and the proof of it.
    pub fn of(&self, seq: Seq) -> (Level, Option<&Proof>) {
        let proof = self.proofs.iter().find(|proof| proof.upto >= seq);
        (proof.map_or(Level::Chained, |proof| proof.level), proof)
    }

    /// Returns the ranges of entries up to one, from the first entry, each with its level and its
    /// proof. Levels only get lower.
    pub fn ranges(&self, upto: Seq) -> Vec<(Seq, Seq, Level, Option<&Proof>)> {
        let (mut ranges, mut from) = (Vec::new(), Seq::ZERO.next());
        while from <= upto {
            let (level, proof) = self.of(from);
            let to = proof.map_or(upto, |proof| proof.upto.min(upto));
            ranges.push((from, to, level, proof));
            from = to.next();
        }
        ranges
    }

    /// Returns the level of the whole log up to an entry, which is that of its last range.
    pub fn level(&self, upto: Seq) -> Level {
        if self.faults.is_empty() { self.of(upto).0 } else { Level::Chained }
    }
}

/// The levels, and the notes that prove them.
const LEVELS: [(Level, NoteKind); 2] =
    [(Level::Anchored, NoteKind::Receipt), (Level::Signed, NoteKind::Checkpoint)];
/// How the meta part of an entry with a note begins: variant 2, Control; variant 8, Note.
const NOTED: [u8; 2] = [2, 8];
