//! Finds the ops that no sync moves: somebody has to do something about each of them.
//!
//! | the op | has failed |
//! |---|---|
//! | is a dead letter, is in an open conflict, or is parked alone | yes |
//! | is held until it is corrected, or does not get through alone | yes |
//! | waits for an upgrade of the app or the server | yes |
//! | was made by another user, who has to sign in | yes |
//! | waits for a time, a network, an answer, another op or another record | no: it depends on that |
//! | waits because its own author has to sign in, or for the server as a whole | no: the status says so |
//!
//! Invariants:
//! 1. An op that only waits for another op has not failed.
//!
//! What it does not do: decide what a person can do about an op ([`OpState::actions`]).

use super::status::{Held, OpState, ParkReason};
use crate::names::{Actor, RecordKey};
use crate::op::OpPlace;

/// Returns whether no sync of a user moves an op that `made_by` made.
pub fn has_failed(state: &OpState, made_by: &Actor, user: &Actor) -> bool {
    match state {
        OpState::DeadLettered { .. } | OpState::InConflict { .. } => true,
        OpState::Parked { reason, .. } => match reason {
            ParkReason::Unauthorized => made_by != user,
            ParkReason::OtherProtocol
            | ParkReason::OtherServer
            | ParkReason::ServerBehind
            | ParkReason::OtherTenant => false,
            _ => true,
        },
        OpState::Held(held) => match held {
            Held::TargetDeleted { .. } | Held::Refused { .. } | Held::TooLarge { .. } => true,
            Held::NotLetThrough { times, .. } => *times > 0,
            Held::OtherActor { .. } => made_by != user,
            _ => false,
        },
        OpState::Pending { .. } | OpState::WaitingForNetwork { .. } | OpState::InFlight { .. } => {
            false
        }
    }
}

/// An op that may depend on another one.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// Its state.
    pub state: &'a OpState,
    /// Its place.
    pub place: OpPlace,
    /// Its record.
    pub key: &'a RecordKey,
    /// Its author.
    pub made_by: &'a Actor,
}

/// Returns whether an op waits for the op that is at `place` of the record `key`, which `made_by`
/// made.
pub fn waits_for(waiting: Waiting<'_>, place: OpPlace, key: &RecordKey, made_by: &Actor) -> bool {
    let OpState::Held(held) = waiting.state else { return false };
    let is_later = waiting.key == key && waiting.place > place;
    match held {
        Held::WaitsFor { record } => record == key,
        Held::DeadCreate => is_later,
        Held::Behind { op: Some(op) }
        | Held::After { op }
        | Held::BehindNotLetThrough { op, .. }
        | Held::BehindParked { op, .. } => *op == place,
        Held::OtherActor { actor } => is_later && actor == made_by && waiting.made_by != actor,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::{ConflictId, Seq};
    use crate::rules::test_view::key;
    use crate::time::WallTime;

    fn actor(name: &str) -> Actor {
        Actor::parse(name).unwrap()
    }

    fn place(seq: u64) -> OpPlace {
        OpPlace { seq: Seq::new(seq), index: 0 }
    }

    fn parked(reason: ParkReason) -> OpState {
        OpState::Parked { reason, code: String::new() }
    }

    #[test]
    fn what_somebody_has_to_act_on_has_failed() {
        let letter = OpState::DeadLettered {
            code: "no".into(),
            message: String::new(),
            tries: 1,
            last_at: None,
        };
        let conflict = OpState::InConflict { conflict: ConflictId { seq: Seq::new(1), number: 0 } };
        let held = [
            Held::TargetDeleted { record: key("2") },
            Held::Refused { reason: "no name".into() },
            Held::TooLarge { bytes: 2, most: 1 },
            Held::NotLetThrough { until: None, code: "timeout".into(), times: 1 },
        ];
        let reasons = [ParkReason::WornOut, ParkReason::NoUpcaster, ParkReason::Unsupported];
        let all = held.map(OpState::Held).into_iter().chain(reasons.map(parked));
        for state in all.chain([letter, conflict]) {
            assert!(has_failed(&state, &actor("ann"), &actor("ann")), "{state:?}");
        }
    }

    #[test]
    fn what_moves_by_itself_or_concerns_the_whole_book_has_not() {
        let held = [
            Held::UndoWindow { until: WallTime::default() },
            Held::WaitsFor { record: key("2") },
            Held::DeadCreate,
            Held::After { op: place(1) },
            Held::UnmeteredNetwork,
            Held::LocalOnly,
            Held::NotLetThrough { until: None, code: "timeout".into(), times: 0 },
        ];
        let reasons = [ParkReason::OtherServer, ParkReason::OtherTenant, ParkReason::Unauthorized];
        let states = held.map(OpState::Held).into_iter().chain(reasons.map(parked));
        for state in states.chain([OpState::Pending { tries: 0 }]) {
            assert!(!has_failed(&state, &actor("ann"), &actor("ann")), "{state:?}");
        }
    }

    #[test]
    fn what_another_user_made_has_failed_for_who_is_there() {
        let held = OpState::Held(Held::OtherActor { actor: actor("ben") });
        for state in [held, parked(ParkReason::Unauthorized)] {
            assert!(has_failed(&state, &actor("ben"), &actor("ann")));
            assert!(!has_failed(&state, &actor("ben"), &actor("ben")));
        }
    }

    #[test]
    fn an_op_waits_for_the_op_that_holds_it() {
        let waits = |held: Held, of: &str, at: u64| {
            let (state, key_of, author) = (OpState::Held(held), key(of), actor("ann"));
            let waiting =
                Waiting { state: &state, place: place(at), key: &key_of, made_by: &author };
            waits_for(waiting, place(5), &key("1"), &actor("ben"))
        };
        assert!(waits(Held::WaitsFor { record: key("1") }, "2", 3));
        assert!(!waits(Held::WaitsFor { record: key("3") }, "2", 3));
        assert!(waits(Held::DeadCreate, "1", 6) && !waits(Held::DeadCreate, "2", 6));
        assert!(waits(Held::After { op: place(5) }, "1", 6));
        assert!(!waits(Held::After { op: place(4) }, "1", 6));
        let of_ben = || Held::OtherActor { actor: actor("ben") };
        assert!(waits(of_ben(), "1", 6) && !waits(of_ben(), "1", 4) && !waits(of_ben(), "2", 6));
    }
}
