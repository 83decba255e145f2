//! Reading the files of the credentials and rights.
//!
//! Invariants:
//! 1. A file that other users of the machine may use in more ways than allowed is not read.
//! 2. The state of a file is from before it was read. So a change during the reading is noticed by
//!    the next comparison.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file of credentials or rights that is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {what} {path:?}")]
    Unreadable {
        /// The name of such a file, such as `the token file`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The path is a folder, a pipe or a device.
    #[error(
        "{what} {path:?} is not a regular file: it is read again whenever it changes, so write it to a file"
    )]
    NotAFile {
        /// The name of such a file.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than any such file.
    #[error("{what} {path:?} is larger than {most} bytes")]
    TooLarge {
        /// The name of such a file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The most bytes that it may have.
        most: u64,
    },
    /// Users other than the owner may read or write a file with secrets.
    #[error(
        "{what} {path:?} is open to other users of this machine (mode {mode:03o}): run chmod 600 on it"
    )]
    OpenToOthers {
        /// The name of such a file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Users other than the owner may write to the file.
    #[error(
        "{what} {path:?} may be changed by other users of this machine (mode {mode:03o}): run chmod 644 on it"
    )]
    ChangeableByOthers {
        /// The name of such a file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// A kind of file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// Its name in an error, such as `the token file`.
    pub(crate) what: &'static str,
    /// What other users of the machine may do with it.
    pub(crate) mode: Mode,
    /// The most bytes of such a file; none for no limit.
    pub(crate) most: Option<u64>,
}

/// What other users of the machine may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: the file has secrets.
    Private,
    /// Read it, but not write to it.
    Readable,
}

/// The files that were read, or that could not be, each with its state before that.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<(PathBuf, State)>);

impl Seen {
    /// Reads a file, and remembers its state.
    pub(crate) fn read(&mut self, path: &Path, kind: Kind) -> Result<Vec<u8>, FileError> {
        let Kind { what, mode, most } = kind;
        let unreadable = |source| FileError::Unreadable { what, path: path.to_owned(), source };
        let metadata = std::fs::metadata(path);
        self.0.push((path.to_owned(), State::of(metadata.as_ref().ok())));
        let metadata = metadata.map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(FileError::NotAFile { what, path: path.to_owned() });
        }
        if let Some(most) = most.filter(|most| metadata.len() > *most) {
            return Err(FileError::TooLarge { what, path: path.to_owned(), most });
        }
        if let Some(found) = forbidden_mode(&metadata, mode) {
            let path = path.to_owned();
            return Err(match mode {
                Mode::Private => FileError::OpenToOthers { what, path, mode: found },
                Mode::Readable => FileError::ChangeableByOthers { what, path, mode: found },
            });
        }
        std::fs::read(path).map_err(unreadable)
    }

    /// Reads a file with text, and remembers its state.
    pub(crate) fn read_text(&mut self, path: &Path, kind: Kind) -> Result<String, FileError> {
        String::from_utf8(self.read(path, kind)?).map_err(|error| FileError::Unreadable {
            what: kind.what,
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()),
        })
    }

    /// Returns whether no file was read.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether one of the files was changed or replaced since, or exists no longer.
    pub(super) fn have_changed(&self) -> bool {
        self.0
            .iter()
            .any(|(path, state)| State::of(std::fs::metadata(path).ok().as_ref()) != *state)
    }
}

/// The state of a file; the default one if it cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct State {
    changed: Option<SystemTime>,
    bytes: u64,
    /// Another file at the same path, with the same size and time, differs by this.
    file: (u64, i64, i64),
}

impl State {
    fn of(metadata: Option<&Metadata>) -> Self {
        metadata.map_or_else(Self::default, |metadata| Self {
            changed: metadata.modified().ok(),
            bytes: metadata.len(),
            file: file(metadata),
        })
    }
}

#[cfg(unix)]
fn file(metadata: &Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn file(_: &Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

/// Returns the permissions of a file that other users may use in more ways than allowed.
#[cfg(unix)]
fn forbidden_mode(metadata: &Metadata, mode: Mode) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let forbidden = match mode {
        Mode::Private => 0o077,
        Mode::Readable => 0o022,
    };
    Some(metadata.permissions().mode() & 0o777).filter(|found| found & forbidden != 0)
}

/// Accepts every file, because other systems have other permissions.
#[cfg(not(unix))]
fn forbidden_mode(_: &Metadata, _: Mode) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { what: "the file", mode: Mode::Readable, most: Some(8) };

    #[test]
    fn a_file_that_is_written_or_replaced_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let look = || {
            let mut seen = Seen::default();
            drop(seen.read(&path, KIND));
            seen
        };
        let missing = look();
        assert!(!missing.have_changed());
        std::fs::write(&path, "one").unwrap();
        assert!(missing.have_changed());
        let first = look();
        assert!(!first.have_changed());
        let other = folder.path().join("other");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(first.have_changed());
        let second = look();
        std::fs::write(&path, "three").unwrap();
        assert!(second.have_changed());
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rights.json");
        std::fs::write(&path, "12345678").unwrap();
        assert_eq!(Seen::default().read_text(&path, KIND).unwrap(), "12345678");
        std::fs::write(&path, "123456789").unwrap();
        let error = Seen::default().read(&path, KIND).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { most: 8, .. }), "{error:?}");
    }
}
