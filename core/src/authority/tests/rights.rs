//! Who may write what.

use std::sync::Arc;

use super::*;

const RIGHTS: &str = r#"{
    "types": {
        "lead": {
            "create": ["rep", "manager"],
            "delete": ["manager"],
            "fields": {
                "score": [],
                "owner": { "update": ["manager"] },
                "region": ["manager"]
            },
            "checks": {
                "name": { "kind": "text", "needed": true, "shortest": 1, "longest": 5 },
                "stage": { "one_of": ["new", "won"] },
                "amount": { "kind": "whole_number", "least": 0, "most": 9007199254740993 }
            }
        },
        "setting": { "create": [], "update": [], "delete": [] }
    },
    "other_types": ["manager"]
}"#;

fn caller(rights: &str, roles: &[&str]) -> Caller {
    let rights = Arc::new(Rights::parse(rights).unwrap());
    let roles = roles.iter().map(|name| Role::parse(name).unwrap()).collect();
    Caller::Limited(Limited { actors: None, roles, rights })
}

/// Sends one change, and returns the code and the text of a refusal, or the outcome's own name.
fn sent_as(
    state: &mut MemoryAuthority,
    number: u64,
    roles: &[&str],
    change: UnitChange,
) -> (String, String) {
    let request = request(vec![unit(number, vec![change])]);
    let caller = caller(RIGHTS, roles);
    let answer = exchange(state, &request, NOW, &caller, &Quota::default()).unwrap();
    match answer.outcomes.into_iter().next().unwrap().outcome {
        Outcome::Rejected { code, message } => (code, message),
        Outcome::Applied { .. } => ("applied".to_owned(), String::new()),
        Outcome::Stale { .. } => ("stale".to_owned(), String::new()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_type_is_created_changed_and_deleted_by_the_roles_that_may() {
    let good = r#"{"name":"Ann"}"#;
    for (roles, name, kind, base, code) in [
        (&[][..], "lead/1", OpKind::Create, None, "create_forbidden"),
        (&["other"], "lead/1", OpKind::Replace, None, "create_forbidden"),
        (&["rep", "other"], "lead/1", OpKind::Create, None, "applied"),
        (&[], "lead/9", OpKind::Update, Some(1), "applied"),
        (&["rep"], "lead/9", OpKind::Delete, Some(1), "delete_forbidden"),
        (&["manager"], "lead/9", OpKind::Delete, Some(1), "applied"),
        (&["rep"], "lead/2", OpKind::Delete, None, "delete_forbidden"),
        (&["manager"], "setting/1", OpKind::Create, None, "create_forbidden"),
        (&["rep"], "note/1", OpKind::Create, None, "create_forbidden"),
        (&["manager"], "note/1", OpKind::Create, None, "applied"),
        // What the record is counts, not what the change calls itself.
        (&[], "lead/9", OpKind::Create, Some(1), "applied"),
        // A device first learns the state that it is judged against.
        (&[], "lead/9", OpKind::Update, Some(7), "stale"),
    ] {
        let mut state = store();
        assert_eq!(
            sent_as(&mut state, 90, &["rep"], change("lead/9", OpKind::Create, None, good)).0,
            "applied"
        );
        let before = state.clone();
        let (told, message) = sent_as(&mut state, 1, roles, change(name, kind, base, good));
        assert_eq!(told, code, "{roles:?} {name} {kind:?}");
        if code.ends_with("forbidden") {
            let entity = name.split('/').next().unwrap();
            assert!(message.contains(entity), "{message}");
            assert!(before.records().eq(state.records()), "nothing was written");
        }
    }
}

#[test]
fn a_field_is_set_by_those_who_may_and_never_left_out_in_silence() {
    use OpKind::{Create, Replace, Update};
    for (roles, kind, fields, forbidden) in [
        (&["rep"][..], Update, r#"{"stage":"won"}"#, None),
        (&["rep"], Update, r#"{"owner":"eve","stage":"won"}"#, Some("owner")),
        (&["manager"], Update, r#"{"owner":"eve"}"#, None),
        (&["rep"], Update, r#"{"owner":null}"#, Some("owner")),
        // An update that names the same value still names it.
        (&["rep"], Update, r#"{"owner":"ann"}"#, Some("owner")),
        (&["manager"], Update, r#"{"score":7}"#, Some("score")),
        // A whole image is judged by what it changes.
        (&["rep"], Replace, r#"{"name":"Bob","owner":"ann"}"#, None),
        (&["rep"], Create, r#"{"name":"Bob","owner":"ann"}"#, None),
        (&["rep"], Replace, r#"{"name":"Bob","owner":"eve"}"#, Some("owner")),
        (&["rep"], Replace, r#"{"name":"Bob"}"#, Some("owner")),
        (&["rep"], Replace, r#"{"name":"Bob","owner":null}"#, Some("owner")),
        (&["rep"], Replace, r#"{"name":"Bob","owner":"ann","score":1}"#, Some("score")),
        (&["rep"], Replace, r#"{"name":"Bob","owner":"ann","score":null}"#, None),
        (&["manager"], Replace, r#"{"name":"Bob"}"#, None),
    ] {
        let mut state = store();
        let first = change("lead/1", Create, None, r#"{"name":"Ann","owner":"ann"}"#);
        assert_eq!(sent_as(&mut state, 90, &["rep"], first).0, "applied");
        let before = state.clone();
        let (code, message) =
            sent_as(&mut state, 1, roles, change("lead/1", kind, Some(1), fields));
        match forbidden {
            None => assert_eq!(code, "applied", "{kind:?} {fields}: {message}"),
            Some(field) => {
                assert_eq!(code, "field_forbidden", "{kind:?} {fields}");
                assert!(message.contains(field) && message.contains("lead"), "{message}");
                assert!(!message.contains("eve"), "no value: {message}");
                assert!(before.records().eq(state.records()));
            }
        }
    }
    for (fields, code) in [
        (r#"{"name":"Ann","owner":"ann"}"#, "applied"),
        (r#"{"name":"Ann","region":"north"}"#, "field_forbidden"),
        (r#"{"name":"Ann","score":0}"#, "field_forbidden"),
        (r#"{"name":"Ann","score":null}"#, "applied"),
    ] {
        let created = change("lead/1", Create, None, fields);
        assert_eq!(sent_as(&mut store(), 1, &["rep"], created).0, code, "{fields}");
    }
}

#[test]
fn a_value_is_checked_when_a_change_brings_it() {
    use OpKind::{Create, Replace, Update};
    for (kind, fields, fault) in [
        (Create, r#"{"name":"Ann","stage":"new","amount":0}"#, None),
        (Create, r#"{"stage":"new"}"#, Some("name of lead is missing")),
        (Create, r#"{"name":null}"#, Some("name of lead is missing")),
        (Create, r#"{"name":7}"#, Some("name of lead is not a text")),
        (Create, r#"{"name":""}"#, Some("name of lead is shorter than 1")),
        (Create, r#"{"name":"üüüüü"}"#, None),
        (Create, r#"{"name":"Canary"}"#, Some("name of lead is longer than 5")),
        (Update, r#"{"other":1}"#, None),
        (Update, r#"{"name":null}"#, Some("name of lead is missing")),
        (Update, r#"{"stage":null}"#, None),
        (Update, r#"{"stage":"Canary"}"#, Some("stage of lead is none of the allowed values")),
        (Update, r#"{"amount":1.0}"#, Some("amount of lead is not a whole number")),
        (Update, r#"{"amount":-1}"#, Some("amount of lead is less than 0")),
        (Update, r#"{"amount":9007199254740993}"#, None),
        (Update, r#"{"amount":9007199254740994}"#, Some("amount of lead is more than")),
        (Update, r#"{"amount":18446744073709551615}"#, Some("amount of lead is more than")),
        (Replace, r#"{"stage":"won"}"#, Some("name of lead is missing")),
    ] {
        let mut state = store();
        let base = (kind != Create).then(|| {
            let first = change("lead/1", Create, None, r#"{"name":"Ann"}"#);
            sent_as(&mut state, 90, &["manager"], first);
            1
        });
        let (code, message) =
            sent_as(&mut state, 1, &["manager"], change("lead/1", kind, base, fields));
        match fault {
            None => assert_eq!(code, "applied", "{fields}: {message}"),
            Some(fault) => {
                assert_eq!(code, "check_failed", "{fields}");
                assert!(message.starts_with(fault) && !message.contains("Canary"), "{message}");
            }
        }
    }
}

#[test]
fn a_record_that_broke_a_check_before_it_was_declared_is_changed_elsewhere() {
    let mut state = store();
    let old = change("lead/1", OpKind::Create, None, r#"{"stage":"odd"}"#);
    applied(&mut state, 90, old);
    let elsewhere = change("lead/1", OpKind::Update, Some(1), r#"{"amount":1}"#);
    assert_eq!(sent_as(&mut state, 1, &["rep"], elsewhere).0, "applied");
}

#[track_caller]
fn applied(state: &mut MemoryAuthority, number: u64, change: UnitChange) {
    let outcome = exchange(
        state,
        &request(vec![unit(number, vec![change])]),
        NOW,
        &Caller::Anyone,
        &Quota::default(),
    )
    .unwrap()
    .outcomes
    .remove(0)
    .outcome;
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
}

#[test]
fn a_unit_with_one_forbidden_change_is_refused_whole_and_alone() {
    let mut state = store();
    let good = || change("lead/1", OpKind::Create, None, r#"{"name":"Ann"}"#);
    let bad = change("setting/1", OpKind::Create, None, "{}");
    let units = vec![unit(1, vec![good(), bad]), unit(2, vec![good()])];
    let answer = exchange(
        &mut state,
        &request(units.clone()),
        NOW,
        &caller(RIGHTS, &["rep"]),
        &Quota::default(),
    )
    .unwrap();
    let told: Vec<_> = answer.outcomes.iter().map(|outcome| &outcome.outcome).collect();
    assert!(matches!(told[0], Outcome::Rejected { code, .. } if code == "create_forbidden"));
    assert!(matches!(told[1], Outcome::Applied { .. }));
    // A copy of the request has the same answer, also after the rights have changed.
    let again = exchange(&mut state, &request(units), NOW, &Caller::Anyone, &Quota::default());
    let again = again.unwrap();
    assert_eq!(again.outcomes[0], answer.outcomes[0]);
    assert!(matches!(again.outcomes[1].outcome, Outcome::Duplicate { .. }));
}

#[test]
fn without_declarations_answers_and_stores_are_the_same_byte_for_byte() {
    let changes = [
        change("lead/1", OpKind::Create, None, r#"{"a":1,"b":[1.5,null]}"#),
        change("lead/1", OpKind::Update, Some(1), r#"{"b":null,"c":"x"}"#),
        change("lead/2", OpKind::Replace, None, r#"{"a":2}"#),
        change("lead/1", OpKind::Replace, Some(2), r#"{"a":3}"#),
        change("lead/2", OpKind::Delete, Some(3), ""),
        change("lead/2", OpKind::Update, Some(3), r#"{"a":4}"#),
        change("lead/2", OpKind::Create, Some(5), r#"{"a":5}"#),
        change("note/1", OpKind::Delete, None, ""),
    ];
    let actors = BTreeSet::from([Actor::parse("ann").unwrap()]);
    let (roles, rights) = (BTreeSet::new(), Arc::default());
    let limited = Limited { actors: Some(actors.clone()), roles, rights };
    let callers = [
        Caller::Anyone,
        Caller::OneOf(actors),
        Caller::Limited(limited),
        caller("{}", &[]),
        caller(r#"{"types":{"lead":{},"other":{"create":[]}}}"#, &["rep"]),
    ];
    let results = callers.map(|caller| {
        let mut state = store();
        let answers: Vec<_> = (1..)
            .zip(&changes)
            .map(|(number, change)| {
                let mut request = request(vec![unit(number, vec![change.clone()])]);
                (request.page_limit, request.others) =
                    (100, Some(Cursor::new(Vec::new()).unwrap()));
                let answer = exchange(&mut state, &request, NOW, &caller, &Quota::default());
                serde_json::to_string(&answer.unwrap()).unwrap()
            })
            .collect();
        (answers, state)
    });
    for result in &results[1..] {
        assert_eq!(*result, results[0]);
    }
}

#[test]
fn declarations_with_a_mistake_are_refused_with_the_place() {
    for (text, fault) in [
        ("[]", "expected an object"),
        (r#"{"types":{"lead":[]}}"#, "expected an object"),
        (r#"{"types":{"lead":{"checks":{"a":[]}}}}"#, "expected an object"),
        (r#"{"types":[]}"#, "expected an object"),
        (r#"{"type":{}}"#, "unknown field `type`"),
        (r#"{"types":{"Lead":{}}}"#, "entity type"),
        (r#"{"types":{"lead":{"creates":[]}}}"#, "unknown field `creates`"),
        (r#"{"types":{"lead":{"create":"manager"}}}"#, "anyone"),
        (r#"{"types":{"lead":{"create":[""]}}}"#, "a role"),
        (r#"{"types":{"lead":{"create":["two words"]}}}"#, "a role"),
        (r#"{"types":{"lead":{"create":7}}}"#, "a list of roles"),
        (r#"{"types":{"lead":{},"lead":{}}}"#, "lead is there twice"),
        (r#"{"types":{"lead":{"fields":{"a":[],"a":[]}}}}"#, "a is there twice"),
        (r#"{"types":{"lead":{"fields":{"":[]}}}}"#, "1 to 255 bytes"),
        (r#"{"types":{"lead":{"fields":{"a":{"set":[]}}}}}"#, "create and update"),
        (r#"{"types":{"lead":{"fields":{"a":{"update":[],"update":[]}}}}}"#, "there twice"),
        (r#"{"types":{"lead":{"checks":{"a":{"kind":"date"}}}}}"#, "unknown variant `date`"),
        (r#"{"types":{"lead":{"checks":{"a":{}}}}}"#, "checks nothing"),
        (r#"{"types":{"lead":{"checks":{"a":{"least":2,"most":1}}}}}"#, "allows no value"),
        (r#"{"types":{"lead":{"checks":{"a":{"shortest":2,"longest":1}}}}}"#, "allows no value"),
        (r#"{"types":{"lead":{"checks":{"a":{"one_of":[]}}}}}"#, "allows no value"),
    ] {
        let error = Rights::parse(text).unwrap_err().to_string();
        assert!(error.contains(fault), "{text}: {error}");
    }
}
