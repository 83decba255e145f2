//! The app of a simulated world: the declarations of its versions, and the conversion of ops of an
//! earlier version.

use std::collections::BTreeMap;
use std::time::Duration;

use fieldbook::schema::{Granularity, Policy, Reference};
use fieldbook::{EntityRules, EntityType, Schema};
use serde_json::Value;

use crate::action::Setup;
use crate::broken::Broken;
use crate::ledger::Image;

/// The last version of the app.
pub const LATEST: u32 = 3;
/// The first version with tasks.
pub const TASKS_FROM: u32 = 2;
/// The entity types of its last version.
pub const ENTITIES: [&str; 3] = ["lead", "note", "task"];

/// Returns the declarations of a version of the world's app: leads, and notes that refer to leads;
/// from version 2 on also tasks.
///
/// # Errors
/// [`Broken`] never, as long as the names are valid.
pub fn schema(setup: &Setup, version: u32) -> Result<Schema, Broken> {
    let entity = |name| {
        EntityType::parse(name).map_err(|error| Broken::new("harness", format!("{name}: {error}")))
    };
    let policies = [
        Policy::LastWriteWins,
        Policy::ServerWins,
        Policy::DeviceWins,
        Policy::Max,
        Policy::Min,
        Policy::AppendUnique,
        Policy::Manual,
    ];
    let policy = policies.get(usize::from(setup.policy)).copied().unwrap_or_default();
    let rules = EntityRules {
        policy,
        field_policies: BTreeMap::from([("tags".to_owned(), Policy::AppendUnique)]),
        granularity: if setup.whole_record { Granularity::WholeRecord } else { Granularity::Field },
        undo_window: Duration::from_millis(setup.undo_window),
        indexes: vec!["n".to_owned()],
        schema_version: version,
        ..EntityRules::default()
    };
    let rules = (1..version).fold(rules, |rules, from| {
        rules.upcast_from(from, move |_, fields| {
            turned(fields.into_map(), from).into_iter().collect()
        })
    });
    let refers = |to| Ok(vec![Reference { field: "ref".to_owned(), entity: entity(to)? }]);
    let notes = EntityRules {
        references: refers("lead")?,
        priority: i32::from(setup.priorities),
        ..rules.clone()
    };
    let references = if setup.mutual_references { refers("note")? } else { Vec::new() };
    let leads = EntityRules { references, ..rules.clone() };
    let schema = Schema::closed().declare(entity("lead")?, leads).declare(entity("note")?, notes);
    Ok(if version < TASKS_FROM { schema } else { schema.declare(entity("task")?, rules) })
}

/// Returns whether a version of the app has an entity type.
pub fn knows(version: u32, entity: &EntityType) -> bool {
    version >= TASKS_FROM || entity.as_str() != "task"
}

/// Converts the fields of an op to the next version: version 2 renames `c` to `d`, version 3 makes
/// lists of it.
pub fn turned(mut fields: Image, from: u32) -> Image {
    if from == 1 {
        if let Some(value) = fields.remove("c") {
            fields.insert("d".to_owned(), value);
        }
    } else if let Some(value) = fields.get_mut("d").filter(|value| !value.is_null()) {
        *value = Value::Array(vec![value.take()]);
    }
    fields
}
