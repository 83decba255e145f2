//! The fields of units in many ways of writing JSON, and fields that cannot be accepted.

use super::*;

/// Makes a unit whose fields are this text, as in a request.
fn sent_as(number: u64, fields: &str) -> Unit {
    let change = UnitChange { ops: vec![OpId::from_bytes(id(900))], ..create("lead/1") };
    let unit = serde_json::to_string(&unit(number, vec![change])).unwrap();
    serde_json::from_str(&unit.replace(r#"{"a":1}"#, fields)).unwrap()
}

fn outcome(state: &mut MemoryAuthority, unit: Unit) -> Outcome {
    answered(state, &request(vec![unit])).outcomes.into_iter().next().unwrap().outcome
}

/// The order of names inside values, and escapes, were part of the digest. A device that sent a
/// unit again through another JSON library got the answer that another unit had its id, and the
/// change was refused for good.
#[test]
fn a_unit_that_another_writer_sends_again_is_a_duplicate() {
    let mut state = store();
    let first = sent_as(
        1,
        r#"{"a":{"x":[1.5,{"c":"é/","d":100000.0}],"y":null},"n":18446744073709551615}"#,
    );
    assert!(matches!(outcome(&mut state, first), Outcome::Applied { .. }));
    for other in [
        r#"{"n":18446744073709551615,"a":{"y":null,"x":[1.5,{"d":100000.0,"c":"é/"}]}}"#,
        "{ \"a\" : {\"x\":[1.5,\n{\"c\":\"\\u00e9\\/\",\"d\":1e5}],\"y\":null},\"n\":18446744073709551615}",
        r#"{"a":{"x":[15E-1,{"c":"\u00E9\u002f","d":100000.00}],"\u0079":null},"\u006e":18446744073709551615}"#,
    ] {
        let again = outcome(&mut state, sent_as(1, other));
        assert!(matches!(again, Outcome::Duplicate { .. }), "{other}: {again:?}");
    }
    let another = outcome(&mut state, sent_as(1, r#"{"a":2}"#));
    assert!(matches!(another, Outcome::Rejected { code, .. } if code == "unit_reused"));
}

/// One number out of range made the whole request unreadable: a 400 for every unit in it.
#[test]
fn a_unit_whose_fields_cannot_be_taken_is_refused_alone_and_told_why() {
    let mut state = store();
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(limits::OP_BYTES));
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for (number, (fields, expected)) in (1..).zip([
        (r#"{"a":12345678901234567890123}"#, "number_not_exact"),
        (r#"{"a":[0.12345678901234567890]}"#, "number_not_exact"),
        (r#"{"a":1e400}"#, "number_not_exact"),
        (r#"{"a":"\udead"}"#, "half_surrogate"),
        (r#"{"a":{"b":1,"b":2}}"#, "duplicate_name"),
        (r#"{"":1}"#, "field_name"),
        ("[]", "fields_not_an_object"),
        (large.as_str(), "fields_too_large"),
        (deep.as_str(), "fields_too_deep"),
    ]) {
        let other = unit(100 + number, vec![create(&format!("note/{number}"))]);
        let answer = answered(&mut state, &request(vec![sent_as(number, fields), other]));
        let [refused, taken] = answer.outcomes.as_slice() else { panic!("{:?}", answer.outcomes) };
        assert!(
            matches!(&refused.outcome, Outcome::Rejected { code, message } if code == expected && !message.contains("1234")),
            "{expected}: {:?}",
            refused.outcome
        );
        assert!(
            matches!(taken.outcome, Outcome::Applied { .. }),
            "{expected}: {:?}",
            taken.outcome
        );
    }
    assert!(state.record(&key("lead/1")).unwrap().is_none());
}
