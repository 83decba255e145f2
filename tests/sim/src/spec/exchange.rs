//! The exchanges of a case: what leaves the book, and what the scripted server says.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook::protocol::{ExchangeAnswer, ExchangeRequest, MARKER, PROTOCOL, Unit};
use fieldbook::{Ask, Cursor, Next, OpId, RecordKey, RequestId, ServerEpoch, ServerId, UnitId, limits};
use serde_json::{Value, json};

use super::answer;
use super::case::{Answered, Pulled};
use super::fault::Fault;
use super::world::World;

impl World {
    pub(super) fn begin_push(
        &mut self,
        (ops, bytes): (Option<usize>, Option<usize>),
        heed_backoff: bool,
    ) -> Result<(), Fault> {
        if !heed_backoff {
            self.wait_for_backoff()?;
        }
        if self.would_overtake()? {
            return Ok(());
        }
        let ask = Ask {
            first: true,
            push: true,
            pull: false,
            batch_ops: ops.unwrap_or(limits::BATCH_OPS),
            batch_bytes: bytes.unwrap_or(limits::BATCH_BYTES),
            page_limit: 0,
        };
        let Next::Exchange(mut request) = self.book()?.prepare(&ask)? else { return Ok(()) };
        let travelling: BTreeSet<_> = self.in_flight.iter().flat_map(units_of).collect();
        request.units.retain(|unit| !travelling.contains(&unit.id));
        if request.units.is_empty() {
            return Ok(());
        }
        for unit in &request.units {
            match self.units.iter().find(|before| before.id == unit.id) {
                Some(before) if before != unit => {
                    return Err(Fault::Broken(format!("unit {} was sent with other bytes", unit.id)));
                }
                Some(_) => {}
                None => self.units.push(unit.clone()),
            }
        }
        self.sent.push(request.units.iter().flat_map(shown).collect());
        self.in_flight.push(request);
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

    /// Returns whether the book would now plan something in place of what is in flight. A book has one exchange at a time,
    /// so it would not be asked.
    fn would_overtake(&self) -> Result<bool, Fault> {
        let travelling: BTreeSet<_> = self.in_flight.iter().flat_map(units_of).collect();
        let plan = self.book()?.plan();
        Ok(plan.groups.iter().filter_map(|group| group.replaces).any(|unit| travelling.contains(&unit)))
    }

    pub(super) fn end_push(&mut self, results: &[Answered]) -> Result<(), Fault> {
        for request in std::mem::take(&mut self.in_flight) {
            let mut answer = self.empty_answer(&request);
            answer.outcomes = answer::outcomes(&request, results, || self.draw())?;
            self.book()?.take(&request, answer)?;
        }
        Ok(())
    }

    pub(super) fn pull(&mut self, changes: &[Pulled], cursor: Option<u64>) -> Result<(), Fault> {
        let ask = Ask {
            first: true,
            push: false,
            pull: true,
            batch_ops: 0,
            batch_bytes: 0,
            page_limit: limits::PAGE_CHANGES,
        };
        let mut request = match self.book()?.prepare(&ask)? {
            Next::Exchange(request) => request,
            // It asks for none while everything is parked, but a page that was under way arrives all the same.
            Next::Idle { .. } => self.request_for_page()?,
        };
        if cursor < self.cursor()? {
            request.cursors.clear();
        }
        let mut answer = self.empty_answer(&request);
        for change in changes {
            let own = if change.own { Some(self.own_op(&change.key)?) } else { None };
            let drawn = self.draw();
            answer.changes.push(answer::change(change, own, &self.clock, drawn)?);
        }
        if let Some(cursor) = cursor {
            let bytes = Cursor::new(cursor.to_string().into_bytes())
                .map_err(|fault| Fault::Case(format!("cursor: {fault}")))?;
            answer.cursors = self.entities().iter().map(|entity| (entity.clone(), bytes.clone())).collect();
        }
        self.book()?.take(&request, answer)?;
        Ok(())
    }

    /// Returns how far the device has read, if it has read anything.
    fn cursor(&self) -> Result<Option<u64>, Fault> {
        let cursors = self.book()?.snapshot()?.cursors()?;
        let numbers = cursors.iter().map(|(_, row)| std::str::from_utf8(row.cursor.as_bytes()).ok());
        Ok(numbers.flatten().filter_map(|text| text.parse().ok()).max())
    }

    fn request_for_page(&mut self) -> Result<ExchangeRequest, Fault> {
        let unknown = || Fault::Broken("the book does not know which device it is".to_owned());
        let request = RequestId::from_bytes(self.draw());
        let book = self.book()?;
        let cursors =
            book.snapshot()?.cursors()?.into_iter().map(|(entity, row)| (entity, row.cursor)).collect();
        Ok(ExchangeRequest {
            protocol: PROTOCOL,
            request,
            device: book.device().ok_or_else(unknown)?,
            epoch: book.epoch().ok_or_else(unknown)?,
            actor: book.actor(),
            server_epoch: None,
            head: None,
            units: Vec::new(),
            cursors,
            page_limit: limits::PAGE_CHANGES,
        })
    }

    fn empty_answer(&self, request: &ExchangeRequest) -> ExchangeAnswer {
        ExchangeAnswer {
            marker: MARKER.to_owned(),
            protocol: PROTOCOL,
            request: request.request,
            server: ServerId::from_bytes([1; 16]),
            server_epoch: ServerEpoch::from_bytes([self.server_epoch; 16]),
            server_time: self.clock.true_time(),
            outcomes: Vec::new(),
            changes: Vec::new(),
            cursors: BTreeMap::new(),
            more: false,
            receipt: None,
            forked: None,
        }
    }

    /// Returns our last op on a record that left, and when it was made.
    fn own_op(&self, key: &RecordKey) -> Result<(OpId, fieldbook::Hlc), Fault> {
        let changes = self.units.iter().rev().flat_map(|unit| &unit.changes);
        let own = changes.filter(|change| change.key == *key);
        own.filter_map(|change| Some((*change.ops.last()?, change.edited_at)))
            .next()
            .ok_or_else(|| Fault::Case(format!("{key}: `own`, but nothing of it was ever sent")))
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
