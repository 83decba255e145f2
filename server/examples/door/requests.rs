//! Requests, as text.

/// Two tenants. The good one has one device, the other has two devices that disturb.
pub(crate) const TOKENS: &str = r#"{
    "good-0123456789abcdef": { "tenant": "good", "actor": "ann" },
    "hog-0123456789abcdef": { "tenant": "hog", "actor": "ann" },
    "second-hog-0123456789abcdef": { "tenant": "hog", "actor": "ann" }
}"#;
pub(crate) const GOOD: &str = "good-0123456789abcdef";
pub(crate) const HOG: &str = "hog-0123456789abcdef";

/// A request with these members beside the usual ones.
pub(crate) fn request(number: usize, members: &str) -> String {
    format!(
        r#"{{"protocol":1,"request":"{}","device":"018f3a00-0000-7000-8000-0000000000d1","epoch":"018f3a00-0000-7000-8000-0000000000e1","actor":"ann",{members}}}"#,
        id(1, number)
    )
}

/// An id of some kind under a number.
pub(crate) fn id(kind: u16, number: usize) -> String {
    format!("018f3a2b-7c00-7000-{:04x}-{number:012x}", 0x8000 | kind)
}

/// A unit of these changes.
pub(crate) fn unit(number: usize, changes: &str) -> String {
    format!(r#"{{"id":"{}","changes":[{changes}]}}"#, id(2, number))
}

/// A change of a record; a base of 0 is a creation.
pub(crate) fn change(key: &str, number: usize, base: u64, fields: &str) -> String {
    let kind = if base == 0 {
        r#""kind":"create""#.to_owned()
    } else {
        format!(r#""kind":"update","base":{base}"#)
    };
    format!(
        r#"{{"key":"{key}",{kind},"ops":["{}"],"edited_at":112404266352640000,"schema_version":1,"fields":{fields}}}"#,
        id(3, number)
    )
}

/// Joins the texts that are made for each number.
pub(crate) fn joined(count: usize, mut one: impl FnMut(usize) -> String) -> String {
    let mut text = String::new();
    for number in 0..count {
        let comma = if number == 0 { "" } else { "," };
        text.push_str(comma);
        text.push_str(&one(number));
    }
    text
}

/// Returns the head of a request, with the text after it.
pub(crate) fn head(token: &str, rest: &str) -> String {
    format!(
        "POST /v1/exchange HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n{rest}"
    )
}

/// Returns a whole request as it is sent.
pub(crate) fn whole(token: &str, body: &str) -> Vec<u8> {
    (head(token, &format!("Content-Length: {}\r\n\r\n", body.len())) + body).into_bytes()
}
