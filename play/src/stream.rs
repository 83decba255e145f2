//! The mutation stream: its transactions, and their mutations.
//!
//! ```text
//!   pass 1   every line's heading     ─► an index: authors, transactions, places of their lines
//!   later    one transaction's lines  ─► its mutations, read when they are written
//! ```
//!
//! Invariants:
//! 1. The mutations of one transaction at a time are in memory. The index takes some hundred bytes
//!    for each transaction.
//! 2. An error about a line has its number, never its content.
//!
//! What it is not: a check of whether a mutation can be written. The book checks that.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use fieldbook::host::WallTime;
use fieldbook::record::OpKind;
use fieldbook::{Actor, Fields, RecordKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::source::{BUFFER, Line, Lines, Source, at_line, is_blank};

/// A stream that has been indexed.
pub(crate) struct Stream {
    source: Source,
    file: File,
    pub(crate) authors: Vec<Actor>,
    /// The transactions, in the order of the stream.
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) ops: u64,
}

/// The data of a transaction before its mutations are read.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    /// The number of its author.
    pub(crate) author: usize,
    /// The mainline position that it was written on top of.
    pub(crate) base: i64,
    /// The mainline position at which it arrived.
    pub(crate) position: i64,
    /// The time of its arrival.
    pub(crate) synced_at: WallTime,
    pub(crate) ops: u64,
    pieces: Vec<Piece>,
}

/// Adjacent lines.
#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: u64,
    bytes: u64,
    first_line: u64,
}

/// One mutation, read and checked as far as possible without a book.
pub(crate) struct StreamMutation {
    pub(crate) line: u64,
    pub(crate) key: RecordKey,
    pub(crate) kind: OpKind,
    pub(crate) fields: Fields,
    /// The size of its fields in a book, in bytes.
    pub(crate) bytes: usize,
    pub(crate) made_at: WallTime,
}

#[derive(Deserialize)]
struct Heading<'a> {
    #[serde(borrow)]
    author: Cow<'a, str>,
    #[serde(borrow)]
    tx: &'a RawValue,
    base_pos: i64,
    pos: i64,
    #[serde(borrow)]
    synced_at: Cow<'a, str>,
    #[serde(rename = "payload")]
    _payload: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    ts: Cow<'a, str>,
    op: OpKind,
    #[serde(borrow)]
    entity: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl Stream {
    /// Reads the stream once and indexes it. A gzipped stream is unpacked into the folder.
    pub(crate) fn index(source: Source, folder: &Path) -> Result<Self, Failure> {
        let mut lines = Lines::new(source.open()?);
        let mut spool = match source.is_plain_file()? {
            true => None,
            false => Some(Spool::create(folder)?),
        };
        let mut index = Index::default();
        while let Some(line) = lines.next(&source)? {
            if let Some(spool) = &mut spool {
                spool.write(line.text)?;
            }
            index.line(&source, &line)?;
        }
        if index.transactions.is_empty() {
            return Err(Failure::new(format!("{} has no mutations", source.name())));
        }
        let file = match (spool, &source) {
            (Some(spool), _) => spool.finish()?,
            (None, Source::File(path)) => {
                File::open(path).map_err(|error| source.unreadable(error))?
            }
            (None, Source::Shipped { .. }) => {
                return Err(Failure::new("shipped bytes are always unpacked"));
            }
        };
        let Index { authors, transactions, ops, .. } = index;
        Ok(Self { source, file, authors, transactions, ops })
    }

    pub(crate) const fn source(&self) -> &Source {
        &self.source
    }

    /// Reads a transaction's mutations, in order.
    pub(crate) fn mutations(&mut self, transaction: usize) -> Result<Vec<StreamMutation>, Failure> {
        let Some(Transaction { pieces, ops, .. }) = self.transactions.get(transaction) else {
            return Ok(Vec::new());
        };
        let mut mutations = Vec::with_capacity(usize::try_from(*ops).unwrap_or(0));
        for piece in pieces {
            self.file
                .seek(SeekFrom::Start(piece.offset))
                .map_err(|error| self.source.unreadable(error))?;
            let part = BufReader::with_capacity(BUFFER, (&self.file).take(piece.bytes));
            let mut lines = Lines::from_line(part, piece.first_line);
            while let Some(line) = lines.next(&self.source)? {
                if !is_blank(line.text) {
                    mutations.push(mutation(&self.source, &line)?);
                }
            }
        }
        Ok(mutations)
    }
}

#[derive(Default)]
struct Index {
    authors: Vec<Actor>,
    transactions: Vec<Transaction>,
    ops: u64,
    author_numbers: HashMap<String, usize>,
    transaction_numbers: HashMap<String, usize>,
}

impl Index {
    fn line(&mut self, source: &Source, line: &Line<'_>) -> Result<(), Failure> {
        if is_blank(line.text) {
            return Ok(());
        }
        let fault = |what: &str| at_line(source, line.number, what);
        let heading: Heading<'_> = serde_json::from_slice(line.text)
            .map_err(|error| fault("is not a mutation of the stream").because(error))?;
        if heading.base_pos >= heading.pos {
            return Err(fault("has a base_pos that is not below its pos"));
        }
        let synced_at = WallTime::parse(&heading.synced_at)
            .ok_or_else(|| fault("has a synced_at that is no RFC 3339 time"))?;
        let author = match self.author_numbers.get(heading.author.as_ref()) {
            Some(author) => *author,
            None => {
                let actor = Actor::parse(&heading.author)
                    .map_err(|error| fault("has an author that cannot be one").because(error))?;
                self.authors.push(actor);
                self.author_numbers.insert(heading.author.into_owned(), self.authors.len() - 1);
                self.authors.len() - 1
            }
        };
        self.ops += 1;
        let piece =
            Piece { offset: line.offset, bytes: line.text.len() as u64, first_line: line.number };
        let Some(number) = self.transaction_numbers.get(heading.tx.get()) else {
            self.transaction_numbers.insert(heading.tx.get().to_owned(), self.transactions.len());
            self.transactions.push(Transaction {
                author,
                base: heading.base_pos,
                position: heading.pos,
                synced_at,
                ops: 1,
                pieces: vec![piece],
            });
            return Ok(());
        };
        let Some(known) = self.transactions.get_mut(*number) else { return Ok(()) };
        if (known.author, known.base, known.position) != (author, heading.base_pos, heading.pos) {
            return Err(fault(
                "has another author, base_pos or pos than the rest of its transaction",
            ));
        }
        known.add(piece);
        Ok(())
    }
}

#[cfg(test)]
impl Transaction {
    /// Makes a transaction without mutations.
    pub(crate) fn new(author: usize, base: i64, position: i64) -> Self {
        Self { author, base, position, synced_at: WallTime::default(), ops: 0, pieces: Vec::new() }
    }
}

impl Transaction {
    fn add(&mut self, piece: Piece) {
        self.ops += 1;
        match self.pieces.last_mut() {
            Some(last) if last.offset + last.bytes == piece.offset => last.bytes += piece.bytes,
            _ => self.pieces.push(piece),
        }
    }
}

fn mutation(source: &Source, line: &Line<'_>) -> Result<StreamMutation, Failure> {
    let fault = |what: &str| at_line(source, line.number, what);
    let body: Body<'_> = serde_json::from_slice(line.text)
        .map_err(|error| fault("is not a mutation of the stream").because(error))?;
    let key = RecordKey::parse(&body.entity, &body.id)
        .map_err(|error| fault("names a record that cannot be one").because(error))?;
    let payload = body.payload.map_or("null", RawValue::get);
    let fields = match (body.op, payload) {
        (OpKind::Delete, _) => Fields::new(),
        (_, payload) => Fields::parse(payload)
            .map_err(|error| fault("has a payload that cannot be fields").because(error))?,
    };
    let made_at =
        WallTime::parse(&body.ts).ok_or_else(|| fault("has a ts that is no RFC 3339 time"))?;
    let bytes = fields.to_json().as_str().len();
    Ok(StreamMutation { line: line.number, key, kind: body.op, fields, bytes, made_at })
}

/// An unpacked copy of a gzipped stream, so that transactions can be read out of order.
struct Spool(BufWriter<File>);

impl Spool {
    fn create(folder: &Path) -> Result<Self, Failure> {
        let file = tempfile::tempfile_in(folder).map_err(Self::failed)?;
        Ok(Self(BufWriter::with_capacity(BUFFER, file)))
    }

    fn write(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.0.write_all(text).map_err(Self::failed)
    }

    fn finish(self) -> Result<File, Failure> {
        self.0.into_inner().map_err(|error| Self::failed(error.into_error()))
    }

    fn failed(error: std::io::Error) -> Failure {
        Failure::new("cannot unpack the stream into the temporary folder").because(error)
    }
}
