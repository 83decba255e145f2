//! The possible contents of a token file, and the rights of a header.

use super::*;

const NOW: WallTime = WallTime::from_milliseconds(1_800_000_000_000);

fn read(text: &str) -> Result<Tokens, TokensError> {
    // `tempfile` makes a file that only its owner may read.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Tokens::read(file.path(), &mut Seen::default())
}

#[test]
fn a_token_allows_its_actors_until_it_expires() {
    let credentials = read(
        r#"{"0123456789abcdef": {"tenant": "acme", "actors": ["ann", "bob"], "roles": ["rep"]},
            "fedcba9876543210": {"tenant": "acme", "actor": "eve", "expires": "2020-01-01T00:00:00Z"}}"#,
    )
    .unwrap();
    let grant = credentials.grant(b"0123456789abcdef", NOW).unwrap();
    assert_eq!(grant.tenant.as_str(), "acme");
    let actors = grant.actors.as_ref().unwrap();
    assert!(actors.contains(&Actor::parse("bob").unwrap()));
    assert!(!actors.contains(&Actor::parse("eve").unwrap()));
    assert!(grant.roles.contains(&Role::parse("rep").unwrap()) && grant.roles.len() == 1);
    assert_eq!(credentials.grant(b"fedcba9876543210", NOW).unwrap_err(), Denied::Expired);
    assert_eq!(credentials.grant(b"0123456789abcdeg", NOW).unwrap_err(), Denied::Unknown);
}

#[test]
fn a_faulty_token_file_is_refused_without_showing_a_token() {
    for bad in [
        "",
        "[]",
        r#"{"canary-canary-canary": {"tenant": "acme"}}"#,
        r#"{"canary-canary-canary": {"tenant": "Acme", "actor": "ann"}}"#,
        r#"{"canary-canary-canary": {"tenant": "acme", "actor": ""}}"#,
        r#"{"canary-canary-canary": {"tenant": "acme", "actor": "ann", "expires": "soon"}}"#,
        r#"{"canary-canary-canary": {"tenant": "acme", "actor": "ann", "expire": "2027-01-01T00:00:00Z"}}"#,
        r#"{"canary-canary-canary": {"tenant": "acme", "actor": "ann", "roles": "rep"}}"#,
        r#"{"canary-canary-canary": {"tenant": "acme", "actor": "ann", "roles": ["a b"]}}"#,
        r#"{"canary": {"tenant": "acme", "actor": "ann"}}"#,
    ] {
        let Err(error) = read(bad) else { panic!("taken: {bad}") };
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

/// The second entry once replaced the first without an error.
#[test]
fn a_token_that_stands_in_the_file_twice_is_refused() {
    let error = read(
        r#"{"0123456789abcdef": {"tenant": "acme", "actor": "ann"},
            "fedcba9876543210": {"tenant": "acme", "actor": "eve"},
            "0123456789abcdef": {"tenant": "other", "actor": "bob"}}"#,
    );
    let Err(error) = error else { panic!("taken") };
    let text = error.to_string();
    assert!(text.contains("entry 3") && text.contains("entry 1 already"), "{text}");
    assert!(!text.contains("0123456789abcdef"), "{text}");
}

/// A server with an empty file once let no client in, and did not report the reason.
#[test]
fn a_file_without_a_token_is_refused() {
    for empty in ["", " \n", "{}"] {
        assert!(matches!(read(empty), Err(TokensError::Empty { .. })), "{empty:?}");
    }
}

#[test]
fn a_token_that_no_header_can_carry_is_refused() {
    for token in ["with a space in it", "umlaut-ünter-allen", "tab\\tbed-0123456789"] {
        let text = format!(r#"{{"{token}": {{"tenant": "acme", "actor": "ann"}}}}"#);
        assert!(matches!(read(&text), Err(TokensError::Entry { number: 1, .. })), "{token}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_refused_and_so_is_a_folder() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"0123456789abcdef": {"tenant": "acme", "actor": "ann"}}"#)
        .unwrap();
    for (mode, taken) in [
        (0o600, true),
        (0o400, true),
        (0o640, false),
        (0o604, false),
        (0o644, false),
        (0o620, false),
    ] {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let read = Tokens::read(file.path(), &mut Seen::default());
        assert_eq!(read.is_ok(), taken, "{mode:o}");
        if let Err(error) = read {
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
    assert!(matches!(
        Tokens::read(std::env::temp_dir().as_path(), &mut Seen::default()),
        Err(TokensError::File(FileError::NotAFile { .. }))
    ));
}
