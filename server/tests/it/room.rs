//! How much a tenant may keep.

use std::collections::BTreeMap;

use fieldbook::{Book, BookOptions, Fields, HttpOptions, HttpRemote, RunOptions};
use fieldbook_core::OpKind;
use fieldbook_core::protocol::Outcome;

use crate::support::*;

fn has_no_room(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Transient { code, .. } if code == "quota_exceeded")
}

/// There were no limits, so that one tenant could fill the disk for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_without_room_waits_loses_nothing_and_goes_on_once_there_is_some() {
    let two = |options: &mut fieldbook_server::ServeOptions| options.tenant_records = Some(2);
    let running = start_changed(None, two).await;
    running.sent(1, create("lead/1")).await;
    running.sent(2, create("lead/2")).await;
    // The amount that a tenant keeps is known after a restart.
    let running = running.restarted_changed(two).await;
    assert!(has_no_room(&running.sent(3, create("lead/3")).await));
    let same = change("lead/1", OpKind::Update, Some(1), r#"{"name":"Bob"}"#);
    assert!(matches!(running.sent(4, same).await, Outcome::Applied { .. }));
    assert!(matches!(
        running.sent(5, change("lead/2", OpKind::Delete, Some(2), "")).await,
        Outcome::Applied { .. }
    ));

    let folder = tempfile::tempdir().unwrap();
    let book =
        Book::create_new(folder.path().join("ann.fieldbook"), BookOptions::new("ann").unwrap())
            .unwrap();
    let remote = HttpRemote::new(&running.url(), HttpOptions::default()).unwrap();
    book.records().create("lead/9".parse().unwrap(), Fields::new()).unwrap();
    for _ in 0..3 {
        book.sync(&remote, &RunOptions::default()).await.unwrap();
    }
    assert!(book.records().get(&"lead/1".parse().unwrap()).unwrap().is_some(), "reading goes on");
    assert!(book.dead_letters().all().unwrap().is_empty());
    assert_eq!(book.records().get(&"lead/9".parse().unwrap()).unwrap().unwrap().pending, 1);

    let running = running.restarted().await;
    assert!(matches!(running.sent(3, create("lead/3")).await, Outcome::Applied { .. }));
    assert_eq!(running.exchange(&pull(BTreeMap::new(), 10)).await.changes.len(), 3);
}
