//! A state of a small world: devices, the server, messages in flight, and the true events.

use std::rc::Rc;

use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest};
use fieldbook_core::{Fields, Mutation, WallTime};
use serde_json::json;

use super::device::{Device, Moment};
use super::law::Broken;
use super::lists::{Named, follow_lists};
use super::name::{Held, Token};
use super::rows::{Ghosts, follow, image, of_answer, of_device, of_request, of_server};
use super::server::{SERVER_TIME, Server};
use super::world::{Clocks, FIELDS, FIRST_VALUE, Ground, Left, OPS_OF_A_DEVICE, Verb};

/// The most requests, and the most answers, of a device in flight at the same time.
pub(super) const ON_THEIR_WAY: usize = 2;
/// The amount by which the first device's clock is ahead in a world with such a clock.
const AHEAD: i64 = 3_600_000;
/// The time that a clock advances from one op to the next, in milliseconds.
pub(super) const STEP: i64 = 1_000;

/// An answer, with its request.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) request: Held<ExchangeRequest>,
    pub(super) answer: Held<ExchangeAnswer>,
}

/// The messages between a device and the server.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub(super) requests: Vec<Held<ExchangeRequest>>,
    pub(super) answers: Vec<Answer>,
    /// Whether the device waits for an answer.
    pub(super) busy: bool,
}

/// A state.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) devices: Vec<Held<Device>>,
    pub(super) lines: Vec<Line>,
    pub(super) server: Held<Server>,
    pub(super) ghosts: Rc<Ghosts>,
    pub(super) left: Left,
    /// The number of edits so far, by which a right clock advances.
    pub(super) typed: u8,
    /// Whether a backup was taken.
    pub(super) backed_up: bool,
}

/// The result of an action.
pub(super) struct Came {
    pub(super) state: State,
    pub(super) broken: Vec<Broken>,
}

impl Ground {
    /// Returns the surroundings of a device. `wall` is its clock after the server's time.
    pub(super) fn moment(&self, device: usize, wall: i64) -> Option<Moment<'_>> {
        let ahead = if self.world.clocks == Clocks::Ahead && device == 0 { AHEAD } else { 0 };
        let wall = WallTime::from_milliseconds(SERVER_TIME + ahead + wall);
        Some(Moment { schema: self.schemas.get(device)?, actor: self.actors.get(device)?, wall })
    }
}

impl State {
    /// Makes the first state of a world.
    pub(super) fn first(ground: &Ground) -> Result<Self, Broken> {
        let count = ground.world.policies.len();
        let mut server = Server::new();
        let mut devices = Vec::with_capacity(count);
        for number in 0..count {
            let Some(moment) = ground.moment(number, 0) else { continue };
            let id = u8::try_from(number).unwrap_or(0);
            devices.push(Device::new(id, ground.world.ids_fall, moment)?);
        }
        if ground.world.given {
            let before = devices.clone();
            give(ground, &mut server, &mut devices)?;
            for (before, device) in before.iter().zip(&mut devices) {
                follow_lists(ground, before, device).into_iter().next().map_or(Ok(()), Err)?;
            }
        }
        let ghosts = Ghosts {
            ops: vec![None; count * OPS_OF_A_DEVICE],
            told: vec![super::rows::Ops::default(); count],
            made: vec![0; count],
        };
        Ok(Self {
            devices: devices.into_iter().map(Held::new).collect(),
            lines: vec![Line::default(); count],
            server: Held::new(server),
            ghosts: Rc::new(ghosts),
            left: ground.world.left,
            typed: 0,
            backed_up: false,
        })
    }

    /// Encodes the state, without the true events.
    pub(super) fn tell(&self, tokens: &mut Vec<Token>) {
        for (device, line) in self.devices.iter().zip(&self.lines) {
            tokens.extend(device.tokens(of_device));
            tokens.push(Token::Number(u64::from(line.busy) * 100 + line.requests.len() as u64));
            let requests = line.requests.iter().flat_map(|request| request.tokens(of_request));
            tokens.extend(requests);
            for Answer { request, answer } in &line.answers {
                tokens.extend(request.tokens(of_request));
                tokens.extend(answer.tokens(of_answer));
            }
        }
        tokens.extend(self.server.tokens(of_server));
        let Left { faults, refusals, abandons, restores, resets } = self.left;
        let left = [faults, refusals, abandons, restores, resets, u8::from(self.backed_up)];
        tokens.extend(left.map(|left| Token::Number(left.into())));
    }

    pub(super) fn device(&self, number: usize) -> Option<&Device> {
        self.devices.get(number).map(Held::get)
    }

    pub(super) fn line(&mut self, number: usize) -> Option<&mut Line> {
        self.lines.get_mut(number)
    }

    /// Returns a device's clock, after the server's time, when no person edits.
    pub(super) fn at_rest(&self, ground: &Ground) -> i64 {
        if ground.world.clocks == Clocks::Any { 0 } else { i64::from(self.typed) * STEP }
    }

    /// Runs an action at a device and follows its true events. The work returns whether it had an
    /// effect.
    pub(super) fn at_device(
        &self,
        ground: &Ground,
        number: usize,
        wall: i64,
        answer: Option<&ExchangeAnswer>,
        work: impl FnOnce(&mut Device, Moment<'_>) -> Result<bool, Broken>,
    ) -> Option<Came> {
        let (before, moment) = (self.device(number)?, ground.moment(number, wall)?);
        let mut device = before.clone();
        device.named = Named::default();
        let known = device.log.len();
        match work(&mut device, moment) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(broken) => return Some(Came { state: self.clone(), broken: vec![broken] }),
        }
        let mut state = self.clone();
        let images: Vec<_> = if ground.may(Verb::Undo) {
            ground.keys.iter().map(|key| image(before, key)).collect()
        } else {
            Vec::new()
        };
        let mut broken = follow_lists(ground, before, &mut device);
        broken.extend(follow(
            (ground, self.server.get()),
            (number, &device, known),
            &images,
            answer,
            Rc::make_mut(&mut state.ghosts),
        ));
        if let Some(place) = state.devices.get_mut(number) {
            *place = Held::new(device);
        }
        Some(Came { state, broken })
    }
}

/// Makes records at the server that every device knows and that nobody of the world made.
fn give(ground: &Ground, server: &mut Server, devices: &mut [Device]) -> Result<(), Broken> {
    let nobody = Ghosts::default();
    // Another author made these records earlier.
    let Some(moment) = ground.moment(0, 0) else { return Ok(()) };
    let moment = Moment { wall: WallTime::from_milliseconds(SERVER_TIME - STEP), ..moment };
    let mut author = Device::new(9, false, moment)?;
    for key in &ground.keys {
        let fields = FIELDS.iter().map(|name| ((*name).to_owned(), json!(FIRST_VALUE)));
        let mutation = Mutation::create(key.clone(), fields.collect::<Fields>());
        author.types(moment, mutation)?;
    }
    if let Some(request) = author.prepare(moment, true)? {
        server.treat(ground, &nobody, &request, false)?;
    }
    for (number, device) in devices.iter_mut().enumerate() {
        let Some(moment) = ground.moment(number, 0) else { continue };
        let Some(request) = device.prepare(moment, false)? else { continue };
        let answer = server.treat(ground, &nobody, &request, false)?;
        if ground.world.clocks == Clocks::Ahead {
            // A device that knows the server's time is no longer ahead of it.
            let heard = device.heard;
            device.hear(moment, &request, answer)?;
            device.heard = heard;
        } else {
            device.hear(moment, &request, answer)?;
        }
    }
    Ok(())
}
