//! What each item of an entry holds: the one list that a redaction shows values by.
//!
//! ```text
//!   item of an op, a change, a plan, a decision,
//!   item of a baseline                                  values of a record
//!   item of an outcome, a refusal, a reason,
//!   item of a row that was set aside                text
//!   item of a session                               the declarations of the app
//! ```
//!
//! Invariants:
//! 1. A new variant does not compile without a place here, or in [`Decision::items`].
//! 2. An item that is not in the list is hidden.

use std::collections::BTreeMap;

use crate::entry::{
    About, Control, Decision, Entry, FieldsSource, Header, ItemIndex, Meta, PersonAction, Planned,
};
use crate::names::RecordKey;

/// What an item holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content<'e> {
    /// Fields of a record.
    Values(&'e RecordKey),
    /// A message of the server, the reason of a person, or a row as the server sent it.
    Text,
    /// What the app declares: names of entity types and fields, and rules.
    Declarations,
}

/// The items of an entry with what they hold.
pub(super) type Contents<'e> = BTreeMap<ItemIndex, Content<'e>>;

/// Returns what the items of an entry hold.
pub(super) fn contents(entry: &Entry) -> Contents<'_> {
    let mut found = Contents::new();
    match &entry.meta {
        Meta::Intent(intent) => {
            let with_fields = intent.ops.iter().filter_map(|op| Some((op.fields?, &op.key)));
            found.extend(with_fields.map(|(item, key)| (item, Content::Values(key))));
        }
        Meta::Upstream(upstream) => {
            let messages = upstream.outcomes.iter().filter_map(|outcome| outcome.message);
            found.extend(messages.map(|item| (item, Content::Text)));
            let images = upstream.changes.iter();
            let images = images.filter_map(|change| Some((change.fields?, &change.key)));
            found.extend(images.map(|(item, key)| (item, Content::Values(key))));
        }
        Meta::Control(Control::Planned(planned)) => of_plan(planned, &entry.header, &mut found),
        Meta::Control(Control::Decided(decisions)) => of_all(decisions, &mut found),
        Meta::Control(Control::PersonActed(action, decisions)) => {
            of_all(decisions, &mut found);
            match action {
                PersonAction::Discard { reason } => {
                    found.insert(*reason, Content::Text);
                }
                PersonAction::Retry
                | PersonAction::Undo
                | PersonAction::Resolve
                | PersonAction::Resume
                | PersonAction::AcceptServer
                | PersonAction::HandOver => {}
            }
        }
        Meta::Control(Control::Session(session)) => {
            found.extend(session.schema.map(|item| (item, Content::Declarations)));
        }
        Meta::Control(
            Control::Opened(_)
            | Control::EpochStarted { .. }
            | Control::Silence(_)
            | Control::Authors(_)
            | Control::Note(_)
            | Control::Erased(_)
            | Control::Trimmed(_),
        ) => {}
        Meta::Control(Control::Baseline(baseline)) => {
            let images = baseline.records.iter().map(|record| &record.change);
            let images = images.filter_map(|change| Some((change.fields?, &change.key)));
            found.extend(images.map(|(item, key)| (item, Content::Values(key))));
        }
    }
    found
}

fn of_plan<'e>(planned: &'e Planned, header: &Header, found: &mut Contents<'e>) {
    for change in planned.units.iter().flat_map(|unit| &unit.changes) {
        // Fields of another entry are items of that entry.
        if let FieldsSource::Item(of, item) = change.fields
            && of == header.seq
        {
            found.insert(item, Content::Values(&change.key));
        }
    }
}

/// Items of a decision about a record are values of it. Those of other decisions are text.
fn of_all<'e>(decisions: &'e [Decision], found: &mut Contents<'e>) {
    for decision in decisions {
        let content = match decision.about() {
            About::Records(keys) => keys.first().map_or(Content::Text, |key| Content::Values(key)),
            About::Units(_) | About::Book => Content::Text,
        };
        found.extend(decision.items().into_iter().map(|item| (item, content)));
    }
}
