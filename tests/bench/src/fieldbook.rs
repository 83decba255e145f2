//! fieldbook through its public API, with the defaults: a 32 MiB cache, a schema that accepts every
//! entity type, the system's clock and randomness.
//!
//! Within the measured time it does more than its peers: it checks names and limits, refuses a
//! create of an existing record, writes each change into the hash-chained log as well as into the
//! record's row, and computes the visible record.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fieldbook::audit::Hlc;
use fieldbook::audit::Verification;
use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::record::{FieldsJson, OpId, Version};
use fieldbook::schema::IndexRule;
use fieldbook::sync::protocol::{Change, ExchangeAnswer, ExchangeRequest};
use fieldbook::sync::{Cursor, ExchangeParams, NextStep, ServerEpoch, ServerId};
use fieldbook::{
    Book, BookOptions, EntityRules, EntityType, Mutation, RecordId, RecordKey, Schema, limits,
};

use crate::peer::{CACHE, Failure, Index, Peer};
use crate::sample::{Event, Sample};

/// The number of events that are imported at a time outside the measured time.
const LOADED_TOGETHER: usize = 10_000;
const NOT_READY: Failure =
    Failure::Wrong { peer: "fieldbook", what: "was not given what it is to write" };

pub(crate) struct Fieldbook {
    pub(crate) book: Book,
    pub(crate) leads: EntityType,
    /// The writes, as text: parsing them is part of the measurement.
    writes: VecDeque<(RecordKey, String)>,
    pages: VecDeque<(ExchangeRequest, ExchangeAnswer)>,
}

impl Fieldbook {
    pub(crate) fn open(folder: &Path, cache: usize, index: Index) -> Result<Self, Failure> {
        let options = options(cache, index)?;
        Self::of(Book::open_or_create(folder.join("peer.book"), options)?)
    }

    /// Makes a book on a storage backend, with its index.
    pub(crate) fn on_backend(backend: impl redb::StorageBackend) -> Result<Self, Failure> {
        Self::of(Book::on_backend(backend, options(CACHE, Index::Built)?)?)
    }

    fn of(book: Book) -> Result<Self, Failure> {
        let leads = EntityType::parse("lead")?;
        Ok(Self { book, leads, writes: VecDeque::new(), pages: VecDeque::new() })
    }

    pub(crate) fn key(&self, id: &str) -> Result<RecordKey, Failure> {
        Ok(RecordKey::new(self.leads.clone(), RecordId::parse(id)?))
    }

    fn next_writes(&mut self, count: usize) -> Result<Vec<Mutation>, Failure> {
        if count > self.writes.len() {
            return Err(NOT_READY);
        }
        self.writes.drain(..count).map(creates).collect()
    }
}

fn options(cache: usize, index: Index) -> Result<BookOptions, Failure> {
    let by_stage = IndexRule::new("by_stage").asc("stage").asc("value");
    let schema = |indexes| Schema::open(EntityRules { indexes, ..EntityRules::default() });
    let options = BookOptions::new("bench")?.cache_bytes(cache << 20);
    Ok(match index {
        Index::AsItIs => options,
        Index::Built => options.schema(schema(vec![by_stage])),
        Index::Dropped => options.schema(schema(Vec::new())),
    })
}

/// Makes a mutation of text, like an app that has text.
fn creates((key, json): (RecordKey, String)) -> Result<Mutation, Failure> {
    Ok(Mutation::create(key, FieldsJson::parse(&json)?))
}

impl Peer for Fieldbook {
    fn ready(&mut self, records: &[Sample]) -> Result<(), Failure> {
        for record in records {
            self.writes.push_back((self.key(&record.id)?, record.json.clone()));
        }
        Ok(())
    }

    fn rest(&mut self) -> Result<(), Failure> {
        Ok(self.book.rest()?)
    }

    fn write(&mut self, _: &Sample) -> Result<(), Failure> {
        self.book.write(creates(self.writes.pop_front().ok_or(NOT_READY)?)?)?;
        Ok(())
    }

    fn write_in_one_commit(&mut self, records: &[Sample]) -> Result<(), Failure> {
        let mutations = self.next_writes(records.len())?;
        self.book.import(mutations)?;
        Ok(())
    }

    fn write_as_one(&mut self, records: &[Sample]) -> Result<(), Failure> {
        let mutations = self.next_writes(records.len())?;
        self.book.transaction(mutations)?;
        Ok(())
    }

    fn write_from_threads(&mut self, slices: &[&[Sample]]) -> Result<(), Failure> {
        let count: usize = slices.iter().map(|slice| slice.len()).sum();
        if count > self.writes.len() {
            return Err(NOT_READY);
        }
        let writes = Mutex::new(&mut self.writes);
        crate::threads::run(slices, |_| {
            let next = writes.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            self.book.write(creates(next.ok_or(NOT_READY)?)?)?;
            Ok(())
        })
    }

    fn read_each(&mut self, ids: &[&str], take: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        for id in ids {
            let record = self.book.records().get(&self.key(id)?)?;
            let record =
                record.ok_or(Failure::Wrong { peer: "fieldbook", what: "has lost a record" })?;
            take(record.json.as_str());
        }
        Ok(())
    }

    fn page(
        &mut self,
        after: &str,
        count: u32,
        take: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure> {
        let limit = usize::try_from(count).unwrap_or(usize::MAX);
        let page = self.book.records().list(&self.leads, Some(&RecordId::parse(after)?), limit)?;
        page.iter().for_each(|record| take(record.id, record.json));
        Ok(())
    }

    fn look_at_each(&mut self, ids: &[&str], look: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        for id in ids {
            let found = self.book.records().with(&self.key(id)?, |record| look(record.json))?;
            found.ok_or(Failure::Wrong { peer: "fieldbook", what: "has lost a record" })?;
        }
        Ok(())
    }

    fn look_at_page(
        &mut self,
        after: &str,
        count: u32,
        look: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure> {
        let mut left = count;
        self.book.records().scan(&self.leads, Some(&RecordId::parse(after)?), |record| {
            look(record.id, record.json);
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(())
    }

    fn page_of_stage(
        &mut self,
        stage: &str,
        value: usize,
        count: u32,
        take: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure> {
        let list = self.book.records().query(&self.leads, "by_stage").eq(stage).range(..=value);
        let limit = usize::try_from(count).unwrap_or(usize::MAX);
        let page = list.reversed().limit(limit).page()?;
        page.items.iter().for_each(|row| take(row.id.as_str(), row.value.as_str()));
        Ok(())
    }

    fn ready_page(&mut self, page: &[Sample], cursor: u32) -> Result<(), Failure> {
        let ask = ExchangeParams {
            first: false,
            push: false,
            pull: true,
            batch_ops: 0,
            batch_bytes: 0,
            page_limit: limits::PAGE_CHANGES,
        };
        let NextStep::Exchange(request) = self.book.exchange().prepare(&ask)? else {
            return Err(NOT_READY);
        };
        let answer = answer(&request, &self.leads, page, cursor)?;
        self.pages.push_back((request, answer));
        Ok(())
    }

    fn apply(&mut self, page: &[Sample], _: u32) -> Result<(), Failure> {
        let (request, answer) = self.pages.pop_front().ok_or(NOT_READY)?;
        let taken = self.book.exchange().apply_answer(&request, answer)?;
        if usize::try_from(taken.changes) == Ok(page.len()) {
            return Ok(());
        }
        Err(Failure::Wrong { peer: "fieldbook", what: "did not take a whole page in" })
    }

    fn load(&mut self, history: &mut dyn Iterator<Item = Event>) -> Result<(), Failure> {
        loop {
            let mutations = history.take(LOADED_TOGETHER).map(|event| {
                let (key, fields) = (self.key(&event.id)?, FieldsJson::parse(&event.json)?);
                Ok(if event.creates {
                    Mutation::create(key, fields)
                } else {
                    Mutation::update(key, fields)
                })
            });
            let mutations = mutations.collect::<Result<Vec<_>, Failure>>()?;
            if mutations.is_empty() {
                return Ok(());
            }
            self.book.import(mutations)?;
        }
    }

    fn ways_to_rebuild(&self) -> &'static [&'static str] {
        &["folded in memory, every table written sorted"]
    }

    fn rebuild(&mut self, _: &'static str) -> Result<(), Failure> {
        self.book.audit().rebuild(|_| {})?;
        Ok(())
    }

    fn verify(&mut self) -> Result<(), Failure> {
        match self.book.audit().verify(|_| {})? {
            Verification::Sound(_) => Ok(()),
            Verification::Damaged(_) => {
                Err(Failure::Wrong { peer: "fieldbook", what: "holds a broken link" })
            }
        }
    }
}

/// Returns the answer of a server that has these records as its next page.
fn answer(
    request: &ExchangeRequest,
    leads: &EntityType,
    page: &[Sample],
    cursor: u32,
) -> Result<ExchangeAnswer, Failure> {
    let time = WallTime::from_milliseconds(1_760_000_000_000);
    let mut random = SeededRandomness::from_number(u64::from(cursor));
    let changes = page.iter().map(|record| {
        Ok(Change {
            key: RecordKey::new(leads.clone(), RecordId::parse(&record.id)?),
            version: Version::new(1),
            edited_at: Hlc::at(time),
            op: OpId::new(time, &mut random),
            by: None,
            older: Vec::new(),
            floor: None,
            deleted: false,
            partial: false,
            fields: Some(FieldsJson::parse(&record.json)?),
        })
    });
    let cursor = Cursor::new(cursor.to_be_bytes().to_vec())
        .map_err(|_| Failure::Wrong { peer: "fieldbook", what: "refused a cursor" })?;
    let (server, epoch) = (ServerId::from_bytes([7; 16]), ServerEpoch::from_bytes([8; 16]));
    Ok(ExchangeAnswer {
        changes: changes.collect::<Result<_, Failure>>()?,
        cursors: [(leads.clone(), cursor)].into(),
        more: true,
        ..ExchangeAnswer::new(request.request, server, epoch, time)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{History, Samples};
    use crate::sqlite::Sqlite;

    fn bodies(peer: &mut dyn Peer) -> Vec<(String, serde_json::Value)> {
        let mut bodies = Vec::new();
        let mut take = |id: &str, body: &str| {
            bodies.push((id.to_owned(), serde_json::from_str(body).unwrap()));
        };
        peer.page("0", 1_000, &mut take).unwrap();
        bodies
    }

    #[test]
    fn a_book_and_sqlite_come_to_the_same_records_from_the_same_history() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = Fieldbook::open(folder.path(), CACHE, Index::AsItIs).unwrap();
        let mut sqlite = Sqlite::open(folder.path(), CACHE, Index::AsItIs).unwrap();
        for peer in [&mut book as &mut dyn Peer, &mut sqlite] {
            peer.load(&mut History::new(5, 2_000)).unwrap();
            for way in peer.ways_to_rebuild() {
                peer.rebuild(way).unwrap();
            }
            peer.verify().unwrap();
        }
        assert_eq!(bodies(&mut book).len(), 200);
        assert_eq!(bodies(&mut book), bodies(&mut sqlite));
    }

    #[test]
    fn a_page_is_applied_whole_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = Fieldbook::open(folder.path(), CACHE, Index::AsItIs).unwrap();
        let records = Samples::new(1).take(100);
        book.ready_page(&records, 1).unwrap();
        book.apply(&records, 1).unwrap();
        let read = bodies(&mut book);
        assert!(read.iter().map(|(id, _)| id).eq(records.iter().map(|record| &record.id)));
        assert!(matches!(book.apply(&records, 2), Err(Failure::Wrong { .. })), "nothing is ready");
    }
}
