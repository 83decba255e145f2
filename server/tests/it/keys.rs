//! The keys that sign receipts, as a device and as an operator see them.

use std::sync::Arc;

use fieldbook::sync::{Secret, Stopped};
use fieldbook::{Book, BookOptions, Fields, HttpOptions, HttpRemote, RunOptions, StaticToken};
use fieldbook_server::{
    ServeError, ServeOptions, SigningKeyError, add_signing_key, retire_signing_key, serve,
    signing_keys,
};

use crate::support::*;

/// A server with a ninth key once sent receipts that every device refused, so nothing synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_keys_sign_than_a_device_accepts() {
    let folder = start().await.stopped().await;
    let data = folder.path().join("server.redb");
    let longest = "n".repeat(128);
    for _ in 1..8 {
        add_signing_key(&data, &longest).unwrap();
    }
    let error = add_signing_key(&data, &longest).unwrap_err();
    assert!(matches!(error, ServeError::Keys(SigningKeyError::TooMany)), "{error:?}");

    let server = serve(ServeOptions::new(loopback(), &data)).await.unwrap();
    assert_eq!(server.verifiers().len(), 8);
    let token = Arc::new(StaticToken::new("ann".parse().unwrap(), Secret::new("of-no-use-here")));
    let remote =
        HttpRemote::new(&server.url(), HttpOptions::default()).unwrap().with_credentials(token);
    let book =
        Book::create_new(folder.path().join("ann.fieldbook"), BookOptions::new("ann").unwrap())
            .unwrap();
    book.records().create("lead/1".parse().unwrap(), Fields::new()).unwrap();
    let report = book.sync(&remote, &RunOptions::default()).await.unwrap();
    assert_eq!((report.units_acked, report.stopped), (1, Stopped::Idle));
    server.shutdown().await.unwrap();

    let oldest = signing_keys(&data).unwrap().remove(0);
    retire_signing_key(&data, &oldest.id).unwrap();
    add_signing_key(&data, "sync.example.com").unwrap();
}
