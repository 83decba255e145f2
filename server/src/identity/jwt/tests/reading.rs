//! The settings and the files that they name.

use serde_json::json;

use super::support::{Folder, NOW, Signer, claims, key_set, set_mode, sign};
use crate::identity::jwt::{Fault, JwtError};
use crate::identity::{Denied, FileError, Identity, Seen, Sources};

#[test]
fn settings_with_a_mistake_are_refused_with_advice_and_without_a_secret() {
    let folder = Folder::new();
    folder.write("keys.json", key_set(&[("1", &Signer::es256())]));
    folder.write("secret", "canary canary canary canary canary canary");
    folder.write("short", "canary");
    let file = json!("keys.json");
    for (members, advice) in [
        (json!({}), "one of keys_url, keys_file and secret_file"),
        (json!({ "keys_file": file, "secret_file": "secret" }), "one of keys_url"),
        (json!({ "keys_file": file, "issuer": null }), "issuer is missing"),
        (json!({ "keys_file": file, "issuer": " " }), "issuer is a text"),
        (json!({ "keys_file": file, "audience": null }), "audience is missing"),
        (json!({ "keys_file": file, "audience": [] }), "audience is a list"),
        (json!({ "keys_file": file, "algorithms": [] }), "algorithms is a list"),
        (json!({ "keys_file": file, "algorithms": ["none"] }), "among HS256"),
        (json!({ "keys_file": file, "algorithms": ["HS256", "ES256"] }), "HS256 needs secret_file"),
        (json!({ "secret_file": "secret" }), "for the algorithm HS256 alone"),
        (json!({ "secret_file": "short", "algorithms": ["HS256"] }), "at least 32 bytes"),
        (json!({ "secret_file": "missing", "algorithms": ["HS256"] }), "cannot read"),
        (json!({ "keys_file": file, "leeway_seconds": 301 }), "from 0 to 300"),
        (json!({ "keys_file": file, "leeway_seconds": "30" }), "from 0 to 300"),
        (json!({ "keys_file": file, "tenant": "Acme" }), "lower-case"),
        (json!({ "keys_file": file, "tenant": "acme", "tenant_claim": "t" }), "either tenant"),
        (json!({ "keys_file": file, "tenant_claim": "t", "tenants": {} }), "either tenant"),
        (
            json!({ "keys_file": file, "tenant_claim": "t", "tenants": { "a": 1 } }),
            "names a tenant",
        ),
        (json!({ "keys_file": file, "actor_claim": "/" }), "the name of a claim"),
        (json!({ "keys_file": file, "audiences": "x" }), "there is no setting \"audiences\""),
        (json!({ "keys_file": "secret" }), "not a key set"),
        (json!({ "keys_file": file, "algorithms": ["RS256"] }), "none of its 1 keys"),
        (json!({ "keys_url": "ftp://login.example/keys" }), "an address such as"),
        (json!({ "keys_url": "login.example/keys" }), "an address such as"),
        (json!({ "keys_url": "http://login.example/keys" }), "keys_url is https"),
        (json!({ "keys_url": "https://canary:canary@login.example/" }), "no user"),
    ] {
        let Err(error) = folder.read(&members) else { panic!("taken: {members}") };
        let text = format!("{error} {error:?}");
        assert!(error.to_string().contains(advice), "{members}: {error}");
        assert!(!text.contains("canary"), "{text}");
    }
    for good in [json!({ "keys_file": file }), json!({ "keys_url": "https://login.example/keys" })]
    {
        folder.read(&good).unwrap();
    }
    let noise = folder.write("noise.json", "{\n nothing");
    let error = super::super::Jwt::read(&noise, None, &mut Seen::default()).unwrap_err();
    assert!(matches!(error, JwtError::NotSettings { line: 2, .. }), "{error:?}");
}

#[cfg(unix)]
#[test]
fn a_secret_is_for_its_owner_only_and_keys_are_written_by_their_owner_only() {
    let folder = Folder::new();
    let keys = folder.write("keys.json", key_set(&[("1", &Signer::es256())]));
    let secret = folder.write("secret", "a secret of thirty-two bytes, or more");
    let with_secret = json!({ "secret_file": "secret", "algorithms": ["HS256"] });
    let with_keys = json!({ "keys_file": "keys.json" });
    for (path, members, mode, taken) in [
        (&secret, &with_secret, 0o400, true),
        (&secret, &with_secret, 0o640, false),
        (&secret, &with_secret, 0o604, false),
        (&keys, &with_keys, 0o644, true),
        (&keys, &with_keys, 0o664, false),
        (&keys, &with_keys, 0o646, false),
    ] {
        set_mode(path, mode);
        let read = folder.read(members);
        assert_eq!(read.is_ok(), taken, "{mode:o} {members}");
        if let Err(error) = read {
            let kind = match error {
                JwtError::File(FileError::OpenToOthers { .. }) => &with_secret,
                JwtError::File(FileError::ChangeableByOthers { .. }) => &with_keys,
                _ => panic!("{error:?}"),
            };
            assert_eq!(kind, members);
            assert!(error.to_string().contains("run chmod 6"), "{error}");
        }
    }
    let folder_itself = super::super::Jwt::read(folder.0.path(), None, &mut Seen::default());
    assert!(matches!(folder_itself, Err(JwtError::File(FileError::NotAFile { .. }))));
}

#[test]
fn keys_of_kinds_that_nobody_asked_for_are_passed_over() {
    let (good, secret) = (Signer::es256(), Signer::hs256());
    let mut set: serde_json::Value =
        serde_json::from_str(&key_set(&[("1", &good), ("2", &secret)])).unwrap();
    let keys = set["keys"].as_array_mut().unwrap();
    let mut for_encryption = keys[0].clone();
    for_encryption["use"] = json!("enc");
    let mut for_another = keys[0].clone();
    for_another["alg"] = json!("ES384");
    keys.extend([for_encryption, for_another, json!({ "kty": "new" }), json!(7)]);
    let parsed =
        super::super::KeySet::parse(set.to_string().as_bytes(), &[jsonwebtoken::Algorithm::ES256])
            .unwrap();
    // The only key that fits needs no id.
    assert!(parsed.find(None, jsonwebtoken::Algorithm::ES256).is_some());
    assert!(parsed.find(Some("2"), jsonwebtoken::Algorithm::HS256).is_none());
    let many = json!({ "keys": vec![json!({ "kty": "new" }); 65] }).to_string();
    let algorithms = [jsonwebtoken::Algorithm::ES256];
    assert!(super::super::KeySet::parse(many.as_bytes(), &algorithms).is_err());
}

/// The server once looked only at the files of the settings that were valid, so it never noticed a
/// file of keys that was written after the settings that name it.
#[tokio::test]
async fn keys_that_are_written_after_their_settings_are_noticed() {
    let (old, new) = (Signer::es256(), Signer::es256());
    let folder = Folder::new();
    folder.write("old.json", key_set(&[("1", &old)]));
    drop(folder.read(&json!({ "keys_file": "old.json" })).unwrap());
    let sources = Sources { jwt: Some(folder.0.path().join("jwt.json")), ..Sources::default() };
    let identity = Identity::read(sources).unwrap();
    let denied = async |signer: &Signer| {
        let header = format!("Bearer {}", sign(signer, Some("1"), &claims()));
        identity.present().grant(Some(header.as_bytes()), NOW).await.err()
    };
    assert_eq!(denied(&old).await, None);
    drop(folder.read(&json!({ "keys_file": "new.json" })).unwrap_err());
    identity.read_changed();
    assert_eq!(denied(&old).await, None, "the former keys stay valid");
    folder.write("new.json", key_set(&[("1", &new)]));
    identity.read_changed();
    assert_eq!(denied(&new).await, None);
    assert_eq!(denied(&old).await, Some(Denied::Signed(Fault::Invalid)));
}
