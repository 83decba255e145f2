//! A lead, and the rules by which the book keeps leads.

use std::error::Error;

use fieldbook::schema::{IndexPart, IndexRule, Policy};
use fieldbook::search::SearchRule;
use fieldbook::{BookOptions, Entity, EntityRules, Fields, RecordId, RecordKey, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::totals::Pipeline;

/// The stages of a lead.
pub(crate) const STAGES: [&str; 4] = ["new", "hot", "won", "lost"];

/// Somebody who may buy something.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Lead {
    pub(crate) name: String,
    pub(crate) stage: String,
    pub(crate) amount: i64,
    #[serde(default)]
    pub(crate) phone: String,
}

impl Entity for Lead {
    const ENTITY: &'static str = "lead";
}

impl Lead {
    /// Returns the key of the lead with this id.
    pub(crate) fn key(id: &RecordId) -> RecordKey {
        RecordKey::new(Self::entity_type(), id.clone())
    }
}

/// Returns how the book is opened: its user, indexes, conflict policies, search and projection.
pub(crate) fn options(user: &str) -> Result<BookOptions, Box<dyn Error>> {
    let by_name = IndexPart::new("name").caseless();
    let rules = EntityRules {
        indexes: vec![
            IndexRule::new("by_stage").asc("stage").asc(by_name.clone()),
            IndexRule::new("by_name").asc(by_name),
        ],
        // If two people change one of these fields, a person chooses. In the other fields the later
        // edit wins.
        field_policies: [("stage".into(), Policy::Manual), ("amount".into(), Policy::Manual)]
            .into(),
        ..EntityRules::default()
    };
    let searched = SearchRule::new().field("name", 4).field("phone", 1);
    Ok(BookOptions::new(user)?
        .app("crm", env!("CARGO_PKG_VERSION"))
        .schema(Schema::closed().declare(Lead::entity_type(), rules))
        .search(Lead::entity_type(), searched)
        .projection(Pipeline)?)
}

/// Reads a value as it was typed, and returns the patch that sets its field.
pub(crate) fn patch(field: &str, typed: &str) -> Result<Fields, Box<dyn Error>> {
    let value = match field {
        "name" | "phone" => json!(typed),
        "stage" => json!(stage(typed)?),
        "amount" => json!(amount(typed)?),
        other => {
            return Err(format!("a lead has no `{other}`: name, stage, amount or phone").into());
        }
    };
    Ok(Fields::from_value(json!({ field: value }))?)
}

/// Reads a stage.
pub(crate) fn stage(typed: &str) -> Result<&str, String> {
    match STAGES.contains(&typed) {
        true => Ok(typed),
        false => Err(format!("`{typed}` is no stage: {}", STAGES.join(", "))),
    }
}

/// Reads an amount.
pub(crate) fn amount(typed: &str) -> Result<i64, String> {
    typed.parse().map_err(|_| format!("`{typed}` is no amount: write it in digits, like 1200"))
}
