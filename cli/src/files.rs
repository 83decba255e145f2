//! Files that a person names: which may be read, and which may be overwritten.
//!
//! 1. A pipe, a device or a folder is refused at once where a file is needed: opening a pipe waits
//!    until somebody writes to it.
//! 2. A book, a server's store or any other database is never overwritten, under whichever name.

use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::path::Path;

use fieldbook_core::log::{Redaction, redaction_in_export};
use flate2::bufread::MultiGzDecoder;

use crate::error::Failure;
use crate::show::plain;

/// The first bytes of a file of the storage engine: a book or a server's store.
const DATABASE_BEGINS: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// The first bytes of an exported log of any version.
const LOG_BEGINS: &[u8] = b"fieldbook-log ";

/// Returns a path for messages.
pub(crate) fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}

/// Opens a file for reading.
pub(crate) fn open(path: &Path) -> Result<File, Failure> {
    let failed = |error| Failure::new(format!("cannot read {}", shown(path))).because(error);
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() && !is_opened_by_the_shell(path) {
        return Err(Failure::new(format!("cannot read {}", shown(path)))
            .because(format!("it is {}, not a file", kind(&metadata))));
    }
    File::open(path).map_err(failed)
}

/// Checks that a path is a file, if it exists.
pub(crate) fn is_file(path: &Path) -> Result<(), Failure> {
    // The address may have a password, so it is not repeated.
    let is_url = |text: &str| text.starts_with("postgres://") || text.starts_with("postgresql://");
    if path.to_str().is_some_and(is_url) {
        return Err(Failure::usage("a file is needed here, and this is the address of a database")
            .hint("serve and restored take it with --store-file or --store"));
    }
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(Failure::new(format!("cannot read {}", shown(path)))
                .because(format!("it is {}, not a file", kind(&metadata))))
        }
        // Opening the file reports why it is missing or may not be read.
        _ => Ok(()),
    }
}

/// Checks that there is nothing at a path, for a command that never overwrites.
pub(crate) fn is_new(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Failure::new(format!("{} exists already", shown(path))).hint("choose another file"))
}

/// Checks that a path may be written to: it does not exist, or it may be overwritten and is no
/// database.
pub(crate) fn may_be_written(path: &Path, overwrite: bool) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    if !overwrite {
        return Err(Failure::new(format!("{} exists already", shown(path)))
            .hint("choose another file, or add --force to overwrite it"));
    }
    let refused = |why: String| {
        Failure::new(format!("{} is not overwritten", shown(path)))
            .because(why)
            .hint("choose another file")
    };
    // A link without a target counts as a missing file.
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    if !metadata.is_file() {
        return Err(refused(format!("it is {}, not a file", kind(&metadata))));
    }
    match begins_like_a_database(path) {
        Ok(false) => Ok(()),
        Ok(true) => Err(refused("it is a book, a server's store or another database".to_owned())),
        Err(error) => Err(refused(format!("its first bytes cannot be read: {error}"))),
    }
}

fn begins_like_a_database(path: &Path) -> io::Result<bool> {
    let mut beginning = Vec::with_capacity(DATABASE_BEGINS.len());
    File::open(path)?.take(DATABASE_BEGINS.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning == DATABASE_BEGINS)
}

/// Returns whether a file begins like an exported log, compressed or not. It returns false for a
/// file that cannot be read: opening it reports the reason.
pub(crate) fn begins_like_an_exported_log(path: &Path) -> bool {
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let mut beginning = Vec::with_capacity(LOG_BEGINS.len());
    let read = |log: Log| log.take(LOG_BEGINS.len() as u64).read_to_end(&mut beginning);
    is_file && File::open(path).and_then(log_in).and_then(read).is_ok() && beginning == LOG_BEGINS
}

/// An exported log that is read. What is compressed with gzip, as archives can be, is decompressed.
pub(crate) type Log = Box<dyn BufRead>;

/// Opens an exported log for reading.
pub(crate) fn open_log(path: &Path) -> Result<Log, Failure> {
    let failed = |error| Failure::new(format!("cannot read {}", shown(path))).because(error);
    log_in(open(path)?).map_err(failed)
}

/// Returns the exported log in a file.
pub(crate) fn log_in(file: impl Read + 'static) -> io::Result<Log> {
    let mut file = io::BufReader::new(file);
    if !file.fill_buf()?.starts_with(GZIP_BEGINS) {
        return Ok(Box::new(file));
    }
    Ok(Box::new(io::BufReader::new(MultiGzDecoder::new(file))))
}

/// The first bytes of a gzip file (RFC 1952).
const GZIP_BEGINS: &[u8] = &[0x1f, 0x8b];

/// Returns what a bundle leaves out; none for a file that is no bundle.
pub(crate) fn redaction_of(path: &Path) -> Result<Option<Redaction>, Failure> {
    if !begins_like_an_exported_log(path) {
        return Ok(None);
    }
    Ok(redaction_in_export(&mut open_log(path)?))
}

/// Returns whether a file is a bundle with values left out.
pub(crate) fn is_part(path: &Path) -> Result<bool, Failure> {
    Ok(redaction_of(path)?.is_some_and(|redaction| redaction.rule != "none"))
}

/// Returns whether the shell opened this path: its other end is connected already.
fn is_opened_by_the_shell(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
}

fn kind(metadata: &fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    "something else"
}
