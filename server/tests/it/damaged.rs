//! Stores that were altered, cut or torn: no part of them is served as if they were sound.

use std::collections::BTreeMap;
use std::path::Path;

use fieldbook_core::protocol::Change;
use fieldbook_server::{OpenStoreError, ServeError, ServeOptions, declare_restored, serve};
use reqwest::StatusCode;

use crate::support::*;

/// A store of some records, and the records that a device reads from it.
async fn made() -> (Vec<u8>, Vec<Change>) {
    let running = start().await;
    // In one commit, so that little of the file is left from an earlier commit.
    let names: Vec<_> =
        (0..60).flat_map(|number| [format!("lead/{number}"), format!("note/{number}")]).collect();
    running
        .exchange(&request(vec![unit(1, names.iter().map(|name| create(name)).collect())]))
        .await;
    let changes = running.exchange(&pull(BTreeMap::new(), 1_000)).await.changes;
    assert_eq!(changes.len(), 120);
    let folder = running.stopped().await;
    (std::fs::read(folder.path().join("server.redb")).unwrap(), changes)
}

/// Serves a file and returns the records that a device reads; `None` if the server, or its start,
/// reports that the store is damaged.
async fn read(path: &Path) -> Option<Vec<Change>> {
    let server = match serve(ServeOptions::new(loopback(), path)).await {
        Ok(server) => server,
        Err(ServeError::Store(error)) => {
            assert_ne!(kind(&error), "io", "{error:?}");
            return None;
        }
        Err(error) => panic!("{error:?}"),
    };
    let client = client().build().unwrap();
    let body = serde_json::to_vec(&pull(BTreeMap::new(), 1_000)).unwrap();
    let post = client.post(format!("{}/v1/exchange", server.url()));
    let response = post.header("content-type", "application/json").body(body).send().await.unwrap();
    let (status, answer) = answer_of(response).await;
    // It may not close well, which the next start finds.
    drop(server.shutdown().await);
    if status != StatusCode::OK {
        assert_eq!((status.as_u16(), &answer["code"]), (503, &"store_damaged".into()));
        return None;
    }
    let answer: fieldbook_core::protocol::ExchangeAnswer = serde_json::from_value(answer).unwrap();
    Some(answer.changes)
}

fn kind(error: &OpenStoreError) -> &'static str {
    match error {
        OpenStoreError::Damaged { .. } => "damaged",
        OpenStoreError::NotAStore { .. } => "not a store",
        OpenStoreError::NewerFormat { .. } => "newer",
        OpenStoreError::OlderFormat { .. } => "older",
        _ => "io",
    }
}

/// A store with one flipped bit was served as if nothing were wrong.
#[tokio::test]
async fn a_flipped_bit_is_told_or_changes_nothing_that_is_read() {
    let (whole, expected) = made().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.redb");
    let used: Vec<_> = (0..whole.len()).filter(|place| whole[*place] != 0).collect();
    let (mut told, mut same) = (0, 0);
    for (number, place) in used.iter().step_by(used.len() / 80).enumerate() {
        let mut flipped = whole.clone();
        flipped[*place] ^= 1 << (number % 8);
        std::fs::write(&path, &flipped).unwrap();
        match read(&path).await {
            None => told += 1,
            Some(changes) => {
                assert_eq!(changes, expected, "bit {} of byte {place} was served", number % 8);
                same += 1;
            }
        }
    }
    println!("{told} told, {same} without consequence");
    assert!(told > 10, "{told} of {}", told + same);
}

/// A copy that broke off was "not a store: choose another path".
#[tokio::test]
async fn a_torn_copy_is_called_that_and_left_as_it_is() {
    let (whole, _) = made().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.redb");
    let mut torn: Vec<Vec<u8>> =
        [1, 5, 9, 100, 512, 4_096, 50_000, whole.len() / 2, whole.len() - 1]
            .map(|length| whole[..length].to_vec())
            .into();
    // The size is right, and the end has not been written.
    let mut holes = whole.clone();
    let half = holes.len() / 2;
    holes[8_192..half].fill(0);
    torn.push(holes);
    for bytes in torn {
        std::fs::write(&path, &bytes).unwrap();
        let error = serve(ServeOptions::new(loopback(), &path)).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("damaged or incomplete copy"), "{} bytes: {error:?}", bytes.len());
        assert!(text.contains("fieldbook restored"), "{text}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{} bytes were changed", bytes.len());
        let error = declare_restored(&path).unwrap_err();
        assert!(error.to_string().contains("damaged or incomplete copy"), "{error:?}");
    }
}
