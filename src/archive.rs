//! Writes the oldest entries of a book to a file of their own: an exported log.
//!
//! ```text
//!   write aside ─► verify what was written ─► sync ─► the file gets its name ─► sync the folder
//! ```
//!
//! A file whose name ends in `.gz` has members of about 1 MiB, each of which ends where an entry
//! does. What decompresses it gets the exported log.
//!
//! Invariants:
//! 1. A file at the path is the whole log up to the entry, on the disk, and verified.
//! 2. A file that exists is not overwritten.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use fieldbook_core::log::{
    Exported, StoreError, entries, export_up_to, not_made, read_entry, verify_export,
};
use fieldbook_core::new_file::new_file;
use fieldbook_core::{Hash, Seq};

use crate::error::Error;
use crate::gate::Gate;

const ARCHIVING: &str = "writing the archive";

/// Writes the entries up to a place to a new file, and verifies what was written. Returns the sum
/// at the end of the exported log.
///
/// # Errors
/// [`Error::Store`] if the path exists, the log is damaged, or the disk fails; [`Error::Misuse`] if
/// the file is to be compressed and the program cannot. There is no new file then, unless only the
/// sync of the folder fails.
pub(crate) fn write_archive(store: &Gate, upto: Seq, path: &Path) -> Result<Hash, Error> {
    let is_compressed = path.extension().is_some_and(|end| end == "gz");
    if is_compressed && !cfg!(feature = "archive") {
        return Err(Error::Misuse("a compressed archive needs the feature `archive`"));
    }
    let disk = StoreError::disk(ARCHIVING);
    let mut sum = Hash::ZERO;
    let fill = |mut file: File| -> Result<(), Error> {
        let open = || entries(&store.begin_read()?);
        let written = {
            let mut writer = BufWriter::new(&file);
            let written = export_compressed(is_compressed, upto, open, &mut writer)?;
            writer.flush().map_err(&disk)?;
            written
        };
        file.rewind().map_err(&disk)?;
        let damaged = |damage| StoreError::corrupt("the archive", None, damage);
        let mut read = decompressed(is_compressed, BufReader::new(&file));
        let head = verify_export(&mut read).map_err(damaged)?.head;
        let last = read_entry(&open()?, upto)?;
        let is_whole = head.map(|head| head.hash) == last.map(|entry| entry.hash);
        if !is_whole {
            return Err(StoreError::corrupt("the archive", None, "it ends too early").into());
        }
        sum = written.sum;
        Ok(())
    };
    new_file(path, fill).map_err(|error| not_made(error, path, ARCHIVING))?;
    Ok(sum)
}

#[cfg(feature = "archive")]
fn export_compressed<T: redb::ReadableTable<u64, &'static [u8]>>(
    is_compressed: bool,
    upto: Seq,
    open: impl FnMut() -> Result<T, StoreError>,
    writer: &mut impl Write,
) -> Result<Exported, StoreError> {
    if is_compressed {
        return export_up_to(upto, open, &mut Members(writer));
    }
    export_up_to(upto, open, writer)
}

#[cfg(not(feature = "archive"))]
fn export_compressed<T: redb::ReadableTable<u64, &'static [u8]>>(
    _: bool,
    upto: Seq,
    open: impl FnMut() -> Result<T, StoreError>,
    writer: &mut impl Write,
) -> Result<Exported, StoreError> {
    export_up_to(upto, open, writer)
}

/// Compresses each part that is written to a member of its own.
#[cfg(feature = "archive")]
struct Members<W>(W);

#[cfg(feature = "archive")]
impl<W: Write> Write for Members<W> {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        let mut member = flate2::write::GzEncoder::new(&mut self.0, flate2::Compression::default());
        member.write_all(part)?;
        member.finish()?;
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(feature = "archive")]
fn decompressed<'r>(is_compressed: bool, reader: impl std::io::BufRead + 'r) -> Box<dyn Read + 'r> {
    if is_compressed {
        return Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    Box::new(reader)
}

#[cfg(not(feature = "archive"))]
fn decompressed<'r>(_: bool, reader: impl Read + 'r) -> Box<dyn Read + 'r> {
    Box::new(reader)
}
