//! The file of declared rights. `fieldbook_core::authority::Rights` has its form.

use std::path::{Path, PathBuf};

use fieldbook_core::authority::{InvalidRights, Rights};

use super::files::{FileError, Kind, Mode, Seen};

const KIND: Kind = Kind { what: "the rights file", mode: Mode::Readable, most: Some(1024 * 1024) };

/// Declared rights that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RightsError {
    /// The file is not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not declare rights.
    #[error("the rights {path:?} cannot be used")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The fault, with its place.
        #[source]
        source: InvalidRights,
    },
}

/// Reads the file.
pub(super) fn read(path: &Path, seen: &mut Seen) -> Result<Rights, RightsError> {
    Rights::parse(&seen.read_text(path, KIND)?)
        .map_err(|source| RightsError::Invalid { path: path.to_owned(), source })
}
