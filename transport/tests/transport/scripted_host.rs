//! A book and a server in a few lines each. They record every call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use fieldbook_core::protocol::{
    Change, ExchangeAnswer, ExchangeRequest, Failure, Outcome, Unit, UnitOutcome,
};
use fieldbook_core::{Cursor, Hlc, OpId, RecordKey, RequestId, UnitId, Version, WallTime};
use fieldbook_transport::{
    Activity, ExchangeCounts, ExchangeParams, Left, NextStep, SyncHost, Unanswered,
};
use tokio::sync::watch;

use crate::support::{answer, cursor, lead, request, unit};

/// The book's own failure.
#[derive(Debug, thiserror::Error)]
#[error("the disk failed")]
pub struct DiskFailed;

/// A book that holds units to send and a cursor.
pub struct ScriptedHost {
    pub state: Mutex<State>,
    /// Runs at the start of each `apply_answer`, outside the lock, like a slow commit.
    pub on_accept: Box<dyn Fn(&ExchangeRequest) + Send + Sync>,
    /// Whether the loop may ask for pages ahead.
    pub reads_ahead: bool,
    /// Whether a unit that is too large alone becomes a dead letter.
    pub buries: bool,
    /// What is known of units of an earlier run.
    pub unanswered: Unanswered,
    /// The turns of a book that goes away and comes back.
    pub turns: watch::Sender<u64>,
}

#[derive(Default)]
pub struct State {
    pub tail: Vec<Unit>,
    pub dead: Vec<UnitId>,
    pub cursor: Option<Cursor>,
    pub requests: u8,
    pub asks: Vec<ExchangeParams>,
    pub failures: Vec<Failure>,
    pub activities: Vec<Activity>,
    pub next_wake: Option<WallTime>,
    pub disk_fails: bool,
    pub parks: bool,
}

impl ScriptedHost {
    pub fn with_units(count: u8) -> Self {
        let state = State { tail: (0..count).map(unit).collect(), ..State::default() };
        Self {
            state: Mutex::new(state),
            on_accept: Box::new(|_| {}),
            reads_ahead: true,
            buries: true,
            unanswered: Unanswered::No,
            turns: watch::Sender::new(0),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn request(
        &mut self,
        units: Vec<Unit>,
        cursor: Option<Cursor>,
        page_limit: u32,
    ) -> ExchangeRequest {
        self.requests = self.requests.wrapping_add(1);
        ExchangeRequest {
            request: RequestId::from_bytes([self.requests; 16]),
            units,
            cursors: cursor.map(|cursor| (lead(), cursor)).into_iter().collect(),
            page_limit,
            ..request()
        }
    }
}

impl SyncHost for ScriptedHost {
    type Error = DiskFailed;

    fn turns(&self) -> Option<watch::Receiver<u64>> {
        Some(self.turns.subscribe())
    }

    fn prepare(&self, ask: &ExchangeParams) -> Result<NextStep, DiskFailed> {
        let mut state = self.state();
        state.asks.push(ask.clone());
        let sendable = if ask.push { state.tail.len().min(ask.batch_ops) } else { 0 };
        if sendable == 0 && !ask.pull {
            return Ok(NextStep::Idle { next_wake: state.next_wake });
        }
        let (units, cursor) = (state.tail[..sendable].to_vec(), state.cursor.clone());
        Ok(NextStep::Exchange(state.request(units, cursor, ask.page_limit)))
    }

    fn apply_answer(
        &self,
        request: &ExchangeRequest,
        answer: ExchangeAnswer,
    ) -> Result<ExchangeCounts, DiskFailed> {
        (self.on_accept)(request);
        let mut state = self.state();
        if state.disk_fails {
            return Err(DiskFailed);
        }
        let mut taken =
            ExchangeCounts { more: answer.more, parked: state.parks, ..ExchangeCounts::default() };
        for outcome in answer.outcomes {
            let before = state.tail.len();
            state.tail.retain(|unit| unit.id != outcome.unit);
            taken.units_acked += u32::try_from(before - state.tail.len()).unwrap();
        }
        taken.ops_acked = taken.units_acked;
        if let Some(page) = answer.cursors.get(&lead()) {
            assert_eq!(
                request.cursors.get(&lead()),
                state.cursor.as_ref(),
                "pages are applied in order"
            );
            state.cursor = Some(page.clone());
        }
        taken.changes = u32::try_from(answer.changes.len()).unwrap();
        Ok(taken)
    }

    fn follow_up(
        &self,
        request: &ExchangeRequest,
        answer: &ExchangeAnswer,
    ) -> Option<ExchangeRequest> {
        let page = answer.cursors.get(&lead())?.clone();
        self.reads_ahead.then(|| self.state().request(Vec::new(), Some(page), request.page_limit))
    }

    fn fail(
        &self,
        request: &ExchangeRequest,
        failure: &Failure,
    ) -> Result<ExchangeCounts, DiskFailed> {
        let mut state = self.state();
        state.failures.push(failure.clone());
        let alone = match &request.units[..] {
            [unit] if self.buries && *failure == Failure::TooLarge => unit.id,
            _ => return Ok(ExchangeCounts::default()),
        };
        state.tail.retain(|unit| unit.id != alone);
        state.dead.push(alone);
        Ok(ExchangeCounts { ops_dead: 1, ..ExchangeCounts::default() })
    }

    fn unanswered(&self) -> Unanswered {
        self.unanswered
    }

    fn left(&self) -> Left {
        let state = self.state();
        Left::of_book(state.tail.len() as u64, !state.dead.is_empty())
    }

    fn report(&self, activity: &Activity) {
        self.state().activities.push(activity.clone());
    }
}

/// A server that accepts every unit once and has this many pages of one change each.
pub struct ScriptedServer {
    pub pages: u8,
    seen: Mutex<Seen>,
}

#[derive(Default)]
pub struct Seen {
    pub requests: Vec<ExchangeRequest>,
    pub applied: BTreeSet<UnitId>,
}

impl ScriptedServer {
    pub fn with_pages(pages: u8) -> Self {
        Self { pages, seen: Mutex::default() }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub fn answer(&self, request: &ExchangeRequest) -> ExchangeAnswer {
        let mut seen = self.seen();
        seen.requests.push(request.clone());
        let mut answer = answer(request);
        for unit in &request.units {
            let versions = BTreeMap::new();
            let outcome = if seen.applied.insert(unit.id) {
                Outcome::Applied { versions, current: Vec::new() }
            } else {
                Outcome::Duplicate { versions, current: Vec::new() }
            };
            answer.outcomes.push(UnitOutcome { unit: unit.id, outcome });
        }
        let read = request.cursors.get(&lead()).map_or(0, |cursor| cursor.as_bytes()[0]);
        if request.page_limit > 0 && read < self.pages {
            answer.changes.push(change(read));
            answer.cursors.insert(lead(), cursor(read + 1));
            answer.more = read + 1 < self.pages;
        }
        answer
    }
}

fn change(number: u8) -> Change {
    Change {
        key: RecordKey::parse("lead", &number.to_string()).unwrap(),
        version: Version::new(1),
        edited_at: Hlc::ZERO,
        op: OpId::from_bytes([number; 16]),
        by: None,
        older: Vec::new(),
        floor: None,
        deleted: true,
        partial: false,
        fields: None,
    }
}
