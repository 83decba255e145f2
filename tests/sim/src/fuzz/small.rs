//! The simulated world from bytes.

use serde_json::{Map, Value};

use super::laws::small_fields;
use crate::action::{Action, Case, Edit, Kind, Setup};
use crate::disk::Loss;
use crate::run::play;
use crate::server::{Trouble, UnitRefusal};

/// Runs a whole small world: two devices that write, exchange, lose, repeat and reorder messages as
/// the bytes choose, and then agree.
pub fn world(data: &[u8]) {
    let Some(Case { setup, actions, .. }) = small_case(data) else { return };
    let broken = play(&setup, &actions).broken;
    assert!(broken.is_none(), "BUG: {broken:?}");
}

/// Returns the choices of the bytes as a case that `simulate` can play and shrink.
pub fn small_case(data: &[u8]) -> Option<Case> {
    let (&start, rest) = data.split_first()?;
    let setup = Setup {
        seed: 1,
        devices: 2,
        records: 1,
        policy: start & 7,
        whole_record: start & 8 != 0,
        undo_window: 0,
        priorities: false,
        mutual_references: start & 16 != 0,
        late_answers: start & 32 != 0,
        clock_errors: Vec::new(),
        one_shot: false,
    };
    let actions = rest.chunks_exact(3).take(60).filter_map(|bytes| match *bytes {
        [what, device, choice] => Some(small_action(what, device, choice)),
        _ => None,
    });
    Some(Case { story: String::new(), setup, actions: actions.collect() })
}

fn small_action(what: u8, device: u8, choice: u8) -> Action {
    let (device, message) = (usize::from(device), usize::from(choice));
    let edit = |kind| {
        let fields: Map<String, Value> = small_fields(choice).into_map();
        let fields = if kind == Kind::Delete { Map::new() } else { fields };
        Edit { kind, note: choice & 64 != 0, task: false, record: 0, fields }
    };
    let trouble = |refusal| Some(Trouble::Unit { number: message, refusal });
    match what % 16 {
        0 => Action::Write { device, edit: edit(Kind::Save) },
        1 => Action::Write { device, edit: edit(Kind::Update) },
        2 => Action::Write { device, edit: edit(Kind::Delete) },
        3 => Action::Write { device, edit: edit(Kind::Replace) },
        4 => Action::Transaction {
            device,
            edits: vec![edit(Kind::Save), edit(Kind::Update), edit(Kind::Delete)],
        },
        5 | 6 => Action::Begin { device, push: true, pull: choice & 1 == 0, batch: 4, page: 2 },
        7 | 8 => Action::Deliver { message, trouble: None },
        9 => Action::Deliver { message, trouble: trouble(UnitRefusal::Transient) },
        10 => Action::Deliver { message, trouble: Some(Trouble::AppliedThenBusy) },
        11 => Action::Deliver { message, trouble: trouble(UnitRefusal::Rejected) },
        12 => Action::Drop { message },
        13 => Action::Duplicate { message },
        14 => Action::Advance { milliseconds: u64::from(choice) * 60_000 },
        _ => Action::Crash { device, loss: Loss::Everything, killed: choice & 1 == 0 },
    }
}
