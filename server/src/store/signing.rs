//! The keys with which a server signs receipts.
//!
//! ```text
//!   made with the store ─► signs ─► retired
//!            add ───────► signs as well
//! ```
//!
//! Invariants:
//! 1. Every key that is not retired signs every receipt. So a reader who knows any of them can
//!    check the receipts, and a change of keys needs no change on any device.
//! 2. A key is never removed: its public part is needed as long as a receipt by it exists.
//! 3. The secret part leaves the store only in a backup.
//! 4. At most [`NOTE_KEYS`] keys sign at once: a device takes no answer with more.

use fieldbook_core::entry::SignedNote;
use fieldbook_core::note::{Ed25519Key, NOTE_KEYS, NoteKind, Signer, Statement, sign};
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest};
use fieldbook_core::{Randomness, ServerId, WallTime};
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::{Damaged, StateError, tables};

/// A key of a store, without its secret part.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SigningKey {
    /// The public key, as `name+id+key`.
    pub verifier: String,
    /// The eight hexadecimal digits in its middle.
    pub id: String,
    /// When it was made, by the server's clock.
    pub made_at: WallTime,
    /// Whether it signs no more.
    pub retired: bool,
}

/// Why the keys of a store did not change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigningKeyError {
    /// The name is empty or too long, or has spaces or a `+`, or is one of a device.
    #[error("a key of a server cannot have this name: use its host, such as sync.example.com")]
    Name,
    /// No key of the store has this id.
    #[error("no key of this store has the id {id}")]
    Unknown {
        /// The id.
        id: String,
    },
    /// As many keys sign as a receipt can have.
    #[error(
        "{NOTE_KEYS} keys sign already, and a receipt can have no more: retire one of them first"
    )]
    TooMany,
    /// It is the only key that signs.
    #[error("this is the only key that signs: add another one first")]
    TheOnly,
    /// The store failed.
    #[error("the keys of the store could not be read or written: check the disk, then try again")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StateError> for SigningKeyError {
    fn from(error: StateError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// A stored key.
struct Stored {
    number: u32,
    made_at: WallTime,
    retired: bool,
    key: Ed25519Key,
}

/// The keys that sign.
#[derive(Debug, Default)]
pub(super) struct Signers(Vec<Ed25519Key>);

impl Signers {
    /// Signs with these keys.
    #[cfg(feature = "postgres")]
    pub(super) const fn of(keys: Vec<Ed25519Key>) -> Self {
        Self(keys)
    }

    /// Reads the keys that sign; none in a store from before there were keys.
    pub(super) fn read(database: &Database) -> Result<Self, StateError> {
        let keys = read(database)?.into_iter().filter(|stored| !stored.retired);
        Ok(Self(keys.map(|stored| stored.key).collect()))
    }

    /// Returns their public parts.
    pub(super) fn verifiers(&self) -> Vec<String> {
        self.0.iter().map(Signer::verifier).collect()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Signs the receipt of an answer, if it has one.
    pub(super) fn sign(
        &self,
        request: &ExchangeRequest,
        answer: &ExchangeAnswer,
    ) -> Option<SignedNote> {
        let receipt = answer.receipt.filter(|_| !self.is_empty())?;
        let stated = Statement {
            kind: NoteKind::Receipt,
            device: request.device,
            epoch: request.epoch,
            seq: receipt.seq,
            hash: receipt.hash,
            at: answer.server_time,
        };
        let signers: Vec<&dyn Signer> = self.0.iter().map(|key| -> &dyn Signer { key }).collect();
        // A key in memory always signs.
        let note = sign(&stated, &signers).ok()?;
        Some(SignedNote { note, keys: self.verifiers() })
    }
}

/// Makes the first key of a store.
pub(super) fn make_first(
    transaction: &WriteTransaction,
    server: &ServerId,
    made_at: WallTime,
    random: &mut dyn Randomness,
) -> Result<(), StateError> {
    let key = first_key(server, random)?;
    put(transaction, &Stored { number: 0, made_at, retired: false, key })
}

/// Makes a key with a name that every server can have; its owner can add a key with a better one.
pub(super) fn first_key(
    server: &ServerId,
    random: &mut dyn Randomness,
) -> Result<Ed25519Key, Damaged> {
    let key = new_key(&format!("server/{server}"), random);
    key.ok_or(Damaged { what: "the name of the server" })
}

/// Returns the keys of a store, oldest first.
pub(super) fn list(database: &Database) -> Result<Vec<SigningKey>, SigningKeyError> {
    Ok(read(database)?.iter().map(shown).collect())
}

/// Adds a key. It signs from the next start on, beside those that sign already.
pub(super) fn add(
    database: &Database,
    name: &str,
    made_at: WallTime,
    random: &mut dyn Randomness,
) -> Result<SigningKey, SigningKeyError> {
    let may_have = NoteKind::Receipt.may_be_by(name);
    let key = new_key(name, random).filter(|_| may_have).ok_or(SigningKeyError::Name)?;
    let all = read(database)?;
    if all.iter().filter(|stored| !stored.retired).count() >= NOTE_KEYS {
        return Err(SigningKeyError::TooMany);
    }
    let number = all.last().map_or(0, |last| last.number.saturating_add(1));
    let stored = Stored { number, made_at, retired: false, key };
    let transaction = database.begin_write().map_err(StateError::from)?;
    put(&transaction, &stored)?;
    transaction.commit().map_err(StateError::from)?;
    Ok(shown(&stored))
}

/// Retires a key: it signs no more from the next start on.
pub(super) fn retire(database: &Database, id: &str) -> Result<SigningKey, SigningKeyError> {
    let all = read(database)?;
    let others = all.iter().filter(|stored| !stored.retired && stored.key.public().id() != id);
    let is_only = others.count() == 0;
    let found = all.into_iter().find(|stored| stored.key.public().id() == id);
    let found = found.ok_or_else(|| SigningKeyError::Unknown { id: id.to_owned() })?;
    if is_only {
        return Err(SigningKeyError::TheOnly);
    }
    let retired = Stored { retired: true, ..found };
    let transaction = database.begin_write().map_err(StateError::from)?;
    put(&transaction, &retired)?;
    transaction.commit().map_err(StateError::from)?;
    Ok(shown(&retired))
}

fn shown(stored: &Stored) -> SigningKey {
    let Stored { made_at, retired, key, .. } = stored;
    let (verifier, id) = (key.verifier(), key.public().id());
    SigningKey { verifier, id, made_at: *made_at, retired: *retired }
}

fn new_key(name: &str, random: &mut dyn Randomness) -> Option<Ed25519Key> {
    let mut seed = [0; 32];
    random.fill(&mut seed);
    Ed25519Key::from_seed(name, &seed).ok()
}

fn put(transaction: &WriteTransaction, stored: &Stored) -> Result<(), StateError> {
    let row = [
        [u8::from(stored.retired)].as_slice(),
        &stored.made_at.milliseconds().to_le_bytes(),
        stored.key.secret_text().as_bytes(),
    ]
    .concat();
    let key = stored.number.to_be_bytes();
    transaction.open_table(tables::SIGNING_KEYS)?.insert(key.as_slice(), row.as_slice())?;
    Ok(())
}

fn read(database: &Database) -> Result<Vec<Stored>, StateError> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(tables::SIGNING_KEYS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut keys = Vec::new();
    for row in table.iter()? {
        let (number, stored) = row?;
        let read = stored_from(number.value(), stored.value());
        keys.push(read.ok_or(Damaged { what: "a key that signs receipts" })?);
    }
    Ok(keys)
}

fn stored_from(number: &[u8], row: &[u8]) -> Option<Stored> {
    let number = u32::from_be_bytes(number.try_into().ok()?);
    let (retired, rest) = row.split_first()?;
    let (made_at, secret) = rest.split_first_chunk()?;
    let made_at = WallTime::from_milliseconds(i64::from_le_bytes(*made_at));
    let key = Ed25519Key::parse_secret(std::str::from_utf8(secret).ok()?).ok()?;
    Some(Stored { number, made_at, retired: *retired != 0, key })
}
