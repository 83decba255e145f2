use super::*;
use crate::random::SeededRandomness;
use crate::rules::test_view::{TestView, key, unit_id};
use std::time::Duration;

const NOW: WallTime = WallTime::from_milliseconds(1_000_000);

fn refused(code: &str) -> Failure {
    Failure::Refused { code: code.to_owned() }
}

fn transient(code: &str, marked: bool) -> Failure {
    Failure::Transient { code: code.to_owned(), retry_after: None, marked }
}

fn unauthorized(code: &str) -> Failure {
    Failure::Unauthorized { code: code.to_owned() }
}

fn upgrade(code: &str) -> Failure {
    Failure::UpgradeRequired { code: code.to_owned() }
}

fn known(times: u32) -> Suspicion {
    let retry_at = (times > 0).then_some(NOW);
    Suspicion { set: (Seq::new(7), 0), times, code: "http_502".to_owned(), retry_at }
}

fn doubted(count: u8, suspicion: Option<&Suspicion>) -> Vec<Doubted> {
    let unit = |number| Doubted {
        unit: unit_id(number),
        planned: Seq::new(number.into()),
        tries: 0,
        suspicion: suspicion.cloned(),
    };
    (0..count).map(unit).collect()
}

fn decided(failure: &Failure, units: &[Doubted], strikes: u32) -> Vec<Decision> {
    isolate(failure, units, strikes, NOW, &mut SeededRandomness::from_number(1))
}

/// Returns the units of each decision; for a dead letter, its code.
fn shown(decisions: &[Decision]) -> Vec<String> {
    let each = decisions.iter().map(|decision| match decision {
        Decision::Suspected { units, times, retry_at, .. } => {
            let numbers: Vec<_> = units.iter().map(|(unit, _)| unit.as_bytes()[0]).collect();
            format!("{numbers:?} {times}{}", if retry_at.is_some() { " alone" } else { "" })
        }
        Decision::DeadLettered { code, .. } => format!("dead: {code}"),
        other => format!("{other:?}"),
    });
    each.collect()
}

#[test]
fn whose_fault_a_failure_may_be() {
    for (failure, expected) in [
        (Failure::Unreachable { code: "dns" }, Blame::Elsewhere),
        (Failure::Unreachable { code: "connection_refused" }, Blame::Elsewhere),
        (Failure::Unreachable { code: "not_our_server" }, Blame::Request),
        (Failure::Unreachable { code: "captive_portal" }, Blame::Request),
        (Failure::Unreachable { code: "proxy" }, Blame::Request),
        (unauthorized("token_expired"), Blame::Elsewhere),
        (unauthorized("http_401"), Blame::Request),
        (unauthorized("credentials_late"), Blame::Elsewhere),
        (upgrade("upgrade_required"), Blame::Elsewhere),
        (transient("http_502", false), Blame::Request),
        (transient("store_failed", true), Blame::Request),
        (refused("bad_request"), Blame::Request),
        (Failure::TooLarge, Blame::Request),
        (Failure::Unknown { code: "connection_broke" }, Blame::Request),
        (Failure::Misbehaved { code: "not_an_answer" }, Blame::Request),
    ] {
        assert_eq!(blame(&failure), expected, "{failure:?}");
    }
}

#[test]
fn only_our_own_servers_word_stops_anything() {
    let ann = Actor::parse("ann").unwrap();
    let server = (ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([2; 16]));
    for (failure, expected) in [
        (unauthorized("token_expired"), Some(ParkScope::Actor(ann.clone()))),
        (unauthorized("http_401"), None),
        (unauthorized("credentials_late"), None),
        (unauthorized("token_has_control_characters"), None),
        (upgrade("upgrade_required"), Some(ParkScope::Protocol)),
        (upgrade("http_426"), None),
        (refused("server_behind"), Some(ParkScope::Server(server.0, server.1))),
        (refused("bad_request"), None),
        (Failure::Unreachable { code: "not_our_server" }, None),
        (transient("store_failed", true), None),
    ] {
        let parked = parks(&failure, &ann, Some(server));
        assert_eq!(parked.map(|(scope, _)| scope), expected, "{failure:?}");
    }
    assert_eq!(parks(&refused("server_behind"), &ann, None), None, "no server is known yet");
}

#[test]
fn an_answer_shows_that_credentials_and_protocol_are_accepted_and_nothing_else() {
    let (ann, ben) = (Actor::parse("ann").unwrap(), Actor::parse("ben").unwrap());
    assert!(refutes(&ParkScope::Actor(ann.clone()), &ann) && refutes(&ParkScope::Protocol, &ann));
    assert!(!refutes(&ParkScope::Actor(ben), &ann));
    assert!(!refutes(&ParkScope::Entity(key("1").entity), &ann));
}

#[test]
fn one_failure_decides_nothing_and_the_second_one_halves() {
    let failure = transient("http_502", false);
    assert_eq!(shown(&decided(&failure, &doubted(5, None), 1)), [""; 0]);
    assert_eq!(shown(&decided(&failure, &doubted(5, None), 2)), ["[0, 1] 0", "[2, 3, 4] 0"]);
    assert_eq!(shown(&decided(&failure, &doubted(1, None), 1)), [""; 0]);
    assert_eq!(shown(&decided(&failure, &doubted(1, None), 2)), ["[0] 1 alone"]);
    assert_eq!(shown(&decided(&failure, &[], 2)), [""; 0]);
}

#[test]
fn what_is_suspected_already_is_halved_at_once() {
    let failure = Failure::Unknown { code: "connection_broke" };
    assert_eq!(shown(&decided(&failure, &doubted(2, Some(&known(0))), 1)), ["[0] 0", "[1] 0"]);
    assert_eq!(shown(&decided(&failure, &doubted(1, Some(&known(0))), 1)), ["[0] 1 alone"]);
    assert_eq!(shown(&decided(&failure, &doubted(1, Some(&known(4))), 1)), ["[0] 5 alone"]);
}

#[test]
fn a_lone_unit_that_our_server_cannot_take_is_a_dead_letter_and_several_are_halved() {
    assert_eq!(
        shown(&decided(&refused("bad_request"), &doubted(1, None), 1)),
        ["dead: bad_request"]
    );
    assert_eq!(shown(&decided(&Failure::TooLarge, &doubted(1, None), 1)), ["dead: too_large"]);
    assert_eq!(shown(&decided(&refused("bad_request"), &doubted(2, None), 1)), ["[0] 0", "[1] 0"]);
    assert_eq!(
        shown(&decided(&Failure::TooLarge, &doubted(2, None), 9)),
        [""; 0],
        "less is sent at a time"
    );
    assert_eq!(shown(&decided(&refused("broken_body"), &doubted(1, None), 1)), ["[0] 1 alone"]);
}

/// Five answers "the store failed", as in an outage of a minute, and a lone edit was refused for
/// good.
#[test]
fn no_fault_of_the_server_or_of_the_way_ever_makes_a_dead_letter_or_counts_a_try() {
    for code in ["store_failed", "server_failed", "store_damaged", "slow_request", "http_502"] {
        let mut unit = doubted(1, None);
        for times in 1..100 {
            let decisions = decided(&transient(code, true), &unit, 2);
            assert_eq!(shown(&decisions), [format!("[0] {times} alone")]);
            unit = doubted(1, Some(&known(times)));
        }
    }
}

#[test]
fn who_is_found_alone_waits_longer_and_longer_but_for_a_second_and_at_most_an_hour() {
    let mut random = SeededRandomness::from_number(3);
    for times in 0..200 {
        let failure = Failure::Transient {
            code: "busy".to_owned(),
            retry_after: (times % 2 == 0).then_some(Duration::from_secs(40)),
            marked: true,
        };
        let units = doubted(1, Some(&known(times)));
        let decisions = isolate(&failure, &units, 1, NOW, &mut random);
        let [Decision::Suspected { retry_at: Some(at), .. }] = decisions.as_slice() else {
            panic!("{decisions:?}")
        };
        let wait = at.since(NOW);
        let least = Duration::from_secs(if times % 2 == 0 { 40 } else { 1 });
        assert!(wait >= least && wait <= limits::BACKOFF_MOST, "{wait:?}");
    }
}

#[test]
fn who_gets_through_frees_those_that_stand_behind_the_same_code() {
    let mut tail = Tail::default();
    let view = TestView::default()
        .with("1", 1, 1, 0)
        .with("2", 2, 1, 0)
        .with("3", 3, 1, 0)
        .with("4", 4, 1, 0);
    let later = Some(NOW.plus(Duration::from_secs(60)));
    let suspicions = [
        Some(Suspicion { retry_at: later, ..known(3) }),
        Some(Suspicion { retry_at: later, ..known(5) }),
        Some(Suspicion { retry_at: later, code: "other".to_owned(), ..known(5) }),
        None,
    ];
    for (row, suspicion) in view.units.values().zip(suspicions) {
        let id = view.units.iter().find(|(_, found)| *found == row).map(|(id, _)| *id).unwrap();
        tail.put_unit(id, &crate::rows::UnitRow { suspicion, ..row.clone() });
    }
    let acked =
        |unit| Decision::Acked { unit: unit_id(unit), planned: Seq::new(1), versions: Vec::new() };
    let free = freed(&tail, &[acked(1)], NOW);
    assert_eq!(shown(&free), ["[2] 5 alone"]);
    assert!(
        matches!(free.as_slice(), [Decision::Suspected { retry_at, .. }] if *retry_at == Some(NOW))
    );
    assert_eq!(freed(&tail, &[acked(4)], NOW), [], "it had not been in anybody's way");
    assert_eq!(freed(&tail, &[acked(1), acked(2)], NOW), [], "both are through");
}

/// Offline, the report of a run claimed that everything was sent.
#[test]
fn a_request_that_reached_nobody_has_not_left() {
    for code in ["dns", "refused", "no_network"] {
        assert!(!may_have_left(&Failure::Unreachable { code }), "{code}");
    }
    assert!(!may_have_left(&Failure::Unauthorized { code: "credentials_late".to_owned() }));
    assert!(may_have_left(&Failure::Unreachable { code: "captive_portal" }), "something answered");
    assert!(may_have_left(&Failure::Unauthorized { code: "token_expired".to_owned() }));
    assert!(may_have_left(&Failure::Unknown { code: "timeout" }));
}
