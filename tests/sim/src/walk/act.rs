//! The results of actions.

use std::rc::Rc;

use fieldbook_core::{Fields, Mutation, OpKind, RecordKey, UnitId};
use serde_json::json;

use super::action::Action;
use super::law::Broken;
use super::name::Held;
use super::rows::{Ghosts, open_conflicts};
use super::state::{Answer, Came, Line, ON_THEIR_WAY, State};
use super::world::{FIELDS, Ground, OPS_OF_A_DEVICE, Verb};

/// The value of ops that write the same as others.
const SHARED_VALUE: i64 = 9;
/// The base of the values: an op writes this number plus its place among all ops.
const VALUES: i64 = 10;

impl Verb {
    /// Returns the kind of op, for actions in which a user writes.
    pub(super) const fn kind(self) -> Option<OpKind> {
        match self {
            Self::Create | Self::CreateThin => Some(OpKind::Create),
            Self::SetA | Self::SetB => Some(OpKind::Update),
            Self::Replace => Some(OpKind::Replace),
            Self::Delete => Some(OpKind::Delete),
            Self::Undo | Self::Discard | Self::Retry | Self::Choose => None,
        }
    }

    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Create => &FIELDS,
            Self::SetB => &["b"],
            Self::CreateThin | Self::SetA | Self::Replace => &["a"],
            _ => &[],
        }
    }

    fn mutation(self, key: RecordKey, value: i64) -> Option<Mutation> {
        let fields: Fields =
            self.fields().iter().map(|name| ((*name).to_owned(), json!(value))).collect();
        Some(Mutation { key, kind: self.kind()?, fields: fields.into(), cites: None })
    }
}

impl State {
    /// Performs an action. None if it has no effect.
    pub(super) fn act(&self, ground: &Ground, action: Action) -> Option<Came> {
        match action {
            Action::Type { device, record, verb, shared, wall } => {
                self.type_op(ground, device.into(), record.into(), verb, shared, wall)
            }
            Action::Undo { op, wall } => self.undo(ground, op.into(), wall),
            Action::Discard { op } => self.of_op(ground, op.into(), |device, moment, place| {
                device.discard(moment, place).map(|()| true)
            }),
            Action::Retry { op } => self.of_op(ground, op.into(), |device, moment, place| {
                device.retry(moment, place).map(|()| true)
            }),
            Action::Choose { op, number, mine } => {
                self.of_op(ground, op.into(), |device, moment, _| {
                    let row = open_conflicts(device).nth(number.into()).cloned();
                    let Some(row) = row else { return Ok(false) };
                    device.choose(moment, &row, mine).map(|()| true)
                })
            }
            Action::Accept { device } => self.at_device(
                ground,
                device.into(),
                self.at_rest(ground),
                None,
                |device, moment| device.accept_server(moment),
            ),
            Action::Send { device, push } => self.send(ground, device.into(), push),
            Action::Arrive { device, slot, again, refuse } => {
                self.arrive(ground, device.into(), slot.into(), again, refuse)
            }
            Action::Hear { device, slot, again } => {
                self.hear(ground, device.into(), slot.into(), again)
            }
            Action::LoseRequest { device, slot } => self.lose(device.into(), |line| {
                line.requests.remove(slot.into());
            }),
            Action::LoseAnswer { device, slot } => self.lose(device.into(), |line| {
                line.answers.remove(slot.into());
            }),
            Action::TimeOut { device } => self.lose(device.into(), |_| {}),
            Action::Abandon { device } => self.abandon(ground, device.into()),
            Action::TakeState { device } => self.take_state(ground, device.into()),
            Action::BackUp | Action::Restore => {
                let mut state = self.clone();
                let mut server = state.server.get().clone();
                if action == Action::BackUp {
                    server.back_up();
                    state.backed_up = true;
                } else {
                    server.restore();
                    state.left.restores -= 1;
                    state.backed_up = false;
                }
                state.server = Held::new(server);
                Some(quiet(state))
            }
        }
    }

    fn type_op(
        &self,
        ground: &Ground,
        number: usize,
        record: usize,
        verb: Verb,
        shared: bool,
        wall: i32,
    ) -> Option<Came> {
        let slot = number * OPS_OF_A_DEVICE + usize::from(self.device(number)?.ops);
        let value = if shared { SHARED_VALUE } else { VALUES + i64::try_from(slot).ok()? };
        let mutation = verb.mutation(ground.keys.get(record)?.clone(), value)?;
        let came = self.at_device(ground, number, wall.into(), None, |device, moment| {
            device.types(moment, mutation)
        })?;
        Some(came.made(number))
    }

    fn undo(&self, ground: &Ground, slot: usize, wall: i32) -> Option<Came> {
        let ghost = self.ghosts.of(slot)?;
        let (number, key) = (slot / OPS_OF_A_DEVICE, ground.keys.get(ghost.record)?);
        let unsent = self.device(number)?.cancel(ghost.place).is_some();
        let wall = if unsent { self.at_rest(ground) } else { wall.into() };
        let mut came = self.at_device(ground, number, wall, None, |device, moment| {
            device.undo(moment, (key, ghost.place), ghost.before.as_ref())
        })?;
        Rc::make_mut(&mut came.state.ghosts).change(slot, |op| op.undone = true);
        Some(if unsent { came } else { came.made(number) })
    }

    /// Runs an action on an op at the op's device.
    fn of_op(
        &self,
        ground: &Ground,
        slot: usize,
        work: impl FnOnce(
            &mut super::device::Device,
            super::device::Moment<'_>,
            fieldbook_core::OpPlace,
        ) -> Result<bool, Broken>,
    ) -> Option<Came> {
        let place = self.ghosts.of(slot)?.place;
        self.at_device(
            ground,
            slot / OPS_OF_A_DEVICE,
            self.at_rest(ground),
            None,
            |device, moment| work(device, moment, place),
        )
    }

    fn send(&self, ground: &Ground, number: usize, push: bool) -> Option<Came> {
        let mut request = None;
        let (before, news) = {
            let device = self.device(number)?;
            (device.log.len(), super::rows::has_news(device, self.server.get()))
        };
        let came =
            self.at_device(ground, number, self.at_rest(ground), None, |device, moment| {
                request = device.prepare(moment, push)?;
                let asks =
                    request.as_ref().is_some_and(|request| !request.units.is_empty() || news);
                if !asks {
                    request = None;
                }
                Ok(asks || device.log.len() > before)
            })?;
        let mut came = came;
        if let (Some(request), Some(line)) = (request, came.state.line(number)) {
            if line.requests.len() >= ON_THEIR_WAY {
                return None;
            }
            line.requests.push(Held::new(request));
            line.busy = true;
        }
        Some(came)
    }

    fn arrive(
        &self,
        ground: &Ground,
        number: usize,
        slot: usize,
        again: bool,
        refuse: bool,
    ) -> Option<Came> {
        let mut state = self.clone();
        let line = state.lines.get_mut(number)?;
        let request = line.requests.get(slot)?.clone();
        if !again {
            line.requests.remove(slot);
        }
        let mut server = self.server.get().clone();
        let answer = match server.treat(ground, &self.ghosts, request.get(), refuse) {
            Ok(answer) => answer,
            Err(broken) => return Some(Came { state, broken: vec![broken] }),
        };
        line.answers.push(Answer { request, answer: Held::new(answer) });
        state.left.faults -= u8::from(again);
        state.left.refusals -= u8::from(refuse);
        if server.authority != self.server.get().authority
            || server.refused != self.server.get().refused
        {
            state.server = Held::new(server);
        }
        Some(quiet(state))
    }

    fn hear(&self, ground: &Ground, number: usize, slot: usize, again: bool) -> Option<Came> {
        let Answer { request, answer } = self.lines.get(number)?.answers.get(slot)?.clone();
        let wall = self.at_rest(ground);
        let mut came =
            self.at_device(ground, number, wall, Some(answer.get()), |device, moment| {
                device.hear(moment, request.get(), answer.get().clone()).map(|()| true)
            })?;
        let line = came.state.line(number)?;
        if !again {
            line.answers.remove(slot);
        }
        line.busy = false;
        came.state.left.faults -= u8::from(again);
        Some(came)
    }

    fn lose(&self, number: usize, change: impl FnOnce(&mut Line)) -> Option<Came> {
        let mut state = self.clone();
        let line = state.line(number)?;
        change(line);
        line.busy = false;
        state.left.faults -= 1;
        Some(quiet(state))
    }

    fn take_state(&self, ground: &Ground, number: usize) -> Option<Came> {
        let mut came =
            self.at_device(ground, number, self.at_rest(ground), None, |device, moment| {
                device.take_state(moment).map(|()| true)
            })?;
        came.state.left.resets -= 1;
        Some(came)
    }

    fn abandon(&self, ground: &Ground, number: usize) -> Option<Came> {
        let units: Vec<UnitId> = self.device(number)?.tail.units().map(|(unit, _)| *unit).collect();
        let mut came =
            self.at_device(ground, number, self.at_rest(ground), None, |device, moment| {
                units.iter().try_for_each(|unit| device.abandon(moment, *unit))?;
                Ok(true)
            })?;
        came.state.line(number)?.busy = false;
        came.state.left.abandons -= 1;
        Some(came)
    }
}

impl Came {
    /// Counts an op that a person made.
    fn made(mut self, number: usize) -> Self {
        self.state.typed += 1;
        let ghosts: &mut Ghosts = Rc::make_mut(&mut self.state.ghosts);
        if let Some(made) = ghosts.made.get_mut(number) {
            *made += 1;
        }
        self
    }
}

const fn quiet(state: State) -> Came {
    Came { state, broken: Vec::new() }
}
