//! The storage engine of books passes a test that an old version with a known fault
//! (`tests/known-bad`) fails.

use fieldbook_sim::disk;

#[path = "../../known-bad/src/engine.rs"]
mod engine;

#[test]
fn the_engine_that_books_are_kept_in_holds_where_a_bad_one_does_not() {
    let fared = engine::fare();
    assert!(fared.points > 100 && fared.images > 1_000, "{fared:?}");
    assert_eq!((fared.unopenable, fared.lost), (0, 0), "{fared:?}");
}
