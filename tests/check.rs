//! A book is checked against its server: by digests, then by records. The difference is data.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::comparing::{Bend, Comparing, Scene, check, fill, keys, put, sync_beside};
use common::{Server, assert_sound, book, fields, key, options, sync, sync_with, view};
use fieldbook::sync::protocol::{CompareAnswer, CompareRequest, ExchangeRequest, Failure, Found};
use fieldbook::sync::{CheckError, Differing, FnRemote, NotCompared, Stopped};
use fieldbook::{Book, EntityRules, Schema};
use fieldbook_core::Version;
use redb::backends::InMemoryBackend;
use serde_json::json;

/// `fieldbook-bench --only check` has the figures of 100,000 records.
#[test]
fn equal_books_answer_in_one_short_request_and_one_record_is_found_with_few_bytes() {
    let scene = Scene::new();
    fill(&mut scene.server.authority.lock().unwrap(), 2_000);
    let lost = {
        let authority = scene.server.authority.lock().unwrap();
        authority.records().nth(7).unwrap().0.to_string()
    };
    let remote = scene.remote();
    sync_with(&scene.ann, &remote);
    let equal = scene.check(&remote).unwrap();
    assert!(equal.is_empty() && equal.requests == 1, "{equal:?}");
    assert_eq!(equal.records_compared, 2_000);
    assert!(equal.bytes_received < 512, "{}", equal.bytes_received);
    let other = book("carl", &scene.clock);
    let remote = scene.remote().losing(&[&lost]);
    sync_with(&other, &remote);
    let one = check(&other, &remote).unwrap();
    assert_eq!((keys(&one.missing), one.records()), (vec![lost], 1));
    assert!(one.bytes_received < 16_000 && one.requests == 3, "{one:?}");
}

#[test]
fn a_record_that_was_lost_on_its_way_is_missing_and_a_lost_change_is_another_version() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1", "lead/2", "note/1"]);
    sync_with(&scene.ann, &scene.remote());
    scene.bob_writes(&["lead/1", "lead/3"]);
    let remote = scene.remote().losing(&["lead/1", "lead/3"]);
    let found = scene.check(&remote).unwrap();
    assert_eq!(
        found.missing,
        [Differing { key: key("lead/3"), book: None, server: Some(Version::new(5)) }]
    );
    let other = Differing {
        key: key("lead/1"),
        book: Some(Version::new(1)),
        server: Some(Version::new(4)),
    };
    assert_eq!((found.other_version.clone(), found.extra.len()), (vec![other], 0));
    assert_eq!((found.records(), found.is_empty(), found.more), (2, false, false));
    // A check changes nothing: it finds the same again.
    assert_eq!(scene.check(&remote).unwrap(), found);
    assert_eq!(view(&scene.ann, "lead/3"), None);
    assert_sound(&scene.ann);
}

#[test]
fn a_record_that_the_server_deleted_or_never_had_is_extra() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1", "lead/2"]);
    let carl = scene.set_back();
    carl.records().create(key("lead/4"), fields(json!({}))).unwrap();
    sync(&carl, &scene.server);
    carl.records().delete(key("lead/1")).unwrap();
    sync(&carl, &scene.server);
    let remote = scene.remote().losing(&["lead/1"]);
    let found = scene.check(&remote).unwrap();
    let differs = |name: &str, book: u64, server: Option<u64>| Differing {
        key: key(name),
        book: Some(Version::new(book)),
        server: server.map(Version::new),
    };
    assert_eq!(found.extra, [differs("lead/1", 1, Some(4)), differs("lead/3", 3, None)]);
    assert_eq!(keys(&found.missing), ["lead/4"]);
}

#[test]
fn edits_that_are_pending_are_no_difference_and_a_differing_record_is_found_under_them() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1", "lead/2"]);
    sync_with(&scene.ann, &scene.remote());
    scene.ann.records().update(key("lead/1"), fields(json!({"n": 7}))).unwrap();
    scene.ann.records().create(key("lead/9"), fields(json!({"n": 9}))).unwrap();
    scene.ann.records().delete(key("lead/2")).unwrap();
    let found = scene.check(&scene.remote()).unwrap();
    assert!(found.is_empty(), "{found:?}");
    assert_eq!((found.pending, found.records_compared), (3, 2));
    assert_eq!(scene.ann.status().pending, 3, "a check sends nothing");
    scene.bob_writes(&["lead/1"]);
    let found = scene.check(&scene.remote().losing(&["lead/1"])).unwrap();
    assert_eq!(keys(&found.other_version), ["lead/1"]);
}

#[test]
fn a_server_that_never_rests_is_compared_up_to_what_the_book_has_read() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1", "lead/2", "lead/3", "lead/5"]);
    sync_with(&scene.ann, &scene.remote().losing(&["lead/3"]));
    let count = AtomicU32::new(0);
    let (bob, clock) = (scene.bob.clone(), Arc::clone(&scene.clock));
    let writes = move |server: &Server| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        clock.advance(1);
        put(&bob, "lead/2", json!({ "n": number }));
        put(&bob, &format!("lead/new{number}"), json!({}));
        if number == 1 {
            bob.records().delete(key("lead/1")).unwrap();
        }
        sync_beside(&bob, server);
    };
    let remote = Comparing { before: Box::new(writes), ..scene.remote().losing(&["lead/3"]) };
    let found = scene.check(&remote).unwrap();
    assert_eq!(remote.asked().iter().filter(|asked| **asked == "digests").count(), 3);
    assert_eq!(keys(&found.missing), ["lead/3"]);
    assert_eq!(found.records(), 1, "{found:?}");
    assert!(found.pending >= 2);
}

#[test]
fn a_server_at_rest_again_is_compared_after_another_round() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1"]);
    let count = AtomicU32::new(0);
    let (bob, clock) = (scene.bob.clone(), Arc::clone(&scene.clock));
    let writes_once = move |server: &Server| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            clock.advance(1);
            put(&bob, "lead/2", json!({}));
            sync_beside(&bob, server);
        }
    };
    let remote = Comparing { before: Box::new(writes_once), ..scene.remote() };
    let found = scene.check(&remote).unwrap();
    assert!(found.is_empty() && found.pending == 0);
    assert_eq!(remote.asked(), ["digests", "digests"]);
}

#[test]
fn a_server_without_comparisons_is_told_as_such_and_an_unreachable_one_as_not_up_to_date() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1"]);
    assert!(matches!(scene.check(&scene.server.remote()), Err(CheckError::CannotCompare)));
    assert!(view(&scene.ann, "lead/1").is_some(), "the book was brought up to date all the same");
    let nobody =
        FnRemote::new(|_: &ExchangeRequest| Err(Failure::Unreachable { code: "no_route" }.into()));
    let told = scene.check(&nobody);
    assert!(
        matches!(told, Err(CheckError::NotUpToDate { stopped: Stopped::Failed(_) })),
        "{told:?}"
    );
}

#[test]
fn types_that_stay_on_the_device_or_are_not_declared_are_not_compared_and_that_is_told() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1", "visit/1"]);
    let local = EntityRules { local_only: true, ..EntityRules::default() };
    let schema = Schema::closed()
        .declare("lead".parse().unwrap(), EntityRules::default())
        .declare("draft".parse().unwrap(), local);
    let carl =
        Book::on_backend(InMemoryBackend::new(), options("carl", &scene.clock).schema(schema))
            .unwrap();
    carl.records().create(key("draft/1"), fields(json!({}))).unwrap();
    let found = check(&carl, &scene.remote()).unwrap();
    assert!(found.is_empty(), "{found:?}");
    let told: Vec<_> =
        found.not_compared.iter().map(|one| (one.entity.as_str(), one.reason)).collect();
    assert_eq!(told, [("visit", NotCompared::Undeclared), ("draft", NotCompared::LocalOnly)]);
    assert_eq!(found.records_compared, 1);
    // A server with a type whose name this program cannot hold.
    let odd = |(request, mut answer): (CompareRequest, CompareAnswer)| {
        if let Some(Found::Digests(digests)) = &mut answer.found {
            digests.iter_mut().for_each(|digest| digest.entity = format!("Odd {}", digest.entity));
        }
        (request, answer)
    };
    let remote = Comparing { compared: Box::new(odd), ..scene.remote() };
    let told = check(&carl, &remote).unwrap();
    assert!(told.not_compared.iter().any(|one| one.reason == NotCompared::Foreign));
}

/// Answers that cannot be true, each by what is done to a true one.
fn lies() -> Vec<(&'static str, Bend<(CompareRequest, CompareAnswer)>)> {
    fn on(
        change: impl Fn(&CompareRequest, &mut Found) + Send + Sync + 'static,
    ) -> Bend<(CompareRequest, CompareAnswer)> {
        Box::new(move |(request, mut answer)| {
            if let Some(found) = &mut answer.found {
                change(&request, found);
            }
            (request, answer)
        })
    }
    fn versions(
        change: impl Fn(&mut Vec<(String, Version)>, &mut Option<String>) + Send + Sync + 'static,
    ) -> Bend<(CompareRequest, CompareAnswer)> {
        on(move |_, found| {
            if let Found::Versions { records, after } = found {
                change(records, after);
            }
        })
    }
    vec![
        (
            "nothing",
            Box::new(|(request, answer)| (request, CompareAnswer { found: None, ..answer })),
        ),
        (
            "another request",
            Box::new(|(request, answer)| {
                let id = fieldbook::sync::RequestId::from_bytes([9; 16]);
                (request, CompareAnswer { request: id, ..answer })
            }),
        ),
        (
            "a commit beyond every commit",
            Box::new(|(request, answer)| {
                (request, CompareAnswer { commit: Version::new(u64::MAX), ..answer })
            }),
        ),
        ("another question", on(|_, found| *found = Found::Records(Vec::new()))),
        (
            "a type twice",
            on(|_, found| {
                if let Found::Digests(digests) = found {
                    digests.push(digests[0].clone());
                }
            }),
        ),
        (
            "read beyond the last commit",
            on(|_, found| {
                if let Found::Digests(digests) = found {
                    digests[0].read_to = Version::new(1 << 40);
                }
            }),
        ),
        (
            "parts that were not asked for",
            on(|_, found| {
                if let Found::Parts { parts, .. } = found {
                    parts.push(parts[0].clone());
                }
            }),
        ),
        (
            "parts without end",
            on(|_, found| {
                if let Found::Parts { after, .. } = found {
                    *after = Some("\u{7}".to_owned());
                }
            }),
        ),
        ("no order", versions(|records, _| records.reverse())),
        (
            "the same place again",
            versions(|records, after| {
                *after = records.first().map(|(id, _)| id.clone());
            }),
        ),
        (
            "a version of the future",
            versions(|records, _| {
                records[0].1 = Version::new(1 << 50);
            }),
        ),
        ("version 0 of a live record", versions(|records, _| records[0].1 = Version::new(0))),
        (
            "a record of another part",
            versions(|records, _| {
                *records = (0..40).map(|n| (format!("{n:02}"), Version::new(1))).collect();
            }),
        ),
        (
            "records that were not asked for",
            on(|_, found| {
                if let Found::Records(changes) = found {
                    changes.iter_mut().for_each(|change| change.key = key("lead/other"));
                }
            }),
        ),
        (
            "records of a stage that has none",
            on(|_, found| {
                if let Found::Records(changes) = found {
                    changes.clear();
                }
            }),
        ),
    ]
}

#[test]
fn an_answer_that_cannot_be_true_is_refused_in_each_stage_and_the_book_stays_as_it_is() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1", "lead/2", "lead/4"]);
    let before = scene.server.authority.lock().unwrap().clone();
    scene.bob_writes(&["lead/3"]);
    sync_with(&scene.ann, &scene.remote().losing(&["lead/2", "lead/4"]));
    scene.server.authority.lock().unwrap().clone_from(&before);
    let carl = book("carl", &scene.clock);
    sync(&carl, &scene.server);
    for number in 0..2 {
        put(&carl, "lead/1", json!({ "carl": number }));
        sync(&carl, &scene.server);
    }
    scene.ann.records().update(key("lead/1"), fields(json!({"n": 7}))).unwrap();
    let plain = scene.check(&scene.remote()).unwrap();
    assert!(!plain.missing.is_empty() && !plain.extra.is_empty(), "{plain:?}");
    let entries = scene.ann.audit().head().unwrap();
    for (what, lie) in lies() {
        let remote = Comparing { compared: lie, ..scene.remote() };
        let told = scene.check(&remote);
        assert!(matches!(told, Err(CheckError::Misbehaved { .. })), "{what}: {told:?}");
    }
    assert_eq!(scene.ann.audit().head().unwrap(), entries);
    assert_eq!(scene.check(&scene.remote()).unwrap(), plain);
    assert_sound(&scene.ann);
}

#[test]
fn another_server_is_no_difference() {
    let scene = Scene::new();
    scene.bob_writes(&["lead/1"]);
    sync_with(&scene.ann, &scene.remote());
    let other = |(request, answer): (CompareRequest, CompareAnswer)| {
        let server = fieldbook::sync::ServerId::from_bytes([77; 16]);
        (request, CompareAnswer { server, ..answer })
    };
    let remote = Comparing { compared: Box::new(other), ..scene.remote() };
    assert!(matches!(scene.check(&remote), Err(CheckError::OtherServer)));
}
