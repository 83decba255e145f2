//! A new file, whole or not at all.
//!
//! Invariants:
//! 1. A name leads to a whole file or to what it led to before: the file is filled under another name in the same folder, synced,
//!    and moved to its own.
//! 2. What stands under a name is never replaced.
//! 3. Once it is made, the file outlives a loss of power. What fails leaves no file.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Why a file was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewFileError<E> {
    /// Something stands under this name.
    #[error("something stands under this name")]
    Exists,
    /// Nothing can be made in the folder.
    #[error("nothing can be made in {folder:?}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The disk failed.
    #[error("the disk failed while {during}")]
    Disk {
        /// What was being done.
        during: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// What was to fill the file failed.
    #[error("the file could not be filled")]
    Filling(E),
}

/// Makes a file with what `fill` puts into it.
///
/// # Errors
/// [`NewFileError`].
pub fn new_file<E>(path: &Path, fill: impl FnOnce(File) -> Result<(), E>) -> Result<(), NewFileError<E>> {
    let folder = folder_of(path);
    let disk = |during| move |source| NewFileError::Disk { during, source };
    let (file, temporary) = tempfile::Builder::new()
        .prefix(".fieldbook-")
        .suffix(".new")
        .tempfile_in(folder)
        .map_err(|source| NewFileError::Folder { folder: folder.to_owned(), source })?
        .into_parts();
    fill(file).map_err(NewFileError::Filling)?;
    // Whoever filled it may have synced its content; this adds its length and times on systems that tell them apart.
    let filled = OpenOptions::new().read(true).write(true).open(&temporary);
    filled.and_then(|file| file.sync_all()).map_err(disk("syncing the new file"))?;
    temporary.persist_noclobber(path).map_err(|failure| match failure.error.kind() {
        io::ErrorKind::AlreadyExists => NewFileError::Exists,
        _ => disk("moving the new file into place")(failure.error),
    })?;
    sync_folder(folder).map_err(disk("syncing the folder of the new file"))
}

/// Returns the folder that a file stands in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a new name last. Only Unix can; elsewhere the file system does it by itself or not at all.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_there_with_all_that_was_put_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        new_file(&path, |mut file| file.write_all(b"whole")).unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), names(folder.path())),
            (b"whole".to_vec(), vec!["new".to_owned()])
        );
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let failed = new_file(&path, |mut file| file.write_all(b"half").and(Err(io::Error::other("full"))));
        assert!(matches!(failed, Err(NewFileError::Filling(_))));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn what_is_there_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        fs::write(&path, b"old").unwrap();
        let refused = new_file(&path, |mut file| file.write_all(b"new"));
        assert!(matches!(refused, Err(NewFileError::Exists)));
        assert_eq!((fs::read(&path).unwrap(), names(folder.path()).len()), (b"old".to_vec(), 1));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        match new_file(&missing.join("new"), |_| Ok::<_, io::Error>(())) {
            Err(NewFileError::Folder { folder, source }) => {
                assert_eq!((folder, source.kind()), (missing, io::ErrorKind::NotFound));
            }
            other => panic!("{other:?}"),
        }
    }
}
