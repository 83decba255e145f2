//! Stamps and the server's own clock: a stamp is accepted unchanged or not at all.

use std::time::Duration;

use super::*;

fn at(
    now: WallTime,
    state: &mut MemoryAuthority,
    number: u64,
    changes: Vec<UnitChange>,
) -> ExchangeAnswer {
    let request = request(vec![unit(number, changes)]);
    exchange(state, &request, now, &Caller::Anyone, &Quota::default()).unwrap()
}

fn is_ahead(answer: &ExchangeAnswer) -> bool {
    matches!(answer.outcomes.as_slice(), [UnitOutcome { outcome: Outcome::Ahead, .. }])
}

fn is_applied(answer: &ExchangeAnswer) -> bool {
    matches!(answer.outcomes.as_slice(), [UnitOutcome { outcome: Outcome::Applied { current, .. }, .. }] if current.is_empty())
}

const BOUND: Duration = limits::STAMP_AHEAD;

/// The server lowered such stamps. A device without the answer then had another stamp than all
/// others.
#[test]
fn a_stamp_is_taken_as_it_is_up_to_the_bound_and_not_at_all_beyond_it() {
    let mut state = store();
    let latest = Hlc::at(NOW.plus(BOUND));
    assert!(is_applied(&at(
        NOW,
        &mut state,
        1,
        vec![UnitChange { edited_at: latest, ..create("lead/1") }]
    )));
    assert_eq!(state.record(&key("lead/1")).unwrap().unwrap().edited_at, latest);
    let before = kept(&state);
    let answer = at(
        NOW,
        &mut state,
        2,
        vec![create("lead/2"), UnitChange { edited_at: latest.next(), ..create("lead/3") }],
    );
    assert!(is_ahead(&answer));
    assert_eq!(answer.server_time, NOW);
    assert_eq!(kept(&state), before);
    assert!(["lead/2", "lead/3"].iter().all(|name| state.record(&key(name)).unwrap().is_none()));
    // The same change with an earlier stamp, in another unit, is accepted.
    assert!(is_applied(&at(NOW, &mut state, 3, vec![create("lead/2"), create("lead/3")])));
}

#[test]
fn a_fields_own_stamp_is_bounded_too() {
    let mut state = store();
    let (edited_at, op) = (Hlc::at(NOW.plus(BOUND)).next(), OpId::from_bytes(id(900)));
    let older = vec![FieldWrites { edited_at, op, fields: vec!["a".to_owned()] }];
    assert!(is_ahead(&at(NOW, &mut state, 1, vec![UnitChange { older, ..create("lead/1") }])));
}

#[test]
fn whoever_is_stale_and_ahead_is_told_that_it_is_ahead_so_that_it_is_not_judged_by_such_a_stamp() {
    let mut state = store();
    at(NOW, &mut state, 1, vec![create("lead/1")]);
    let far = Hlc::at(NOW.plus(Duration::from_secs(3_600)));
    let stale =
        UnitChange { edited_at: far, ..change("lead/1", OpKind::Update, Some(77), r#"{"a":2}"#) };
    assert!(is_ahead(&at(NOW, &mut state, 2, vec![stale])));
}

/// Simulation (seed 221932616): the network doubled a request. Its first copy was answered `ahead`,
/// so its device lowered the stamps and planned again. The second copy arrived a minute later, when
/// the stamps were no longer ahead, and took effect as well.
#[test]
fn a_unit_that_was_ahead_once_does_not_take_effect_later_under_the_same_id() {
    let mut state = store();
    let ahead = UnitChange { edited_at: Hlc::at(NOW.plus(BOUND)).next(), ..create("lead/1") };
    let later = NOW.plus(Duration::from_secs(3_600));
    assert!(is_ahead(&at(NOW, &mut state, 1, vec![ahead.clone()])));
    assert!(is_ahead(&at(later, &mut state, 1, vec![ahead.clone()])));
    assert!(state.record(&key("lead/1")).unwrap().is_none());
    // The unit that names it is accepted, because the former unit took no effect.
    let anew = Unit { earlier_units: vec![unit(1, Vec::new()).id], ..unit(2, vec![ahead]) };
    let answer =
        exchange(&mut state, &request(vec![anew]), later, &Caller::Anyone, &Quota::default())
            .unwrap();
    assert!(is_applied(&answer));
}

#[test]
fn a_unit_that_was_taken_is_a_duplicate_for_ever_whatever_the_clock_shows() {
    let mut state = store();
    let changes = vec![create("lead/1")];
    at(NOW, &mut state, 1, changes.clone());
    let years_ago = WallTime::from_milliseconds(1_000_000_000_000);
    let answer = at(years_ago, &mut state, 1, changes);
    assert!(matches!(
        answer.outcomes.as_slice(),
        [UnitOutcome { outcome: Outcome::Duplicate { .. }, .. }]
    ));
}

/// A server whose clock was set back wrote that time into stamps, and an older edit overwrote a
/// newer one.
#[test]
fn the_servers_time_never_falls_behind_its_newest_commit() {
    let mut state = store();
    at(NOW, &mut state, 1, vec![create("lead/1")]);
    let years_ago = WallTime::from_milliseconds(1_000_000_000_000);
    let answer = at(
        years_ago,
        &mut state,
        2,
        vec![UnitChange { edited_at: Hlc::at(NOW).next(), ..create("lead/2") }],
    );
    assert!(is_applied(&answer));
    assert_eq!(answer.server_time, NOW);
    let pulled = exchange(
        &mut state,
        &pull(BTreeMap::new(), 10),
        years_ago,
        &Caller::Anyone,
        &Quota::default(),
    );
    assert_eq!(pulled.unwrap().server_time, NOW);
    // The server's time does not creep forward either: the store keeps the server's own time, not
    // that of accepted stamps.
    let latest = Hlc::at(NOW.plus(BOUND));
    assert!(is_applied(&at(
        years_ago,
        &mut state,
        3,
        vec![UnitChange { edited_at: latest, ..create("lead/3") }]
    )));
    assert!(is_ahead(&at(
        years_ago,
        &mut state,
        4,
        vec![UnitChange { edited_at: latest.next(), ..create("lead/4") }]
    )));
}
