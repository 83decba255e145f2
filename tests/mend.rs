//! A difference is mended on request. All of it is in the log: a rebuild gives the same tables, and
//! the history of a record tells it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

mod common;

use common::comparing::{Comparing, Scene, check, keys, put};
use common::{assert_sound, book, fields, key, sync, sync_with, view};
use fieldbook::sync::protocol::{CompareAnswer, CompareRequest, Found};
use fieldbook::sync::{CheckError, Difference, Differing, Mended};
use fieldbook::{Book, Remote};
use fieldbook_core::{Seq, Version};
use proptest::prelude::*;
use serde_json::json;

/// Makes a book that lacks a record, has an old version of another, and has one that its server
/// never had: the place of the server's store was taken by an older copy, in which commits have the
/// same numbers.
fn differing() -> Scene {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1", "lead/2"]);
    let carl = scene.set_back();
    for name in ["lead/4", "lead/1"] {
        put(&carl, name, json!({ "by": "carl" }));
        sync(&carl, &scene.server);
    }
    sync_with(&scene.ann, &scene.remote().losing(&["lead/1"]));
    scene
}

fn mend(book: &Book, remote: &dyn Remote, difference: &Difference) -> Result<Mended, CheckError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(book.mend(remote, difference))
}

fn sentences(scene: &Scene, record: &str) -> String {
    let head = scene.ann.audit().head().unwrap().unwrap().seq;
    let told = scene.ann.audit().story(Some(&key(record)), Seq::ZERO, head).unwrap();
    told.iter().map(|one| format!("{one:?}\n")).collect()
}

#[test]
fn what_is_missing_comes_what_is_extra_goes_and_the_log_tells_both() {
    let scene = differing();
    let remote = scene.remote();
    let found = scene.check(&remote).unwrap();
    assert_eq!(keys(&found.missing), ["lead/4"]);
    assert_eq!(keys(&found.extra), ["lead/3"]);
    assert_eq!(keys(&found.other_version), ["lead/1"]);
    let mended = mend(&scene.ann, &remote, &found).unwrap();
    assert_eq!((mended.fetched, mended.let_go, mended.left.len()), (2, 1, 0));
    assert_eq!(view(&scene.ann, "lead/3"), None);
    assert_eq!(view(&scene.ann, "lead/4").unwrap()["by"], "carl");
    assert_eq!(view(&scene.ann, "lead/1").unwrap()["by"], "carl");
    assert!(scene.check(&remote).unwrap().is_empty());
    assert_sound(&scene.ann);
    // A difference that is out of date mends nothing.
    let again = mend(&scene.ann, &remote, &found).unwrap();
    assert_eq!((again.fetched, again.let_go, again.left.len()), (0, 0, 0));
}

#[test]
fn a_record_that_was_let_go_of_comes_back_when_somebody_writes_it_again() {
    let scene = differing();
    let remote = scene.remote();
    let found = scene.check(&remote).unwrap();
    mend(&scene.ann, &remote, &found).unwrap();
    let eve = book("eve", &scene.clock);
    put(&eve, "lead/3", json!({ "by": "eve" }));
    sync(&eve, &scene.server);
    sync_with(&scene.ann, &remote);
    assert_eq!(view(&scene.ann, "lead/3").unwrap()["by"], "eve");
    assert!(scene.check(&remote).unwrap().is_empty());
    assert_sound(&scene.ann);
}

#[test]
fn pending_edits_of_differing_records_survive_the_mending_and_arrive() {
    let scene = differing();
    for name in ["lead/1", "lead/3"] {
        scene.ann.records().update(key(name), fields(json!({ "mine": name }))).unwrap();
    }
    let remote = scene.remote();
    let found = scene.check(&remote).unwrap();
    assert_eq!((found.records(), found.pending), (3, 2));
    let mended = mend(&scene.ann, &remote, &found).unwrap();
    assert_eq!((mended.fetched, mended.let_go), (2, 0));
    assert_eq!(mended.left, [key("lead/3")], "its edit is not lost");
    assert_eq!(scene.ann.status().pending, 2);
    let record = view(&scene.ann, "lead/1").unwrap();
    assert_eq!((&record["by"], &record["mine"]), (&json!("carl"), &json!("lead/1")));
    assert_eq!(keys(&scene.check(&remote).unwrap().extra), ["lead/3"]);
    assert_sound(&scene.ann);
    sync_with(&scene.ann, &remote);
    assert_eq!(scene.server.record("lead/1").unwrap()["mine"], "lead/1");
    assert_sound(&scene.ann);
}

#[test]
fn a_server_that_was_set_back_mends_nothing() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1"]);
    let before = scene.server.authority.lock().unwrap().clone();
    scene.bob_writes(&["lead/1", "lead/2"]);
    sync_with(&scene.ann, &scene.remote());
    scene.server.authority.lock().unwrap().clone_from(&before);
    let carl = book("carl", &scene.clock);
    for number in 0..3 {
        put(&carl, "note/1", json!({ "n": number }));
        sync(&carl, &scene.server);
    }
    let remote = scene.remote();
    let found = scene.check(&remote).unwrap();
    let head = scene.ann.audit().head().unwrap();
    let refused = mend(&scene.ann, &remote, &found);
    let Err(CheckError::SetBack { records }) = refused else { panic!("{refused:?}") };
    let older = Differing {
        key: key("lead/1"),
        book: Some(Version::new(2)),
        server: Some(Version::new(1)),
    };
    assert_eq!(records, [older]);
    assert_eq!(scene.ann.audit().head().unwrap(), head);
    // Nor does one that is set back only when its records are asked for.
    let mut hidden = found.clone();
    hidden.other_version.iter_mut().for_each(|one| one.server = one.book);
    assert!(matches!(mend(&scene.ann, &remote, &hidden), Err(CheckError::SetBack { .. })));
    assert_eq!(scene.ann.audit().head().unwrap(), head);
}

#[test]
fn records_that_lie_mend_nothing() {
    let scene = differing();
    let found = scene.check(&scene.remote()).unwrap();
    let head = scene.ann.audit().head().unwrap();
    let lies: [fn(&mut Vec<fieldbook::sync::protocol::Change>); 4] = [
        |changes| changes.clear(),
        |changes| changes.reverse(),
        |changes| changes[0].version = Version::new(u64::MAX),
        |changes| changes[0].partial = true,
    ];
    for lie in lies {
        let bend = move |(request, mut answer): (CompareRequest, CompareAnswer)| {
            if let Some(Found::Records(changes)) = &mut answer.found {
                lie(changes);
            }
            (request, answer)
        };
        let remote = Comparing { compared: Box::new(bend), ..scene.remote() };
        let told = mend(&scene.ann, &remote, &found);
        assert!(matches!(told, Err(CheckError::Misbehaved { .. })), "{told:?}");
    }
    assert_eq!(scene.ann.audit().head().unwrap(), head);
    assert_sound(&scene.ann);
}

#[test]
fn the_history_of_a_record_tells_in_a_sentence_that_it_came_or_went() {
    let scene = differing();
    let remote = scene.remote();
    let found = scene.check(&remote).unwrap();
    mend(&scene.ann, &remote, &found).unwrap();
    let went = sentences(&scene, "lead/3");
    assert!(went.contains("A comparison showed that the server does not have it as r3"), "{went}");
    let came = sentences(&scene, "lead/4");
    assert!(came.contains("r3"), "{came}");
}

/// What happens to a book and its server.
#[derive(Debug, Clone)]
enum Step {
    /// Bob writes a record, and Ann reads it or not.
    Write(u8, bool),
    /// Bob deletes a record, and Ann reads that or not.
    Delete(u8, bool),
    /// The server goes back to an earlier state, and Bob, who knows nothing of that, writes on.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let one = (0u8..40, proptest::bool::weighted(0.7));
    prop_oneof![
        8 => one.clone().prop_map(|(record, reads)| Step::Write(record, reads)),
        3 => one.prop_map(|(record, reads)| Step::Delete(record, reads)),
        1 => Just(Step::Forget),
    ]
}

fn name(record: u8) -> String {
    format!("{}/{record}", if record.is_multiple_of(3) { "note" } else { "lead" })
}

/// Makes a book and a server that differ.
fn play(scene: &Scene, steps: &[Step]) {
    let (mut kept, mut writers) = (None, 0);
    let mut writer = book("writer-0", &scene.clock);
    for (number, step) in steps.iter().enumerate() {
        scene.clock.advance(1);
        let (record, reads) = match step {
            Step::Write(record, reads) => {
                put(&writer, &name(*record), json!({ "n": number }));
                (*record, *reads)
            }
            Step::Delete(record, reads) => {
                drop(writer.records().delete(key(&name(*record))));
                (*record, *reads)
            }
            Step::Forget => {
                let mut authority = scene.server.authority.lock().unwrap();
                if let Some(kept) = kept.take() {
                    authority.clone_from(&kept);
                }
                kept = Some(authority.clone());
                drop(authority);
                writers += 1;
                writer = book(&format!("writer-{writers}"), &scene.clock);
                sync(&writer, &scene.server);
                continue;
            }
        };
        sync(&writer, &scene.server);
        let lost = name(record);
        let lost = if reads { vec![] } else { vec![lost.as_str()] };
        sync_with(&scene.ann, &scene.remote().losing(&lost));
    }
    // The server has gone on to where the book has read.
    for number in 0..steps.len() {
        put(&writer, "task/1", json!({ "n": number + 100 }));
        sync(&writer, &scene.server);
    }
}

/// Compares every record of the book and the server.
fn brute(scene: &Scene) -> [Vec<String>; 3] {
    let authority = scene.server.authority.lock().unwrap();
    let theirs = |name: &str| {
        let row = authority.records().find(|(known, _)| known.to_string() == name);
        row.filter(|(_, row)| !row.is_deleted()).map(|(_, row)| row.version)
    };
    let [mut missing, mut extra, mut other] = [vec![], vec![], vec![]];
    for name in (0..40).map(name).chain(["task/1".to_owned()]) {
        let record = scene.ann.records().get(&key(&name)).unwrap();
        let own = record.and_then(|record| record.version);
        match (own, theirs(&name)) {
            (None, Some(_)) => missing.push(name),
            (Some(_), None) => extra.push(name),
            (Some(own), Some(server)) if own != server => {
                other.push(name);
            }
            _ => {}
        }
    }
    [missing, extra, other].map(|mut list| {
        list.sort();
        list
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_check_finds_what_a_comparison_of_every_record_finds_and_mending_leaves_nothing(
        steps in prop::collection::vec(step(), 1..40),
        edits in prop::collection::btree_set(0u8..40, 0..4),
    ) {
        let scene = Scene::new();
        play(&scene, &steps);
        let remote = scene.remote();
        let found = scene.check(&remote).unwrap();
        let names = |list: &[Differing]| {
            let mut names = keys(list);
            names.sort();
            names
        };
        let [missing, extra, other] = brute(&scene);
        prop_assert_eq!(names(&found.missing), missing);
        prop_assert_eq!(names(&found.extra), extra);
        prop_assert_eq!(names(&found.other_version), other);

        edits.iter().for_each(|record| put(&scene.ann, &name(*record), json!({ "mine": record })));
        let pending = scene.ann.status().pending;
        match mend(&scene.ann, &remote, &found) {
            Ok(mended) => {
                let rest = check(&scene.ann, &remote).unwrap();
                let left: Vec<_> = mended.left.iter().map(ToString::to_string).collect();
                prop_assert_eq!(keys(&rest.extra), left);
                prop_assert_eq!(rest.missing.len() + rest.other_version.len(), 0);
            }
            Err(CheckError::SetBack { records }) => {
                prop_assert!(records.iter().all(|one| one.server < one.book));
            }
            Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
        prop_assert!(scene.ann.status().pending <= pending);
        assert_sound(&scene.ann);
    }
}
