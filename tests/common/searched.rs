//! A book that is searched.
//!
//! It is apart from the scorer in `scored`, which the simulated world uses as well.

use fieldbook::search::SearchRule;
use fieldbook::{Book, EntityType};
use redb::backends::InMemoryBackend;

use crate::common::{TestClock, options};

pub(crate) fn lead() -> EntityType {
    EntityType::parse("lead").unwrap()
}

pub(crate) fn rule() -> SearchRule {
    SearchRule::new().field("name", 4).field("company", 2).field("phones", 1)
}

pub(crate) fn in_memory() -> Book {
    let options = options("ann", &TestClock::starting()).search(lead(), rule());
    Book::on_backend(InMemoryBackend::new(), options).unwrap()
}
