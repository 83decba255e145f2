//! A bundle for support: an exported log with values left out.
//!
//! ```text
//!   exported log ─► verify, learn the names ─► settle what is whole ─► write what may leave
//! ```
//!
//! Invariants:
//! 1. Every entry of the log has its place in the bundle, with its hash. So the bundle verifies,
//!    and its head is that of the log.
//! 2. A log that is damaged, or that left something out itself, makes no bundle.
//!
//! What may leave is decided by [`crate::redaction`].

use std::io::{self, Read, Write};

use super::entries::Head;
use super::error::StoreError;
use super::export::{checked_length, each_stored};
use super::stream::{BEGINS_2, Cover, Place, Redaction, Streamed, end_block, form_of};
use super::verify::{Damage, Walk};
use crate::entry::frame::Frame;
use crate::entry::{Entry, EntryError};
use crate::numbers::Seq;
use crate::random::Randomness;
use crate::redaction::Redactor;

/// Writes the bundle of an exported log, and returns its size in bytes. The log is opened three
/// times. `made_by` names the program.
///
/// # Errors
/// [`StoreError::Corrupt`] for the first entry that does not verify; [`StoreError::Disk`] if the log
/// cannot be opened or the bundle cannot be written.
pub fn bundle<R: Read>(
    mut open: impl FnMut() -> io::Result<R>,
    redactor: &mut Redactor,
    made_by: &str,
    random: &mut dyn Randomness,
    writer: &mut impl Write,
) -> Result<u64, StoreError> {
    let read = StoreError::disk("reading the log for a bundle");
    let head = learn(&mut open().map_err(&read)?, redactor)?;
    each(&mut open().map_err(&read)?, |stored| {
        redactor.settle(&Entry::decode(stored)?);
        Ok(())
    })?;
    let mut output = Summed { writer, hasher: blake3::Hasher::new(), bytes: 0 };
    let last = head.map_or(Seq::ZERO, |head| head.seq);
    let redaction = Redaction::of(redactor.wanted());
    let cover = Cover::of_bundle(last, head.map(|head| head.hash), made_by, redaction);
    output.write(&[BEGINS_2, &cover.block()].concat())?;
    let mut failed = Ok(());
    each(&mut open().map_err(&read)?, |stored| {
        let redacted = block(&redactor.redact(stored, random)?)?;
        if failed.is_ok() {
            failed = output.write(&redacted);
        }
        Ok(())
    })?;
    failed?;
    let end = end_block(&output.hasher);
    output.write(&end)?;
    output.writer.flush().map_err(StoreError::disk(WRITING))?;
    Ok(output.bytes)
}

const WRITING: &str = "writing the bundle";

/// Verifies a log, and passes its entries to the redactor.
fn learn(reader: &mut impl Read, redactor: &mut Redactor) -> Result<Option<Head>, StoreError> {
    let mut walk = Walk::default();
    let damaged = |damage: Damage| StoreError::corrupt("the log", damage.seq, damage);
    let mut buffer = Vec::new();
    let mut stream = Streamed::begin(reader, &mut buffer, &walk).map_err(damaged)?;
    while stream.next(&mut buffer, &walk).map_err(damaged)? == Place::Entry {
        let seq = walk.next();
        walk.step(None, &buffer).map_err(damaged)?;
        let entry = Entry::decode(&buffer);
        redactor.learn(&entry.map_err(|error| StoreError::corrupt_entry(seq, error))?);
    }
    Ok(walk.end().map_err(damaged)?.head)
}

/// Passes the entries of a log that was verified on, until there is an error.
fn each(
    reader: &mut impl Read,
    mut take: impl FnMut(&[u8]) -> Result<(), EntryError>,
) -> Result<(), StoreError> {
    let mut done = Ok(());
    each_stored(reader, |stored| {
        if done.is_ok() {
            let seq = Frame::parse(stored).map_or(Seq::ZERO, |frame| frame.header.seq);
            done = take(stored).map_err(|error| StoreError::corrupt_entry(seq, error));
        }
    });
    done
}

/// Returns the block of an entry.
fn block(stored: &[u8]) -> Result<Vec<u8>, EntryError> {
    let (form, content) = form_of(stored);
    let length = checked_length(content.len())? + 1;
    Ok([length.to_le_bytes().as_slice(), &[form], content].concat())
}

/// A writer that sums what it writes.
struct Summed<'w, W> {
    writer: &'w mut W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Summed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.writer.write_all(bytes).map_err(StoreError::disk(WRITING))
    }
}
