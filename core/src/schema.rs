//! What an app declares about its entity types: data, read by the rules.
//!
//! A [`Schema`] that is *open* gives every entity type the default rules; a *closed* one knows only what was declared,
//! and keeps records of other types aside until they are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::fields::Fields;
use crate::hooks::{ConflictFunction, Outgoing, Upcaster, Validator};
use crate::names::EntityType;
use crate::op::OpKind;

/// How a field that was changed on both sides is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The later edit stands, by `edited_at`, then by op id.
    #[default]
    LastWriteWins,
    /// The server's value stands.
    ServerWins,
    /// This device's value stands.
    DeviceWins,
    /// The larger number stands; values that are not numbers fall back to last write wins.
    Max,
    /// The smaller number stands; values that are not numbers fall back to last write wins.
    Min,
    /// The server's list stands, followed by the items of ours that it lacks; values that are not lists fall back to
    /// last write wins.
    AppendUnique,
    /// Nothing is sent until a person chooses.
    Manual,
    /// A function of the app decides ([`EntityRules::function`]); without one, the later edit stands.
    Function,
}

impl Policy {
    /// Returns the word used in JSON, in tables and in errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastWriteWins => "last_write_wins",
            Self::ServerWins => "server_wins",
            Self::DeviceWins => "device_wins",
            Self::Max => "max",
            Self::Min => "min",
            Self::AppendUnique => "append_unique",
            Self::Manual => "manual",
            Self::Function => "function",
        }
    }
}

/// What must be together in a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Granularity {
    /// Each field for itself; fields that only one side changed are merged.
    #[default]
    Field,
    /// All fields of an edit win or lose together.
    WholeRecord,
}

/// Which network an op may leave by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NetworkClass {
    /// Any network.
    #[default]
    Any,
    /// Only an unmetered one.
    Unmetered,
    /// Only an unmetered one if the op's fields take more than so many bytes.
    UnmeteredAbove(usize),
}

/// A field whose value is the id of a record of another entity type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The field that holds the id.
    pub field: String,
    /// The entity type it points to.
    pub entity: EntityType,
}

/// Priorities by what is done to a record; none for the entity type's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Priorities {
    /// Of creates.
    pub create: Option<i32>,
    /// Of updates and replaces.
    pub update: Option<i32>,
    /// Of deletes.
    pub delete: Option<i32>,
}

/// What is declared about one entity type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityRules {
    /// The version of the app's own schema for it, from 1.
    pub schema_version: u32,
    /// Sent earlier the higher it is; never before what the op depends on.
    pub priority: i32,
    /// Priorities of single operations, in place of `priority`.
    pub priorities: Priorities,
    /// Fields that point to other records.
    pub references: Vec<Reference>,
    /// How conflicts are settled unless the field has a policy of its own.
    pub policy: Policy,
    /// Policies of single fields.
    pub field_policies: BTreeMap<String, Policy>,
    /// Settles conflicts in place of `policy`.
    pub function: Option<ConflictFunction>,
    /// Settle conflicts of single fields, in place of all else.
    pub field_functions: BTreeMap<String, ConflictFunction>,
    /// Whether fields are settled one by one.
    pub granularity: Granularity,
    /// How long an op stays on the device, so that it can be undone before it leaves. The default is zero: it may leave at once.
    pub undo_window: Duration,
    /// Which network an op may leave by.
    pub network: NetworkClass,
    /// Whether records of this type never leave the device.
    pub local_only: bool,
    /// Fields by whose value records can be listed.
    pub indexes: Vec<String>,
    /// What turns the fields of ops that were made under a schema version into those of the next, by the version that they
    /// start from.
    pub upcasters: BTreeMap<u32, Upcaster>,
    /// Looks at a change before it is sent; what it refuses is held for the user.
    pub validator: Option<Validator>,
}

impl Default for EntityRules {
    fn default() -> Self {
        Self {
            schema_version: 1,
            priority: 0,
            priorities: Priorities::default(),
            references: Vec::new(),
            policy: Policy::default(),
            field_policies: BTreeMap::new(),
            function: None,
            field_functions: BTreeMap::new(),
            granularity: Granularity::default(),
            undo_window: Duration::ZERO,
            network: NetworkClass::default(),
            local_only: false,
            indexes: Vec::new(),
            upcasters: BTreeMap::new(),
            validator: None,
        }
    }
}

impl EntityRules {
    /// Returns the priority of what is done to a record.
    pub fn priority_of(&self, kind: OpKind) -> i32 {
        let own = match kind {
            OpKind::Create => self.priorities.create,
            OpKind::Update | OpKind::Replace => self.priorities.update,
            OpKind::Delete => self.priorities.delete,
        };
        own.unwrap_or(self.priority)
    }

    /// Returns the policy of a field.
    pub fn policy_of(&self, field: &str) -> Policy {
        if self.function_of(field).is_some() {
            return Policy::Function;
        }
        self.field_policies.get(field).copied().unwrap_or(self.policy)
    }

    /// Returns the app's function for a field: its own, or the entity type's unless the field has a policy of its own.
    pub fn function_of(&self, field: &str) -> Option<&ConflictFunction> {
        let of_all = self.function.as_ref().filter(|_| !self.field_policies.contains_key(field));
        self.field_functions.get(field).or(of_all)
    }

    /// Declares what turns ops of one schema version into those of the next.
    #[must_use]
    pub fn upcast_from(
        mut self,
        version: u32,
        upcaster: impl Fn(OpKind, Fields) -> Fields + Send + Sync + 'static,
    ) -> Self {
        self.upcasters.insert(version, Upcaster::new(upcaster));
        self
    }

    /// Declares what looks at a change before it is sent. What it returns as an error is shown to people, and must not hold
    /// values of fields.
    #[must_use]
    pub fn validate(
        mut self,
        validator: impl Fn(&Outgoing<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.validator = Some(Validator::new(validator));
        self
    }

    /// Returns whether changes are looked at before they are sent.
    pub const fn is_inspected(&self) -> bool {
        self.validator.is_some() || !self.references.is_empty()
    }

    /// Returns whether upcasters lead from a schema version to the declared one.
    pub fn can_upcast(&self, from: u32) -> bool {
        from <= self.schema_version
            && (from..self.schema_version).all(|step| self.upcasters.contains_key(&step))
    }

    /// Turns fields of an op of an earlier schema version into those of the declared one; `None` if an upcaster is missing.
    pub fn upcast(&self, from: u32, kind: OpKind, fields: Fields) -> Option<Fields> {
        if from > self.schema_version {
            return None;
        }
        (from..self.schema_version).try_fold(fields, |fields, step| {
            self.upcasters.get(&step).map(|upcaster| upcaster.apply(kind, fields))
        })
    }
}

/// All that an app declares.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    entities: BTreeMap<EntityType, EntityRules>,
    others: Option<EntityRules>,
}

impl Schema {
    /// Knows only what will be declared; records of other types are kept aside.
    pub fn closed() -> Self {
        Self::default()
    }

    /// Takes every entity type, with these rules unless it is declared.
    pub fn open(others: EntityRules) -> Self {
        Self { entities: BTreeMap::new(), others: Some(others) }
    }

    /// Declares an entity type, in place of what was declared for it before.
    #[must_use]
    pub fn declare(mut self, entity: EntityType, rules: EntityRules) -> Self {
        self.entities.insert(entity, rules);
        self
    }

    /// Returns the rules of an entity type, or `None` if it is not known.
    pub fn rules(&self, entity: &EntityType) -> Option<&EntityRules> {
        self.entities.get(entity).or(self.others.as_ref())
    }

    /// Returns the rules of an entity type that was declared by name.
    pub fn declared_rules(&self, entity: &EntityType) -> Option<&EntityRules> {
        self.entities.get(entity)
    }

    /// Returns whether changes of any entity type are looked at before they are sent.
    pub fn inspects(&self) -> bool {
        self.entities.values().chain(self.others.as_ref()).any(EntityRules::is_inspected)
    }

    /// Returns whether all entity types and operations have the same priority, so that age alone orders what is sent.
    pub fn has_one_priority(&self) -> bool {
        let kinds = [OpKind::Create, OpKind::Update, OpKind::Delete];
        let rules = self.entities.values().chain(self.others.as_ref());
        let mut priorities = rules.flat_map(|rules| kinds.map(|kind| rules.priority_of(kind)));
        let first = priorities.next();
        priorities.all(|priority| Some(priority) == first)
    }

    /// Returns the declared entity types in order.
    pub fn declared(&self) -> impl Iterator<Item = (&EntityType, &EntityRules)> {
        self.entities.iter()
    }
}
