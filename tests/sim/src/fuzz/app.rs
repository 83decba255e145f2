//! An app for the targets: its schema, and the writes that its users may make.

use std::collections::BTreeSet;
use std::time::Duration;

use fieldbook::record::OpKind;
use fieldbook::schema::{IndexRule, Policy, Reference};
use fieldbook::{EntityRules, EntityType, Fields, Mutation, RecordKey, Schema};
use serde_json::{Value, json};

use super::Choices;

/// The number of records of each entity type.
const RECORDS: usize = 3;

/// An app whose entity types and policies are fuzzed.
///
/// ```
/// use fieldbook::{EntityRules, Schema};
/// use fieldbook::schema::Policy;
/// use fieldbook_sim::fuzz::App;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stock = EntityRules { policy: Policy::Max, indexes: vec!["shelf".into()], ..EntityRules::default() };
/// let app = App::new(Schema::closed().declare("part".parse()?, stock));
///
/// // What libFuzzer would do with bytes of its own:
/// for seed in 0..20_u8 {
///     let data: Vec<u8> = (0..60).map(|place| seed.wrapping_mul(31).wrapping_add(place)).collect();
///     app.admit(&data);
///     app.plan(&data);
///     app.reorderings(&data);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct App {
    schema: Schema,
    entities: Vec<EntityType>,
}

impl App {
    /// Makes an app of a schema, without undo windows, which would only make everything wait. An
    /// open schema without declared entity types gets the type `lead`.
    pub fn new(schema: Schema) -> Self {
        let entities: Vec<_> = match schema.declared().next() {
            Some(_) => schema.declared().map(|(entity, _)| entity.clone()).collect(),
            None => EntityType::parse("lead").into_iter().collect(),
        };
        let mut prepared = schema.clone();
        for entity in &entities {
            let rules = schema.rules(entity).cloned().unwrap_or_default();
            prepared = prepared.declare(
                entity.clone(),
                EntityRules { undo_window: Duration::ZERO, local_only: false, ..rules },
            );
        }
        Self { schema: prepared, entities }
    }

    /// Makes an app that declares some of everything, for the project's own targets.
    pub fn example() -> Self {
        let policies = [
            ("most", Policy::Max),
            ("least", Policy::Min),
            ("tags", Policy::AppendUnique),
            ("theirs", Policy::ServerWins),
            ("ours", Policy::DeviceWins),
        ];
        let field_policies =
            policies.map(|(field, policy)| (field.to_owned(), policy)).into_iter().collect();
        let (lead, note, task) =
            (EntityType::parse("lead"), EntityType::parse("note"), EntityType::parse("task"));
        let mut schema = Schema::closed();
        if let (Ok(lead), Ok(note), Ok(task)) = (lead, note, task) {
            let refers = Reference { field: "lead".to_owned(), entity: lead.clone() };
            let notes =
                EntityRules { references: vec![refers], priority: 1, ..EntityRules::default() };
            let tasks = EntityRules { policy: Policy::Manual, ..EntityRules::default() };
            let leads =
                EntityRules { field_policies, indexes: vec!["a".into()], ..EntityRules::default() };
            schema = schema.declare(lead, leads).declare(note, notes).declare(task, tasks);
        }
        Self::new(schema)
    }

    /// Returns the schema.
    pub const fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Returns the entity types, in the order in which they are declared.
    pub fn entities(&self) -> &[EntityType] {
        &self.entities
    }

    pub(super) fn rules(&self, entity: &EntityType) -> EntityRules {
        self.schema.rules(entity).cloned().unwrap_or_default()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = RecordKey> + '_ {
        let keys = self.entities.iter().flat_map(|entity| (0..RECORDS).map(move |id| (entity, id)));
        keys.filter_map(|(entity, id)| RecordKey::parse(entity.as_str(), &id.to_string()).ok())
    }

    pub(super) fn key(&self, choices: &mut Choices<'_>) -> Option<RecordKey> {
        let entity = self.entities.get(choices.below(self.entities.len()))?;
        RecordKey::parse(entity.as_str(), &choices.below(RECORDS).to_string()).ok()
    }

    /// Returns the names of fields with a meaning for the rules, and two without.
    pub(super) fn names(rules: &EntityRules) -> Vec<String> {
        let mut names: BTreeSet<String> = rules.field_policies.keys().cloned().collect();
        names.extend(rules.references.iter().map(|reference| reference.field.clone()));
        names.extend(rules.indexes.iter().flat_map(IndexRule::fields));
        names.extend(["a".to_owned(), "b".to_owned()]);
        names.into_iter().collect()
    }

    /// Draws up to three fields with values that suit their policies, most of the time.
    pub(super) fn fields(rules: &EntityRules, choices: &mut Choices<'_>) -> Fields {
        let names = Self::names(rules);
        let mut fields = Fields::new();
        for _ in 0..=choices.below(3) {
            let Some(name) = names.get(choices.below(names.len())) else { continue };
            fields.set(name, Self::value(rules, name, choices));
        }
        fields
    }

    fn value(rules: &EntityRules, name: &str, choices: &mut Choices<'_>) -> Value {
        let (kind, byte) = (choices.below(8), choices.below(5));
        if rules.references.iter().any(|reference| reference.field == name) {
            return json!((byte % RECORDS).to_string());
        }
        match (rules.policy_of(name), kind) {
            (_, 0) => Value::Null,
            (_, 1) => json!({"deep": [byte, null]}),
            (_, 2) => json!("text"),
            (Policy::AppendUnique, _) => (0..byte).map(|item| json!(item * kind % 4)).collect(),
            (Policy::Max | Policy::Min, 3) => json!(f64::from(u8::try_from(byte).unwrap_or(0))),
            (Policy::Max | Policy::Min, 4) => json!(9_007_199_254_740_990_u64 + byte as u64),
            _ => json!(byte),
        }
    }

    /// Draws a mutation that most of the time fits the record, which exists or not.
    pub(super) fn mutation(
        &self,
        key: RecordKey,
        is_there: bool,
        choices: &mut Choices<'_>,
    ) -> Mutation {
        let kind = match (choices.below(16), is_there) {
            (0, _) => OpKind::Create,
            (1, _) => OpKind::Update,
            (_, false) => OpKind::Create,
            (2..4, true) => OpKind::Delete,
            (4..6, true) => OpKind::Replace,
            (_, true) => OpKind::Update,
        };
        let fields = Self::fields(&self.rules(&key.entity), choices);
        match kind {
            OpKind::Create => Mutation::create(key, fields),
            OpKind::Update => Mutation::update(key, fields),
            OpKind::Replace => Mutation::replace(key, fields),
            OpKind::Delete => Mutation::delete(key),
        }
    }
}
