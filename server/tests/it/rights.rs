//! Declared rights, as a device sees them.

use std::sync::Arc;

use fieldbook::sync::{Secret, Stopped};
use fieldbook::{Book, BookOptions, Fields, HttpOptions, HttpRemote, RunOptions, StaticToken};
use fieldbook_server::{FileError, RightsError, ServeError, ServeOptions, serve};
use serde_json::json;

use crate::support::*;

const TOKENS: &str = r#"{
    "ann-of-acme-0123456789": { "tenant": "acme", "actor": "ann" },
    "bob-of-acme-0123456789": { "tenant": "acme", "actor": "bob", "roles": ["manager"] }
}"#;
const RIGHTS: &str = r#"{
    "types": { "lead": {
        "delete": ["manager"],
        "fields": { "score": ["manager"] },
        "checks": { "stage": { "one_of": ["new", "won"] } }
    } }
}"#;

/// Starts a server with rights in a file of this folder.
async fn start_limited(folder: &tempfile::TempDir) -> Running {
    let path = folder.path().join("rights.json");
    write_tokens(&path, RIGHTS);
    start_changed(Some(TOKENS), |options| options.rights = Some(path)).await
}

fn remote(running: &Running, actor: &str, token: &str) -> HttpRemote {
    let token = Arc::new(StaticToken::new(actor.parse().unwrap(), Secret::new(token)));
    HttpRemote::new(&running.url(), HttpOptions::default()).unwrap().with_credentials(token)
}

fn fields(name: &str, value: impl Into<serde_json::Value>) -> Fields {
    let mut fields = Fields::new();
    fields.set(name, value);
    fields
}

/// A refused edit is not lost: its owner sees it with the reason, corrects it, and it is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_its_author_may_not_make_becomes_a_dead_letter_with_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let running = start_limited(&folder).await;
    let book =
        Book::create_new(folder.path().join("ann.fieldbook"), BookOptions::new("ann").unwrap());
    let book = book.unwrap();
    let lead: fieldbook::RecordKey = "lead/1".parse().unwrap();
    book.records().create(lead.clone(), fields("name", "Mueller")).unwrap();
    let ann = remote(&running, "ann", "ann-of-acme-0123456789");
    let report = book.sync(&ann, &RunOptions::default()).await.unwrap();
    assert_eq!((report.units_acked, report.stopped), (1, Stopped::Idle));

    let mut both = fields("score", 7);
    both.set("stage", "won");
    book.records().update(lead.clone(), both).unwrap();
    // The other records go on.
    book.records().create("lead/2".parse().unwrap(), fields("stage", "new")).unwrap();
    let report = book.sync(&ann, &RunOptions::default()).await.unwrap();
    assert_eq!((report.units_acked, report.stopped), (1, Stopped::Idle));
    let letter = book.dead_letters().all().unwrap().remove(0);
    assert_eq!((letter.code.as_str(), &letter.key), ("field_forbidden", &lead));
    assert!(letter.message.contains("score"), "{}", letter.message);
    let content = book.queue().op(letter.place).unwrap().fields;
    assert_eq!(content.get("score"), Some(&json!(7)));
    assert_eq!(content.get("stage"), Some(&json!("won")));

    let correction = fields("score", serde_json::Value::Null);
    book.dead_letters().correct(letter.op, correction).unwrap();
    book.sync(&ann, &RunOptions::default()).await.unwrap();
    assert!(book.dead_letters().all().unwrap().is_empty());
    let shown = book.records().get(&lead).unwrap().unwrap().fields().unwrap();
    assert_eq!((shown.get("stage"), shown.get("score")), (Some(&json!("won")), None));

    for (change, code) in [(None, "delete_forbidden"), (Some("odd"), "check_failed")] {
        match change {
            None => book.records().delete("lead/2".parse().unwrap()).map(drop).unwrap(),
            Some(stage) => {
                book.records().update(lead.clone(), fields("stage", stage)).map(drop).unwrap()
            }
        }
        book.sync(&ann, &RunOptions::default()).await.unwrap();
        let letter = book.dead_letters().all().unwrap().remove(0);
        assert_eq!(letter.code, code);
        book.dead_letters().discard(vec![letter.op], "a test").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_of_the_token_gives_its_rights() {
    let folder = tempfile::tempdir().unwrap();
    let running = start_limited(&folder).await;
    let book =
        Book::create_new(folder.path().join("bob.fieldbook"), BookOptions::new("bob").unwrap());
    let book = book.unwrap();
    let bob = remote(&running, "bob", "bob-of-acme-0123456789");
    book.records().create("lead/1".parse().unwrap(), fields("score", 7)).unwrap();
    book.sync(&bob, &RunOptions::default()).await.unwrap();
    book.records().delete("lead/1".parse().unwrap()).unwrap();
    let report = book.sync(&bob, &RunOptions::default()).await.unwrap();
    assert_eq!((report.units_acked, report.stopped), (1, Stopped::Idle));
    assert!(book.dead_letters().all().unwrap().is_empty());
}

#[tokio::test]
async fn rights_that_cannot_be_used_stop_the_start_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rights.json");
    let data = folder.path().join("server.redb");
    let start = || {
        let rights = Some(path.clone());
        serve(ServeOptions { rights, ..ServeOptions::new(loopback(), &data) })
    };
    let error = start().await.unwrap_err();
    assert!(
        matches!(error, ServeError::Rights(RightsError::File(FileError::Unreadable { .. }))),
        "{error:?}"
    );
    write_tokens(&path, r#"{"types":{"lead":{"deletes":[]}}}"#);
    let error = start().await.unwrap_err();
    let ServeError::Rights(RightsError::Invalid { source, .. }) = error else {
        panic!("{error:?}")
    };
    assert!(source.to_string().contains("unknown field `deletes`"), "{source}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        write_tokens(&path, "{}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = start().await.unwrap_err();
        assert!(matches!(
            error,
            ServeError::Rights(RightsError::File(FileError::ChangeableByOthers { .. }))
        ));
    }
    assert!(!data.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_change_hold_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let running = start_limited(&folder).await;
    let book =
        Book::create_new(folder.path().join("ann.fieldbook"), BookOptions::new("ann").unwrap());
    let book = book.unwrap();
    let ann = remote(&running, "ann", "ann-of-acme-0123456789");
    book.records().create("lead/1".parse().unwrap(), fields("score", 7)).unwrap();
    book.sync(&ann, &RunOptions::default()).await.unwrap();
    let letter = book.dead_letters().all().unwrap().remove(0);
    assert_eq!(letter.code, "field_forbidden");
    write_tokens(&folder.path().join("rights.json"), "{}");
    running.server().reload_tokens().unwrap();
    // A unit has one answer for ever. A person who tries again sends a new one.
    book.dead_letters().retry(vec![letter.op]).unwrap();
    let report = book.sync(&ann, &RunOptions::default()).await.unwrap();
    assert_eq!((report.units_acked, report.stopped), (1, Stopped::Idle));
}
