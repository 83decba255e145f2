//! The declarations of an app as data, as its book records them.
//!
//! ```text
//!   Schema ─► Declared ─► JSON (an item of a `Session` entry) ─► Declared ─► Schema without hooks
//! ```
//!
//! Invariants:
//! 1. The same declarations give the same bytes, so a digest of the bytes shows a change.
//! 2. A function of the app cannot be data. The record names it as a [`Hook`], so that another
//!    program knows what it lacks.
//! 3. A member that this program does not know is a hook too: a later program declared something
//!    that this one cannot keep.
//!
//! What it is not: a check of records against a schema. No program refuses fields because of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EntityRules, Granularity, NetworkClass, Policy, Priorities, Reference, Schema};
use crate::hooks::Upcaster;
use crate::index::IndexRule;
use crate::names::EntityType;
use crate::numbers::Hash;

/// The declarations of an app, as data.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Declared {
    /// The rules of the types that are not declared by name; none in a closed schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    others: Option<DeclaredRules>,
    /// The rules of the declared types.
    #[serde(default)]
    entities: BTreeMap<EntityType, DeclaredRules>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// The declarations of one entity type, as data. A member with the default value is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct DeclaredRules {
    #[serde(skip_serializing_if = "is_first")]
    schema_version: u32,
    #[serde(skip_serializing_if = "is_default")]
    priority: i32,
    #[serde(skip_serializing_if = "is_default")]
    priorities: DeclaredPriorities,
    #[serde(skip_serializing_if = "is_default")]
    references: Vec<DeclaredReference>,
    #[serde(skip_serializing_if = "is_default")]
    policy: Policy,
    #[serde(skip_serializing_if = "is_default")]
    field_policies: BTreeMap<String, Policy>,
    #[serde(skip_serializing_if = "is_default")]
    whole_record: bool,
    #[serde(skip_serializing_if = "is_default")]
    undo_window_ms: u64,
    #[serde(skip_serializing_if = "is_default")]
    network: DeclaredNetwork,
    #[serde(skip_serializing_if = "is_default")]
    local_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    indexes: Vec<IndexRule>,
    /// The former and the new names of fields, by the version that had the former ones.
    #[serde(skip_serializing_if = "is_default")]
    renames: BTreeMap<u32, Vec<(String, String)>>,
    #[serde(skip_serializing_if = "is_default")]
    hooks: DeclaredHooks,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeclaredPriorities {
    #[serde(skip_serializing_if = "Option::is_none")]
    create: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredReference {
    field: String,
    entity: EntityType,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DeclaredNetwork {
    #[default]
    Any,
    Unmetered,
    UnmeteredAbove(u64),
}

/// The names of an entity type's functions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
struct DeclaredHooks {
    #[serde(skip_serializing_if = "is_default")]
    validator: bool,
    /// The versions from which a function upcasts.
    #[serde(skip_serializing_if = "is_default")]
    upcasters: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict_function: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    field_functions: BTreeMap<String, String>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_first(version: &u32) -> bool {
    *version == 1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for DeclaredRules {
    fn default() -> Self {
        Self::of(&EntityRules::default())
    }
}

/// A rule of the app that is code, or that this program does not know. A program without it decides
/// without it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Hook {
    /// The entity type; `None` for the types that are not declared by name, or for the schema.
    pub entity: Option<EntityType>,
    /// The kind of the rule, with its name if it has one.
    #[serde(flatten)]
    pub kind: HookKind,
}

/// The kinds of [`Hook`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "hook", rename_all = "snake_case")]
#[non_exhaustive]
pub enum HookKind {
    /// The check of a change before it is sent.
    Validator,
    /// The function that converts fields from a schema version to the next.
    Upcaster {
        /// That version.
        from: u32,
    },
    /// A function that resolves conflicts.
    ConflictFunction {
        /// Its name, as conflicts record it.
        name: String,
        /// Its field; `None` if it is for the whole type.
        field: Option<String>,
    },
    /// A declaration that this program does not know.
    Unknown {
        /// Its name in the record.
        member: String,
    },
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.entity.as_ref().map_or("other types", EntityType::as_str);
        match &self.kind {
            HookKind::Validator => write!(f, "the validator of {of}"),
            HookKind::Upcaster { from } => {
                write!(f, "the upcaster of {of} from schema version {from}")
            }
            HookKind::ConflictFunction { name, field: Some(field) } => {
                write!(f, "the conflict function {name:?} of {of}.{field}")
            }
            HookKind::ConflictFunction { name, field: None } => {
                write!(f, "the conflict function {name:?} of {of}")
            }
            HookKind::Unknown { member } => {
                write!(f, "{member:?} of {of}, which a later version declared")
            }
        }
    }
}

impl Declared {
    /// Returns the declarations of a schema.
    pub fn of(schema: &Schema) -> Self {
        let entities = schema.declared();
        Self {
            others: schema.others.as_ref().map(DeclaredRules::of),
            entities: entities
                .map(|(entity, rules)| (entity.clone(), DeclaredRules::of(rules)))
                .collect(),
            unknown: BTreeMap::new(),
        }
    }

    /// Reads recorded declarations.
    ///
    /// # Errors
    /// The error of the parser, if this program cannot read them.
    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Returns the bytes to record: compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Every key is text and every number is finite, so this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns the schema, without the hooks.
    pub fn schema(&self) -> Schema {
        let declared = self.entities.iter();
        Schema {
            entities: declared.map(|(entity, rules)| (entity.clone(), rules.rules())).collect(),
            others: self.others.as_ref().map(DeclaredRules::rules),
        }
    }

    /// Returns the hooks, in the order of the entity types.
    pub fn hooks(&self) -> Vec<Hook> {
        let unknown =
            self.unknown.keys().map(|member| HookKind::Unknown { member: member.clone() });
        let mut hooks: Vec<_> = unknown.map(|kind| Hook { entity: None, kind }).collect();
        let others = self.others.iter().map(|rules| (None, rules));
        let declared = self.entities.iter().map(|(entity, rules)| (Some(entity), rules));
        for (entity, rules) in others.chain(declared) {
            let kinds = rules.hooks().into_iter();
            hooks.extend(kinds.map(|kind| Hook { entity: entity.cloned(), kind }));
        }
        hooks
    }
}

/// Returns the digest of recorded declarations: BLAKE3 of the bytes.
pub fn declared_digest(bytes: &[u8]) -> Hash {
    Hash::from_bytes(*blake3::hash(bytes).as_bytes())
}

impl DeclaredRules {
    fn of(rules: &EntityRules) -> Self {
        let Priorities { create, update, delete } = rules.priorities;
        let references = rules.references.iter();
        let renames = rules.upcasters.iter().filter_map(|(version, step)| {
            step.renames().map(|renames| (*version, renames.to_vec()))
        });
        Self {
            schema_version: rules.schema_version,
            priority: rules.priority,
            priorities: DeclaredPriorities { create, update, delete },
            references: references
                .map(|Reference { field, entity }| DeclaredReference {
                    field: field.clone(),
                    entity: entity.clone(),
                })
                .collect(),
            policy: rules.policy,
            field_policies: rules.field_policies.clone(),
            whole_record: rules.granularity == Granularity::WholeRecord,
            undo_window_ms: u64::try_from(rules.undo_window.as_millis()).unwrap_or(u64::MAX),
            network: match rules.network {
                NetworkClass::Any => DeclaredNetwork::Any,
                NetworkClass::Unmetered => DeclaredNetwork::Unmetered,
                NetworkClass::UnmeteredAbove(bytes) => {
                    DeclaredNetwork::UnmeteredAbove(u64::try_from(bytes).unwrap_or(u64::MAX))
                }
            },
            local_only: rules.local_only,
            indexes: rules.indexes.clone(),
            renames: renames.collect(),
            hooks: DeclaredHooks::of(rules),
            unknown: BTreeMap::new(),
        }
    }

    fn rules(&self) -> EntityRules {
        let DeclaredPriorities { create, update, delete } = self.priorities;
        let references = self.references.iter();
        EntityRules {
            schema_version: self.schema_version,
            priority: self.priority,
            priorities: Priorities { create, update, delete },
            references: references
                .map(|DeclaredReference { field, entity }| Reference {
                    field: field.clone(),
                    entity: entity.clone(),
                })
                .collect(),
            policy: self.policy,
            field_policies: self.field_policies.clone(),
            granularity: if self.whole_record {
                Granularity::WholeRecord
            } else {
                Granularity::Field
            },
            undo_window: Duration::from_millis(self.undo_window_ms),
            network: match self.network {
                DeclaredNetwork::Any => NetworkClass::Any,
                DeclaredNetwork::Unmetered => NetworkClass::Unmetered,
                DeclaredNetwork::UnmeteredAbove(bytes) => {
                    NetworkClass::UnmeteredAbove(usize::try_from(bytes).unwrap_or(usize::MAX))
                }
            },
            local_only: self.local_only,
            indexes: self.indexes.clone(),
            upcasters: (self.renames.iter())
                .map(|(version, renames)| (*version, Upcaster::of_renames(renames.clone())))
                .collect(),
            ..EntityRules::default()
        }
    }

    fn hooks(&self) -> Vec<HookKind> {
        let DeclaredHooks { validator, upcasters, conflict_function, field_functions, unknown } =
            &self.hooks;
        let mut kinds = Vec::new();
        kinds.extend(validator.then_some(HookKind::Validator));
        kinds.extend(upcasters.iter().map(|from| HookKind::Upcaster { from: *from }));
        kinds.extend(
            conflict_function
                .iter()
                .map(|name| HookKind::ConflictFunction { name: name.clone(), field: None }),
        );
        kinds.extend(field_functions.iter().map(|(field, name)| HookKind::ConflictFunction {
            name: name.clone(),
            field: Some(field.clone()),
        }));
        let unknown = self.unknown.keys().chain(unknown.keys());
        kinds.extend(unknown.map(|member| HookKind::Unknown { member: member.clone() }));
        kinds
    }
}

impl DeclaredHooks {
    fn of(rules: &EntityRules) -> Self {
        let field_functions = rules.field_functions.iter();
        Self {
            validator: rules.validator.is_some(),
            upcasters: (rules.upcasters.iter())
                .filter(|(_, step)| step.renames().is_none())
                .map(|(version, _)| *version)
                .collect(),
            conflict_function: rules.function.as_ref().map(|function| function.name().to_owned()),
            field_functions: field_functions
                .map(|(field, function)| (field.clone(), function.name().to_owned()))
                .collect(),
            unknown: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::{ConflictFunction, MergeDecision};
    use crate::op::OpKind;

    fn entity(name: &str) -> EntityType {
        EntityType::parse(name).unwrap()
    }

    /// Everything that can be declared, each with a value that is not the default.
    fn everything() -> EntityRules {
        let longest = ConflictFunction::new("longest", |_| MergeDecision::Ask);
        EntityRules {
            schema_version: 4,
            priority: -7,
            priorities: Priorities { create: Some(1), update: None, delete: Some(i32::MIN) },
            references: vec![Reference { field: "company".to_owned(), entity: entity("company") }],
            policy: Policy::Manual,
            field_policies: [("stage".to_owned(), Policy::Max)].into(),
            function: Some(longest.clone()),
            field_functions: [("notes".to_owned(), longest)].into(),
            granularity: Granularity::WholeRecord,
            undo_window: Duration::from_millis(5_500),
            network: NetworkClass::UnmeteredAbove(1 << 20),
            local_only: true,
            indexes: vec![IndexRule::from("stage"), IndexRule::new("by_name").desc("name")],
            ..EntityRules::default()
        }
        .upcast_from(1, |_, fields| fields)
        .upcast_from(2, |_, fields| fields)
        .rename_from(3, "tel", "phone")
        .validate(|_| Ok(()))
    }

    #[test]
    fn what_is_declared_is_read_back_without_the_functions() {
        let schema = Schema::closed().declare(entity("lead"), everything());
        let read = Declared::read(&Declared::of(&schema).to_bytes()).unwrap();
        assert_eq!(read, Declared::of(&schema));
        let plain = EntityRules {
            function: None,
            field_functions: BTreeMap::new(),
            upcasters: [(3, Upcaster::rename("tel", "phone"))].into(),
            validator: None,
            ..everything()
        };
        assert_eq!(read.schema().rules(&entity("lead")), Some(&plain));
        assert_eq!(read.schema().rules(&entity("visit")), None, "a closed schema stays closed");
        assert_eq!(plain.priority_of(OpKind::Delete), i32::MIN);
    }

    #[test]
    fn the_functions_are_named() {
        let rules = EntityRules::default().validate(|_| Ok(()));
        let schema = Schema::open(rules).declare(entity("lead"), everything());
        let named: Vec<_> = Declared::of(&schema).hooks().iter().map(Hook::to_string).collect();
        let expected = [
            "the validator of other types",
            "the validator of lead",
            "the upcaster of lead from schema version 1",
            "the upcaster of lead from schema version 2",
            r#"the conflict function "longest" of lead"#,
            r#"the conflict function "longest" of lead.notes"#,
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn defaults_are_left_out_and_the_same_declarations_give_the_same_bytes() {
        let open = Schema::open(EntityRules::default());
        let bytes = Declared::of(&open).to_bytes();
        assert_eq!(String::from_utf8_lossy(&bytes), r#"{"others":{},"entities":{}}"#);
        let declared = open.declare(entity("lead"), everything());
        let (once, twice) =
            (Declared::of(&declared).to_bytes(), Declared::of(&declared.clone()).to_bytes());
        assert_eq!(declared_digest(&once), declared_digest(&twice));
        assert_ne!(declared_digest(&once), declared_digest(&bytes));
    }

    #[test]
    fn what_a_later_version_declares_is_kept_and_named_as_a_hook() {
        let later = br#"{"entities":{"lead":{"local_only":true,"retention_days":30,"hooks":{"sorter":"x"}}},"calendar":{}}"#;
        let read = Declared::read(later).unwrap();
        let named: Vec<_> = read.hooks().iter().map(Hook::to_string).collect();
        let expected = [
            r#""calendar" of other types, which a later version declared"#,
            r#""retention_days" of lead, which a later version declared"#,
            r#""sorter" of lead, which a later version declared"#,
        ];
        assert_eq!(named, expected);
        assert!(read.schema().rules(&entity("lead")).unwrap().local_only);
        assert!(Declared::read(br#"{"entities":{"lead":{"policy":"newer"}}}"#).is_err());
    }
}
