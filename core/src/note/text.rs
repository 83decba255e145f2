//! The text form of a signed note.

use data_encoding::{BASE64, HEXLOWER};

use super::{KEY_NAME_BYTES, NOTE_BYTES, SIGNATURES, Statement};

/// A text that is not a signed note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a signed note: {0}")]
pub struct InvalidNote(&'static str);

/// A note, taken apart. Its signatures are not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note<'a> {
    /// The text that is signed, with its last line break.
    pub text: &'a str,
    /// The signatures, in the order of the note.
    pub signatures: Vec<Signature<'a>>,
}

/// A line with a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature<'a> {
    /// The name of the key.
    pub name: &'a str,
    /// The id of the key: the beginning of a hash of its name and its bytes.
    pub key_id: [u8; 4],
    /// The signature, by whatever algorithm.
    pub bytes: Vec<u8>,
}

impl<'a> Note<'a> {
    /// Takes a note apart.
    ///
    /// # Errors
    /// [`InvalidNote`].
    pub fn parse(note: &'a str) -> Result<Self, InvalidNote> {
        let check = |holds: bool, why| if holds { Ok(()) } else { Err(InvalidNote(why)) };
        check(note.len() <= NOTE_BYTES, "it is too long")?;
        let is_plain = note.chars().all(|letter| letter == '\n' || !letter.is_ascii_control());
        check(is_plain, "it has a control character")?;
        let at = note.rfind("\n\n").ok_or(InvalidNote("it has no signatures"))?;
        let (text, lines) = note.split_at(at + 1);
        let lines = lines.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
        let lines = lines.ok_or(InvalidNote("its last line does not end"))?;
        let signatures = lines.split('\n').map(Signature::parse).collect::<Option<Vec<_>>>();
        let signatures = signatures.ok_or(InvalidNote("a line is not a signature"))?;
        check(signatures.len() <= SIGNATURES, "it has too many signatures")?;
        Ok(Self { text, signatures })
    }

    /// Returns what the note states; none if it states something that this program does not know.
    pub fn statement(&self) -> Option<Statement> {
        Statement::parse(self.text)
    }
}

impl<'a> Signature<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (name, signed) = line.strip_prefix("— ")?.split_once(' ')?;
        let signed = BASE64.decode(signed.as_bytes()).ok()?;
        let (key_id, bytes) = signed.split_first_chunk::<4>()?;
        is_key_name(name).then(|| Self { name, key_id: *key_id, bytes: bytes.to_vec() })
    }
}

/// Returns whether a text can be the name of a key.
pub(super) fn is_key_name(name: &str) -> bool {
    let is_plain = |letter: char| !letter.is_whitespace() && !letter.is_control() && letter != '+';
    !name.is_empty() && name.len() <= KEY_NAME_BYTES && name.chars().all(is_plain)
}

/// Returns the name and the id of a key that is written as `name+id+key`.
pub(super) fn name_and_id(verifier: &str) -> Option<(&str, [u8; 4])> {
    let (name, rest) = verifier.split_once('+')?;
    let (id, _) = rest.split_once('+')?;
    let id = HEXLOWER.decode(id.as_bytes()).ok()?.try_into().ok()?;
    is_key_name(name).then_some((name, id))
}
