//! Conflicts, and who won.

use super::{ERASED, UNREADABLE, Words, weighs};
use crate::entry::{
    Conflicted, ConflictedField, Extent, ItemIndex, NOT_IN_BUNDLE, ResolvedBy, Winner,
};
use crate::numbers::ConflictId;
use crate::rules::status::words::listed;
use crate::rules::story::values;
use crate::rules::story::{Sentence, Weight};
use crate::schema::Policy;

impl Words<'_> {
    pub(super) fn conflicted(&self, number: u32, conflict: &Conflicted) -> Option<Sentence> {
        if !self.concerns(&conflict.key) {
            return None;
        }
        let id = ConflictId { seq: self.entry.header.seq, number };
        let (of, place) = (self.of(&conflict.key), conflict.op.place);
        let remote = conflict.version;
        let open = self.teller.open.as_ref();
        let by = open.and_then(|open| open.made_by.get(&(conflict.key.clone(), remote)));
        let who = self.maker(by);
        let text = if conflict.fields.is_empty() {
            let did = if conflict.extent == Extent::Deleted { "deletion" } else { "change" };
            let by = ruled(conflict.rule, ResolvedBy::function_of(&conflict.functions, None));
            format!(
                "{of}Change {place} ({}) met a {did} by {who} ({remote}): {} {by}.",
                conflict.kind,
                won(conflict.winner)
            )
        } else {
            let each: Vec<_> =
                conflict.fields.iter().map(|field| self.field(conflict, field)).collect();
            format!("{of}Change {place} and {who} ({remote}) changed the same: {}.", listed(&each))
        };
        let waits = conflict.winner == Winner::Undecided
            || conflict.fields.iter().any(|field| field.winner == Winner::Undecided);
        let weight = if waits { Weight::NeedsAttention } else { Weight::Lost };
        Some(weighs(weight, format!("{text} It is conflict {id}.")))
    }

    pub(super) fn field(&self, conflict: &Conflicted, field: &ConflictedField) -> String {
        let value = |index: ItemIndex| match self.entry.fields(index) {
            Ok(Some(fields)) => match fields.to_fields() {
                Ok(fields) => {
                    let hidden = || fields.has(NOT_IN_BUNDLE).then(|| NOT_IN_BUNDLE.to_owned());
                    let none = || hidden().unwrap_or_else(|| "no value".to_owned());
                    fields.get(&field.name).map_or_else(none, values::shown)
                }
                Err(_) => UNREADABLE.to_owned(),
            },
            Ok(None) => ERASED.to_owned(),
            Err(_) => UNREADABLE.to_owned(),
        };
        let merged =
            conflict.merged.map_or_else(String::new, |merged| format!(" as {}", value(merged)));
        let merged = if field.winner == Winner::Merged { merged } else { String::new() };
        format!(
            "{} (here {}, there {}: {}{merged} {})",
            field.name,
            value(conflict.local),
            value(conflict.remote),
            won(field.winner),
            ruled(field.rule, ResolvedBy::function_of(&conflict.functions, Some(&field.name)))
        )
    }
}

pub(super) const fn won(winner: Winner) -> &'static str {
    match winner {
        Winner::Local => "the one here stays",
        Winner::Remote => "the other one stays",
        Winner::Merged => "both were merged",
        Winner::Undecided => "a person has to choose",
    }
}

fn ruled(rule: Policy, function: Option<&str>) -> String {
    match function {
        Some(function) => format!("by the app's function {function}"),
        None => format!("by the rule {}", rule.as_str().replace('_', " ")),
    }
}
