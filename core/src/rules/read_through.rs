//! Completes an update of a record that is read through upcasters.
//!
//! ```text
//!   stored {"tel":"1"} ─ read ─► {"phone":"1"} ─ the app sets phone ─► op {"phone":"2","tel":null}
//! ```
//!
//! The app reads the field `tel` as `phone`. An update of `phone` alone would stay hidden, because
//! the stored `tel` would still be read as `phone`. So the op takes the stored field away too.
//!
//! Invariants:
//! 1. After the op, the app reads what it read before, with its update applied.
//! 2. The op names no stored field that the update does not concern, if the upcasters allow it: a
//!    later edit by somebody with an older version of the app still counts.
//!
//! What it is not: a migration. A record that nobody edits keeps its stored fields.

use crate::fields::Fields;
use crate::schema::EntityRules;

/// Returns the patch of a record's stored fields that has the effect of `patch` on what the app
/// reads, which is `read`.
pub fn complete(rules: &EntityRules, stored: &Fields, read: &Fields, patch: Fields) -> Fields {
    let reads = |fields: &Fields| rules.read(fields).unwrap_or_else(|| fields.clone());
    let with = |before: &Fields, patch: &Fields| {
        let mut after = before.clone();
        after.apply(patch);
        after
    };
    let wanted = with(read, &patch);
    let does = |patch: &Fields| reads(&with(stored, patch)) == wanted;
    if does(&patch) {
        return patch;
    }
    let mut completed = patch.clone();
    let hidden: Vec<_> =
        stored.names().filter(|name| !read.has(name) && !patch.has(name)).collect();
    for name in hidden {
        let without = reads(&stored.filtered(|other| other != name));
        if patch.names().any(|changed| without.get(changed) != read.get(changed)) {
            completed.set(name, serde_json::Value::Null);
        }
    }
    // An upcaster may have made more fields of those that are taken away.
    let rest = reads(&with(stored, &completed)).patch_to(&wanted);
    completed.compose(rest);
    if does(&completed) { completed } else { stored.patch_to(&wanted) }
}

/// Returns whether a patch names a stored field that the app does not read. It is about stored
/// fields then, as those of a program without the upcasters.
pub fn is_of_stored(stored: &Fields, read: &Fields, patch: &Fields) -> bool {
    patch.names().any(|name| stored.has(name) && !read.has(name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::from_value(value).unwrap()
    }

    fn renames() -> EntityRules {
        let rules = EntityRules { schema_version: 2, ..EntityRules::default() };
        rules.rename_from(1, "tel", "phone").rename_from(1, "mail", "email")
    }

    #[track_caller]
    fn completed(rules: &EntityRules, stored: Value, patch: Value) -> Value {
        let (stored, patch) = (fields(stored), fields(patch));
        let read = rules.read(&stored).unwrap();
        let op = complete(rules, &stored, &read, patch.clone());
        let (mut after, mut wanted) = (stored, read);
        after.apply(&op);
        wanted.apply(&patch);
        assert_eq!(rules.read(&after).unwrap_or(after), wanted, "the app reads its update");
        Value::Object(op.into_map())
    }

    #[test]
    fn an_update_takes_away_the_former_name_of_what_it_sets_and_no_other() {
        let stored = || json!({"tel": "1", "mail": "a@b", "name": "Ann"});
        assert_eq!(
            completed(&renames(), stored(), json!({"phone": "2"})),
            json!({"phone": "2", "tel": null})
        );
        assert_eq!(completed(&renames(), stored(), json!({"name": "A"})), json!({"name": "A"}));
    }

    #[test]
    fn a_removal_takes_away_the_former_name_too() {
        assert_eq!(
            completed(&renames(), json!({"tel": "1"}), json!({"phone": null})),
            json!({"phone": null, "tel": null})
        );
    }

    #[test]
    fn what_else_was_made_of_a_field_stays() {
        let rules = EntityRules { schema_version: 2, ..EntityRules::default() };
        let split = rules.rename_from(1, "tel", "phone").upcast_from(1, |_, mut fields| {
            let name = fields.get("name").and_then(Value::as_str).map(str::to_owned);
            if let Some((first, last)) = name.as_deref().and_then(|name| name.split_once(' ')) {
                fields.remove("name");
                fields.set("first", first);
                fields.set("last", last);
            }
            fields
        });
        assert_eq!(
            completed(&split, json!({"name": "Ann Bo", "tel": "1"}), json!({"first": "Eva"})),
            json!({"first": "Eva", "last": "Bo", "name": null})
        );
    }

    #[test]
    fn an_update_of_a_stored_name_is_about_what_is_stored() {
        let (stored, read) = (fields(json!({"tel": "1"})), fields(json!({"phone": "1"})));
        assert!(is_of_stored(&stored, &read, &fields(json!({"tel": "2"}))));
        assert!(!is_of_stored(&stored, &read, &fields(json!({"phone": "2", "mail": "x"}))));
    }
}
