//! Signed notes of a book's log: making a checkpoint, and finding what the notes prove.
//!
//! ```text
//!   checkpoint   head ─► Statement ─► the app's Signer ─► an entry
//!   notes_of     a book or an exported log ─► Notes (feature `sign`) ─► weigh ─► Evidence
//! ```
//!
//! What it does not do: keep keys. A key that is trusted because it is in the file proves nothing.

use fieldbook_core::entry::{Control, Draft, SignedNote};
#[cfg(feature = "sign")]
use fieldbook_core::log::{Store, StoreOptions, catch_storage_panic, entries, notes_in};
use fieldbook_core::note::{DEVICE_KEY_PREFIX, NoteKind, Signer, Statement, sign};
use fieldbook_core::{Hlc, Seq};

use crate::audit::Audit;
use crate::error::Error;

impl Audit<'_> {
    /// Has the head of the log signed, records the note, and returns it. Whoever gets the log later
    /// can check that it was like this, with the public key of the signer. The note itself is an
    /// entry after that head, so it is for the entries before.
    ///
    /// # Errors
    /// [`Error::NotSigned`] if the signer fails; [`Error::EmptyLog`] if nothing was written yet;
    /// [`Error::Misuse`] if the key's name does not begin with `device/`; [`Error::Store`] if the
    /// note cannot be written.
    pub fn checkpoint(&self, signer: &dyn Signer) -> Result<(Seq, String), Error> {
        let verifier = signer.verifier();
        if !NoteKind::Checkpoint.may_be_by(&verifier) {
            return Err(Error::Misuse(NAMES_NO_DEVICE));
        }
        let head = self.head()?.ok_or(Error::EmptyLog)?;
        let stated = Statement {
            kind: NoteKind::Checkpoint,
            device: self.book.shared.state().device.ok_or(Error::EmptyLog)?,
            epoch: head.epoch,
            seq: head.seq,
            hash: head.hash,
            at: self.book.shared.clock.now().wall,
        };
        let note = sign(&stated, &[signer]).map_err(|source| Error::NotSigned(source.into()))?;
        let signed = SignedNote { note: note.clone(), keys: vec![verifier] };
        self.book.shared.write_in_turn(move |session| {
            session.append(Draft::control(Control::Note(signed)), Hlc::ZERO)?;
            Ok(())
        })?;
        Ok((head.seq, note))
    }
}

const NAMES_NO_DEVICE: &str = "the name of a device's key begins with `device/`";
const _: () = assert!(matches!(DEVICE_KEY_PREFIX.as_bytes(), b"device/"));

/// Finds the signed notes of a book's log. No byte of the file changes. The hashes of the log have
/// to be checked separately ([`examine_book`](crate::audit::examine_book)).
///
/// # Errors
/// [`Error::Store`] if the file cannot be opened, or if its log cannot be read.
#[cfg(feature = "sign")]
pub fn notes_of_book(
    path: impl AsRef<std::path::Path>,
) -> Result<fieldbook_core::note::Notes, Error> {
    let looking = StoreOptions { read_only: true, ..StoreOptions::default() };
    let store = Store::open(path.as_ref(), &looking)?;
    Ok(catch_storage_panic(|| notes_in(&entries(&store.begin_read()?)?))?)
}
