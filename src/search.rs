//! Search: records by words, beginnings and parts of words, with mistakes in them, and by the
//! digits of phone numbers.
//!
//! ```
//! use fieldbook::search::SearchRule;
//! use fieldbook::{Book, BookOptions, EntityType, Fields};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let lead = EntityType::parse("lead")?;
//! let rule = SearchRule::new().field("name", 4).field("company", 2).field("phone", 1);
//! let options = BookOptions::new("ann")?.search(lead.clone(), rule);
//! let book = Book::create_new(folder.path().join("crm.book"), options)?;
//! let image = json!({"name": "Budi Santoso", "company": "Askrindo", "phone": "+62 812-3456"});
//! book.records().create("lead/1".parse()?, Fields::from_value(image)?)?;
//!
//! for asked in ["budi", "SANT", "ntos", "askrndo", "askrindo budi", "0812 3456"] {
//!     let hits = book.records().search(&lead, asked).limit(20).run()?;
//!     assert_eq!(hits.len(), 1, "{asked}");
//! }
//! let hit = book.records().search(&lead, "sant").run()?.remove(0);
//! let (field, range) = (&hit.matched[0].field, hit.matched[0].range.clone());
//! assert_eq!((field.as_str(), &"Budi Santoso"[range]), ("name", "Santoso"));
//! # Ok(())
//! # }
//! ```
//!
//! | what is asked for | what is found |
//! |---|---|
//! | several words | Records that have each of them, in any searched field. |
//! | a word | The word, one that begins so, or one that contains it if it has three letters. Case and accents do not matter. |
//! | a word that no record has so | Words with one mistake, from four letters on, or two, from eight on: a letter too many, missing or wrong, or two that changed places. |
//! | three digits or more, and what stands between them in a phone number | Phone numbers that contain the digits, without zeros at the beginning. |
//!
//! Invariants:
//! 1. A search finds what the app reads, so unsent changes too.
//! 2. No write folds words. A search folds those that lag behind, in parts, before it looks.
//!
//! What it is not: a search in the text of notes by relevance. A hit has the points of the best
//! fits, not of how often a word occurs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use fieldbook_core::search::{FieldWord, Word, asked_words, is_near, mistakes_of, words};
pub use fieldbook_core::search::{Fit, SearchRule};
use fieldbook_core::tail::Tail;
use fieldbook_core::{EntityType, FieldsJson, InvalidFields, RecordKey};
use fieldbook_projections::search::{Found, Lag};
use fieldbook_projections::{Snapshot, sound};

use crate::book::Book;
use crate::entity::Entity;
use crate::error::Error;
use crate::query::{Stored, fields_of, fill_in, no_record};
use crate::read::with_record;
use crate::record::RecordRef;
use crate::records::Records;

/// The number of hits, unless [`Search::limit`] sets another.
pub const HITS: usize = 20;

/// A record that was found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit<V> {
    /// The record, as in a list.
    pub row: Stored<V>,
    /// Its points. A hit with more points fits better.
    pub points: u64,
    /// The words of the record that fit, to be marked, in the order of the fields and texts.
    pub matched: Vec<Matched>,
}

/// A word of a record that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Matched {
    /// The field.
    pub field: String,
    /// The text that has the word: the field, or an element of it if it is a list.
    pub text: String,
    /// Where the word is in the text, in bytes.
    pub range: Range<usize>,
    /// How it fits.
    pub fit: Fit,
}

/// A search: [`Book::search`], [`Records::search`](Records::search).
#[derive(Debug, Clone)]
#[must_use = "a search is done by `run`"]
pub struct Search<'b, V> {
    book: &'b Book,
    entity: EntityType,
    asked: Vec<String>,
    limit: usize,
    value: fn(RecordRef<'_>) -> V,
}

impl<'b> Records<'b> {
    /// Returns a search for records of an entity type, with the fields as JSON text.
    pub fn search(self, entity: &EntityType, asked: &str) -> Search<'b, FieldsJson> {
        Search::new(self.book, entity.clone(), asked, fields_of)
    }
}

impl Book {
    /// Returns a search for records of an app's type. Its entity type is declared with
    /// [`BookOptions::search`](crate::BookOptions::search).
    pub fn search<E: Entity>(&self, asked: &str) -> Search<'_, Result<E, Error>> {
        Search::new(self, E::entity_type(), asked, |record| record.to())
    }

    /// Folds the words that lag behind, so that the next search begins at once. It works in parts,
    /// each a commit, so that writes come in between: up to 50 ms for 1,250 changed records. What
    /// is written while it works may lag behind again. Call it when the app has nothing else to do.
    ///
    /// # Errors
    /// [`Error::NotBuilt`] if words lag behind in a book that was opened read-only; [`Error::Store`]
    /// if the disk fails.
    pub fn fold_search(&self) -> Result<(), Error> {
        for (entity, rule) in &self.shared.searches {
            let Near { tail, snapshot, touched } = self.words_near(entity)?;
            drop(tail);
            if !touched.is_empty() {
                self.fold_words(entity, rule, snapshot)?;
            }
        }
        Ok(())
    }

    /// Folds words until a snapshot is near them, and returns the tail and the snapshot of that
    /// instant.
    fn words_near(&self, entity: &EntityType) -> Result<Near, Error> {
        let rule = self.shared.searches.get(entity).ok_or(Error::Misuse(
            "this entity type is not searched: declare its fields with `BookOptions::search`",
        ))?;
        loop {
            let (tail, snapshot) = self.shared.tail_and_snapshot()?;
            if let Lag::Near(touched) = snapshot.search_lag(entity, rule)? {
                return Ok(Near { tail, snapshot, touched });
            }
            drop(tail);
            self.fold_words(entity, rule, snapshot)?;
        }
    }

    /// Folds the next words that a snapshot has.
    fn fold_words(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
        snapshot: Arc<Snapshot>,
    ) -> Result<(), Error> {
        if self.shared.store.is_read_only() {
            return Err(Error::NotBuilt(ITS_WORDS));
        }
        // The parts are read here, so that the writer's turns have only to write them.
        let parts = snapshot.search_parts(entity, rule)?;
        drop(snapshot);
        for part in parts {
            self.shared.write_in_turn(|session| {
                session.fold_search(part);
                Ok(())
            })?;
        }
        Ok(())
    }
}

const ITS_WORDS: &str = "the words that a search reads";

/// The book at an instant that the words are near.
struct Near {
    tail: Tail,
    snapshot: Arc<Snapshot>,
    touched: BTreeMap<String, Vec<FieldWord>>,
}

impl<'b, V> Search<'b, V> {
    fn new(book: &'b Book, entity: EntityType, asked: &str, value: fn(RecordRef<'_>) -> V) -> Self {
        Self { book, entity, asked: asked_words(asked), limit: HITS, value }
    }

    /// Sets the most hits. The default is [`HITS`].
    pub const fn limit(mut self, hits: usize) -> Self {
        self.limit = hits;
        self
    }

    /// Searches, and returns the best hits: most points first, and equal points in the order of
    /// ids. Nothing is found if nothing is asked for.
    ///
    /// It costs a row for each place where a fitting word stands, so a beginning of one letter
    /// costs more than a word. If words lag behind, it folds them first: [`Book::fold_search`].
    ///
    /// # Errors
    /// [`Error::Misuse`] if the entity type is not declared for search; [`Error::NotBuilt`] if its
    /// words lag behind in a book that was opened read-only; [`Error::Store`] if the disk fails or a
    /// row cannot be read.
    pub fn run(&self) -> Result<Vec<Hit<V>>, Error> {
        let book = self.book;
        let near = book.words_near(&self.entity)?;
        let Some(rule) = book.shared.searches.get(&self.entity) else { return Ok(Vec::new()) };
        let found =
            near.snapshot.search(&self.entity, rule, &self.asked, &near.touched, self.limit)?;
        let hits = found.into_iter();
        let mut hits =
            hits.map(|found| self.hit(rule, found, &near)).collect::<Result<Vec<_>, _>>()?;
        let rows = hits.iter_mut().map(|hit| &mut hit.row);
        fill_in(rows, &self.entity, &self.book.shared, &near.tail, &near.snapshot)?;
        sound(&near.tail)?;
        Ok(hits)
    }

    /// Reads the record of a hit, with the status of a record without pending ops.
    fn hit(&self, rule: &SearchRule, found: Found, near: &Near) -> Result<Hit<V>, Error> {
        let Found { id, points } = found;
        let key = RecordKey::new(self.entity.clone(), id);
        let hit = with_record(&near.snapshot, &self.book.shared.schema, &key, |record| {
            let matched = matched(rule, &self.asked, record.json)?;
            let row = Stored::of(key.id.clone(), record, self.value);
            Ok::<_, InvalidFields>(Hit { row, points, matched })
        })?;
        hit.ok_or_else(no_record)?.map_err(Error::damaged)
    }
}

/// Returns the words of a record that fit, each with its best fit. Mistakes count for an asked word
/// that nothing else in the record fits.
fn matched(
    rule: &SearchRule,
    asked: &[String],
    image: &str,
) -> Result<Vec<Matched>, InvalidFields> {
    let mut found: Vec<(u8, String, Word)> = Vec::new();
    rule.texts(image, |field, text| {
        found.extend(words(text).into_iter().map(|word| (field, text.to_owned(), word)));
    })?;
    let fits =
        |asked: &String| found.iter().any(|(_, _, word)| Fit::of(asked, &word.text).is_some());
    let misspelled: Vec<(Vec<char>, usize)> = asked
        .iter()
        .filter(|asked| !fits(asked))
        .map(|asked| (asked.chars().collect(), mistakes_of(asked)))
        .collect();
    let best = |word: &str| {
        let fit = asked.iter().filter_map(|asked| Fit::of(asked, word)).max();
        let is_near = || misspelled.iter().any(|(asked, most)| is_near(asked, word, *most));
        fit.or_else(|| is_near().then_some(Fit::Mistake))
    };
    let matched = found.iter().filter_map(|(field, text, word)| {
        let (name, _) = rule.fields().get(usize::from(*field))?;
        let (field, text, range) = (name.clone(), text.clone(), word.range.clone());
        Some(Matched { field, text, range, fit: best(&word.text)? })
    });
    Ok(matched.collect())
}
