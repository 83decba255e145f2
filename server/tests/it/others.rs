//! A request does not grow with the entity types that a server has.

use fieldbook::sync::{ExchangeParams, NextStep};
use fieldbook::{Book, BookOptions, HttpOptions, HttpRemote, RunOptions};
use fieldbook_core::protocol::ExchangeRequest;

use crate::support::*;

fn next_request(book: &Book) -> ExchangeRequest {
    let ask = ExchangeParams {
        first: true,
        push: true,
        pull: true,
        batch_ops: 50,
        batch_bytes: 1_000_000,
        page_limit: 100,
    };
    match book.exchange().prepare(&ask).unwrap() {
        NextStep::Exchange(request) => request,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_all_was_read_a_request_names_one_cursor_for_every_entity_type() {
    let running = start().await;
    running
        .exchange(&request(vec![unit(1, (0..300).map(|n| create(&format!("t{n}/1"))).collect())]))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.fieldbook");
    let book = Book::create_new(&path, BookOptions::new("ann").unwrap()).unwrap();
    let remote = HttpRemote::new(&running.url(), HttpOptions::default()).unwrap();
    book.sync(&remote, &RunOptions::default()).await.unwrap();
    let small = next_request(&book);
    assert!(small.cursors.is_empty() && small.others.is_some());
    // A later change of a new entity type arrives, and our own change is sent.
    running.exchange(&request(vec![unit(2, vec![create("t7/2"), create("new/1")])])).await;
    book.records().create("t9/2".parse().unwrap(), fieldbook::Fields::new()).unwrap();
    let report = book.sync(&remote, &RunOptions::default()).await.unwrap();
    assert_eq!((report.units_acked, report.changes), (1, 2));

    // A late answer to the request from before moves nothing back.
    let late = running.exchange(&small).await;
    book.exchange().apply_answer(&small, late).unwrap();
    assert_eq!(running.exchange(&next_request(&book)).await.changes.len(), 0);

    // The book keeps a cursor for each type; the first request of a process names them.
    book.close().unwrap();
    let book = Book::open(&path, BookOptions::new("ann").unwrap()).unwrap();
    assert_eq!(next_request(&book).cursors.len(), 301);
    let report = book.sync(&remote, &RunOptions::default()).await.unwrap();
    assert_eq!(report.changes, 0, "it reads on where it was");
    assert!(next_request(&book).cursors.is_empty());
}
