//! A path in words: the actions, and the records that everybody reads then.

use std::fmt::Write;

use super::action::Action;
use super::name::Held;
use super::rows::{at_server, image, on_record, words};
use super::state::State;
use super::world::{Ground, OPS_OF_A_DEVICE, Verb, device_name};

/// Returns the name of an op: its device and its number.
pub(super) fn op_name(slot: usize) -> String {
    format!("{}'s op {}", device_name(slot / OPS_OF_A_DEVICE), slot % OPS_OF_A_DEVICE + 1)
}

/// Describes a path from the first state of a world.
pub(super) fn path(ground: &Ground, actions: &[Action]) -> String {
    let mut text = String::new();
    let Ok(mut state) = State::first(ground) else { return text };
    for (number, action) in actions.iter().enumerate() {
        let what = step(ground, &state, *action);
        let Some(came) = state.act(ground, *action) else { break };
        state = came.state;
        let Ok(()) = writeln!(text, "  {:>2}  {what:<64}  {}", number + 1, reads(ground, &state))
        else {
            break;
        };
    }
    for (number, device) in state.devices.iter().map(Held::get).enumerate() {
        for line in on_record(ground, device) {
            let Ok(()) = writeln!(text, "      on record at {}: {line}", device_name(number))
            else {
                break;
            };
        }
    }
    text
}

fn reads(ground: &Ground, state: &State) -> String {
    let mut all = Vec::new();
    for key in &ground.keys {
        let mut parts = Vec::new();
        for (number, device) in state.devices.iter().map(Held::get).enumerate() {
            parts.push(format!("{} {}", device_name(number), words(image(device, key).as_ref())));
        }
        parts.push(format!("server {}", words(at_server(state.server.get(), key).1.as_ref())));
        all.push(parts.join(", "));
    }
    format!("[{}]", all.join(" | "))
}

fn step(ground: &Ground, state: &State, action: Action) -> String {
    let who = |device: u8| device_name(device.into());
    let which = |slot: u8| if slot == 0 { "" } else { "second " };
    let more = |again: bool| if again { ", and a copy stays on its way" } else { "" };
    match action {
        Action::Type { device, record, verb, shared, wall } => {
            let shared = if shared { " with a value that others write too" } else { "" };
            let record =
                ground.keys.get(usize::from(record)).map(ToString::to_string).unwrap_or_default();
            format!("{} {} {record}{shared}, at {wall} ms", who(device), word(verb))
        }
        Action::Undo { op, .. } => format!("{} is undone", op_name(op.into())),
        Action::Discard { op } => format!("{} is discarded", op_name(op.into())),
        Action::Retry { op } => format!("{} is sent again", op_name(op.into())),
        Action::Choose { op, mine, .. } => {
            format!(
                "of {}, a person chooses {}",
                op_name(op.into()),
                if mine { "this side" } else { "the other side" }
            )
        }
        Action::Accept { device } => format!("{} accepts the new epoch of the server", who(device)),
        Action::Send { device, push: true } => format!("{} sends what it has", who(device)),
        Action::Send { device, push: false } => format!("{} asks for a page", who(device)),
        Action::Arrive { device, slot, again, refuse } => {
            let refused = if refuse { " and is refused" } else { "" };
            format!("{}'s {}request arrives{refused}{}", who(device), which(slot), more(again))
        }
        Action::LoseRequest { device, slot } => {
            format!("{}'s {}request is lost", who(device), which(slot))
        }
        Action::Hear { device, slot, again } => {
            let what = state
                .lines
                .get(usize::from(device))
                .and_then(|line| line.answers.get(usize::from(slot)));
            let what = what.map(|answer| outcome(answer.answer.get())).unwrap_or_default();
            format!("{} hears the {}answer{what}{}", who(device), which(slot), more(again))
        }
        Action::LoseAnswer { device, slot } => {
            format!("{}'s {}answer is lost", who(device), which(slot))
        }
        Action::TimeOut { device } => format!("{} no longer waits for the answer", who(device)),
        Action::Abandon { device } => format!("{} abandons what is unanswered", who(device)),
        Action::TakeState { device } => format!("{} takes the server's state", who(device)),
        Action::BackUp => "the server is backed up".to_owned(),
        Action::Restore => "the server goes back to the backup".to_owned(),
    }
}

fn outcome(answer: &fieldbook_core::protocol::ExchangeAnswer) -> String {
    use fieldbook_core::protocol::Outcome;
    let word = |outcome: &Outcome| match outcome {
        Outcome::Applied { .. } => "taken",
        Outcome::Duplicate { .. } => "taken before",
        Outcome::Stale { .. } => "stale",
        Outcome::Ahead => "ahead",
        Outcome::Rejected { .. } => "refused",
        _ => "something else",
    };
    let mut words: Vec<_> =
        answer.outcomes.iter().map(|told| word(&told.outcome).to_owned()).collect();
    if !answer.changes.is_empty() {
        words.push("a page".to_owned());
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

const fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "creates",
        Verb::CreateThin => "creates with one field",
        Verb::SetA => "sets a of",
        Verb::SetB => "sets b of",
        Verb::Replace => "replaces",
        Verb::Delete => "deletes",
        Verb::Undo => "undoes",
        Verb::Discard => "discards",
        Verb::Retry => "retries",
        Verb::Choose => "chooses in",
    }
}
