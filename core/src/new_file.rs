//! Makes a new file, whole or not at all; replaces one, and removes one.
//!
//! Invariants:
//! 1. A path has either the whole new file or its earlier content: the file is filled under another
//!    name in the same folder, synced, and then moved to its path.
//! 2. Only [`replace_file`] and [`replace_file_by_path`] replace an existing file. A reader finds
//!    the earlier content or the new one, whole.
//! 3. A file that was made survives a loss of power. A failure leaves no file, unless only the sync
//!    of the folder fails.
//! 4. A file that was removed stays removed after a loss of power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{PathPersistError, TempPath};

/// The reason why a file was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewFileError<E> {
    /// A file of this name exists already.
    #[error("a file of this name exists already")]
    Exists,
    /// No file can be made in the folder.
    #[error("no file can be made in {folder:?}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The disk failed.
    #[error("the disk failed while {during}")]
    Disk {
        /// The step that failed.
        during: &'static str,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// `fill` failed.
    #[error("the file could not be filled")]
    Filling(E),
}

/// Makes a file and calls `fill` to write its content.
///
/// # Errors
/// [`NewFileError`].
pub fn new_file<E>(
    path: &Path,
    fill: impl FnOnce(File) -> Result<(), E>,
) -> Result<(), NewFileError<E>> {
    let folder = folder_of(path);
    let disk = |during| move |source| NewFileError::Disk { during, source };
    let (file, temporary) = tempfile::Builder::new()
        .prefix(".fieldbook-")
        .suffix(".new")
        .tempfile_in(folder)
        .map_err(|source| NewFileError::Folder { folder: folder.to_owned(), source })?
        .into_parts();
    fill(file).map_err(NewFileError::Filling)?;
    // `fill` may have synced the content already. This also syncs the file's length and times on
    // systems that keep them apart.
    let filled = OpenOptions::new().read(true).write(true).open(&temporary);
    filled.and_then(|file| file.sync_all()).map_err(disk("syncing the new file"))?;
    temporary.persist_noclobber(path).map_err(|failure| match failure.error.kind() {
        io::ErrorKind::AlreadyExists => NewFileError::Exists,
        _ => disk("moving the new file into place")(failure.error),
    })?;
    sync_folder(folder).map_err(disk("syncing the folder of the new file"))
}

/// Makes a file like [`new_file`], for a `fill` that needs a path at which nothing exists yet.
///
/// # Errors
/// [`NewFileError`].
pub fn new_file_by_path<T, E>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, NewFileError<E>> {
    by_path(path, fill, |new, path| new.persist_noclobber(path))
}

/// Makes a file like [`new_file_by_path`], in place of the file that is there.
///
/// # Errors
/// [`NewFileError`], never [`NewFileError::Exists`]. The path has its earlier file, unless only the
/// sync of the folder fails.
pub fn replace_file_by_path<T, E>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, NewFileError<E>> {
    by_path(path, fill, |new, path| new.persist(path))
}

fn by_path<T, E>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<T, E>,
    put: impl FnOnce(TempPath, &Path) -> Result<(), PathPersistError>,
) -> Result<T, NewFileError<E>> {
    let folder = folder_of(path);
    let disk = |during| move |source| NewFileError::Disk { during, source };
    let temporary = tempfile::Builder::new()
        .prefix(".fieldbook-")
        .tempdir_in(folder)
        .map_err(|source| NewFileError::Folder { folder: folder.to_owned(), source })?;
    let inside = temporary.path().join("new");
    let filled = fill(&inside).map_err(NewFileError::Filling)?;
    let inside = TempPath::try_from_path(inside).map_err(disk("filling the new file"))?;
    put(inside, path).map_err(|failure| match failure.error.kind() {
        io::ErrorKind::AlreadyExists => NewFileError::Exists,
        _ => disk("moving the new file into place")(failure.error),
    })?;
    sync_folder(folder).map_err(disk("syncing the folder of the new file"))?;
    Ok(filled)
}

/// Puts a file with this content at a path, in place of the file that is there.
///
/// # Errors
/// The error of the operating system. The path has its earlier content, unless only the sync of the
/// folder fails.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    let mut file =
        tempfile::Builder::new().prefix(".fieldbook-").suffix(".new").tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|failure| failure.error)?;
    sync_folder(folder)
}

/// Returns the folder of a file.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes a file for good: its name is gone after a loss of power too. The file system may keep
/// the bytes until it writes over them.
///
/// # Errors
/// The error of the operating system. The file is unchanged if it could not be removed.
pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_folder(folder_of(path))
}

/// Makes a new name, or the end of one, durable. Only Unix needs and allows this call. Other file
/// systems do it by themselves, or cannot do it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_and_a_failure_leaves_the_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.json");
        for content in ["first", "second"] {
            replace_file(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(names(folder.path()), ["view.json"]);
        let (taken, inside) = (folder.path().join("taken"), folder.path().join("taken/inside"));
        fs::create_dir_all(inside).unwrap();
        assert!(replace_file(&taken, b"a file").is_err(), "a folder with something in it");
        assert!(replace_file(&path.join("no folder"), b"a file").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
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
        let failed =
            new_file(&path, |mut file| file.write_all(b"half").and(Err(io::Error::other("full"))));
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
