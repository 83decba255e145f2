//! The exchanges of a case: the book's requests, and the answers of the scripted server.

use std::collections::BTreeSet;
use std::sync::Arc;

use fieldbook::record::{OpId, UnitId, Version};
use fieldbook::sync::protocol::{Change, ExchangeAnswer, ExchangeRequest, Failure, Unit};
use fieldbook::sync::{Cursor, ExchangeParams, NextStep, RequestId, ServerEpoch, ServerId};
use fieldbook::{RecordKey, limits};
use serde_json::{Value, json};

use super::answer;
use super::case::{Answered, Pulled};
use super::clock::CaseClock;
use super::fault::Fault;
use super::stamps::Known;
use super::world::World;

/// The limits of a push.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) ops: usize,
    pub(super) bytes: usize,
}

impl Batch {
    /// Returns the limits of a case, or the product's defaults.
    pub(super) fn of(ops: Option<usize>, bytes: Option<usize>) -> Self {
        Self { ops: ops.unwrap_or(limits::BATCH_OPS), bytes: bytes.unwrap_or(limits::BATCH_BYTES) }
    }
}

/// The facts from which the scripted server makes its answers.
pub(super) struct Answering {
    pub(super) clock: Arc<CaseClock>,
    pub(super) server_epoch: u8,
}

impl World {
    /// Sends the next units and applies the answer.
    pub(super) fn push(
        &mut self,
        results: &[Answered],
        batch: Batch,
        heed_backoff: bool,
    ) -> Result<(), Fault> {
        if self.manner.one_shot && self.in_flight.is_empty() {
            if !heed_backoff {
                self.wait_for_backoff()?;
            }
            return self.push_in_one_shot(results, batch);
        }
        self.begin_push(batch, heed_backoff)?;
        self.clock.advance(1);
        self.end_push(results)
    }

    pub(super) fn begin_push(&mut self, batch: Batch, heed_backoff: bool) -> Result<(), Fault> {
        if !heed_backoff {
            self.wait_for_backoff()?;
        }
        if self.would_overtake()? {
            return Ok(());
        }
        let Some(mut request) = self.next_request(batch)? else { return Ok(()) };
        if let Some(failure) = self.next_loss() {
            self.book()?.exchange().fail(&request, &failure)?;
            if self.manner.opens_anew() {
                self.reopen_as_it_is()?;
            }
            let again = self.next_request(batch)?;
            Self::check_resend(&request, again.as_ref())?;
            request = again.unwrap_or(request);
        }
        self.leaves(&request)?;
        self.in_flight.push(request);
        Ok(())
    }

    /// Lets the book prepare the next request, without requests in flight.
    fn next_request(&self, batch: Batch) -> Result<Option<ExchangeRequest>, Fault> {
        let ask = ExchangeParams {
            first: true,
            push: true,
            pull: false,
            batch_ops: batch.ops,
            batch_bytes: batch.bytes,
            page_limit: 0,
        };
        let NextStep::Exchange(mut request) = self.book()?.exchange().prepare(&ask)? else {
            return Ok(None);
        };
        let travelling: BTreeSet<_> = self.in_flight.iter().flat_map(units_of).collect();
        request.units.retain(|unit| !travelling.contains(&unit.id));
        Ok((!request.units.is_empty()).then_some(request))
    }

    /// Returns the failure of the next request, if it is lost: no server is reached, or nobody
    /// knows whether the request arrived.
    pub(super) fn next_loss(&mut self) -> Option<Failure> {
        if !self.manner.lost_requests {
            return None;
        }
        self.lost += 1;
        Some(if self.lost.is_multiple_of(2) {
            Failure::Unreachable { code: "connect" }
        } else {
            Failure::Unknown { code: "connection_broke" }
        })
    }

    /// Checks that lost units are sent again: the same units with the same bytes, in their first
    /// order.
    pub(super) fn check_resend(
        lost: &ExchangeRequest,
        again: Option<&ExchangeRequest>,
    ) -> Result<(), Fault> {
        let units = again.map_or(&[][..], |again| &again.units);
        if units == lost.units {
            return Ok(());
        }
        let words = |units: &[Unit]| json!(units.iter().flat_map(shown).collect::<Vec<_>>());
        Err(Fault::Broken(format!(
            "a request was lost and came again as another one: {}, then {}",
            words(&lost.units),
            words(units)
        )))
    }

    /// Records the units that leave.
    pub(super) fn leaves(&mut self, request: &ExchangeRequest) -> Result<(), Fault> {
        for unit in &request.units {
            match self.units.iter().find(|before| before.id == unit.id) {
                Some(before) if before != unit => {
                    return Err(Fault::Broken(format!(
                        "unit {} was sent with other bytes",
                        unit.id
                    )));
                }
                Some(_) => {}
                None => self.units.push(unit.clone()),
            }
        }
        self.sent.push(request.units.iter().flat_map(shown).collect());
        Ok(())
    }

    /// Lets time pass until nothing backs off.
    fn wait_for_backoff(&self) -> Result<(), Fault> {
        let book = self.book()?;
        let tail = book.snapshot()?.tail(book.schema())?;
        if let Some(until) = tail.units().filter_map(|(_, unit)| unit.retry_at).max() {
            self.clock.pass(until);
        }
        Ok(())
    }

    /// Returns whether the book would now plan something in place of a request in flight. A book
    /// has one exchange at a time, so the loop never asks for such a plan.
    fn would_overtake(&self) -> Result<bool, Fault> {
        let travelling: BTreeSet<_> = self.in_flight.iter().flat_map(units_of).collect();
        let plan = self.book()?.queue().plan();
        Ok(plan
            .groups
            .iter()
            .filter_map(|group| group.absorbs)
            .any(|unit| travelling.contains(&unit)))
    }

    pub(super) fn end_push(&mut self, results: &[Answered]) -> Result<(), Fault> {
        for request in std::mem::take(&mut self.in_flight) {
            let mut answer = self.empty_answer(&request);
            answer.outcomes = answer::outcomes(&request, results, || self.draw())?;
            self.known(results.iter().map(|result| &result.key))?
                .stamp(&request, &mut answer.outcomes)?;
            self.book()?.exchange().apply_answer(&request, answer)?;
        }
        Ok(())
    }

    pub(super) fn pull(&mut self, changes: &[Pulled], cursor: Option<u64>) -> Result<(), Fault> {
        let (known, changes) = (self.cursor()?, self.changes(changes)?);
        let cursors = match cursor {
            Some(cursor) => {
                let bytes = Cursor::new(cursor.to_string().into_bytes())
                    .map_err(|fault| Fault::Case(format!("cursor: {fault}")))?;
                self.entities().iter().map(|entity| (entity.clone(), bytes.clone())).collect()
            }
            None => Vec::new(),
        };
        let is_late = cursor < known;
        if self.manner.one_shot && !is_late {
            let changes = self.stamped(changes.clone())?;
            if self.pull_in_one_shot(&changes, &cursors)? {
                return Ok(());
            }
        }
        let ask = ExchangeParams {
            first: true,
            push: false,
            pull: true,
            batch_ops: 0,
            batch_bytes: 0,
            page_limit: limits::PAGE_CHANGES,
        };
        let mut request = match self.book()?.exchange().prepare(&ask)? {
            NextStep::Exchange(request) => request,
            // The book asks for no page while everything is parked, but a page in flight arrives
            // all the same.
            NextStep::Idle { .. } => self.request_for_page()?,
        };
        if is_late {
            request.cursors.clear();
        }
        let mut answer = self.empty_answer(&request);
        answer.changes = self.stamped(changes)?;
        answer.cursors = cursors.into_iter().collect();
        self.book()?.exchange().apply_answer(&request, answer)?;
        Ok(())
    }

    fn changes(&mut self, pulled: &[Pulled]) -> Result<Vec<Change>, Fault> {
        let mut changes = Vec::with_capacity(pulled.len());
        for change in pulled {
            let own = if change.own { Some(self.own_op(&change.key)?) } else { None };
            let drawn = self.draw();
            changes.push(answer::change(change, own, &self.clock, drawn)?);
        }
        Ok(changes)
    }

    /// Returns the earlier states of records from the server.
    pub(super) fn known<'k>(
        &self,
        keys: impl Iterator<Item = &'k RecordKey>,
    ) -> Result<Known, Fault> {
        let snapshot = self.book()?.snapshot()?;
        let mut known = Known::default();
        for key in keys {
            let row = snapshot.record(key)?;
            // The state at a former server does not count for this server.
            let Some(row) = row.filter(|row| row.version() != Some(Version::default())) else {
                continue;
            };
            let registers = row.registers().map_err(|fault| Fault::Broken(fault.to_string()))?;
            known.0.insert(key.clone(), (registers, row.version().unwrap_or_default()));
        }
        Ok(known)
    }

    /// Gives the rows of a page their stamps.
    fn stamped(&self, changes: Vec<Change>) -> Result<Vec<Change>, Fault> {
        let mut known = self.known(changes.iter().map(|change| &change.key))?;
        let own: Vec<_> = self.units.iter().flat_map(|unit| unit.changes.clone()).collect();
        known.page(changes, &own)
    }

    /// Returns how far the device has read, if it has read anything.
    fn cursor(&self) -> Result<Option<u64>, Fault> {
        let cursors = self.book()?.snapshot()?.cursors()?;
        let numbers =
            cursors.iter().map(|(_, row)| std::str::from_utf8(row.cursor.as_bytes()).ok());
        Ok(numbers.flatten().filter_map(|text| text.parse().ok()).max())
    }

    fn request_for_page(&mut self) -> Result<ExchangeRequest, Fault> {
        let unknown = || Fault::Broken("the book does not know which device it is".to_owned());
        let request = RequestId::from_bytes(self.draw());
        let book = self.book()?;
        let cursors = book
            .snapshot()?
            .cursors()?
            .into_iter()
            .map(|(entity, row)| (entity, row.cursor))
            .collect();
        Ok(ExchangeRequest {
            cursors,
            page_limit: limits::PAGE_CHANGES,
            ..ExchangeRequest::new(
                request,
                book.audit().device().ok_or_else(unknown)?,
                book.audit().epoch().ok_or_else(unknown)?,
                book.actor(),
            )
        })
    }

    fn empty_answer(&self, request: &ExchangeRequest) -> ExchangeAnswer {
        self.answering().nothing(request)
    }

    /// Returns the facts from which answers are made.
    pub(super) fn answering(&self) -> Answering {
        Answering { clock: Arc::clone(&self.clock), server_epoch: self.server_epoch }
    }

    /// Returns our last op on a record that left, and when it was made.
    fn own_op(&self, key: &RecordKey) -> Result<(OpId, fieldbook::audit::Hlc), Fault> {
        let changes = self.units.iter().rev().flat_map(|unit| &unit.changes);
        let own = changes.filter(|change| change.key == *key);
        own.filter_map(|change| Some((*change.ops.last()?, change.edited_at)))
            .next()
            .ok_or_else(|| Fault::Case(format!("{key}: `own`, but nothing of it was ever sent")))
    }
}

impl Answering {
    /// Returns an answer without content.
    pub(super) fn nothing(&self, request: &ExchangeRequest) -> ExchangeAnswer {
        ExchangeAnswer::new(
            request.request,
            ServerId::from_bytes([1; 16]),
            ServerEpoch::from_bytes([self.server_epoch; 16]),
            self.clock.true_time(),
        )
    }
}

fn units_of(request: &ExchangeRequest) -> impl Iterator<Item = UnitId> + '_ {
    request.units.iter().map(|unit| unit.id)
}

/// Returns a unit's changes as the case shows them.
fn shown(unit: &Unit) -> impl Iterator<Item = Value> + '_ {
    unit.changes.iter().map(|change| {
        let fields = change.fields.as_ref().and_then(|fields| fields.to_fields().ok());
        json!([change.kind, change.key, fields])
    })
}
