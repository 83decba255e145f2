//! The reasons why JSON cannot be the fields of a record.

use crate::limits;

/// JSON that cannot be the fields of a record. The error names the place of the fault in the
/// fields, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFields {
    /// The text is not a JSON object, or not JSON at all.
    #[error(
        "fields are not a JSON object such as {{\"name\":\"Ann\"}} (line {line}, column {column})"
    )]
    NotAnObject {
        /// Line of the fault, from 1; 0 if the text was JSON of another kind.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// The fields have more bytes than [`limits::OP_BYTES`].
    #[error("fields take {bytes} bytes, more than the {} that one op may have", limits::OP_BYTES)]
    TooLarge {
        /// The size of the fields, in bytes.
        bytes: usize,
    },
    /// A field nests deeper than [`limits::FIELD_LEVELS`].
    #[error("a field nests deeper than {} levels", limits::FIELD_LEVELS)]
    TooDeep,
    /// A field's name is empty or longer than [`limits::FIELD_NAME_BYTES`].
    #[error("a field's name is empty or longer than {} bytes", limits::FIELD_NAME_BYTES)]
    FieldName,
    /// A number that would have to be rounded.
    #[error(
        "the number at `{at}` cannot be kept exactly: a whole number fits 64 bits, any other one the digits of a \
         double; write it as text, as in \"0.1\""
    )]
    Number {
        /// The place of the fault, such as `price.net` or `items[2].price`.
        at: String,
    },
    /// Half of a surrogate pair, which is no character.
    #[error(
        "the text at `{at}` has half of a surrogate pair (\\ud800 to \\udfff stand in twos): write the whole character"
    )]
    Surrogate {
        /// The place of the fault.
        at: String,
    },
    /// An object with two members of the same name.
    #[error("the name `{at}` occurs twice in its object: keep one of the two")]
    Duplicate {
        /// The name that occurs twice, with the names around it.
        at: String,
    },
}

impl InvalidFields {
    /// Returns the code with which a server refuses a unit with such fields (`docs/protocol.md`).
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAnObject { .. } => "fields_not_an_object",
            Self::TooLarge { .. } => "fields_too_large",
            Self::TooDeep => "fields_too_deep",
            Self::FieldName => "field_name",
            Self::Number { .. } => "number_not_exact",
            Self::Surrogate { .. } => "half_surrogate",
            Self::Duplicate { .. } => "duplicate_name",
        }
    }

    /// Adds this member's name to the place of the fault.
    pub(super) fn within(self, name: &str) -> Self {
        self.at(|at| {
            let mut path = readable(name);
            if !at.is_empty() && !at.starts_with('[') {
                path.push('.');
            }
            path.push_str(at);
            path
        })
    }

    /// Adds this list item's index to the place of the fault.
    pub(super) fn within_item(self, index: usize) -> Self {
        self.at(|at| {
            format!("[{index}]{}{at}", if at.is_empty() || at.starts_with('[') { "" } else { "." })
        })
    }

    fn at(self, path: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Number { at } => Self::Number { at: path(&at) },
            Self::Surrogate { at } => Self::Surrogate { at: path(&at) },
            Self::Duplicate { at } => Self::Duplicate { at: path(&at) },
            other => other,
        }
    }
}

/// Returns a name as an error shows it: short, and without characters that a terminal acts upon.
fn readable(name: &str) -> String {
    let mut shown = String::new();
    for (count, character) in name.chars().enumerate() {
        if count == NAME_SHOWN {
            shown.push('…');
            break;
        }
        if character.is_alphanumeric() || character.is_ascii_graphic() || character == ' ' {
            shown.push(character);
        } else {
            shown.extend(character.escape_unicode());
        }
    }
    shown
}

/// The most characters of a name that are shown.
const NAME_SHOWN: usize = 64;
