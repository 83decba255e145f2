//! The lists and the search of real books on the paths of a walk: they are those of the walk's
//! devices, and those that a scan finds.

use std::collections::BTreeSet;

use fieldbook::{Book, EntityType};
use fieldbook_core::index::Conditions;
use serde_json::Value;

use super::super::device::Device;
use super::super::lists::{LISTED_FROM, List};
use super::super::world::Ground;
use crate::scored::scored;
use crate::world::lists::{Images, check_lists};
use crate::world::live::{Followed, follow};

/// How often, in steps, the words are folded before a search.
const FOLDED_EVERY: usize = 3;

/// The live lists of real books: of each index of each book those of one row, and of three.
pub(super) struct Lists(Vec<Vec<Followed>>);

impl Lists {
    pub(super) fn of(books: &[Book]) -> Self {
        let lists = |book: &Book| {
            [1, 3].into_iter().flat_map(|rows| follow(book, rows).unwrap()).collect::<Vec<_>>()
        };
        Self(books.iter().map(lists).collect())
    }

    /// Checks the lists of a book, against a scan and against those of the walk's device.
    pub(super) fn check(
        &mut self,
        ground: &Ground,
        (number, book, device): (usize, &Book, &Device),
        step: usize,
    ) -> Result<(), String> {
        let broken = |broken: crate::broken::Broken| broken.to_string();
        check_lists(book).map_err(broken)?;
        for list in &mut self.0[number] {
            list.check(book).map_err(broken)?;
        }
        let entity = &ground.keys[0].entity;
        check_pages(ground, entity, book, device)?;
        if step.is_multiple_of(FOLDED_EVERY) {
            book.fold_search().unwrap();
        }
        check_search(ground, entity, book)
    }
}

fn check_pages(
    ground: &Ground,
    entity: &EntityType,
    book: &Book,
    device: &Device,
) -> Result<(), String> {
    for asked in &ground.declared.lists {
        let query = book.records().query(entity, asked.rule.name()).limit(asked.limit);
        let is_bounded = asked.conditions != Conditions::default();
        let query = if is_bounded { query.range(LISTED_FROM..) } else { query };
        let page = query.page().unwrap();
        let real: Vec<_> = page
            .items
            .iter()
            .map(|row| (row.id.clone(), row.version, row.pending, row.value.as_str().to_owned()))
            .collect();
        let list = List::read(ground, asked, device, &device.kept).unwrap();
        let walked: Vec<_> = list
            .rows
            .iter()
            .map(|row| {
                let shown = &row.shown;
                (row.id.clone(), shown.version, shown.pending, shown.image.as_str().to_owned())
            })
            .collect();
        if (&walked, list.next.is_some()) != (&real, page.next.is_some()) {
            return Err(format!("{}: walked {walked:?}, real {real:?}", asked.rule.name()));
        }
    }
    Ok(())
}

/// Searches for each value, and for the values of each record together.
fn check_search(ground: &Ground, entity: &EntityType, book: &Book) -> Result<(), String> {
    let records = book.records().list(entity, None, usize::MAX).unwrap();
    let images: Images = records
        .iter()
        .map(|record| (record.id.to_owned(), serde_json::from_str(record.json).unwrap()))
        .collect();
    let mut asked: BTreeSet<String> = BTreeSet::from(["1".to_owned(), "10".to_owned()]);
    for image in images.values() {
        let texts: Vec<_> = image.values().map(Value::to_string).collect();
        asked.insert(texts.join(" "));
        asked.extend(texts);
    }
    for asked in asked.iter().filter(|asked| !asked.is_empty()) {
        let found = book.records().search(entity, asked).limit(usize::MAX).run().unwrap();
        let found: Vec<_> =
            found.iter().map(|hit| (hit.row.id.as_str().to_owned(), hit.points)).collect();
        let records = images.iter().map(|(id, image)| (id.as_str(), image));
        let wanted = scored(&ground.declared.search, records, asked);
        if found != wanted {
            return Err(format!("a search for {asked:?} finds {found:?}, not {wanted:?}"));
        }
    }
    Ok(())
}
