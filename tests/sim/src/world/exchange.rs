//! Exchanges in the world: a request leaves, a message arrives, an exchange is given up.

use fieldbook::audit::entry::ParkScope;
use fieldbook::limits;
use fieldbook::record::{OpKind, Version};
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest, Failure, Unit};
use fieldbook::sync::{ExchangeParams, NextStep, ServerEpoch, ServerId, TenantId};
use fieldbook_core::rules::belonging::is_about_owner;
use fieldbook_core::rules::failure::{Blame, blame};

use super::left_out::leave_out;
use super::{Message, World, get};
use crate::broken::{Broken, ensure};
use crate::ledger::{Image, Overwrite};
use crate::model::{Held, Op};
use crate::server::{Reply, Trouble};
use crate::way::is_unmarked;

impl World {
    pub(super) fn begin(
        &mut self,
        number: usize,
        push: bool,
        pull: bool,
        batch: usize,
        page: u32,
    ) -> Result<Option<usize>, Broken> {
        let ask = ExchangeParams {
            first: true,
            push,
            pull,
            batch_ops: batch,
            batch_bytes: limits::BATCH_BYTES,
            page_limit: page,
        };
        if self.setup.one_shot {
            get(&mut self.devices, number)?.reopen(&self.server.ledger)?;
        }
        if let Some(NextStep::Exchange(request)) = self.prepare(number, &ask)? {
            let bytes = serde_json::to_vec(&request).unwrap_or_default();
            let device = self.device(number)?;
            if device.cut_off {
                return self.not_reached(number, &request);
            }
            device.open = Some(request.request);
            self.send(Message::Request { device: number, bytes });
        }
        Ok(Some(number))
    }

    /// Checks L5: a request that reached no server changes nothing, so nothing is written or
    /// counted.
    fn not_reached(
        &mut self,
        number: usize,
        request: &ExchangeRequest,
    ) -> Result<Option<usize>, Broken> {
        let device = get(&mut self.devices, number)?;
        let failed =
            device.book()?.exchange().fail(request, &Failure::Unreachable { code: "connect" });
        device.called(failed)?;
        let before = device.model.entries;
        device.observe(&self.server.ledger)?;
        ensure(device.model.entries == before, "L5", || {
            "a server that was not reached left something in the log".to_owned()
        })?;
        Ok(Some(number))
    }

    /// Lets a device prepare an exchange, and checks the request.
    pub(super) fn prepare(
        &mut self,
        number: usize,
        ask: &ExchangeParams,
    ) -> Result<Option<NextStep>, Broken> {
        let device = get(&mut self.devices, number)?;
        let next = device.book()?.exchange().prepare(ask);
        let Some(next) = device.called(next)? else { return Ok(None) };
        if device.disk().has_failed() {
            // The power failed before the request could leave.
            return Ok(None);
        }
        device.observe(&self.server.ledger)?;
        if let NextStep::Exchange(request) = &next {
            device.check_departure(request)?;
            self.stats.exchanges += 1;
        }
        Ok(Some(next))
    }

    pub(super) fn deliver(
        &mut self,
        message: usize,
        trouble: Option<Trouble>,
    ) -> Result<Option<usize>, Broken> {
        match self.take_message(message) {
            None => Ok(None),
            Some(Message::Request { device, bytes }) => {
                let request: ExchangeRequest = serde_json::from_slice(&bytes).map_err(|error| {
                    Broken::new("codec", format!("a request does not read: {error}"))
                })?;
                let result = self.serve(device, &request, trouble)?;
                let body = match result {
                    Ok(answer) => Ok(serde_json::to_vec(&answer).unwrap_or_default()),
                    Err(failure) => Err(failure),
                };
                let request = Box::new(request);
                self.send(Message::Answer { device, request, body, left_out: None });
                Ok(None)
            }
            Some(Message::Answer { device, request, body, left_out }) => {
                self.arrive(device, &request, body, left_out)?;
                Ok(Some(device))
            }
        }
    }

    fn arrive(
        &mut self,
        number: usize,
        request: &ExchangeRequest,
        body: Result<Vec<u8>, Failure>,
        left_out: Option<usize>,
    ) -> Result<(), Broken> {
        let late_answers = self.setup.late_answers;
        let device = self.device(number)?;
        let in_time = device.open == Some(request.request);
        if in_time {
            device.open = None;
        }
        let failure = match body {
            Ok(bytes) => match serde_json::from_slice::<ExchangeAnswer>(&bytes) {
                Ok(mut answer) if in_time || late_answers => {
                    let by = (answer.server, answer.server_epoch, answer.tenant);
                    if let Some(change) = left_out {
                        leave_out(device, request, &mut answer, change);
                    }
                    device.take(request, answer)?;
                    self.check_owner(number, by)?;
                    return if in_time { self.answered(number, request) } else { Ok(()) };
                }
                Ok(_) => return Ok(()),
                Err(_) => Failure::Misbehaved { code: "truncated" },
            },
            Err(failure) => failure,
        };
        if !in_time {
            return Ok(());
        }
        let failed = device.book()?.exchange().fail(request, &failure);
        device.called(failed)?;
        let may_be_its_fault = !request.units.is_empty() && blame(&failure) == Blame::Request;
        self.check_failure(number, &failure)?;
        let device = get(&mut self.devices, number)?;
        if may_be_its_fault {
            device.strikes += 1;
            device.doubt = Some((request.clone(), failure));
        }
        Ok(())
    }

    /// Checks L3: an answer of the book's own server and tenant ends every park because of another
    /// server or tenant, without a person.
    fn check_owner(
        &mut self,
        number: usize,
        by: (ServerId, ServerEpoch, Option<TenantId>),
    ) -> Result<(), Broken> {
        let device = get(&mut self.devices, number)?;
        if device.disk().has_failed() {
            return Ok(());
        }
        let state = device.book()?.snapshot().and_then(|snapshot| Ok(snapshot.state()?));
        let state = state
            .map_err(|error| Broken::new("S1", format!("the book does not read: {error:?}")))?;
        let is_owner =
            state.server == Some((by.0, by.1)) && (by.2.is_none() || state.tenant == by.2);
        // A park because the owner was set back is not about another server.
        let is_other =
            |(scope, code): &(ParkScope, String)| is_about_owner(scope) && code != "server_behind";
        ensure(!is_owner || !state.parks.iter().any(is_other), "L3", || {
            format!(
                "the server that the book belongs to has answered, and {:?} is parked",
                state.parks
            )
        })
    }

    /// Acts like the loop: once a request without units is answered, the units that failed before
    /// do not get through.
    fn answered(&mut self, number: usize, request: &ExchangeRequest) -> Result<(), Broken> {
        let device = get(&mut self.devices, number)?;
        let doubt = device.doubt.take();
        if !request.units.is_empty() {
            device.strikes = 0;
            return Ok(());
        }
        let Some((doubted, failure)) = doubt else { return Ok(()) };
        let isolated = device.book()?.exchange().isolate(&doubted, &failure, device.strikes);
        device.called(isolated)?;
        Ok(())
    }

    /// Checks L5: an answer without our marker proves nothing about the sent units, and neither
    /// does a fault of the server: it parks nothing, counts no try, makes no dead letter and moves
    /// no cursor. It leaves no entry at all.
    fn check_failure(&mut self, number: usize, failure: &Failure) -> Result<(), Broken> {
        let of_server = matches!(failure, Failure::Transient { .. });
        if !is_unmarked(failure) && !of_server {
            return Ok(());
        }
        let device = get(&mut self.devices, number)?;
        let before = device.model.entries;
        device.observe(&self.server.ledger)?;
        ensure(device.model.entries == before, "L5", || {
            format!(
                "{failure:?} is no word of our server on what was sent, and left something in the log"
            )
        })
    }

    pub(super) fn give_up(&mut self, number: usize) -> Result<Option<usize>, Broken> {
        self.device(number)?.open = None;
        Ok(None)
    }

    /// Lets the server process a request, and checks the effect on others.
    pub(super) fn serve(
        &mut self,
        number: usize,
        request: &ExchangeRequest,
        trouble: Option<Trouble>,
    ) -> Result<Result<ExchangeAnswer, Failure>, Broken> {
        let anchored =
            self.server.ledger.now.anchors.get(&(request.device, request.epoch)).copied();
        let Reply { result, applied, overwrites } =
            self.server.treat(request, self.now, trouble)?;
        if let Ok(answer) = &result {
            self.check_head(number, request, answer, anchored)?;
        }
        for unit in &applied {
            self.note_stray(number, request, unit)?;
            self.check_order(number, unit)?;
        }
        for overwrite in &overwrites {
            self.check_on_record(number, overwrite)?;
        }
        Ok(result)
    }

    /// Records units that were answered in one epoch of the server and took effect in another one.
    /// Only a request that was made before its device knew any epoch can cause this.
    fn note_stray(
        &mut self,
        number: usize,
        request: &ExchangeRequest,
        unit: &Unit,
    ) -> Result<(), Broken> {
        let model = &mut get(&mut self.devices, number)?.model;
        self.server.ledger.shared.append(&mut model.strays);
        if request.server_epoch.is_none()
            && !model.units.contains_key(&unit.id)
            && self.server.ledger.period() > 0
        {
            self.server.ledger.shared.extend(unit.changes.iter().flat_map(|change| &change.ops));
        }
        Ok(())
    }

    /// Checks S9: the ops of one record take effect in the order in which they were made. An op
    /// that may take effect twice may do so late.
    fn check_order(&mut self, number: usize, unit: &Unit) -> Result<(), Broken> {
        let period = self.server.ledger.period();
        let device = get(&mut self.devices, number)?;
        for change in &unit.changes {
            for op in &change.ops {
                let shared = self.server.ledger.shared.contains(op);
                let Some(op) = device.model.ops.get(op).filter(|op| !op.was_dead && !shared) else {
                    continue;
                };
                let before = device.order.insert((period, change.key.clone()), op.place);
                ensure(before.is_none_or(|before| before <= op.place), "S9", || {
                    format!("{}: op {} took effect after {before:?}", change.key, op.place)
                })?;
            }
        }
        Ok(())
    }

    /// Checks S14: an edit replaces another device's value only if its author had read it, or a
    /// conflict records it.
    fn check_on_record(&mut self, number: usize, overwrite: &Overwrite) -> Result<(), Broken> {
        let device = get(&mut self.devices, number)?;
        let Overwrite { key, field, value, since, by, ops } = overwrite;
        // An op that a copy of the same book sent is our own.
        if by.iter().any(|op| device.model.ops.contains_key(op)) {
            return Ok(());
        }
        let ledger = &self.server.ledger;
        let ops: Vec<_> = ops.iter().filter_map(|op| device.model.ops.get(op)).collect();
        // An op in place of a dead letter is judged as the dead letter would have been.
        let cited = ops.iter().filter_map(|op| device.model.ops.get(&op.cites?));
        let ops: Vec<_> = cited.filter(|op| op.was_dead).chain(ops.iter().copied()).collect();
        let seen = ops.iter().any(|op| op.base.is_some_and(|base| base >= *since));
        // There is no conflict if the value of the others equals the value that the device read
        // last.
        let held = device
            .model
            .records
            .get(key)
            .map(|held| held.seen.iter().copied())
            .into_iter()
            .flatten();
        let looked_at =
            ops.iter().flat_map(|op| [op.base, op.made_on]).flatten().chain(held).collect();
        let mut images = ledger.known_before(key, *since, &looked_at, &device.model.ever_planned);
        // If the accepted server turned out to lack the record, a waiting op counts as an op on a
        // missing record.
        let is_lacking = |held: &Held| held.read_gone || held.seen.contains(&Version::default());
        let read_gone = device.model.records.get(key).is_some_and(is_lacking);
        let saw_none = read_gone
            || ops.iter().any(|op| op.made_on.is_none_or(|base| base == Version::default()));
        let is_theirs = |image: Option<&Image>| match field.as_str() {
            "" => image.is_none() == value.is_none(),
            name => image.and_then(|image| image.get(name)) == value.as_ref(),
        };
        // An author who makes a record again has read that it is gone, whoever deleted it.
        let makes_anew =
            |op: &Op| op.kind == OpKind::Create && op.made_on.is_some() && field.is_empty();
        let saw_it =
            ops.iter().any(|op| (op.saw.is_some() || makes_anew(op)) && is_theirs(op.saw.as_ref()));
        // Nobody can find out that a field was removed under a name that an older version of the
        // app did not know.
        let named_anew = value.is_none() && !ops.iter().any(|op| op.fields.contains_key(field));
        let taken_unknown =
            named_anew && !field.is_empty() && ops.iter().any(|op| op.kind == OpKind::Update);
        let unchanged =
            taken_unknown || saw_it || images.any(is_theirs) || (saw_none && is_theirs(None));
        // A conflict names the device's last write, which may be an op that has not left yet.
        let on_record = device.model.ops.values().filter(|op| op.key == *key).any(|op| {
            op.conflicts.iter().any(|(version, fields)| {
                version >= since
                    && (fields.is_empty() || field.is_empty() || fields.contains(field))
            })
        });
        ensure(seen || unchanged || on_record, "S14", || {
            format!(
                "{key}: `{field}` = {value:?} from {since} was taken away and no conflict says so, by {ops:?}"
            )
        })
    }
}
