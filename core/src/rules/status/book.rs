//! The state of the book as a whole.
//!
//! | of these, the first that is true | is the state |
//! |---|---|
//! | the disk failed | storage failed |
//! | a run is going on | syncing |
//! | another server answered | needs a confirmed server |
//! | the actor who uses the book has no accepted credentials | needs credentials |
//! | the app or the server has to be upgraded | needs an upgrade |
//! | a dead letter, a conflict, a parked op or a held record waits for a person | needs attention |
//! | the last run failed, or waits for its time | the state of that run |
//! | ops of other actors wait until those use the device | needs actors |
//! | none of these | idle |
//!
//! Invariants:
//! 1. The state is idle only while nothing waits for anybody.
//! 2. The progress of a run never decreases, neither the ops that are done nor the sum of all.

use std::collections::BTreeMap;

use crate::entry::ParkScope;
use crate::names::{Actor, RecordKey};
use crate::protocol::Failure;
use crate::time::WallTime;

use super::ParkReason;

/// The activity of the engine, or its reason to wait. The state is never [`SyncState::Idle`] while
/// something waits for somebody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SyncState {
    /// The engine does nothing, and waits for nobody.
    #[default]
    Idle,
    /// A run is going on.
    Syncing {
        /// The number of ops of this run that no longer wait. It never decreases.
        done: u64,
        /// The number of ops of this run. It grows when ops are written meanwhile, and never
        /// decreases.
        total: u64,
        /// The first record of the request that was sent last; none while only pages are read.
        current: Option<RecordKey>,
    },
    /// The last exchange failed. The next exchange is tried at this time.
    BackingOff {
        /// The time, by the device's wall clock.
        until: WallTime,
    },
    /// The server cannot be reached.
    Offline {
        /// The code of the failure.
        code: String,
    },
    /// The actor who uses the book has to sign in again.
    NeedsAuth {
        /// The server's code.
        code: String,
    },
    /// A person has to decide about ops or records.
    NeedsAttention {
        /// The number of dead letters.
        dead_letters: u64,
        /// The number of ops parked by a conflict.
        conflicts: u64,
        /// The number of ops parked for another reason that a person retries or discards.
        parked: u64,
        /// The number of records with a change that would be refused, until someone corrects it.
        held: u64,
    },
    /// Ops of these actors wait until they use this device.
    NeedsActors {
        /// The actors, in the order of their names.
        actors: Vec<Actor>,
        /// The number of their waiting ops.
        ops: u64,
    },
    /// The app, or the server, has to be upgraded.
    NeedsUpgrade {
        /// The server's code.
        code: String,
    },
    /// The server, or its epoch, is not the known one: a person has to accept it.
    NeedsServerConfirmed,
    /// The last exchange ended early for this reason.
    Failed {
        /// The reason.
        code: String,
    },
    /// The disk failed: close the book and open it again.
    StorageFailed,
}

/// Everything that waits for somebody.
#[derive(Debug, Clone)]
pub struct Attention<'a> {
    /// Whether the disk failed.
    pub storage_failed: bool,
    /// The parks and their codes, without those of single ops.
    pub parks: &'a [(ParkScope, String)],
    /// The number of ops that are parked alone, by code.
    pub parked_ops: &'a BTreeMap<String, u64>,
    /// The actor who uses the book.
    pub actor: &'a Actor,
    /// The number of dead letters.
    pub dead_letters: u64,
    /// The number of records with a change that someone has to correct.
    pub held: u64,
    /// The number of records with a change of a schema version from which no upcaster leads on.
    pub outgrown: u64,
    /// The other actors with waiting ops, each with their number.
    pub others: Vec<(Actor, u64)>,
}

/// Returns the state of the book. `doing` is the engine's report of its last or present run.
pub fn overall(doing: &SyncState, attention: &Attention<'_>) -> SyncState {
    if attention.storage_failed {
        return SyncState::StorageFailed;
    }
    if matches!(doing, SyncState::Syncing { .. }) {
        return doing.clone();
    }
    let waits = attention.needs_someone();
    match (waits, doing) {
        (Some(state), _) => state,
        (None, SyncState::Idle) => attention.needs_actors().unwrap_or_default(),
        (None, doing) => doing.clone(),
    }
}

impl Attention<'_> {
    /// Returns the state if somebody has to act before all ops of the actor who uses the book can
    /// be sent.
    pub fn needs_someone(&self) -> Option<SyncState> {
        let reasons = self.parks.iter().filter(|(scope, _)| match scope {
            ParkScope::Actor(actor) => actor == self.actor,
            _ => true,
        });
        let reasons: Vec<_> =
            reasons.map(|(scope, code)| (ParkReason::of(scope, code), code)).collect();
        let find = |wanted: &[ParkReason]| {
            reasons
                .iter()
                .find(|(reason, _)| wanted.contains(reason))
                .map(|(_, code)| (*code).clone())
        };
        if find(&[ParkReason::OtherServer, ParkReason::ServerBehind]).is_some() {
            return Some(SyncState::NeedsServerConfirmed);
        }
        if let Some(code) = find(&[ParkReason::OtherTenant, ParkReason::Unauthorized]) {
            return Some(SyncState::NeedsAuth { code });
        }
        if let Some(code) = find(&[ParkReason::OtherProtocol, ParkReason::Unsupported]) {
            return Some(SyncState::NeedsUpgrade { code });
        }
        if self.outgrown > 0 {
            return Some(SyncState::NeedsUpgrade { code: "schema_version".to_owned() });
        }
        let count = |wanted: &dyn Fn(ParkReason) -> bool| -> u64 {
            self.parked_ops
                .iter()
                .filter(|(code, _)| wanted(ParkReason::of_op(code)))
                .map(|(_, ops)| ops)
                .sum()
        };
        let (dead_letters, held) = (self.dead_letters, self.held);
        let conflicts = count(&|reason| reason == ParkReason::Conflict);
        let parked = count(&ParkReason::is_for_a_person);
        let someone = dead_letters > 0 || conflicts > 0 || parked > 0 || held > 0;
        someone.then_some(SyncState::NeedsAttention { dead_letters, conflicts, parked, held })
    }

    fn needs_actors(&self) -> Option<SyncState> {
        let mut others: Vec<_> = self.others.iter().filter(|(_, ops)| *ops > 0).collect();
        others.sort();
        let ops = others.iter().map(|(_, ops)| ops).sum();
        let actors: Vec<_> = others.into_iter().map(|(actor, _)| actor.clone()).collect();
        (!actors.is_empty()).then_some(SyncState::NeedsActors { actors, ops })
    }
}

impl SyncState {
    /// Returns the state after an exchange that failed as a whole.
    pub fn after(failure: &Failure) -> Self {
        match failure {
            Failure::Unreachable { code } | Failure::Unknown { code } => {
                Self::Offline { code: (*code).to_owned() }
            }
            Failure::Unauthorized { code } => Self::NeedsAuth { code: code.clone() },
            Failure::UpgradeRequired { code } => Self::NeedsUpgrade { code: code.clone() },
            Failure::Transient { code, .. } | Failure::Refused { code } => {
                Self::Failed { code: code.clone() }
            }
            Failure::Misbehaved { code } => Self::Failed { code: (*code).to_owned() },
            Failure::TooLarge => Self::Failed { code: "too_large".to_owned() },
        }
    }

    /// Returns whether the state has a reason why nothing is sent, and not only a time.
    pub const fn is_reason(&self) -> bool {
        matches!(self, Self::Offline { .. } | Self::NeedsAuth { .. } | Self::NeedsUpgrade { .. })
    }
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The number of ops of the run that no longer wait.
    pub done: u64,
    /// The number of ops of the run.
    pub total: u64,
}

impl Progress {
    /// Returns the progress after `settled` ops of the run have ended and while it still has to
    /// send `waiting` ops.
    #[must_use]
    pub fn moved(self, settled: u64, waiting: u64) -> Self {
        let total = self.total.max(settled.saturating_add(waiting));
        Self { done: self.done.max(total.saturating_sub(waiting)), total }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ServerEpoch, ServerId, TenantId};
    use crate::names::EntityType;

    fn actor(name: &str) -> Actor {
        Actor::parse(name).unwrap()
    }

    fn park(scope: ParkScope, code: &str) -> (ParkScope, String) {
        (scope, code.to_owned())
    }

    fn attention<'a>(parks: &'a [(ParkScope, String)], actor: &'a Actor) -> Attention<'a> {
        Attention {
            storage_failed: false,
            parks,
            parked_ops: const { &BTreeMap::new() },
            actor,
            dead_letters: 0,
            held: 0,
            outgrown: 0,
            others: Vec::new(),
        }
    }

    #[test]
    fn each_row_of_the_table_goes_before_those_below_it() {
        let (ann, code) = (actor("ann"), |code: &str| code.to_owned());
        let server =
            ParkScope::Server(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([2; 16]));
        let parks = [
            park(ParkScope::Entity(EntityType::parse("lead").unwrap()), "unknown_entity"),
            park(ParkScope::Tenant(TenantId::from_bytes([3; 16])), "other_tenant"),
            park(server, "other_server"),
        ];
        let wanted = [
            SyncState::NeedsServerConfirmed,
            SyncState::NeedsAuth { code: code("other_tenant") },
            SyncState::NeedsUpgrade { code: code("unknown_entity") },
            SyncState::NeedsAttention { dead_letters: 0, conflicts: 0, parked: 1, held: 0 },
        ];
        let worn_out = BTreeMap::from([("stale".to_owned(), 1)]);
        let offline = SyncState::Offline { code: code("dns") };
        for (left, wanted) in (0..=parks.len()).rev().zip(wanted) {
            let waits = Attention { parked_ops: &worn_out, ..attention(&parks[..left], &ann) };
            assert_eq!(overall(&offline, &waits), wanted);
        }
        let others = vec![(actor("cid"), 1), (actor("ben"), 2)];
        let waits = Attention { others, ..attention(&[], &ann) };
        assert_eq!(overall(&offline, &waits), offline);
        let wanted = SyncState::NeedsActors { actors: vec![actor("ben"), actor("cid")], ops: 3 };
        assert_eq!(overall(&SyncState::Idle, &waits), wanted);
        assert_eq!(overall(&SyncState::Idle, &attention(&[], &ann)), SyncState::Idle);
        let syncing = SyncState::Syncing { done: 1, total: 2, current: None };
        assert_eq!(overall(&syncing, &attention(&parks, &ann)), syncing);
        let failed = Attention { storage_failed: true, ..attention(&parks, &ann) };
        assert_eq!(overall(&syncing, &failed), SyncState::StorageFailed);
    }

    /// An op parked as "stale", "ahead" or "upcast" was counted as a conflict, in which nobody
    /// could choose.
    #[test]
    fn what_is_parked_without_a_conflict_is_not_counted_as_one() {
        let ann = actor("ann");
        let codes = ["conflict", "stale", "ahead", "upcast", "of a later version"];
        let parked_ops = codes.map(|code| (code.to_owned(), 1)).into();
        let wanted =
            SyncState::NeedsAttention { dead_letters: 0, conflicts: 1, parked: 4, held: 0 };
        let waits = Attention { parked_ops: &parked_ops, ..attention(&[], &ann) };
        assert_eq!(overall(&SyncState::Idle, &waits), wanted);
    }

    #[test]
    fn the_credentials_of_another_actor_are_not_asked_of_who_uses_the_book() {
        let (ann, ben) = (actor("ann"), actor("ben"));
        let parks = [park(ParkScope::Actor(ben.clone()), "expired")];
        let waits = Attention { others: vec![(ben.clone(), 1)], ..attention(&parks, &ann) };
        let wanted = SyncState::NeedsActors { actors: vec![ben.clone()], ops: 1 };
        assert_eq!(overall(&SyncState::Idle, &waits), wanted);
        let wanted = SyncState::NeedsAuth { code: "expired".to_owned() };
        assert_eq!(overall(&SyncState::Idle, &attention(&parks, &ben)), wanted);
    }

    #[test]
    fn a_run_that_settles_everything_is_done_with_everything() {
        let begun = Progress::default().moved(0, 100);
        assert_eq!(begun, Progress { done: 0, total: 100 });
        // 40 were accepted, 10 lost a conflict and ended, 5 were written meanwhile.
        assert_eq!(begun.moved(40, 55), Progress { done: 45, total: 100 });
        assert_eq!(begun.moved(40, 70), Progress { done: 40, total: 110 });
        assert_eq!(begun.moved(40, 70).moved(110, 0), Progress { done: 110, total: 110 });
    }

    proptest! {
        #[test]
        fn progress_never_runs_backwards(steps in prop::collection::vec((0..50u64, 0..50u64), 1..30)) {
            let (mut progress, mut settled) = (Progress::default(), 0);
            for (more, waiting) in steps {
                settled += more;
                let next = progress.moved(settled, waiting);
                prop_assert!(next.done >= progress.done && next.total >= progress.total && next.done <= next.total);
                progress = next;
            }
        }
    }
}
