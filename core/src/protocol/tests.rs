//! Outcomes are read by hand (`outcome.rs`), so these tests compare reading with writing.

use super::*;
use crate::ids::UnitId;
use crate::random::SeededRandomness;

#[test]
fn every_outcome_reads_as_it_was_written() {
    let mut random = SeededRandomness::from_number(1);
    let unit = UnitId::new(WallTime::default(), &mut random);
    let key = RecordKey::parse("lead", "1").unwrap();
    let op = OpId::new(WallTime::default(), &mut random);
    let change = Change {
        key: key.clone(),
        version: Version::new(7),
        edited_at: Hlc::from_bits(5),
        op: OpId::new(WallTime::default(), &mut random),
        by: None,
        older: vec![FieldWrites {
            edited_at: Hlc::from_bits(4),
            op,
            fields: vec!["phone".to_owned()],
        }],
        floor: Some(EditStamp { edited_at: Hlc::from_bits(2), op }),
        deleted: false,
        partial: false,
        fields: Some(FieldsJson::parse(r#"{"name":"Ann","phone":[1.5,{"a":null}]}"#).unwrap()),
    };
    let code = "some_code".to_owned();
    for outcome in [
        Outcome::Applied {
            versions: BTreeMap::from([(key, Version::new(7))]),
            current: vec![change.clone()],
        },
        Outcome::Duplicate { versions: BTreeMap::new(), current: vec![change.clone()] },
        Outcome::Stale { current: vec![change], applied: vec![unit] },
        Outcome::Transient {
            code: code.clone(),
            message: "later".into(),
            retry_after_milliseconds: Some(5),
        },
        Outcome::Rejected { code: code.clone(), message: String::new() },
        Outcome::Unsupported { entity: EntityType::parse("lead").unwrap(), code: code.clone() },
        Outcome::Unauthorized { code },
    ] {
        let written = UnitOutcome { unit, outcome };
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<UnitOutcome>(&text).unwrap(), written, "{text}");
    }
}

#[test]
fn an_outcome_of_an_unknown_class_does_not_read() {
    for bad in [
        r#"{"unit":"0192f0c1-8f5e-7c3a-9b1d-2f6a3c4d5e6f","outcome":"maybe"}"#,
        r#"{"unit":"0192f0c1-8f5e-7c3a-9b1d-2f6a3c4d5e6f","outcome":"applied"}"#,
        r#"{"outcome":"stale"}"#,
    ] {
        assert!(serde_json::from_str::<UnitOutcome>(bad).is_err(), "{bad}");
    }
}

/// Fuzzing found that such a request was read and could not be written, so nobody could store it or
/// pass it on.
#[test]
fn fields_that_are_none_read_and_are_written_as_they_were_sent() {
    for sent in ["2", r#"{"a":1e-400}"#, "[1, 2]", r#"{"a":1,"a":2}"#] {
        let text = format!(
            r#"{{"key":"lead/1","kind":"update","ops":[],"edited_at":1,"schema_version":1,"fields":{sent}}}"#
        );
        let change: UnitChange = serde_json::from_str(&text).unwrap();
        assert!(change.fields.as_ref().and_then(FieldsJson::unfit).is_some(), "{sent}");
        let written = serde_json::to_string(&change).unwrap();
        assert!(written.contains(sent), "{written}");
        assert_eq!(serde_json::from_str::<UnitChange>(&written).unwrap(), change);
    }
}
