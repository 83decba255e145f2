//! The notes of a log, found without reading the rest of it: in a book, or in an exported log.

use std::io::{self, Read};

use redb::ReadableTable;

use super::error::StoreError;
use super::export::each_stored;
use crate::entry::frame::Frame;
use crate::note::Notes;

/// Finds the notes of a log, and the entries that they are about.
///
/// # Errors
/// [`StoreError`] of the store. An entry that is damaged has no note.
pub fn notes_in(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Notes, StoreError> {
    let mut notes = Notes::default();
    for row in table.iter().map_err(StoreError::during(READING))? {
        let (_, stored) = row.map_err(StoreError::during(READING))?;
        notes.look(stored.value());
    }
    for seq in notes.places() {
        if let Some(stored) = table.get(seq.number()).map_err(StoreError::during(READING))? {
            notes.learn(stored.value());
        }
    }
    Ok(notes)
}

/// Finds the notes of an exported log, and the entries that they are about. The stream is opened
/// once, and again if there are notes.
///
/// # Errors
/// The error of `open`. What is wrong with the stream has to be found separately.
pub fn notes_in_export<R: Read>(mut open: impl FnMut() -> io::Result<R>) -> io::Result<Notes> {
    let mut notes = Notes::default();
    each_stored(&mut open()?, |stored| notes.look(stored));
    let places = notes.places();
    if !places.is_empty() {
        each_stored(&mut open()?, |stored| {
            if Frame::parse(stored).is_ok_and(|frame| places.contains(&frame.header.seq)) {
                notes.learn(stored);
            }
        });
    }
    Ok(notes)
}

const READING: &str = "looking for signed notes";
