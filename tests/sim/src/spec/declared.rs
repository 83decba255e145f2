//! A case's declarations of an entity type, in the form of an app's: its rules, its upcasters, its
//! functions.

use std::collections::BTreeMap;

use fieldbook::record::OpKind;
use fieldbook::schema::{
    ConflictFunction, MergeDecision, NetworkClass, Priorities, Reference, Upcaster, Validator,
};
use fieldbook::{EntityRules, Fields};
use serde_json::Value;

use super::case::Declared;

/// Returns the rules that a case declares.
pub(super) fn rules(declared: &Declared) -> EntityRules {
    let references = declared
        .references
        .iter()
        .map(|(field, entity)| Reference { field: field.clone(), entity: entity.clone() });
    let upcasters = declared
        .upcasters
        .iter()
        .filter_map(|(from, names)| Some((from.parse().ok()?, renaming(names.clone()))));
    let functions =
        declared.field_functions.iter().map(|(field, name)| (field.clone(), function(name)));
    EntityRules {
        schema_version: declared.schema_version.unwrap_or(1),
        priority: declared.priority,
        priorities: Priorities {
            create: declared.priorities.get(&OpKind::Create).copied(),
            update: declared.priorities.get(&OpKind::Update).copied(),
            delete: declared.priorities.get(&OpKind::Delete).copied(),
        },
        references: references.collect(),
        policy: declared.policy,
        field_policies: declared.field_policies.clone(),
        function: declared.function.as_deref().map(function),
        field_functions: functions.collect(),
        granularity: declared.granularity(),
        undo_window: std::time::Duration::from_millis(declared.undo_window_ms),
        network: if declared.unmetered { NetworkClass::Unmetered } else { NetworkClass::Any },
        local_only: declared.local_only,
        indexes: Vec::new(),
        upcasters: upcasters.collect(),
        validator: (!declared.required.is_empty()).then(|| requiring(declared.required.clone())),
    }
}

fn requiring(fields: Vec<String>) -> Validator {
    Validator::new(move |outgoing| {
        let missing =
            |image: &Fields| fields.iter().find(|name| image.get(name).is_none()).cloned();
        outgoing.image.and_then(missing).map_or(Ok(()), |name| Err(format!("{name} is missing")))
    })
}

/// Returns a function that a case can name: `longest`, `joined`, or one that asks a person.
fn function(name: &str) -> ConflictFunction {
    let length = |value: &Value| match value {
        Value::Null => 0,
        Value::Object(members) => members.len(),
        value => value.to_string().len(),
    };
    match name {
        "longest" => ConflictFunction::new(name, move |meeting| {
            let (mine, theirs) = (length(meeting.local), length(meeting.remote));
            let wins = mine > theirs || (mine == theirs && meeting.local_is_later);
            if wins { MergeDecision::Local } else { MergeDecision::Remote }
        }),
        "joined" => ConflictFunction::new(name, |meeting| match (meeting.local, meeting.remote) {
            (Value::String(mine), Value::String(theirs)) => {
                let mut both = [mine.as_str(), theirs.as_str()];
                both.sort_unstable();
                MergeDecision::Merged(both.join("+").into())
            }
            _ => MergeDecision::Ask,
        }),
        name => ConflictFunction::new(name, |_| MergeDecision::Ask),
    }
}

fn renaming(names: BTreeMap<String, String>) -> Upcaster {
    Upcaster::new(move |_, fields| {
        let renamed = |name: &str| names.get(name).map_or(name, String::as_str).to_owned();
        fields.iter().map(|(name, value)| (renamed(name), value.clone())).collect()
    })
}
