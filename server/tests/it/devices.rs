//! A device is known again by the key of its book.

use fieldbook::audit::Seq;
use fieldbook::sync::Stopped;
use fieldbook::{Book, BookOptions, Fields, HttpOptions, HttpRemote, RunOptions};
use fieldbook_core::protocol::{ExchangeRequest, HeadClaim};
use fieldbook_core::{DeviceKey, Hash};
use reqwest::StatusCode;
use serde_json::json;

use crate::support::*;

async fn written_and_synced(running: &Running, book: &Book, name: &str) {
    let mut fields = Fields::new();
    fields.set("a", 1);
    book.records().create(name.parse().unwrap(), fields).unwrap();
    let remote = HttpRemote::new(&running.url(), HttpOptions::default()).unwrap();
    let report = book.sync(&remote, &RunOptions::default()).await.unwrap();
    assert_eq!((report.units_acked, report.stopped), (1, Stopped::Idle));
}

/// A stranger who knew a device's ids forked the phone each time: the server took the phone for a
/// copy, and the phone began a new epoch of its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_knows_a_devices_ids_does_not_fork_it() {
    let running = start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.fieldbook");
    let book = Book::create_new(&path, BookOptions::new("ann").unwrap()).unwrap();
    written_and_synced(&running, &book, "lead/1").await;
    let (device, epoch) = (book.audit().device().unwrap(), book.audit().epoch().unwrap());
    for device_key in [None, Some(DeviceKey::from_seed(&[1; 32]))] {
        let head = HeadClaim {
            anchor: None,
            contents: Vec::new(),
            seq: Seq::new(1_000),
            hash: Hash::ZERO,
        };
        let forged =
            ExchangeRequest { device, epoch, device_key, head: Some(head), ..request(Vec::new()) };
        let (status, answer) = running.post(serde_json::to_vec(&forged).unwrap()).await;
        assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("device_of_another")));
    }
    // Its tables are folded again, and it still has its key.
    book.audit().rebuild(|_| {}).unwrap();
    book.close().unwrap();
    let book = Book::open(&path, BookOptions::new("ann").unwrap()).unwrap();
    written_and_synced(&running, &book, "lead/2").await;
    assert_eq!(book.audit().epoch(), Some(epoch), "the phone was taken for a copy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_book_goes_on_in_a_life_of_its_own_with_the_same_key() {
    let running = start().await;
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) =
        (folder.path().join("phone.fieldbook"), folder.path().join("copy.fieldbook"));
    // Copied before it ever met the server.
    Book::create_new(&path, BookOptions::new("ann").unwrap()).unwrap().close().unwrap();
    std::fs::copy(&path, &copy).unwrap();
    let book = Book::open(&path, BookOptions::new("ann").unwrap()).unwrap();
    let copy = Book::open(&copy, BookOptions::new("ann").unwrap()).unwrap();
    written_and_synced(&running, &book, "lead/1").await;
    written_and_synced(&running, &copy, "lead/2").await;
    written_and_synced(&running, &book, "lead/3").await;
    assert_eq!(book.audit().device(), copy.audit().device());
    assert_ne!(book.audit().epoch(), copy.audit().epoch());

    // A person who reads an export cannot act for the device.
    let mut export = Vec::new();
    book.audit().export(&mut export).unwrap();
    let key = book.snapshot().unwrap().device_key().unwrap().unwrap();
    let (bytes, text) = (key.as_bytes().to_vec(), String::from(key));
    assert!(
        !export.windows(32).any(|window| window == bytes) && !format!("{key:?}").contains(&text)
    );
    assert!(!export.windows(64).any(|window| window == text.as_bytes()));
}
