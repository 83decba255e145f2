//! Files that are read line by line, gzipped or not: streams and tables.
//!
//! 1. A line has a limit, so a file that is no stream takes no memory.
//! 2. An error about a line has its number, never its content.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;

use fieldbook::limits;
use flate2::read::MultiGzDecoder;

use crate::failure::Failure;

/// The longest line: a mutation is at most an op.
const LINE_BYTES: usize = 4 * limits::OP_BYTES;

/// The number of bytes that are read from a file at a time.
pub(crate) const BUFFER: usize = 64 * 1024;
/// The first bytes of a gzipped file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The source of a stream or a table.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, gzipped or not.
    File(PathBuf),
    /// Bytes of the program itself.
    Shipped {
        /// Its name in messages.
        name: &'static str,
        /// Its content.
        bytes: &'static [u8],
    },
}

impl Source {
    /// Returns its name in messages.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::File(path) => path.to_string_lossy(),
            Self::Shipped { name, .. } => Cow::Borrowed(name),
        }
    }

    /// Opens it at its start, unpacked.
    pub(crate) fn open(&self) -> Result<Box<dyn BufRead>, Failure> {
        let mut raw: Box<dyn BufRead> = match self {
            Self::File(path) => {
                let file = File::open(path).map_err(|error| {
                    Failure::new(format!("cannot read {}", path.display())).because(error)
                })?;
                Box::new(BufReader::with_capacity(BUFFER, file))
            }
            Self::Shipped { bytes, .. } => Box::new(Cursor::new(*bytes)),
        };
        let start = raw.fill_buf().map_err(|error| self.unreadable(error))?;
        if start.starts_with(&GZIP) {
            return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw))));
        }
        Ok(raw)
    }

    /// Returns whether its lines can be read out of order.
    pub(crate) fn is_plain_file(&self) -> Result<bool, Failure> {
        let Self::File(path) = self else { return Ok(false) };
        let mut start = [0; 2];
        let mut file = File::open(path).map_err(|error| {
            Failure::new(format!("cannot read {}", path.display())).because(error)
        })?;
        // A file of fewer than two bytes has no mutation, packed or not.
        Ok(file.read_exact(&mut start).is_ok() && start != GZIP)
    }

    pub(crate) fn unreadable(&self, error: std::io::Error) -> Failure {
        Failure::new(format!("{} cannot be read to its end", self.name())).because(error)
    }
}

/// Reads lines with a limit, with their numbers and places.
pub(crate) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
    offset: u64,
}

/// One line.
pub(crate) struct Line<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) number: u64,
    pub(crate) offset: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(reader: R) -> Self {
        Self::from_line(reader, 1)
    }

    /// Reads from the middle of a file. The next line has this number.
    pub(crate) const fn from_line(reader: R, next: u64) -> Self {
        Self { reader, line: Vec::new(), number: next - 1, offset: 0 }
    }

    /// Reads the next line, or `None` at the end.
    pub(crate) fn next(&mut self, source: &Source) -> Result<Option<Line<'_>>, Failure> {
        let offset = self.offset;
        self.line.clear();
        let mut bounded = self.reader.by_ref().take(LINE_BYTES as u64 + 1);
        let read =
            bounded.read_until(b'\n', &mut self.line).map_err(|error| source.unreadable(error))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if read > LINE_BYTES {
            return Err(at_line(source, self.number, format!("is longer than {LINE_BYTES} bytes")));
        }
        self.offset += read as u64;
        Ok(Some(Line { text: &self.line, number: self.number, offset }))
    }
}

/// Makes a failure about a line.
pub(crate) fn at_line(source: &Source, number: u64, what: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{}, line {number} {what}", source.name()))
}

pub(crate) fn is_blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}
