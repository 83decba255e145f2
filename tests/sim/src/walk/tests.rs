//! Tests that the walk is a walk of the product, by walking the same paths with real books. `lists`
//! has their lists and their search.

use std::sync::Arc;

use fieldbook::audit::Seq;
use fieldbook::audit::entry::{Control, Meta};
use fieldbook::conflict::Choice;
use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::sync::protocol::{
    ExchangeAnswer, ExchangeRequest, Failure, Outcome, Unit, UnitOutcome,
};
use fieldbook::sync::{ExchangeParams, NextStep, ServerEpoch, ServerId};
use fieldbook::{Book, BookOptions, EntityType, Mutation, limits};
use fieldbook_core::authority::{AuthorityRead, Caller, MemoryAuthority, Quota, exchange};
use fieldbook_core::rows::{ConflictRow, RecordRow};
use redb::backends::InMemoryBackend;
use serde_json::json;

mod lists;

use self::lists::Lists;
use super::action::Action;
use super::name::name;
use super::server::SERVER_TIME;
use super::state::{STEP, State};
use super::world::{Clocks, Ground, OPS_OF_A_DEVICE};
use super::{Bounds, World, explore, tell, worlds};
use crate::clock::SimClock;
use crate::dice::Dice;

const PATHS: u64 = 300;
const STEPS: usize = 24;

/// Real books and a server that repeat a walk.
struct Mirror {
    books: Vec<Book>,
    clocks: Vec<SimClock>,
    server: MemoryAuthority,
    backup: Option<MemoryAuthority>,
    epochs: u8,
    requests: Vec<Vec<ExchangeRequest>>,
    answers: Vec<Vec<(ExchangeRequest, ExchangeAnswer)>>,
    sent: Vec<Option<ExchangeRequest>>,
    lists: Lists,
}

fn ask(push: bool) -> ExchangeParams {
    let (batch_ops, batch_bytes) = (limits::BATCH_OPS, limits::BATCH_BYTES);
    ExchangeParams { first: true, push, pull: true, batch_ops, batch_bytes, page_limit: 100 }
}

impl Mirror {
    fn of(ground: &Ground) -> Self {
        let count = ground.world.policies.len();
        // The last clock is that of the author who made the given records earlier.
        let begins = |number| if number == count { SERVER_TIME - STEP } else { SERVER_TIME };
        let clocks: Vec<_> = (0..=count).map(|number| SimClock::new(begins(number))).collect();
        let book = |number: usize, clock: &SimClock| {
            let actor = ground.actors.get(number).or(ground.actors.first()).unwrap();
            let schema = ground.schemas.get(number).or(ground.schemas.first()).unwrap();
            let options = BookOptions::new(actor.as_str()).unwrap().schema(schema.clone());
            let entity = EntityType::parse("lead").unwrap();
            let options = options
                .search(entity, ground.declared.search.clone())
                .clock(Arc::new(clock.clone()))
                .cache_bytes(1024 * 1024)
                .randomness(Box::new(SeededRandomness::from_number(number as u64)));
            Book::on_backend(InMemoryBackend::new(), options).unwrap()
        };
        let mut books: Vec<_> =
            clocks.iter().enumerate().map(|(number, clock)| book(number, clock)).collect();
        let author = books.pop().unwrap();
        let server =
            MemoryAuthority::new(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([1; 16]));
        let mut mirror = Self {
            lists: Lists::of(&books),
            books,
            clocks,
            server,
            backup: None,
            epochs: 1,
            requests: vec![Vec::new(); count],
            answers: vec![Vec::new(); count],
            sent: vec![None; count],
        };
        if ground.world.given {
            for key in &ground.keys {
                let fields = super::world::FIELDS.iter().map(|name| ((*name).to_owned(), json!(1)));
                author
                    .write(Mutation::create(key.clone(), fields.collect::<fieldbook::Fields>()))
                    .unwrap();
            }
            let NextStep::Exchange(request) = author.exchange().prepare(&ask(true)).unwrap() else {
                panic!("nothing to send")
            };
            mirror.serve(&request, false);
            for number in 0..count {
                let NextStep::Exchange(request) =
                    mirror.books[number].exchange().prepare(&ask(false)).unwrap()
                else {
                    continue;
                };
                let answer = mirror.serve(&request, false);
                mirror.books[number].exchange().apply_answer(&request, answer).unwrap();
            }
        }
        mirror
    }

    fn serve(&mut self, request: &ExchangeRequest, refuse: bool) -> ExchangeAnswer {
        // A walk's devices claim no heads.
        let mut asked = ExchangeRequest { head: None, ..request.clone() };
        // A unit that took effect before is a duplicate.
        let mut refused = Vec::new();
        if refuse {
            let is_known =
                |unit: &Unit| self.server.unit(&unit.id).is_ok_and(|known| known.is_some());
            (asked.units, refused) = asked.units.into_iter().partition(is_known);
        }
        let now = WallTime::from_milliseconds(SERVER_TIME);
        let mut answer =
            exchange(&mut self.server, &asked, now, &Caller::Anyone, &Quota::default()).unwrap();
        let outcome = || Outcome::Rejected { code: "refused".to_owned(), message: String::new() };
        answer
            .outcomes
            .extend(refused.iter().map(|unit| UnitOutcome { unit: unit.id, outcome: outcome() }));
        answer
    }

    /// Repeats an action of a walk that was in this state.
    fn act(&mut self, ground: &Ground, state: &State, after: &State, action: Action) {
        let walls = |wall: i64| SERVER_TIME + wall;
        for clock in &self.clocks {
            clock.set_wall(walls(state.at_rest(ground)));
        }
        let ghost = |op: u8| state.ghosts.of(op.into()).unwrap();
        let owner = |op: u8| usize::from(op) / OPS_OF_A_DEVICE;
        match action {
            Action::Type { device, record, wall, .. } => {
                let device = usize::from(device);
                self.clocks[device].set_wall(walls(wall.into()));
                let written = after.device(device).unwrap().log.last().unwrap().header.seq;
                let content = after
                    .device(device)
                    .unwrap()
                    .op(fieldbook::record::OpPlace { seq: written, index: 0 });
                let content = content.unwrap();
                let key = ground.keys[usize::from(record)].clone();
                let mutation = Mutation {
                    key,
                    kind: content.kind,
                    fields: content.fields.into(),
                    cites: None,
                };
                self.books[device].write(mutation).unwrap();
            }
            Action::Undo { op, wall } => {
                self.clocks[owner(op)].set_wall(walls(i64::from(wall).max(state.at_rest(ground))));
                self.books[owner(op)].queue().undo(ghost(op).place).unwrap();
            }
            Action::Discard { op } => {
                let book = &self.books[owner(op)];
                book.dead_letters()
                    .discard(vec![book.queue().op(ghost(op).place).unwrap().id], "no longer wanted")
                    .unwrap();
            }
            Action::Retry { op } => {
                let book = &self.books[owner(op)];
                book.dead_letters()
                    .retry(vec![book.queue().op(ghost(op).place).unwrap().id])
                    .unwrap();
            }
            Action::Choose { op, number, mine } => {
                let book = &self.books[owner(op)];
                let open =
                    book.conflicts().all().unwrap().into_iter().filter(|conflict| conflict.open);
                let id = open.into_iter().nth(number.into()).unwrap().id;
                book.conflicts()
                    .resolve(id, if mine { Choice::Local } else { Choice::Remote })
                    .unwrap();
            }
            Action::Accept { device } => {
                let book = &self.books[usize::from(device)];
                let named = book.servers().candidates().last().copied().unwrap();
                book.servers().accept(named).unwrap();
            }
            Action::Send { device, push } => self.send(after, device.into(), push),
            Action::Arrive { device, slot, again, refuse } => {
                let (device, slot) = (usize::from(device), usize::from(slot));
                let request = self.requests[device][slot].clone();
                if !again {
                    self.requests[device].remove(slot);
                }
                let answer = self.serve(&request, refuse);
                self.answers[device].push((request, answer));
            }
            Action::Hear { device, slot, again } => {
                let (device, slot) = (usize::from(device), usize::from(slot));
                let (request, answer) = self.answers[device][slot].clone();
                if !again {
                    self.answers[device].remove(slot);
                }
                self.books[device].exchange().apply_answer(&request, answer).unwrap();
            }
            Action::LoseRequest { device, slot } => {
                drop(self.requests[usize::from(device)].remove(slot.into()))
            }
            Action::LoseAnswer { device, slot } => {
                drop(self.answers[usize::from(device)].remove(slot.into()))
            }
            Action::TimeOut { .. } => {}
            Action::Abandon { device } => {
                let device = usize::from(device);
                let request = self.sent[device].clone().unwrap();
                self.books[device].exchange().fail(&request, &Failure::TooLarge).unwrap();
            }
            Action::TakeState { device } => {
                let servers = self.books[usize::from(device)].servers();
                servers.take_state("the device starts over").unwrap();
            }
            Action::BackUp => self.backup = Some(self.server.clone()),
            Action::Restore => {
                self.server = self.backup.take().unwrap();
                self.epochs += 1;
                self.server.start_epoch(ServerEpoch::from_bytes([self.epochs; 16]));
            }
        }
    }

    fn send(&mut self, after: &State, device: usize, push: bool) {
        let next = self.books[device].exchange().prepare(&ask(push)).unwrap();
        let came_to = after.lines[device].requests.len();
        if let (NextStep::Exchange(request), true) = (next, came_to > self.requests[device].len()) {
            if !request.units.is_empty() {
                self.sent[device] = Some(request.clone());
            }
            self.requests[device].push(request);
        }
    }

    /// Checks that the walk's device equals the real book: the kinds of its entries, its records,
    /// its conflicts.
    fn check(&mut self, ground: &Ground, state: &State, path: &[Action]) {
        for (number, book) in self.books.iter().enumerate() {
            let device = state.device(number).unwrap();
            let told = || tell::path(ground, path);
            let kinds = |metas: &mut dyn Iterator<Item = Meta>| -> Vec<String> {
                metas.map(|meta| kind(&meta)).collect()
            };
            let real = book.audit().entries(Seq::new(1), usize::MAX).unwrap();
            // The walk does not record that exchanges failed.
            let is_walked = |meta: &Meta| !matches!(meta, Meta::Control(Control::Silence(_)));
            // Such an entry moves the places and the log's clock of all that follow it.
            let exact = real.iter().all(|entry| is_walked(&entry.meta));
            let shape = |row: &RecordRow| if exact { shape(row) } else { outline(row) };
            let conflict = |row: &ConflictRow| if exact { conflict(row) } else { outcome(row) };
            let real = kinds(&mut real.into_iter().map(|entry| entry.meta).filter(is_walked));
            let walked = kinds(&mut device.log.iter().map(|entry| entry.meta.clone()));
            assert_eq!(walked, real, "the log of device {number}\n{}", told());
            let snapshot = book.snapshot().unwrap();
            for key in &ground.keys {
                let real = snapshot.record(key).unwrap().map(|row| shape(&row));
                let walked = device.tables.records.get(key).map(&shape);
                assert_eq!(walked, real, "{key} at device {number}\n{}", told());
            }
            let real: Vec<_> =
                snapshot.conflicts().unwrap().iter().map(|(_, row)| conflict(row)).collect();
            let walked: Vec<_> = device.tables.conflicts.values().map(conflict).collect();
            assert_eq!(walked, real, "the conflicts of device {number}\n{}", told());
            let checked = self.lists.check(ground, (number, book, device), path.len());
            assert_eq!(checked, Ok(()), "the lists of device {number}\n{}", told());
        }
        let real: Vec<_> = self
            .server
            .records()
            .map(|(key, row)| (key.clone(), row.version, row.fields.clone()))
            .collect();
        let server = state.server.get();
        let walked: Vec<_> = server
            .authority
            .records()
            .map(|(key, row)| (key.clone(), row.version, row.fields.clone()))
            .collect();
        assert_eq!(walked, real, "the server\n{}", tell::path(ground, path));
    }
}

/// Returns the kind of an entry, without random parts.
fn kind(meta: &Meta) -> String {
    let mut text = format!("{meta:?}");
    text.truncate(text.find('(').unwrap_or(text.len()));
    if let Meta::Control(control) = meta {
        let decisions = match control {
            Control::Decided(decisions) | Control::PersonActed(_, decisions) => {
                decisions.as_slice()
            }
            _ => &[],
        };
        for decision in decisions {
            let name = format!("{decision:?}");
            text.push(' ');
            text.push_str(name.split([' ', '(', '{']).next().unwrap_or_default());
        }
    }
    text
}

fn shape(row: &RecordRow) -> String {
    let confirmed = row.confirmed.as_ref().map(|confirmed| {
        (
            confirmed.version,
            confirmed.edited_at.to_bits(),
            confirmed.deleted,
            confirmed.fields.as_str().to_owned(),
        )
    });
    let tail: Vec<_> = row
        .tail
        .iter()
        .map(|op| {
            let raised: Vec<_> =
                op.raised.iter().map(|(name, at)| (name.clone(), at.to_bits())).collect();
            let named = op.named.as_ref().map(|json| json.as_str().to_owned());
            let brings_back = op.brings_back.as_ref().map(|json| json.as_str().to_owned());
            let left = (op.cleared.clone(), op.emptied, named, brings_back);
            (op.place, op.kind, op.edited_at.to_bits(), op.dead, left, raised)
        })
        .collect();
    format!("{confirmed:?} {:?} {tail:?}", row.image().map(|json| json.as_str().to_owned()))
}

/// Returns the shape of a row without places and times.
fn outline(row: &RecordRow) -> String {
    let confirmed = row.confirmed.as_ref();
    let confirmed =
        confirmed.map(|known| (known.version, known.deleted, known.fields.as_str().to_owned()));
    let tail: Vec<_> = row.tail.iter().map(|op| (op.kind, op.dead, op.emptied)).collect();
    format!("{confirmed:?} {:?} {tail:?}", row.image().map(|json| json.as_str().to_owned()))
}

/// Returns a conflict without places.
fn outcome(row: &ConflictRow) -> String {
    let texts = [&row.base, &row.local, &row.remote].map(|json| json.as_str().to_owned());
    format!(
        "{} {:?} {:?} {texts:?} {:?} {}",
        row.key, row.version, row.fields, row.winner, row.open
    )
}

fn conflict(row: &ConflictRow) -> String {
    let texts = [&row.base, &row.local, &row.remote].map(|json| json.as_str().to_owned());
    format!(
        "{} {:?} {:?} {:?} {texts:?} {:?} {}",
        row.key, row.op.place, row.version, row.fields, row.winner, row.open
    )
}

/// Returns whether an action makes a stamp at the time of another one. Op ids order such stamps,
/// and the books draw other ids.
fn is_level(state: &State, action: Action) -> bool {
    let (Action::Type { wall, .. } | Action::Undo { wall, .. }) = action else { return false };
    let level = |(_, op): (usize, &super::rows::OpGhost)| {
        op.stamp.wall().milliseconds() - SERVER_TIME == i64::from(wall)
    };
    state.ghosts.each().any(level)
}

/// Draws an action: those that happen by themselves as often as all others together.
fn draw(dice: &mut Dice, ground: &Ground, state: &State) -> Option<Action> {
    let all: Vec<_> =
        state.actions(ground).into_iter().filter(|action| !is_level(state, *action)).collect();
    let alone: Vec<_> = state.by_itself().collect();
    if dice.chance(500) {
        dice.pick(&alone).copied().or_else(|| dice.pick(&all).copied())
    } else {
        dice.pick(&all).copied()
    }
}

fn walk_with_books(world: &World, seed: u64) {
    let ground = Ground::asking(world, false);
    let (mut dice, mut state) = (Dice::new(seed), State::first(&ground).unwrap());
    let mut mirror = Mirror::of(&ground);
    let mut path = Vec::new();
    mirror.check(&ground, &state, &path);
    for _ in 0..STEPS {
        let Some(action) = draw(&mut dice, &ground, &state) else { break };
        let Some(came) = state.act(&ground, action) else { continue };
        path.push(action);
        mirror.act(&ground, &state, &came.state, action);
        mirror.check(&ground, &came.state, &path);
        state = came.state;
    }
}

#[test]
fn a_walked_device_is_what_a_real_book_is() {
    // The mirror does not remember a refusal that the walk's server remembers, and sets a clock
    // that is ahead back.
    let all: Vec<_> = worlds().into_iter().filter(|world| world.clocks != Clocks::Ahead).collect();
    for seed in 0..PATHS {
        let world = &all[usize::try_from(seed).unwrap() % all.len()];
        let world = World { forgets_refusals: true, ..world.clone() };
        walk_with_books(&world, seed);
    }
}

#[test]
fn a_small_world_is_walked_whole_and_twice_alike() {
    let world = worlds().into_iter().find(|world| world.name == "one each, made there").unwrap();
    let (first, second) =
        (explore(&world, &Bounds::default()), explore(&world, &Bounds::default()));
    assert!(first.whole && first.broken.is_empty(), "{first:?}");
    assert_eq!(
        (first.states, first.steps, first.depth),
        (second.states, second.steps, second.depth)
    );
}

#[test]
fn what_comes_to_the_same_in_another_order_has_one_name() {
    let world = worlds().into_iter().find(|world| world.name == "edits").unwrap();
    let ground = Ground::asking(&world, false);
    let first = State::first(&ground).unwrap();
    let typed = |state: &State, device: u8, wall: i32| {
        let action =
            Action::Type { device, record: 0, verb: super::Verb::SetA, shared: false, wall };
        state.act(&ground, action).unwrap().state
    };
    let ann_then_ben = typed(&typed(&first, 0, 10_000), 1, 20_000);
    let ben_then_ann = typed(&typed(&first, 1, 30_000), 0, 5_000);
    assert_eq!(
        name(&ground, &ann_then_ben),
        name(&ground, &ben_then_ann),
        "only the order of stamps counts"
    );
    let other_order = typed(&typed(&first, 0, 20_000), 1, 10_000);
    assert_ne!(name(&ground, &ann_then_ben), name(&ground, &other_order));
    assert_ne!(name(&ground, &ann_then_ben), name(&ground, &first));
}
