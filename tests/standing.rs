//! A server is asked whether it knows the log of a book, and its answer is checked.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

mod common;

use common::comparing::{Comparing, Scene, put};
use common::{assert_sound, sync};
use fieldbook::Book;
use fieldbook::audit::{Epoch, Seq, Standing, Stood};
use fieldbook::sync::protocol::{EpochHeads, ExchangeRequest, Failure, Found};
use fieldbook::sync::{CheckError, FnRemote, Remote};
use serde_json::json;

fn ask(book: &Book, remote: &dyn Remote) -> Result<Stood, CheckError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(book.audit().at_server(remote))
}

/// A scene in which Ann has synced three times.
fn synced() -> Scene {
    let scene = Scene::new();
    for number in 0..3 {
        put(&scene.ann, "lead/1", json!({ "n": number }));
        sync(&scene.ann, &scene.server);
    }
    scene
}

#[test]
fn a_server_is_asked_one_question_and_nothing_changes() {
    let scene = synced();
    let (head, remote) = (scene.ann.audit().head().unwrap(), scene.remote());
    let before = scene.server.authority.lock().unwrap().clone();
    let stood = ask(&scene.ann, &remote).unwrap();
    assert!(matches!(stood.standing, Standing::Same { .. }), "{stood:?}");
    assert_eq!((stood.matching, stood.elsewhere.len()), (3, 0));
    assert_eq!(remote.asked(), ["heads"]);
    assert_eq!(scene.ann.audit().head().unwrap(), head);
    assert_eq!(*scene.server.authority.lock().unwrap(), before);
    assert_sound(&scene.ann);
}

#[test]
fn what_a_server_saw_stays_true_after_a_restore_that_was_declared() {
    let scene = synced();
    let before = ask(&scene.ann, &scene.remote()).unwrap();
    let store = scene.server.authority.lock().unwrap().clone();
    scene.server.restore(&store, 9);
    assert_eq!(ask(&scene.ann, &scene.remote()).unwrap(), before);
}

#[test]
fn a_device_that_never_synced_is_unknown() {
    let scene = synced();
    put(&scene.bob, "lead/2", json!({}));
    assert_eq!(ask(&scene.bob, &scene.remote()).unwrap().standing, Standing::Unknown);
}

#[test]
fn an_older_server_cannot_say() {
    let scene = synced();
    let refused = || Failure::Refused { code: "any".to_owned() };
    let cannot_compare = FnRemote::new(move |_: &ExchangeRequest| Err(refused().into()));
    let told = ask(&scene.ann, &cannot_compare);
    assert!(matches!(told, Err(CheckError::CannotCompare)), "{told:?}");
}

#[test]
fn an_answer_that_cannot_be_true_says_nothing_of_the_log() {
    let scene = synced();
    type Lie = fn(&mut Vec<EpochHeads>);
    let lies: [(&str, Lie); 5] = [
        ("no order", |logs| logs[0].heads.reverse()),
        ("a head twice", |logs| {
            let head = logs[0].heads[0];
            logs[0].heads.insert(0, head);
        }),
        ("no head", |logs| logs[0].heads.clear()),
        ("an epoch twice", |logs| logs.push(logs[0].clone())),
        ("an entry before the first", |logs| logs[0].heads[0].seq = Seq::ZERO),
    ];
    for (what, lie) in lies {
        let bent = move |(request, mut answer): (_, fieldbook::sync::protocol::CompareAnswer)| {
            if let Some(Found::Heads { logs, .. }) = &mut answer.found {
                lie(logs);
            }
            (request, answer)
        };
        let told = ask(&scene.ann, &Comparing { compared: Box::new(bent), ..scene.remote() });
        assert!(matches!(told, Err(CheckError::Misbehaved { .. })), "{what}: {told:?}");
    }
    // A head that nobody claimed is no lie that can be seen: it contradicts the log.
    let forged = |(request, mut answer): (_, fieldbook::sync::protocol::CompareAnswer)| {
        if let Some(Found::Heads { logs, .. }) = &mut answer.found {
            logs[0].epoch = Epoch::from_bytes([77; 16]);
        }
        (request, answer)
    };
    let told = ask(&scene.ann, &Comparing { compared: Box::new(forged), ..scene.remote() });
    assert!(matches!(told.unwrap().standing, Standing::Forked { shared: None, .. }));
}
