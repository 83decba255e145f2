//! Swarm testing: each seed draws how often each action happens, and leaves some out. So seeds
//! differ in kind, and rare combinations happen (Groce et al., "Swarm Testing", 2012).

use serde_json::{Map, Value, json};

use crate::action::{Action, Edit, Kind, Right, Setup};
use crate::dice::Dice;
use crate::disk::Loss;
use crate::server::{Trouble, UnitRefusal};
use crate::way::{PAGES, Way};
use crate::world::World;

/// Draws the actions.
pub struct Swarm {
    dice: Dice,
    weights: [u64; ACTIONS],
    kinds: [u64; 5],
    troubles: [u64; 10],
    trouble_per_mille: u64,
    in_order_per_mille: u64,
    /// How many edits in a thousand are of tasks.
    tasks_per_mille: u64,
    counter: u64,
}

/// Words of names: some begin or contain another, or differ from it by a letter.
const NAMES: [&str; 7] = ["Ann", "Hanna", "hana", "Müller", "schmidt", "Schmitt", "東京都"];
/// Makes the dice of checks differ from that of everything else.
const CHECKED: u64 = 0x6368_6563_6b65_6400;
/// Separates the draws of trimmings from the others.
const TRIMMED: u64 = 0x7472_696d_6d65_6400;
const ACTIONS: usize = 38;

impl Swarm {
    /// Draws the rates and the setup of the world.
    pub fn new(seed: u64) -> (Setup, Self) {
        let mut dice = Dice::new(seed);
        let devices = usize::try_from(dice.between(3, 6)).unwrap_or(3);
        let errs = dice.chance(300);
        let clock_errors = (0..devices).map(|_| if errs { jump(&mut dice) } else { 0 }).collect();
        let setup = Setup {
            seed,
            devices,
            records: usize::try_from(dice.between(1, 5)).unwrap_or(3),
            policy: if dice.chance(600) { 0 } else { u8::try_from(dice.below(7)).unwrap_or(0) },
            whole_record: dice.chance(150),
            undo_window: if dice.chance(250) { 5_000 } else { 0 },
            priorities: dice.chance(250),
            mutual_references: dice.chance(150),
            late_answers: dice.chance(300),
            clock_errors,
            one_shot: dice.chance(150),
        };
        // Drawn apart, so that the runs of the other seeds stay as they are.
        let mut of_checks = Dice::new(seed ^ CHECKED);
        let is_checked = of_checks.chance(450);
        let mut often = |most| if is_checked { of_checks.between(1, most) } else { 0 };
        let (left_out, checks) = (often(60), often(40));
        let mut of_trims = Dice::new(seed ^ TRIMMED);
        let trims = if of_trims.chance(400) { of_trims.between(10, 60) } else { 0 };
        let mut sometimes = |most: u64, per_mille: u64| {
            if dice.chance(per_mille) { dice.between(1, most) } else { 0 }
        };
        let weights = [
            60 + sometimes(140, 700),  // write
            sometimes(60, 600),        // transaction
            60 + sometimes(100, 700),  // begin
            180 + sometimes(220, 700), // deliver
            sometimes(40, 600),        // drop
            sometimes(40, 600),        // duplicate
            sometimes(15, 300),        // truncate
            sometimes(25, 500),        // give up
            20 + sometimes(60, 600),   // advance
            sometimes(15, 300),        // clock jump
            sometimes(15, 500),        // crash
            sometimes(20, 500),        // crash after
            sometimes(10, 400),        // disk error
            sometimes(15, 500),        // reopen
            10 + sometimes(20, 500),   // retry
            sometimes(20, 500),        // discard
            10 + sometimes(20, 500),   // renew
            sometimes(5, 300),         // rebuild
            sometimes(20, 400),        // correct
            sometimes(25, 400),        // undo
            sometimes(25, 400),        // decide
            sometimes(20, 400),        // partition
            sometimes(15, 350),        // permission
            sometimes(8, 350),         // upgrade
            sometimes(4, 250),         // clone
            sometimes(8, 300),         // backup
            sometimes(4, 250),         // restore
            4 + sometimes(20, 500),    // accept the server
            sometimes(12, 300),        // clock astray for a minute
            sometimes(15, 350),        // something in the way
            sometimes(6, 250),         // take the server's state
            sometimes(15, 250),        // another user signs in
            sometimes(15, 250),        // hand over
            sometimes(6, 250),         // sign out with the unsent changes kept
            sometimes(40, 400),        // search
            left_out,                  // leave a change out
            checks,                    // check with the server
            trims,                     // trim the log
        ];
        let kinds = [
            sometimes(20, 600),      // create
            30 + sometimes(60, 700), // update
            sometimes(20, 500),      // replace
            sometimes(40, 700),      // delete
            20 + sometimes(40, 700), // save
        ];
        let troubles = std::array::from_fn(|_| sometimes(20, 400));
        let trouble_per_mille = sometimes(250, 700);
        let in_order_per_mille = sometimes(1_000, 800);
        let tasks_per_mille = sometimes(400, 500);
        let swarm = Self {
            dice,
            weights,
            kinds,
            troubles,
            trouble_per_mille,
            in_order_per_mille,
            tasks_per_mille,
            counter: 0,
        };
        (setup, swarm)
    }

    /// Draws the number of actions.
    pub fn length(&mut self) -> usize {
        usize::try_from(self.dice.between(120, 420)).unwrap_or(200)
    }

    /// Draws the next action.
    pub fn next(&mut self, world: &World) -> Action {
        let device = self.dice.index(world.devices());
        let letter = self.dice.index(8);
        match self.dice.weighted(&self.weights).unwrap_or(0) {
            0 => Action::Write { device, edit: self.edit(world.setup()) },
            1 => {
                let count = self.dice.between(2, 5);
                Action::Transaction {
                    device,
                    edits: (0..count).map(|_| self.edit(world.setup())).collect(),
                }
            }
            2 => Action::Begin {
                device,
                push: self.dice.chance(900),
                pull: self.dice.chance(800),
                batch: usize::try_from(self.dice.between(1, 12)).unwrap_or(1),
                page: u32::try_from(self.dice.between(1, 20)).unwrap_or(1),
            },
            3 => Action::Deliver { message: self.message(world), trouble: self.trouble() },
            4 => Action::Drop { message: self.message(world) },
            5 => Action::Duplicate { message: self.message(world) },
            6 => Action::Truncate { message: self.message(world) },
            7 => Action::GiveUp { device },
            8 => Action::Advance { milliseconds: self.span() },
            9 => Action::ClockJump { device, milliseconds: jump(&mut self.dice) },
            10 => Action::Crash { device, loss: self.loss(), killed: self.dice.chance(300) },
            11 => {
                let again = self.dice.chance(300).then(|| self.dice.below(12));
                Action::CrashAfter {
                    device,
                    changes: self.dice.below(40),
                    loss: self.loss(),
                    again,
                }
            }
            12 => Action::DiskError { device, changes: self.dice.below(40) },
            13 => Action::Reopen { device },
            14 => Action::Retry { device, letter },
            15 => Action::Discard { device, letter },
            16 => Action::Renew { device },
            17 => Action::Rebuild { device },
            18 => Action::Correct { device, letter, fields: self.edit(world.setup()).fields },
            19 => Action::Undo { device, back: self.dice.index(6) },
            20 => Action::Decide { device, back: letter, mine: self.dice.chance(500) },
            21 => Action::Partition { device, begins: !world.is_cut_off(device) },
            22 => {
                let right = if self.dice.chance(500) {
                    Right::Exchange(device)
                } else {
                    Right::Change(letter)
                };
                Action::Permission { right, granted: self.dice.chance(550) }
            }
            23 => Action::Upgrade { device },
            24 => Action::Clone { device },
            25 => Action::Backup,
            26 => Action::Restore { declared: self.dice.chance(600) },
            27 => Action::AcceptServer { device },
            28 => {
                let milliseconds = jump(&mut self.dice);
                Action::ClockStrays { device, milliseconds, edit: self.edit(world.setup()) }
            }
            29 => Action::Way(self.way()),
            30 => Action::TakeState { device },
            31 => Action::SignIn { device },
            32 => Action::HandOver { device, back: letter },
            33 => Action::KeepUnsent { device },
            35 => Action::LeaveOut { message: self.message(world), change: self.dice.index(8) },
            36 => Action::Check { device, mend: self.dice.chance(500) },
            37 => Action::Compact { device, keep: self.dice.below(60) },
            _ => {
                let asked = self.asked();
                Action::Search { device, entity: letter, asked, fold: self.dice.chance(500) }
            }
        }
    }

    /// Draws what a person searches: words of records, beginnings, parts and mistakes, or a number.
    fn asked(&mut self) -> String {
        let words = self.dice.between(1, 2);
        let mut asked = Vec::new();
        for _ in 0..words {
            let mut word: Vec<char> = match self.dice.below(4) {
                0 => self.dice.below(self.counter + 5).to_string(),
                _ => self.dice.pick(&NAMES).copied().unwrap_or_default().to_owned(),
            }
            .chars()
            .collect();
            match self.dice.below(5) {
                0 => word.truncate(1 + self.dice.index(word.len().max(1))),
                1 if word.len() > 3 => drop(word.remove(self.dice.index(word.len()))),
                2 if word.len() > 3 => word.swap(1, 2),
                _ => {}
            }
            asked.push(word.into_iter().collect::<String>());
        }
        asked.join(" ")
    }

    /// Draws a fault; half of the time, none.
    fn way(&mut self) -> Option<Way> {
        let page = self.dice.index(PAGES);
        Some(match self.dice.below(13) {
            0 | 1 => Way::Refuses { value: self.dice.below(3), page },
            2 => Way::Page(page),
            3 => Way::FullStore,
            4 => Way::Clock(jump(&mut self.dice)),
            5 => Way::OtherServer,
            6 => Way::OtherTenant,
            _ => return None,
        })
    }

    fn message(&mut self, world: &World) -> usize {
        if self.dice.chance(self.in_order_per_mille) {
            0
        } else {
            self.dice.index(world.messages())
        }
    }

    fn span(&mut self) -> u64 {
        match self.dice.below(10) {
            0..5 => self.dice.between(1, 3_000),
            5..8 => self.dice.between(3_000, 120_000),
            8 => self.dice.between(120_000, 4 * 3_600_000),
            _ => self.dice.between(3_600_000, 30 * 3_600_000),
        }
    }

    fn loss(&mut self) -> Loss {
        match self.dice.below(6) {
            0 => Loss::Nothing,
            1 => Loss::Everything,
            2 => Loss::Only(self.dice.index(20)),
            3 => Loss::AllBut(self.dice.index(20)),
            _ => Loss::Sectors { seed: self.dice.seed(), garbage: self.dice.chance(500) },
        }
    }

    fn trouble(&mut self) -> Option<Trouble> {
        if !self.dice.chance(self.trouble_per_mille) {
            return None;
        }
        let number = self.dice.index(8);
        Some(match self.dice.weighted(&self.troubles)? {
            0 => Trouble::Unavailable,
            1 => Trouble::Busy { retry_after: self.dice.below(10_000_000) },
            2 => Trouble::AppliedThenBusy,
            3 => Trouble::Unauthorized,
            4 => Trouble::TooLarge,
            5 if self.dice.chance(100) => Trouble::UpgradeRequired,
            5 | 6 => Trouble::Skips { number },
            7 => Trouble::Unit { number, refusal: UnitRefusal::Transient },
            8 => Trouble::Foreign(self.dice.index(PAGES)),
            _ => {
                let refusals = [
                    UnitRefusal::Rejected,
                    UnitRefusal::Unsupported,
                    UnitRefusal::Unauthorized,
                    UnitRefusal::Forbidden,
                ];
                let refusal = self.dice.pick(&refusals).copied().unwrap_or(UnitRefusal::Rejected);
                Trouble::Unit { number, refusal }
            }
        })
    }

    fn edit(&mut self, setup: &Setup) -> Edit {
        let kind = match self.dice.weighted(&self.kinds) {
            Some(0) => Kind::Create,
            Some(1) => Kind::Update,
            Some(2) => Kind::Replace,
            Some(3) => Kind::Delete,
            _ => Kind::Save,
        };
        let task = self.dice.chance(self.tasks_per_mille);
        let note = !task && self.dice.chance(400);
        let record = self.dice.index(setup.records);
        let mut fields = Map::new();
        if kind != Kind::Delete {
            for _ in 0..self.dice.between(1, 3) {
                let (name, value) = self.field(setup, note);
                fields.insert(name.to_owned(), value);
            }
        }
        Edit { kind, note, task, record, fields }
    }

    fn field(&mut self, setup: &Setup, note: bool) -> (&'static str, Value) {
        self.counter += 1;
        let refers = note || setup.mutual_references;
        match self.dice.below(if refers { 9 } else { 8 }) {
            0 => ("tags", json!([self.dice.below(4), self.dice.below(4)])),
            1 => ("n", json!(self.dice.below(5))),
            2 => ("a", Value::Null),
            3 => ("b", json!({"deep": [self.counter, null], "text": "é\u{1f9ed}\"\\"})),
            4 => ("a", json!(self.dice.below(3))),
            5 => ("a", json!(self.counter)),
            6 => ("c", json!(self.counter)),
            7 => {
                let mut name = || self.dice.pick(&NAMES).copied().unwrap_or_default();
                ("name", json!(format!("{} {}", name(), name())))
            }
            _ => ("ref", json!(self.dice.index(setup.records).to_string())),
        }
    }
}

/// Draws a jump of a wall clock: seconds, hours or years, either way.
fn jump(dice: &mut Dice) -> i64 {
    const YEAR: u64 = 365 * 24 * 3_600_000;
    let most = match dice.below(3) {
        0 => 90_000,
        1 => 6 * 3_600_000,
        _ => 15 * YEAR,
    };
    let by = i64::try_from(dice.below(most)).unwrap_or(0);
    if dice.chance(500) { by } else { -by }
}

impl std::fmt::Debug for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Swarm")
    }
}
