//! Search beside the full-text search of SQLite (FTS5): building the words of all records, what
//! they take in the file, and queries.
//!
//! Both sides have the same leads with five searched fields, and the query returns the twenty best
//! with their text. FTS5 has no query with mistakes and none for a part of a word, and fieldbook's
//! queries look for parts too.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fieldbook::record::FieldsJson;
use fieldbook::search::SearchRule;
use fieldbook::{Book, BookOptions, EntityType};
use redb::{ReadableDatabase, ReadableTableMetadata, TableHandle};
use rusqlite::{Connection, params};

use crate::figure::{Figure, percentile};
use crate::leads::{Asked, lead_named, leads};
use crate::peer::{CACHE, Contender, Failure, Index};
use crate::race::{Setting, Stopwatch};
use crate::sample::Sample;

pub(crate) const NAME: &str = "search of 100,000 records";
const FIELDS: [(&str, u32); 5] =
    [("name", 4), ("company", 2), ("email", 1), ("phone", 1), ("city", 1)];
const QUERIES: usize = 400;
/// Between two writes beside the build.
const PAUSE: Duration = Duration::from_millis(20);
/// The first queries of each kind, which warm the caches of both sides.
const WARMING: usize = 40;

/// The kinds of queries with their goals, in seconds.
const KINDS: [(&str, Asked, f64); 3] = [
    ("search, beginning of 4 letters, 95 of 100 within", Asked::Beginning, 0.005),
    ("search, two words, 95 of 100 within", Asked::TwoWords, 0.005),
    ("search, two letters swapped, 95 of 100 within", Asked::Mistake, 0.05),
];

/// Measures both sides on the same leads.
pub(crate) fn measure(setting: &Setting) -> Result<Vec<Figure>, Failure> {
    let leads = leads(setting.scaled(100_000));
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&setting.folder)?;
    let takes_part = |contender: Contender| contender.name().contains(&setting.peer);
    let mut figures = vec![
        Figure::seconds("search, build of 100,000", Some(5.0)),
        Figure::bytes("search, pages of the words", Some(60e6)),
        Figure::seconds("search, longest write beside the build", Some(0.05)),
    ];
    figures.extend(KINDS.map(|(name, _, goal)| Figure::seconds(name, Some(goal))));
    if takes_part(Contender::Sqlite) {
        let times = sqlite(folder.path(), &leads)?;
        fill(&mut figures, times, |figure, value| figure.sqlite = value);
    }
    if takes_part(Contender::Fieldbook) {
        let times = fieldbook(folder.path(), &leads)?;
        fill(&mut figures, times, |figure, value| figure.fieldbook = value);
    }
    Ok(figures)
}

fn fill(figures: &mut [Figure], values: Vec<Option<f64>>, set: fn(&mut Figure, Option<f64>)) {
    figures.iter_mut().zip(values).for_each(|(figure, value)| set(figure, value));
}

fn fieldbook(folder: &Path, leads: &[Sample]) -> Result<Vec<Option<f64>>, Failure> {
    let mut peer = Contender::Fieldbook.open(folder, CACHE, Index::AsItIs)?;
    for (page, cursor) in leads.chunks(5_000).zip(1..) {
        peer.ready_page(page, cursor)?;
        peer.apply(page, cursor)?;
    }
    drop(peer);
    let file = folder.join("peer.book");
    let lead = EntityType::parse("lead")?;
    let rule =
        FIELDS.iter().fold(SearchRule::new(), |rule, (name, weight)| rule.field(*name, *weight));
    let options = BookOptions::new("bench")?.cache_bytes(CACHE << 20);
    let book = Book::open(&file, options.search(lead.clone(), rule))?;
    let watch = Stopwatch::start();
    let longest = build_beside_a_writer(&book)?;
    let seconds = watch.read().as_secs_f64();
    let mut values = vec![Some(seconds), None, Some(longest)];
    for (_, asked, _) in KINDS {
        values.push(times_of(asked, |words| {
            let hits = book.records().search(&lead, words).limit(20).run()?;
            hits.iter().for_each(|hit| _ = black_box(hit.row.value.as_str().len()));
            Ok(!hits.is_empty())
        })?);
    }
    book.close()?;
    if let Some(bytes) = values.get_mut(1) {
        *bytes = Some(pages_of_words(&file)?);
    }
    Ok(values)
}

/// Folds all words, while another thread writes now and then. Returns the longest time that a write
/// took.
fn build_beside_a_writer(book: &Book) -> Result<f64, Failure> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut longest: f64 = 0.0;
            for number in 0_u64.. {
                let note = format!("note/{number}").parse()?;
                let watch = Stopwatch::start();
                book.records().create(note, FieldsJson::parse("{}")?)?;
                longest = longest.max(watch.read().as_secs_f64());
                if done.load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
            Ok::<_, Failure>(longest)
        });
        let folded = book.fold_search();
        done.store(true, Ordering::SeqCst);
        let longest = writer.join().map_err(|_| WRONG)?;
        folded?;
        longest
    })
}

/// Returns the bytes of the pages of the tables of words, with what is free in them.
fn pages_of_words(file: &Path) -> Result<f64, Failure> {
    let failed = |error: redb::Error| Failure::Io(std::io::Error::other(error));
    let database = redb::Database::open(file).map_err(|error| failed(error.into()))?;
    let snapshot = database.begin_read().map_err(|error| failed(error.into()))?;
    let mut bytes = 0;
    for table in snapshot.list_tables().map_err(|error| failed(error.into()))? {
        if table.name().starts_with("search-") {
            let table = snapshot.open_untyped_table(table).map_err(|error| failed(error.into()))?;
            let stats = table.stats().map_err(|error| failed(error.into()))?;
            bytes += stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
        }
    }
    Ok(bytes as f64)
}

const WRONG: Failure = Failure::Wrong { peer: "fieldbook", what: "found nothing" };

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE lead (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL);";
const WORDS: &str = "CREATE VIRTUAL TABLE words USING fts5
    (name, company, email, phone, city, content='', tokenize='unicode61', prefix='2 3')";
const FOLD: &str = "INSERT INTO words (rowid, name, company, email, phone, city)
    SELECT number, body ->> '$.name', body ->> '$.company', body ->> '$.email',
        body ->> '$.phone', body ->> '$.city' FROM lead";
const FIND: &str = "SELECT id, body FROM words JOIN lead ON number = words.rowid
    WHERE words MATCH ?1 ORDER BY rank LIMIT 20";

fn sqlite(folder: &Path, leads: &[Sample]) -> Result<Vec<Option<f64>>, Failure> {
    let mut connection = Connection::open(folder.join("leads.sqlite"))?;
    connection.execute_batch(SCHEMA)?;
    connection.execute_batch(&format!("PRAGMA cache_size = -{}", CACHE * 1_024))?;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare("INSERT INTO lead (id, body) VALUES (?1, ?2)")?;
        for lead in leads {
            insert.execute(params![lead.id, lead.json])?;
        }
    }
    transaction.commit()?;
    let before = pages(&connection)?;
    let watch = Stopwatch::start();
    connection.execute_batch(WORDS)?;
    connection.execute(FOLD, [])?;
    let seconds = watch.read().as_secs_f64();
    let grown = Some(pages(&connection)? - before);
    let mut values = vec![Some(seconds), grown, None];
    for (_, asked, _) in KINDS {
        // FTS5 knows no mistakes.
        values.push(match asked {
            Asked::Mistake => None,
            _ => times_of(asked, |words| found(&connection, asked, words))?,
        });
    }
    Ok(values)
}

fn found(connection: &Connection, asked: Asked, words: &str) -> Result<bool, Failure> {
    let mut find = connection.prepare_cached(FIND)?;
    let matched = if asked == Asked::Beginning { format!("{words}*") } else { words.to_owned() };
    let mut rows = find.query([matched])?;
    let mut any = false;
    while let Some(row) = rows.next()? {
        black_box(row.get::<_, String>(1)?.len());
        any = true;
    }
    Ok(any)
}

/// Returns the bytes of the file once everything is written into it.
fn pages(connection: &Connection) -> Result<f64, Failure> {
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    let of = |name: &str| connection.query_row(name, [], |row| row.get::<_, i64>(0));
    Ok((of("PRAGMA page_count")? * of("PRAGMA page_size")?) as f64)
}

/// Returns the time that 95 of 100 queries of a kind do not exceed. Each has to find something.
fn times_of(
    asked: Asked,
    mut find: impl FnMut(&str) -> Result<bool, Failure>,
) -> Result<Option<f64>, Failure> {
    let mut seconds = Vec::with_capacity(QUERIES);
    for number in 0..WARMING + QUERIES {
        let words = asked.of(&lead_named(number));
        let watch = Stopwatch::start();
        let any = find(&words)?;
        if number >= WARMING {
            seconds.push(watch.read().as_secs_f64());
        }
        if !any {
            return Err(WRONG);
        }
    }
    Ok(percentile(seconds, 95))
}
