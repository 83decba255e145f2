//! The app of a simulated world: the declarations of its versions, and the conversion of ops of an
//! earlier version.

use std::collections::BTreeMap;
use std::time::Duration;

use fieldbook::record::OpKind;
use fieldbook::schema::{Granularity, IndexPart, IndexRule, Policy, Reference};
use fieldbook::search::SearchRule;
use fieldbook::{EntityRules, EntityType, Schema};
use serde_json::Value;

use crate::action::Setup;
use crate::broken::Broken;
use crate::ledger::{Image, changed};

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
        indexes: indexes(version),
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

/// Returns the indexes of a version of the app. Each version keeps, adds, changes and drops some,
/// and they are built for the records that there are.
fn indexes(version: u32) -> Vec<IndexRule> {
    let by_tag = IndexRule::new("by_tag").desc(IndexPart::new("tags").each());
    let compound = IndexRule::new("compound").desc("n").asc("a").only_if_present();
    match version {
        1 => vec!["n".into(), compound],
        2 => vec!["n".into(), by_tag, compound.desc(IndexPart::new("ref").caseless())],
        _ => vec![by_tag.asc("n"), IndexRule::new("compound").asc("a").desc("n"), "c".into()],
    }
}

/// Returns the fields in which a version of the app searches. The words are folded anew for each
/// version: fields come and go, and `c` has another name.
pub fn searched(version: u32) -> SearchRule {
    let rule = SearchRule::new().field("name", 4).field("tags", 2);
    match version {
        1 => rule.field("c", 1),
        2 => rule.field("d", 1).field("n", 1),
        _ => rule.field("d", 3).field("a", 1),
    }
}

/// Returns whether a version of the app has an entity type.
pub fn knows(version: u32, entity: &EntityType) -> bool {
    version >= TASKS_FROM || entity.as_str() != "task"
}

/// Converts fields to the next version: version 2 renames `c` to `d`, version 3 makes lists of it.
pub fn turned(mut fields: Image, from: u32) -> Image {
    if from == 1 {
        if let Some(value) = fields.remove("c") {
            fields.insert("d".to_owned(), value);
        }
    } else if let Some(value) = fields.get_mut("d").filter(|it| !it.is_null() && !it.is_array()) {
        *value = Value::Array(vec![value.take()]);
    }
    fields
}

/// Returns the fields of an op in the form of a later version. An update takes away the fields that
/// have another name by then, if they are among the stored ones.
pub fn turned_op(said: Image, kind: OpKind, (from, to): (u32, u32), stored: &Image) -> Image {
    let mut after = (from..to).fold(said.clone(), turned);
    if kind == OpKind::Update {
        for name in said.into_iter().map(|(name, _)| name).filter(|it| stored.contains_key(it)) {
            after.entry(name).or_insert(Value::Null);
        }
    }
    after
}

/// Returns an image as a version of the app reads it.
pub fn as_read(image: Image, version: u32) -> Image {
    (1..version).fold(image, turned)
}

/// Returns the stored image after an update by a version of the app.
pub fn updated(stored: &Image, version: u32, fields: &Image) -> Image {
    let on =
        |image: &Image| changed(Some(image.clone()), OpKind::Update, fields).unwrap_or_default();
    let read = as_read(stored.clone(), version);
    let is_hidden = |name: &str| stored.contains_key(name) && !read.contains_key(name);
    let (plain, wanted) = (on(stored), on(&read));
    if fields.keys().any(|name| is_hidden(name)) || as_read(plain.clone(), version) == wanted {
        return plain;
    }
    if wanted == read {
        return stored.clone();
    }
    let mut without = plain;
    without.retain(|name, _| !is_hidden(name));
    if as_read(without.clone(), version) == wanted { without } else { wanted }
}
