//! Signed notes: a text that somebody else can check without this project, in C2SP's form
//! (<https://c2sp.org/signed-note>).
//!
//! ```text
//!   Statement ─► text ─► Signer ─► the note ─► an entry of the log
//!   the note ─► Note (text, signatures) ─► Statement ─► weigh (feature `sign`): what it proves
//! ```
//!
//! ```text
//!   fieldbook.receipt/v1                           a server's receipt; `checkpoint` is of the device
//!   DEVICE/EPOCH                                   whose log
//!   13                                             up to which entry
//!   qXUF1bn1+2E/gjPJGZAV8PbbhyTH2GVdYorMP8tkb34=   the hash of that entry
//!   2026-11-28T16:54:47.846Z                       the signer's clock
//!
//!   — sync.example.com nyxBqhk…                    a signature: the key's name, its id and the signature
//! ```
//!
//! Invariants:
//! 1. A statement has one text, and only that text reads as it.
//! 2. Reading has bounds: [`NOTE_BYTES`], and [`SIGNATURES`] for each note.
//! 3. A note of a kind that this program does not know is no error: it proves nothing.
//!
//! What it does not do: decide whom to trust. Without the feature `sign` it cannot check a
//! signature either, and the package for that is not in an app's tree.

#[cfg(feature = "sign")]
mod keys;
mod text;
#[cfg(feature = "sign")]
mod weigh;

#[cfg(all(test, feature = "sign"))]
mod tests;

use data_encoding::BASE64;

use crate::ids::{DeviceId, Epoch};
use crate::numbers::{Hash, Seq};
use crate::time::WallTime;

#[cfg(feature = "sign")]
pub use keys::{Ed25519Key, InvalidKey, VerifierKey};
pub use text::{InvalidNote, Note, Signature};
#[cfg(feature = "sign")]
pub use weigh::{Evidence, FoundNote, Level, NoteFault, Notes, Proof};

/// The most bytes of a note.
pub const NOTE_BYTES: usize = 2_048;
/// The most signatures of a note that are read.
pub const SIGNATURES: usize = 16;
/// The most bytes of a key's name.
pub const KEY_NAME_BYTES: usize = 128;
/// The most keys that come with a note.
pub const NOTE_KEYS: usize = 8;
/// The most bytes of a key as text.
pub const KEY_BYTES: usize = KEY_NAME_BYTES + 64;

/// Begins the name of every key of a device. A server's key has another name, so no note of a
/// device passes for a receipt.
pub const DEVICE_KEY_PREFIX: &str = "device/";

/// Who states something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKind {
    /// A server: it knows the log up to the entry.
    Receipt,
    /// The device, or its owner: this was the log.
    Checkpoint,
}

impl NoteKind {
    const ALL: [Self; 2] = [Self::Receipt, Self::Checkpoint];

    const fn first_line(self) -> &'static str {
        match self {
            Self::Receipt => "fieldbook.receipt/v1",
            Self::Checkpoint => "fieldbook.checkpoint/v1",
        }
    }

    /// Returns whether a key with this name may sign such a note.
    pub fn may_be_by(self, key_name: &str) -> bool {
        key_name.starts_with(DEVICE_KEY_PREFIX) == (self == Self::Checkpoint)
    }
}

/// What a note says: that a log had this entry at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Who states it.
    pub kind: NoteKind,
    /// The device whose log it is.
    pub device: DeviceId,
    /// The epoch of that entry.
    pub epoch: Epoch,
    /// The place of the entry.
    pub seq: Seq,
    /// The hash of the entry, which covers all entries before it.
    pub hash: Hash,
    /// The signer's clock.
    pub at: WallTime,
}

impl Statement {
    /// Returns the text that is signed.
    pub fn text(&self) -> String {
        let Self { kind, device, epoch, seq, hash, at } = self;
        let (kind, hash) = (kind.first_line(), BASE64.encode(hash.as_bytes()));
        format!("{kind}\n{device}/{epoch}\n{seq}\n{hash}\n{at}\n")
    }

    /// Reads the text of a note; none if it states something else, or states it in other words.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let first = lines.next()?;
        let kind = NoteKind::ALL.into_iter().find(|kind| kind.first_line() == first)?;
        let (device, epoch) = lines.next()?.split_once('/')?;
        let seq = lines.next()?.parse().ok().map(Seq::new)?;
        let hash = BASE64.decode(lines.next()?.as_bytes()).ok()?;
        let at = chrono::DateTime::parse_from_rfc3339(lines.next()?).ok()?;
        let read = Self {
            kind,
            device: device.parse().ok()?,
            epoch: epoch.parse().ok()?,
            seq,
            hash: Hash::from_bytes(hash.try_into().ok()?),
            at: WallTime::from_milliseconds(at.timestamp_millis()),
        };
        // Other texts can have the same meaning, such as a UUID in capital letters.
        (lines.next().is_none() && read.text() == text).then_some(read)
    }
}

/// Why a signer did not sign, in its own words.
pub type SignError = Box<dyn std::error::Error + Send + Sync>;

/// Signs texts: a key in a file, in the keystore of the system, or in a device of its own.
pub trait Signer: Send + Sync {
    /// Returns the key that checks the signatures, as text: `name+id+key`, such as
    /// `example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k`.
    fn verifier(&self) -> String;

    /// Returns the Ed25519 signature of the bytes of a text.
    ///
    /// # Errors
    /// [`SignError`] if the key is out of reach.
    fn sign(&self, text: &[u8]) -> Result<[u8; 64], SignError>;
}

/// Makes a note of a statement, signed by all signers.
///
/// # Errors
/// [`SignError`] of a signer, or if its key has no id.
pub fn sign(statement: &Statement, signers: &[&dyn Signer]) -> Result<String, SignError> {
    let text = statement.text();
    let mut note = format!("{text}\n");
    for signer in signers {
        let verifier = signer.verifier();
        let (name, id) = text::name_and_id(&verifier).ok_or("the key has no name or no id")?;
        let signed = [id.as_slice(), &signer.sign(text.as_bytes())?].concat();
        note.push_str(&format!("— {name} {}\n", BASE64.encode(&signed)));
    }
    Ok(note)
}
