//! The file of a book that is removed when the play ends: an ordinary file, except that it is never
//! synced to disk.
//!
//! No other process reads it, and a crash ends the play, so waiting for the disk after every commit
//! has no use. A fleet of hundreds would wait for little else.
//!
//! What it is not: storage for a book that anybody keeps. With `--books` the books are ordinary
//! files.

use std::fs::File;
use std::io;
use std::path::Path;

use redb::StorageBackend;
use redb::backends::FileBackend;

/// A file that is never synced to disk.
#[derive(Debug)]
pub(crate) struct Scratch(FileBackend);

impl Scratch {
    /// Opens a file, or makes an empty one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        FileBackend::new(file).map(Self).map_err(io::Error::other)
    }
}

impl StorageBackend for Scratch {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}
