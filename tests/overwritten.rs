//! The device whose value was at the server learns from its own log that somebody replaced it:
//! once, with both values, and without reading the whole log again.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{Server, TestClock, assert_sound, book, fields, key, sync};
use fieldbook::Book;
use fieldbook::audit::Seq;
use fieldbook::conflict::Overwritten;
use fieldbook::limits::OVERWRITTEN_LOOKED_AT;
use serde_json::{Value, json};

/// Returns all notices after a place, and the place after them.
fn notices(book: &Book, after: Seq) -> (Vec<Overwritten>, Seq) {
    let (mut all, mut after) = (Vec::new(), after);
    loop {
        let part = book.conflicts().overwritten(after, 1).unwrap();
        assert!(part.upto > after || !part.more);
        all.extend(part.items);
        after = part.upto;
        if !part.more {
            return (all, after);
        }
    }
}

fn short(notices: &[Overwritten]) -> Vec<(Option<&str>, &Value, &Value)> {
    notices.iter().map(|it| (it.field.as_deref(), &it.local, &it.remote)).collect()
}

/// Ann wrote and synced. Ben, who had not read it, wrote later: the conflict is on record at his
/// device, and he wins.
#[test]
fn the_loser_of_a_conflict_that_another_device_found_is_told() {
    let clock = TestClock::starting();
    let (server, ann, ben) = (Server::new(&clock), book("ann", &clock), book("ben", &clock));
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "stage": "new"}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    let mine = ann.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    sync(&ann, &server);
    let (none, seen) = notices(&ann, Seq::ZERO);
    assert_eq!(none, []);
    clock.advance(1_000);
    let theirs = ben.records().update(key("lead/1"), fields(json!({"stage": "cold"}))).unwrap();
    sync(&ben, &server);
    assert_eq!(ben.conflicts().count().unwrap().all, 1);
    clock.advance(1_000);
    sync(&ann, &server);
    assert_eq!(ann.conflicts().count().unwrap().all, 0, "nothing of hers waited");
    let (told, upto) = notices(&ann, seen);
    assert_eq!(short(&told), [(Some("stage"), &json!("hot"), &json!("cold"))]);
    let notice = &told[0];
    assert_eq!((Some(notice.op), Some(notice.remote_op)), (mine.op(), theirs.op()));
    assert_eq!((notice.actor.as_str(), &notice.key), ("ann", &key("lead/1")));
    assert!(notice.edited_at < notice.remote_edited_at && notice.remote_edited_at < notice.at);
    assert_eq!(notices(&ann, upto).0, [], "each is told once");
    assert_eq!(notices(&ann, Seq::ZERO).0, told, "and can be read again");
    let (of_ben, _) = notices(&ben, Seq::ZERO);
    assert_eq!(of_ben, [], "his own value stands");
    assert_sound(&ann);
}

#[test]
fn a_deletion_and_a_removed_field_are_told_and_what_is_ours_is_not() {
    let clock = TestClock::starting();
    let (server, ann, ben) = (Server::new(&clock), book("ann", &clock), book("ben", &clock));
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "stage": "new"}))).unwrap();
    ann.records().create(key("lead/2"), fields(json!({"name": "Bo"}))).unwrap();
    ben.records().create(key("lead/3"), fields(json!({"name": "Cleo"}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    sync(&ann, &server);
    ann.records().update(key("lead/2"), fields(json!({"name": "Bob"}))).unwrap();
    ben.records().update(key("lead/1"), fields(json!({"stage": null}))).unwrap();
    ben.records().update(key("lead/3"), fields(json!({"name": "Clea"}))).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    sync(&ben, &server);
    ben.records().delete(key("lead/2")).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    let (told, _) = notices(&ann, Seq::ZERO);
    let keys: Vec<_> = told.iter().map(|it| it.key.to_string()).collect();
    assert_eq!(keys, ["lead/1", "lead/2"]);
    assert_eq!(
        short(&told),
        [(Some("stage"), &json!("new"), &Value::Null), (None, &Value::Null, &Value::Null)]
    );
}

#[test]
fn a_call_looks_at_a_bounded_part_of_the_log() {
    let clock = TestClock::starting();
    let ann = book("ann", &clock);
    for n in 0..OVERWRITTEN_LOOKED_AT {
        ann.records().create(key(&format!("lead/{n}")), fields(json!({"n": n}))).unwrap();
    }
    let part = ann.conflicts().overwritten(Seq::ZERO, 10).unwrap();
    assert_eq!((part.upto, part.more, part.items), (Seq::new(OVERWRITTEN_LOOKED_AT), true, vec![]));
    let head = ann.audit().head().unwrap().unwrap().seq;
    let rest = ann.conflicts().overwritten(part.upto, 10).unwrap();
    assert_eq!((rest.upto, rest.more), (head, false));
    assert_eq!(ann.conflicts().overwritten(head, 10).unwrap().upto, head);
    assert_eq!(ann.conflicts().overwritten(Seq::new(u64::MAX), 10).unwrap().upto, head);
}
