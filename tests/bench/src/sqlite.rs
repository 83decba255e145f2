//! SQLite as an app of this kind would use it: WAL, synchronous=FULL, JSON as text, and a row of a
//! queue in the same transaction as each written record. Statements are prepared once.
//!
//! `WITHOUT ROWID` and the 32 MiB cache make it faster or equal (a text key in a rowid table needs
//! a second tree). One connection behind a lock is faster for 16 threads than 16 connections that
//! wait for each other's file lock.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value};

use crate::peer::{Failure, Index, Peer};
use crate::sample::{Event, Sample};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS record (id TEXT PRIMARY KEY, version INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS queue (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, body TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS cursor (entity TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS event
        (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, creates INTEGER NOT NULL, body TEXT NOT NULL, hash BLOB NOT NULL);";
const WRITE_RECORD: &str = "INSERT INTO record (id, version, body) VALUES (?1, 0, ?2)";
const WRITE_QUEUE: &str = "INSERT INTO queue (id, body) VALUES (?1, ?2)";
const READ: &str = "SELECT body FROM record WHERE id = ?1";
const PAGE: &str = "SELECT id, body FROM record WHERE id > ?1 ORDER BY id LIMIT ?2";
// A page may arrive twice or late: the version decides, as in fieldbook.
const APPLY: &str = "INSERT INTO record (id, version, body) VALUES (?1, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET version = excluded.version, body = excluded.body WHERE excluded.version > version";
const MOVE_CURSOR: &str = "INSERT INTO cursor (entity, position) VALUES ('lead', ?1)
    ON CONFLICT (entity) DO UPDATE SET position = excluded.position";
const FOLD_IN_SQL: &str =
    "INSERT INTO record (id, version, body) SELECT id, 0, body FROM event WHERE true ORDER BY id, seq
    ON CONFLICT (id) DO UPDATE SET body = json_patch(body, excluded.body)";
const BUILD_INDEX: &str = "CREATE INDEX IF NOT EXISTS by_stage ON record
    (json_extract(body, '$.stage'), json_extract(body, '$.value'))";
const DROP_INDEX: &str = "DROP INDEX IF EXISTS by_stage";
const PAGE_OF_STAGE: &str = "SELECT id, body FROM record
    WHERE json_extract(body, '$.stage') = ?1 AND json_extract(body, '$.value') <= ?2
    ORDER BY json_extract(body, '$.value') DESC LIMIT ?3";
const IN_MEMORY: &str = "folded in memory, inserted sorted";
const IN_SQL: &str = "one sorted upsert inside SQL";

pub(crate) struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    pub(crate) fn open(folder: &Path, cache: usize, index: Index) -> Result<Self, Failure> {
        let connection = Connection::open(folder.join("peer.sqlite"))?;
        connection.execute_batch(SCHEMA)?;
        connection.execute_batch(&format!("PRAGMA cache_size = -{}", cache * 1_024))?;
        match index {
            Index::AsItIs => {}
            Index::Built => connection.execute_batch(BUILD_INDEX)?,
            Index::Dropped => connection.execute_batch(DROP_INDEX)?,
        }
        Ok(Self { connection })
    }

    fn fold_in_memory(&mut self) -> Result<(), Failure> {
        let mut records: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        let transaction = self.connection.transaction()?;
        {
            let mut events = transaction.prepare("SELECT id, body FROM event ORDER BY seq")?;
            let mut rows = events.query([])?;
            while let Some(row) = rows.next()? {
                let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
                let body = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
                let patch: Map<String, Value> = serde_json::from_str(body)?;
                // The look-up takes a reference to the id first, because nine of ten events are of
                // an existing record.
                match records.get_mut(id) {
                    Some(record) => merge(record, patch),
                    None => drop(records.insert(id.to_owned(), patch)),
                }
            }
            let mut insert = transaction.prepare(WRITE_RECORD)?;
            for (id, body) in &records {
                insert.execute(params![id, serde_json::to_string(body)?])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

/// Merges a patch like RFC 7396 at the top level, which is all that these histories need.
fn merge(record: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(record.remove(&name)),
            value => drop(record.insert(name, value)),
        }
    }
}

fn write(connection: &mut Connection, records: &[Sample]) -> Result<(), Failure> {
    let transaction = connection.transaction()?;
    {
        let mut record_row = transaction.prepare_cached(WRITE_RECORD)?;
        let mut queue_row = transaction.prepare_cached(WRITE_QUEUE)?;
        for record in records {
            record_row.execute([&record.id, &record.json])?;
            queue_row.execute([&record.id, &record.json])?;
        }
    }
    Ok(transaction.commit()?)
}

fn link(previous: [u8; 32], event_id: &str, creates: bool, body: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&previous).update(&[u8::from(creates)]);
    for part in [event_id, body] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl Peer for Sqlite {
    fn rest(&mut self) -> Result<(), Failure> {
        Ok(self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?)
    }

    fn write(&mut self, record: &Sample) -> Result<(), Failure> {
        write(&mut self.connection, std::slice::from_ref(record))
    }

    fn write_in_one_commit(&mut self, records: &[Sample]) -> Result<(), Failure> {
        write(&mut self.connection, records)
    }

    fn write_from_threads(&mut self, slices: &[&[Sample]]) -> Result<(), Failure> {
        let connection = Mutex::new(&mut self.connection);
        crate::threads::run(slices, |record| {
            write(
                &mut connection.lock().unwrap_or_else(PoisonError::into_inner),
                std::slice::from_ref(record),
            )
        })
    }

    fn read_each(&mut self, ids: &[&str], take: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        let mut read = self.connection.prepare_cached(READ)?;
        for id in ids {
            let body: Option<String> = read.query_row([id], |row| row.get(0)).optional()?;
            take(&body.ok_or(Failure::Wrong { peer: "SQLite", what: "has lost a record" })?);
        }
        Ok(())
    }

    fn look_at_each(&mut self, ids: &[&str], look: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        let mut read = self.connection.prepare_cached(READ)?;
        for id in ids {
            let mut rows = read.query([id])?;
            let row =
                rows.next()?.ok_or(Failure::Wrong { peer: "SQLite", what: "has lost a record" })?;
            look(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?);
        }
        Ok(())
    }

    fn look_at_page(
        &mut self,
        after: &str,
        count: u32,
        look: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure> {
        let mut page = self.connection.prepare_cached(PAGE)?;
        let mut rows = page.query(params![after, count])?;
        while let Some(row) = rows.next()? {
            let text = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str()?);
            look(text(0)?, text(1)?);
        }
        Ok(())
    }

    fn page(
        &mut self,
        after: &str,
        count: u32,
        take: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure> {
        let mut page = self.connection.prepare_cached(PAGE)?;
        let rows = page.query_map(params![after, count], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
        rows.iter().for_each(|(id, body)| take(id, body));
        Ok(())
    }

    fn page_of_stage(
        &mut self,
        stage: &str,
        value: usize,
        count: u32,
        take: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Failure> {
        let mut page = self.connection.prepare_cached(PAGE_OF_STAGE)?;
        let of = params![stage, i64::try_from(value).unwrap_or(i64::MAX), count];
        let rows = page.query_map(of, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
        rows.iter().for_each(|(id, body)| take(id, body));
        Ok(())
    }

    fn apply(&mut self, page: &[Sample], cursor: u32) -> Result<(), Failure> {
        let transaction = self.connection.transaction()?;
        {
            let mut apply = transaction.prepare_cached(APPLY)?;
            for record in page {
                apply.execute(params![record.id, 1, record.json])?;
            }
            transaction.prepare_cached(MOVE_CURSOR)?.execute([cursor])?;
        }
        Ok(transaction.commit()?)
    }

    fn load(&mut self, history: &mut dyn Iterator<Item = Event>) -> Result<(), Failure> {
        let transaction = self.connection.transaction()?;
        let mut previous = [0; 32];
        {
            let mut insert = transaction
                .prepare("INSERT INTO event (id, creates, body, hash) VALUES (?1, ?2, ?3, ?4)")?;
            for event in history {
                previous = link(previous, &event.id, event.creates, &event.json);
                insert.execute(params![event.id, event.creates, event.json, previous])?;
            }
        }
        transaction.commit()?;
        Ok(self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?)
    }

    fn ways_to_rebuild(&self) -> &'static [&'static str] {
        &[IN_MEMORY, IN_SQL]
    }

    fn rebuild(&mut self, way: &'static str) -> Result<(), Failure> {
        self.connection.execute("DELETE FROM record", [])?;
        if way == IN_MEMORY {
            return self.fold_in_memory();
        }
        self.connection.execute(FOLD_IN_SQL, [])?;
        Ok(())
    }

    fn verify(&mut self) -> Result<(), Failure> {
        let mut previous = [0; 32];
        let mut events =
            self.connection.prepare("SELECT id, creates, body, hash FROM event ORDER BY seq")?;
        let mut rows = events.query([])?;
        while let Some(row) = rows.next()? {
            let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            let body = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            previous = link(previous, id, row.get(1)?, body);
            if row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)? != previous {
                return Err(Failure::Wrong { peer: "SQLite", what: "holds a broken link" });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::CACHE;
    use crate::sample::History;

    fn bodies(peer: &mut Sqlite) -> Vec<(String, Value)> {
        let mut bodies = Vec::new();
        peer.page("", 1_000, &mut |id, body| {
            bodies.push((id.to_owned(), serde_json::from_str(body).unwrap()));
        })
        .unwrap();
        bodies
    }

    #[test]
    fn both_ways_to_rebuild_give_the_same_records() {
        let folder = tempfile::tempdir().unwrap();
        let mut peer = Sqlite::open(folder.path(), CACHE, Index::AsItIs).unwrap();
        peer.load(&mut History::new(5, 2_000)).unwrap();
        peer.rebuild(IN_MEMORY).unwrap();
        let in_memory = bodies(&mut peer);
        peer.rebuild(IN_SQL).unwrap();
        assert_eq!(in_memory.len(), 200);
        assert_eq!(in_memory, bodies(&mut peer));
    }

    #[test]
    fn verify_finds_a_changed_event() {
        let folder = tempfile::tempdir().unwrap();
        let mut peer = Sqlite::open(folder.path(), CACHE, Index::AsItIs).unwrap();
        peer.load(&mut History::new(5, 100)).unwrap();
        peer.verify().unwrap();
        peer.connection
            .execute("UPDATE event SET body = replace(body, 'stage', 'stags') WHERE seq = 60", [])
            .unwrap();
        assert!(matches!(peer.verify(), Err(Failure::Wrong { .. })));
    }
}
