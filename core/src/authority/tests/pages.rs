use super::*;

#[test]
fn what_a_request_changed_itself_is_not_sent_back_but_the_cursor_passes_it() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    let push =
        ExchangeRequest { page_limit: 100, ..request(vec![unit(2, vec![create("lead/2")])]) };
    let answer = answered(&mut state, &push);
    let keys: Vec<_> = answer.changes.iter().map(|change| change.key.to_string()).collect();
    assert_eq!(keys, ["lead/1"]);
    assert!(!answer.more);
    assert!(answered(&mut state, &pull(answer.cursors, 100)).changes.is_empty());
    // The answer was lost. The unit is a duplicate now, and its record is still not sent back.
    assert_eq!(answered(&mut state, &push).changes.len(), 1);
    // Another unit has changed the record since, so the answer has the record.
    applied(&mut state, 3, vec![change("lead/2", OpKind::Update, Some(2), r#"{"a":5}"#)]);
    assert_eq!(answered(&mut state, &push).changes.len(), 2);
}

#[test]
fn nothing_new_is_a_small_answer_without_page_and_cursors() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    let cursors = answered(&mut state, &pull(BTreeMap::new(), 10)).cursors;
    let before = state.clone();
    let nothing = pull(cursors, 10);
    let accepted =
        accept_without_writing(&state, &nothing, &Caller::Anyone, &Quota::default()).unwrap();
    assert_eq!(accepted, Some(Accepted::default()));
    let answer = answered(&mut state, &nothing);
    assert!(answer.changes.is_empty() && answer.cursors.is_empty() && !answer.more);
    assert!(serde_json::to_vec(&answer).unwrap().len() < 500);
    assert_eq!(state, before);
}

#[test]
fn a_page_limit_of_zero_asks_for_no_page() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    let answer = answered(&mut state, &pull(BTreeMap::new(), 0));
    assert!(answer.changes.is_empty() && answer.cursors.is_empty());
}

#[test]
fn an_answer_that_has_no_room_for_a_page_says_that_there_is_more() {
    let mut state = store();
    let asked =
        ExchangeRequest { page_limit: 10, ..request(vec![unit(1, vec![create("lead/1")])]) };
    let quota = Quota { page_changes: 0, ..Quota::default() };
    let answer = exchange(&mut state, &asked, NOW, &Caller::Anyone, &quota).unwrap();
    assert!(answer.more && answer.changes.is_empty() && answer.cursors.is_empty());
    assert!(matches!(answer.outcomes[0].outcome, Outcome::Applied { .. }));
}

#[test]
fn a_page_ends_after_its_bytes_but_never_inside_a_commit() {
    let mut state = store();
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(limits::OP_BYTES / 2));
    for number in 0..12 {
        let keys = [format!("lead/{number}"), format!("note/{number}")];
        let changes = keys.iter().map(|name| change(name, OpKind::Create, None, &large)).collect();
        applied(&mut state, number, changes);
    }
    let first = answered(&mut state, &pull(BTreeMap::new(), 1_000));
    assert_eq!((first.changes.len(), first.more), (8, true));
    let one = answered(&mut state, &pull(BTreeMap::new(), 1));
    assert_eq!((one.changes.len(), one.more), (2, true));
}

#[test]
fn a_request_made_for_another_life_of_the_store_changes_nothing_and_learns_only_which_life_this_is()
{
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    let before = state.clone();
    // The request's cursor and head have no meaning here either, so they are no reason for a
    // refusal.
    let cursors =
        BTreeMap::from([(EntityType::parse("lead").unwrap(), Cursor::new(vec![255; 8]).unwrap())]);
    let head = HeadClaim {
        anchor: None,
        contents: Vec::new(),
        seq: Seq::new(9),
        hash: Hash::from_bytes([9; 32]),
    };
    let meant = ExchangeRequest {
        server_epoch: Some(ServerEpoch::from_bytes([9; 16])),
        head: Some(head),
        ..ExchangeRequest { units: vec![unit(2, vec![create("lead/2")])], ..pull(cursors, 10) }
    };
    let answer = answered(&mut state, &meant);
    assert_eq!(state, before);
    let told = (
        answer.outcomes.len(),
        answer.changes.len(),
        answer.cursors.len(),
        answer.receipt,
        answer.forked,
    );
    assert_eq!(told, (0, 0, 0, None, None));
    let (server, epoch) = state.identity().unwrap();
    assert_eq!((answer.server, answer.server_epoch), (server, epoch));

    let here = ExchangeRequest {
        server_epoch: Some(epoch),
        ..request(vec![unit(2, vec![create("lead/2")])])
    };
    assert_eq!(answered(&mut state, &here).outcomes.len(), 1);
}

#[test]
fn cursors_that_this_store_did_not_hand_out_are_refused() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    let with = |bytes: &[u8]| {
        let cursor = Cursor::new(bytes.to_vec()).unwrap();
        pull(BTreeMap::from([(EntityType::parse("lead").unwrap(), cursor)]), 10)
    };
    assert_eq!(refused(&mut state, &with(b"garbage"), &Caller::Anyone).code, "bad_cursor");
    assert_eq!(refused(&mut state, &with(b""), &Caller::Anyone).code, "bad_cursor");
    let ahead = refused(&mut state, &with(&2u64.to_be_bytes()), &Caller::Anyone);
    assert_eq!((ahead.code, ahead.class), ("server_behind", RefusalClass::Behind));
    assert!(answered(&mut state, &with(&1u64.to_be_bytes())).changes.is_empty());
}

/// Every request named a cursor for each entity type, and grew with their number: 212,000 types
/// exceeded the limit of a request.
#[test]
fn one_cursor_stands_for_every_entity_type_that_is_not_named() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    applied(&mut state, 2, vec![create("note/1"), create("task/1")]);
    let all = |others: Cursor, limit| ExchangeRequest {
        others: Some(others),
        ..pull(BTreeMap::new(), limit)
    };
    let first = answered(&mut state, &all(Cursor::default(), 1));
    let keys = |answer: &ExchangeAnswer| {
        answer.changes.iter().map(|change| change.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((keys(&first), first.more), (vec!["lead/1".to_owned()], true));
    let second = answered(&mut state, &all(first.others.unwrap(), 10));
    assert_eq!(
        (keys(&second), second.more),
        (vec!["note/1".to_owned(), "task/1".to_owned()], false)
    );
    // A new entity type is read from that cursor too.
    applied(&mut state, 3, vec![create("visit/1")]);
    let third = answered(&mut state, &all(second.others.unwrap(), 10));
    assert_eq!(keys(&third), ["visit/1"]);
    let end = third.others.unwrap();
    assert_eq!(answered(&mut state, &all(end.clone(), 10)).others, None, "nothing moved");
    // Entity types that are named begin at their own cursors. The answer names a cursor up to which
    // all were read.
    let entity = EntityType::parse("lead").unwrap();
    let named = BTreeMap::from([(entity, Cursor::new(0u64.to_be_bytes().to_vec()).unwrap())]);
    let mixed = answered(&mut state, &ExchangeRequest { cursors: named, ..all(end, 10) });
    assert_eq!((keys(&mixed), mixed.others), (vec!["lead/1".to_owned()], None));
    // The answer to a request without `others` has no such cursor either.
    assert_eq!(answered(&mut state, &pull(BTreeMap::new(), 10)).others, None);
    let ahead = Cursor::new(9u64.to_be_bytes().to_vec()).unwrap();
    assert_eq!(refused(&mut state, &all(ahead, 10), &Caller::Anyone).code, "server_behind");
    assert_eq!(
        refused(&mut state, &all(Cursor::new(vec![1]).unwrap(), 10), &Caller::Anyone).code,
        "bad_cursor"
    );
}
