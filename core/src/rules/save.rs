//! Finds the changes that saving a typed record makes.
//!
//! An app's type names only some fields, and another version of the app may know more. So a save
//! writes the fields that the type knows, and does not touch the others:
//!
//! | a field, or a member inside a field, that | after the save |
//! |---|---|
//! | the new record names | is as the new record has it |
//! | the type reads, and writes unchanged | is unchanged, with all unknown members inside it |
//! | the type reads, and the new record leaves out | is removed |
//! | the type does not read | is unchanged |
//!
//! A round trip shows which fields a type reads: the type reads the record and writes it again.
//!
//! Invariants:
//! 1. Saving a record as it was read changes nothing, whatever the type knows.
//! 2. A type that can read a record before a save can read it after the save.
//!
//! What it is not: a merge of lists. An item of a list has no name, so a list that changed is set
//! as a whole.

use serde_json::{Map, Value};

use crate::fields::Fields;

/// Reads fields as the app's type and writes them again; `None` if the type cannot read them.
pub type RoundTrip<'a> = &'a dyn Fn(&Fields) -> Option<Fields>;

/// Returns the patch by which a save of `new` changes `before`.
pub fn save(before: &Fields, new: &Fields, round_trip: RoundTrip<'_>) -> Fields {
    let Some(seen) = round_trip(before) else {
        // Nobody knows which fields the type would have read, so only the fields that it names
        // change.
        let mut after = before.clone();
        after.apply(new);
        return before.patch_to(&after);
    };
    let seen = seen.into_image();
    let image = new.clone().into_image();
    let stays = |name: &str| {
        !seen.has(name) && !new.has(name) && is_passed_over(before, &seen, name, round_trip)
    };
    let mut after = image.clone();
    after.compose(before.filtered(stays));
    let mut within = after.clone();
    for (name, value) in image.iter() {
        if let (Some(raw), Some(seen)) = (before.get(name), seen.get(name)) {
            within.set(name, carried(raw, seen, value));
        }
    }
    // A type that reads a member under two names may fail on the member that was kept beside the
    // member that it wrote.
    before.patch_to(if round_trip(&within).is_some() { &within } else { &after })
}

/// Returns whether the type reads the same without a field. Lists are compared without their order,
/// because a set has none.
fn is_passed_over(before: &Fields, seen: &Fields, name: &str, round_trip: RoundTrip<'_>) -> bool {
    let without = round_trip(&before.filtered(|other| other != name));
    let unordered = |fields: Fields| sorted(&Value::Object(fields.into_map()));
    without.is_some_and(|without| unordered(without.into_image()) == unordered(seen.clone()))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(sorted).collect();
            items.sort_by_cached_key(Value::to_string);
            Value::Array(items)
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), sorted(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Returns a new value with the unknown members of the present value.
fn carried(raw: &Value, seen: &Value, new: &Value) -> Value {
    if seen == new {
        return raw.clone();
    }
    let (Value::Object(raw), Value::Object(seen), Value::Object(new)) = (raw, seen, new) else {
        return new.clone();
    };
    let mut after = new.clone();
    for (name, value) in raw {
        match (seen.get(name), new.get(name)) {
            (Some(seen), Some(new)) => drop(after.insert(name.clone(), carried(value, seen, new))),
            (None, None) => drop(after.insert(name.clone(), value.clone())),
            _ => {}
        }
    }
    Value::Object(after)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::from_value(value).unwrap()
    }

    /// Reads and writes a type with `name` and `address.street`. The type writes no empty `name`,
    /// and also reads `title` as `name`.
    fn small(image: &Fields) -> Option<Fields> {
        let mut known = Fields::new();
        let name = match (image.get("name"), image.get("title")) {
            (Some(_), Some(_)) => return None,
            (one, other) => one.or(other),
        };
        if let Some(name) = name {
            known.set("name", name.clone());
        }
        if let Some(address) = image.get("address") {
            known.set("address", json!({"street": address.get("street")?}));
        }
        Some(known)
    }

    #[track_caller]
    fn saved(before: Value, new: Value) -> Value {
        Value::Object(save(&fields(before), &fields(new), &small).into_map())
    }

    #[test]
    fn what_the_type_passes_over_stays() {
        assert_eq!(
            saved(json!({"name": "A", "phone": "5"}), json!({"name": "B"})),
            json!({"name": "B"})
        );
        assert_eq!(saved(json!({"name": "A", "phone": "5"}), json!({})), json!({"name": null}));
        assert_eq!(
            saved(json!({"name": "A", "phone": "5"}), json!({"name": null})),
            json!({"name": null})
        );
    }

    #[test]
    fn what_the_type_passes_over_within_a_field_stays() {
        let before = || json!({"address": {"street": "x", "zip": {"code": 1}}});
        assert_eq!(saved(before(), json!({"address": {"street": "x"}})), json!({}));
        assert_eq!(
            saved(before(), json!({"address": {"street": "y"}})),
            json!({"address": {"street": "y", "zip": {"code": 1}}})
        );
    }

    #[test]
    fn what_the_type_reads_under_another_name_does_not_stay_beside_what_it_writes() {
        assert_eq!(
            saved(json!({"title": "A", "phone": "5"}), json!({"name": "B"})),
            json!({"name": "B", "title": null})
        );
    }

    #[test]
    fn what_the_type_cannot_read_loses_nothing() {
        let before = json!({"name": "A", "title": "A", "phone": "5"});
        assert_eq!(saved(before, json!({"name": "B"})), json!({"name": "B"}));
    }

    #[test]
    fn the_order_of_a_set_is_no_difference() {
        assert_eq!(sorted(&json!({"a": [2, [3, 1]]})), sorted(&json!({"a": [[1, 3], 2]})));
        assert_ne!(sorted(&json!([1, 1])), sorted(&json!([1])));
    }
}
