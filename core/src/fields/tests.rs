//! Patches and images as values and as text: both give the same result.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn fields(value: Value) -> Fields {
    Fields::from_value(value).unwrap()
}

#[test]
fn a_null_in_a_patch_takes_the_field_away() {
    let mut image = fields(json!({"name": "Ann", "phone": "1"}));
    image.apply(&fields(json!({"phone": null, "stage": "hot"})));
    assert_eq!(image, fields(json!({"name": "Ann", "stage": "hot"})));
}

#[test]
fn values_are_set_whole_and_never_merged_inside() {
    let mut image = fields(json!({"address": {"street": "x", "town": "y"}}));
    image.apply(&fields(json!({"address": {"town": "z"}})));
    assert_eq!(image, fields(json!({"address": {"town": "z"}})));
}

#[test]
fn text_that_nests_too_deep_is_refused_before_it_is_built() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Fields::parse(&deep).unwrap_err(), InvalidFields::TooDeep);
    assert_eq!(FieldsJson::parse(&deep).unwrap_err(), InvalidFields::TooDeep);
}

#[test]
fn every_way_to_write_the_same_object_becomes_one_text() {
    let plain = FieldsJson::parse(r#"{"a":1,"b":[1.5,"x y"]}"#).unwrap();
    for other in [
        r#"{ "a": 1, "b": [1.5, "x y"] }"#,
        r#"{"b":[1.5,"x y"],"a":1}"#,
        r#"{"\u0061":1,"b":[1.50,"x y"]}"#,
        r#"{"a":1,"b":[15e-1,"\u0078\u0020y"]}"#,
    ] {
        assert_eq!(FieldsJson::parse(other).unwrap(), plain, "{other}");
    }
}

/// The order of names inside values, repeated names there, and escapes were kept as they arrived.
/// The same unit, sent again by a program with another JSON style, was "another unit with this id".
#[test]
fn the_one_form_goes_all_the_way_down() {
    for (text, form) in [
        (r#"{"a":{"y":1,"x":{"d":[],"c":{}}}}"#, r#"{"a":{"x":{"c":{},"d":[]},"y":1}}"#),
        (r#"{"a":[{"y":1,"x":2}]}"#, r#"{"a":[{"x":2,"y":1}]}"#),
        (r#"{"a":"\u00e9\/\u002F\u0007\u000A\u001F"}"#, "{\"a\":\"é//\\u0007\\n\\u001f\"}"),
        (r#"{"a":"\ud83d\uDE00"}"#, "{\"a\":\"😀\"}"),
        (r#"{"a":{"\u0062":1,"a":2}}"#, r#"{"a":{"a":2,"b":1}}"#),
        (r#"{"a\n":1,"a\u0009":2}"#, r#"{"a\t":2,"a\n":1}"#),
        (r#"{"a":[1E5,-0,100e-2, 2 ]}"#, r#"{"a":[100000.0,-0.0,1.0,2]}"#),
    ] {
        let parsed = FieldsJson::parse(text).unwrap();
        assert_eq!(parsed.as_str(), form, "{text}");
        assert_eq!(FieldsJson::parse(form).unwrap().as_str(), form, "{text}");
        assert_eq!(parsed.to_fields().unwrap().to_json().as_str(), form, "{text}");
    }
}

#[test]
fn what_cannot_be_kept_without_a_loss_is_refused_with_its_place_and_not_its_value() {
    let number = |at: &str| InvalidFields::Number { at: at.to_owned() };
    let half = |at: &str| InvalidFields::Surrogate { at: at.to_owned() };
    let twice = |at: &str| InvalidFields::Duplicate { at: at.to_owned() };
    for (text, fault) in [
        (r#"{"n":12345678901234567890123}"#, number("n")),
        (r#"{"n":1e400}"#, number("n")),
        (r#"{"a":{"b":[1,{"c":1e-400}]}}"#, number("a.b[1].c")),
        (r#"{"a":[[0.12345678901234567890]]}"#, number("a[0][0]")),
        (r#"{"a":"\ud800"}"#, half("a")),
        (r#"{"a":["x","\udc00\ud800"]}"#, half("a[1]")),
        (r#"{"a":"\ud800\u0041"}"#, half("a")),
        (r#"{"a":1,"a":1}"#, twice("a")),
        (r#"{"a":1,"b":2,"a":1}"#, twice("a")),
        (r#"{"a":{"x":1,"b":{"c":1,"b":1,"\u0063":1}}}"#, twice("a.b.c")),
    ] {
        assert_eq!(FieldsJson::parse(text).unwrap_err(), fault, "{text}");
        assert_eq!(Fields::parse(text).unwrap_err(), fault, "{text}");
        assert!(!fault.to_string().contains("1234"), "{fault}");
    }
    assert!(
        number("n").to_string().contains("number") && half("n").to_string().contains("surrogate")
    );
    let hostile = Fields::parse("{\"a\u{202e}b\":1e400}").unwrap_err().to_string();
    assert!(hostile.contains("a\\u{202e}b"), "{hostile}");
}

/// The deepest accepted value could not be read again.
#[test]
fn the_deepest_value_that_is_let_in_can_be_read() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let deepest = limits::FIELD_LEVELS;
    let fields = Fields::parse(&nested(deepest)).unwrap();
    assert_eq!(fields.checked().unwrap().to_fields().unwrap(), fields);
    assert_eq!(Fields::parse(&nested(deepest + 1)).unwrap_err(), InvalidFields::TooDeep);
    let mut value = Value::Null;
    for _ in 0..=deepest {
        value = Value::Array(vec![value]);
    }
    assert_eq!(Fields::from_value(json!({ "a": value })).unwrap_err(), InvalidFields::TooDeep);
}

#[test]
fn what_is_not_an_object_is_refused_with_its_place() {
    for bad in [
        "",
        "[]",
        "null",
        "{",
        "{\"a\":}",
        "{} x",
        "{\"a\":1e999}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":1,}",
        "\u{feff}{}",
    ] {
        assert!(FieldsJson::parse(bad).is_err(), "{bad}");
        assert!(Fields::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(
        Fields::parse("{\n  x").unwrap_err(),
        InvalidFields::NotAnObject { line: 2, column: 3 }
    );
}

#[test]
fn debug_output_shows_no_value() {
    assert_eq!(format!("{:?}", fields(json!({"secret": "canary"}))), "Fields(1 fields)");
    assert_eq!(format!("{:?}", fields(json!({"a": 1})).to_json()), "FieldsJson(7 bytes)");
}

prop_compose! {
    fn some_fields()(members in prop::collection::btree_map("[a-d]", prop_oneof![
        Just(Value::Null), (0..3u8).prop_map(|n| json!(n)), Just(json!({"x": 1})), Just(json!({"y": null})),
    ], 0..4)) -> Fields {
        members.into_iter().collect()
    }
}

/// Draws fields with everything that text can hold: escapes in names and values, brackets in
/// strings, nesting, inner nulls.
fn any_fields() -> impl Strategy<Value = Fields> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c\"\\\\{}\\[\\],:né\n ]{0,6}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-b\"}é]{1,2}", inner, 0..3).prop_map(Value::from_iter),
        ]
    });
    prop::collection::btree_map("[a-d]|[a-b\"\\\\}é\n]{1,2}", value, 0..5)
        .prop_map(|members| members.into_iter().collect())
}

/// Writes a value in another form than the one form: spaces, members backwards, needless escapes.
fn otherwise(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[ {} ]", items.iter().map(otherwise).collect::<Vec<_>>().join(" ,\n"))
        }
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                format!("{} : {}", otherwise(&Value::from(name.as_str())), otherwise(value))
            };
            format!("{{\t{}}}", members.iter().rev().map(member).collect::<Vec<_>>().join(","))
        }
        Value::String(text) => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            format!("\"{}\"", units.collect::<String>())
        }
        Value::Number(number) if number.is_f64() => format!("{:E}", number.as_f64().unwrap()),
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn the_same_values_have_one_form_whoever_writes_them(fields in any_fields()) {
        let form = fields.to_json();
        let other = otherwise(&Value::Object(fields.into_map()));
        prop_assert_eq!(FieldsJson::parse(&other).unwrap(), form.clone(), "{}", other);
        prop_assert_eq!(FieldsJson::parse(form.as_str()).unwrap(), form);
    }

    #[test]
    fn a_patch_of_the_text_is_the_text_of_the_patched_values(image in any_fields(), patch in any_fields()) {
        let image = image.into_image();
        let text = image.to_json().patched(&patch.to_json()).unwrap();
        let names: Vec<_> = patch.iter().map(|(name, value)| (name.to_owned(), value.is_null())).collect();
        prop_assert_eq!(patch.to_json().names().unwrap(), names);
        let mut values = image;
        values.apply(&patch);
        prop_assert_eq!(text, values.to_json());
    }

    #[test]
    fn damaged_text_never_panics(image in r#"\{?[\{\}\[\]",:a-c0\\nul é]{0,24}"#, patch in r#"\{"[ab]":[01"\\\[,}]{0,9}"#) {
        drop(FieldsJson(image.into()).patched(&FieldsJson(patch.into())));
    }
}

#[test]
fn text_in_the_usual_form_is_patched_as_text() {
    assert_eq!(
        patch_text::apply(
            r#"{"a":{"x":[1,"}"]},"b":"\\\"","d":1}"#,
            r#"{"a":null,"c":[],"d":"n"}"#
        )
        .unwrap(),
        r#"{"b":"\\\"","c":[],"d":"n"}"#
    );
    assert_eq!(patch_text::apply("{}", r#"{"a":null}"#).unwrap(), "{}");
    assert_eq!(
        patch_text::apply(r#"{"a\n":1}"#, "{}"),
        None,
        "an escaped name is left to the values"
    );
    assert_eq!(patch_text::apply(r#"{"b":1,"a":1}"#, "{}"), None);
}

proptest! {
    #[test]
    fn composing_patches_equals_applying_them_in_order(image in some_fields(), p in some_fields(), q in some_fields()) {
        let image = image.into_image();
        let mut one_by_one = image.clone();
        one_by_one.apply(&p);
        one_by_one.apply(&q);
        let mut composed = p;
        composed.compose(q);
        let mut at_once = image;
        at_once.apply(&composed);
        prop_assert_eq!(one_by_one, at_once);
    }

    #[test]
    fn a_patch_between_two_images_makes_one_of_the_other(a in some_fields(), b in some_fields()) {
        let (mut a, b) = (a.into_image(), b.into_image());
        let patch = a.patch_to(&b);
        a.apply(&patch);
        prop_assert_eq!(a, b);
    }

    #[test]
    fn the_quick_check_and_the_full_parse_agree(text in r#"[\{\}\[\]",:a0-9\\nul .e-]{0,24}"#) {
        prop_assert_eq!(FieldsJson::parse(&text).is_ok(), Fields::parse(&text).is_ok());
    }
}
