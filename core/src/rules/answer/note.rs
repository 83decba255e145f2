//! The note that a server signs with a receipt.
//!
//! A device records it and checks no signature: a signature is for those who get the log later, and
//! an answer is worth what the connection is worth. It checks that the note is about this receipt.
//! A text that this program does not know passes, and is not recorded.

use crate::entry::{Receipt, SignedNote};
use crate::note::{KEY_BYTES, NOTE_KEYS, Note, NoteKind, Statement};
use crate::protocol::{ExchangeAnswer, ExchangeRequest};

/// Returns whether a note can be the server's for a receipt.
pub(crate) fn states(signed: &SignedNote, request: &ExchangeRequest, receipt: &Receipt) -> bool {
    let is_key = |key: &String| key.len() <= KEY_BYTES && !key.chars().any(char::is_control);
    let Ok(note) = Note::parse(&signed.note) else { return false };
    let is_about_it = note.statement().is_none_or(|stated| {
        let Statement { kind, device, epoch, seq, hash, at: _ } = stated;
        (kind, device, epoch) == (NoteKind::Receipt, request.device, request.epoch)
            && (seq, hash) == (receipt.seq, receipt.hash)
    });
    is_about_it && signed.keys.len() <= NOTE_KEYS && signed.keys.iter().all(is_key)
}

/// Returns the note to record with the receipt of an answer.
pub(crate) fn of(answer: &ExchangeAnswer) -> Option<&SignedNote> {
    let is_known = |signed: &&SignedNote| {
        Note::parse(&signed.note).is_ok_and(|note| note.statement().is_some())
    };
    answer.signed.as_ref().filter(is_known)
}
