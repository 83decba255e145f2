//! Who made a change of the server: never the device's own user for a change of somebody else.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{Server, TestClock, assert_sound, book, fields, key, sync, sync_with};
use fieldbook::audit::entry::{Control, Entry, Meta, SignedNote};
use fieldbook::audit::note::{NoteKind, SignError, Signer, Statement, sign};
use fieldbook::audit::{Paragraph, Seq};
use fieldbook::sync::FnRemote;
use fieldbook::sync::protocol::{ExchangeRequest, Outcome};
use fieldbook::{Actor, Book};
use serde_json::json;

fn actor(name: &str) -> Option<Actor> {
    Some(Actor::parse(name).unwrap())
}

/// Returns the last entry with changes of the server.
fn last_page(book: &Book) -> Entry {
    let entries = book.audit().entries(Seq::ZERO, usize::MAX).unwrap();
    let has_changes =
        |entry: &Entry| matches!(&entry.meta, Meta::Upstream(told) if !told.changes.is_empty());
    entries.into_iter().rfind(has_changes).unwrap()
}

/// Ann and Ben change the same field of one record, and Ben is first at the server.
fn both_changed(server: &Server, clock: &std::sync::Arc<TestClock>) -> (Book, Book) {
    let (ann, ben) = (book("ann", clock), book("ben", clock));
    ann.records().create(key("lead/1"), fields(json!({"stage": "new"}))).unwrap();
    sync(&ann, server);
    sync(&ben, server);
    ann.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    clock.advance(1_000);
    ben.records().update(key("lead/1"), fields(json!({"stage": "cold"}))).unwrap();
    sync(&ben, server);
    (ann, ben)
}

#[test]
fn a_change_of_somebody_else_is_shown_with_its_author() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, ben) = both_changed(&server, &clock);
    assert_eq!(ben.audit().authors_of(&last_page(&ben)).unwrap(), [actor("ann")]);
    sync(&ann, &server);
    assert_eq!(ann.audit().authors_of(&last_page(&ann)).unwrap(), [actor("ben")]);
    let conflict = ann.conflicts().all().unwrap().remove(0);
    assert_eq!(conflict.remote_by, actor("ben"));
    assert_eq!(ann.conflicts().get(conflict.id).unwrap().remote_by, actor("ben"));
    let explained = ann.explain(&key("lead/1")).unwrap();
    assert_eq!(explained.conflicts[0].remote_by, actor("ben"));
    assert!(explained.to_string().contains("met version r2 by ben"), "{explained}");
    let story = ann.audit().story(Some(&key("lead/1")), Seq::ZERO, Seq::new(u64::MAX)).unwrap();
    let told: Vec<_> = story.iter().map(Paragraph::text).collect();
    let told = told.join("\n");
    assert!(told.contains(r#"ben changed stage from "new" to "cold" at "#), "{told}");
    assert!(told.contains("and ben (r2) changed the same: stage"), "{told}");
    assert!(!told.contains("another device"), "{told}");
    assert_sound(&ann);
    assert_sound(&ben);
}

/// A server of tests: nobody checks its signature.
struct Signs;

impl Signer for Signs {
    fn verifier(&self) -> String {
        "server/a+07070707+AQ==".to_owned()
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        Ok([7; 64])
    }
}

/// The note of a signed receipt once hid the author: its entry is between the answer and the
/// conflict.
#[test]
fn the_author_is_known_if_the_server_signs_its_receipts() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, _) = both_changed(&server, &clock);
    let there = server.clone();
    let signing = FnRemote::new(move |request: &ExchangeRequest| {
        let mut answer = there.answer(request);
        answer.signed = answer.receipt.map(|receipt| {
            let stated = Statement {
                kind: NoteKind::Receipt,
                device: request.device,
                epoch: request.epoch,
                seq: receipt.seq,
                hash: receipt.hash,
                at: answer.server_time,
            };
            let note = sign(&stated, &[&Signs]).unwrap();
            SignedNote { note, keys: vec![Signs.verifier()] }
        });
        Ok(answer)
    });
    sync_with(&ann, &signing);
    let entries = ann.audit().entries(Seq::ZERO, usize::MAX).unwrap();
    let is_note = |entry: &&Entry| matches!(entry.meta, Meta::Control(Control::Note(_)));
    assert_ne!(entries.iter().filter(is_note).count(), 0);
    assert_eq!(ann.conflicts().all().unwrap()[0].remote_by, actor("ben"));
    let story = ann.audit().story(None, Seq::ZERO, Seq::new(u64::MAX)).unwrap();
    let told: Vec<_> = story.iter().map(Paragraph::text).collect();
    let told = told.join("\n");
    assert!(told.contains("and ben (r2) changed the same"), "{told}");
    assert_sound(&ann);
}

#[test]
fn a_user_of_this_device_who_used_another_one_is_told_apart() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (here, there) = (book("ann", &clock), book("ann", &clock));
    there.records().create(key("lead/1"), fields(json!({"stage": "new"}))).unwrap();
    sync(&there, &server);
    sync(&here, &server);
    let story = here.audit().story(None, Seq::ZERO, Seq::new(u64::MAX)).unwrap();
    let told: Vec<_> = story.iter().map(Paragraph::text).collect();
    let told = told.join("\n");
    assert!(told.contains("sent lead/1, made by ann on another device at "), "{told}");
}

#[test]
fn a_server_that_names_nobody_leaves_the_author_open() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, _) = both_changed(&server, &clock);
    let there = server.clone();
    let silent = FnRemote::new(move |request: &ExchangeRequest| {
        let mut answer = there.answer(request);
        answer.changes.iter_mut().for_each(|change| change.by = None);
        for told in &mut answer.outcomes {
            if let Outcome::Stale { current, .. } = &mut told.outcome {
                current.iter_mut().for_each(|change| change.by = None);
            }
        }
        Ok(answer)
    });
    sync_with(&ann, &silent);
    assert_eq!(ann.audit().authors_of(&last_page(&ann)).unwrap(), [None]);
    assert_eq!(ann.conflicts().all().unwrap()[0].remote_by, None);
    let explained = ann.explain(&key("lead/1")).unwrap().to_string();
    assert!(explained.contains("met version r2, both"), "{explained}");
    let story = ann.audit().story(None, Seq::ZERO, Seq::new(u64::MAX)).unwrap();
    let told: Vec<_> = story.iter().map(Paragraph::text).collect();
    let told = told.join("\n");
    assert!(told.contains("and another device (r2) changed the same"), "{told}");
    assert!(told.contains("In lead/1, another device changed stage"), "{told}");
    assert_sound(&ann);
}
