//! Tokens that the tests make and sign, by each algorithm.

mod fetching;
mod reading;
mod support;

use serde_json::json;
use support::{LEEWAY, NOW, Signer, claims, jwt, key_set, sign};

use super::Fault;

#[tokio::test]
async fn a_token_of_each_named_algorithm_is_accepted_and_of_every_other_refused() {
    let signers = Signer::all();
    for named in &signers {
        let jwt = jwt(named, json!({}));
        for other in &signers {
            let token = sign(other, Some("1"), &claims());
            let granted = jwt.grant(token.as_bytes(), NOW).await;
            if other.algorithm() == named.algorithm() {
                let granted = granted.unwrap();
                assert_eq!(granted.tenant.as_str(), "acme", "{}", named.algorithm());
                assert_eq!(granted.only_actor().unwrap().as_str(), "ann");
            } else {
                assert_eq!(granted.unwrap_err(), Fault::Invalid, "{}", other.algorithm());
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_valid_from_its_beginning_to_its_end_and_the_leeway() {
    let signer = Signer::eddsa();
    let jwt = jwt(&signer, json!({}));
    let now = NOW.milliseconds() / 1000;
    let leeway = i64::try_from(LEEWAY).unwrap();
    for (member, value, result) in [
        ("exp", json!(now - leeway + 1), None),
        ("exp", json!(now - leeway), Some(Fault::Expired)),
        ("exp", json!(now - leeway - 1), Some(Fault::Expired)),
        ("exp", json!(now as f64 + 0.5), None),
        ("exp", json!((now + 60).to_string()), Some(Fault::Invalid)),
        ("exp", json!(-5), Some(Fault::Invalid)),
        ("exp", json!(null), Some(Fault::Invalid)),
        ("nbf", json!(now + leeway), None),
        ("nbf", json!(now + leeway + 1), Some(Fault::NotYet)),
        ("nbf", json!("soon"), Some(Fault::Invalid)),
    ] {
        let mut claims = claims();
        claims[member] = value.clone();
        let granted = jwt.grant(sign(&signer, Some("1"), &claims).as_bytes(), NOW).await;
        assert_eq!(granted.err(), result, "{member} {value}");
    }
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    let granted = jwt.grant(sign(&signer, Some("1"), &endless).as_bytes(), NOW).await;
    assert_eq!(granted.err(), Some(Fault::Invalid));
}

#[tokio::test]
async fn a_token_of_another_issuer_or_for_another_service_is_refused() {
    let signer = Signer::es256();
    let jwt = jwt(&signer, json!({ "audience": ["fieldbook", "fieldbook-test"] }));
    for (member, value, result) in [
        ("iss", json!("https://other.example/"), Some(Fault::Issuer)),
        ("iss", json!("https://login.example"), Some(Fault::Issuer)),
        ("iss", json!(null), Some(Fault::Issuer)),
        ("iss", json!(7), Some(Fault::Issuer)),
        ("aud", json!("other"), Some(Fault::Audience)),
        ("aud", json!(["other", "more"]), Some(Fault::Audience)),
        ("aud", json!([]), Some(Fault::Audience)),
        ("aud", json!(null), Some(Fault::Audience)),
        ("aud", json!(["other", "fieldbook"]), None),
        ("aud", json!("fieldbook-test"), None),
    ] {
        let mut claims = claims();
        claims[member] = value.clone();
        let granted = jwt.grant(sign(&signer, Some("1"), &claims).as_bytes(), NOW).await;
        assert_eq!(granted.err(), result, "{member} {value}");
    }
}

/// The oldest attack: a token says that it needs no signature.
#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    for signer in Signer::all() {
        let jwt = jwt(&signer, json!({}));
        for algorithm in ["none", "None", "NONE", "nOnE", ""] {
            let header = json!({ "alg": algorithm, "typ": "JWT", "kid": "1" });
            let token = support::unsigned(&header, &claims());
            assert_eq!(jwt.grant(token.as_bytes(), NOW).await.err(), Some(Fault::Invalid));
        }
        // The right algorithm with no signature, or with that of other claims.
        let token = sign(&signer, Some("1"), &claims());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let bare = format!("{signed}.");
        let mut others = claims();
        others["sub"] = json!("eve");
        let other = sign(&signer, Some("1"), &others);
        let moved = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
        for forged in [bare, moved] {
            assert_eq!(jwt.grant(forged.as_bytes(), NOW).await.err(), Some(Fault::Invalid));
        }
    }
}

/// The second oldest: a public key, which everyone has, used as the secret of HS256.
#[tokio::test]
async fn a_token_that_is_signed_with_a_public_key_as_its_secret_is_refused() {
    for signer in [Signer::rs256(), Signer::es256(), Signer::eddsa()] {
        let jwt = jwt(&signer, json!({}));
        let set = key_set(&[("1", &signer)]);
        for secret in [signer.public_key(), set.clone().into_bytes()] {
            let forger = Signer::Hs256(secret);
            for key in [None, Some("1")] {
                let token = sign(&forger, key, &claims());
                assert_eq!(jwt.grant(token.as_bytes(), NOW).await.err(), Some(Fault::Invalid));
            }
        }
    }
}

#[tokio::test]
async fn a_header_that_asks_for_more_than_the_server_knows_is_refused() {
    let signer = Signer::es256();
    let jwt = jwt(&signer, json!({}));
    for extra in [
        json!({ "crit": ["exp"], "exp": 1 }),
        json!({ "crit": [] }),
        json!({ "b64": false }),
        json!({ "b64": false, "crit": ["b64"] }),
    ] {
        let mut header = json!({ "alg": "ES256", "kid": "1" });
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let token = support::signed(&signer, &header, &claims());
        assert_eq!(jwt.grant(token.as_bytes(), NOW).await.err(), Some(Fault::Invalid), "{extra}");
    }
    for noise in [&b""[..], b".", b"..", b"a.b.c", b"a.b.c.d", b"\xff\xff.\xff.\xff"] {
        assert_eq!(jwt.grant(noise, NOW).await.err(), Some(Fault::Invalid));
    }
    let long = sign(&signer, Some(&"k".repeat(super::TOKEN_BYTES)), &claims());
    assert_eq!(jwt.grant(long.as_bytes(), NOW).await.err(), Some(Fault::Invalid));
}

#[tokio::test]
async fn a_token_names_its_key_unless_only_one_fits() {
    let (first, second, other) = (Signer::es256(), Signer::es256(), Signer::eddsa());
    let set = key_set(&[("1", &first), ("2", &second), ("3", &other)]);
    let jwt = support::jwt_of_set(&set, json!({ "algorithms": ["ES256", "EdDSA"] }));
    let grant = async |signer: &Signer, key: Option<&str>| {
        jwt.grant(sign(signer, key, &claims()).as_bytes(), NOW).await.err()
    };
    assert_eq!(grant(&first, Some("1")).await, None);
    assert_eq!(grant(&second, Some("2")).await, None);
    assert_eq!(grant(&other, None).await, None);
    assert_eq!(grant(&first, Some("2")).await, Some(Fault::Invalid));
    assert_eq!(grant(&first, Some("3")).await, Some(Fault::UnknownKey));
    assert_eq!(grant(&first, Some("4")).await, Some(Fault::UnknownKey));
    assert_eq!(grant(&first, None).await, Some(Fault::UnknownKey));
}

#[tokio::test]
async fn the_claims_name_one_tenant_and_one_actor() {
    let signer = Signer::eddsa();
    let named = json!({ "tenant_claim": "org", "tenants": { "Org_9": "acme" } });
    let inside = json!({ "tenant_claim": "/app/org", "actor_claim": "/app/user" });
    let fixed = json!({ "tenant": "solo" });
    for (settings, more, result) in [
        (&named, json!({ "org": "Org_9" }), Ok(("acme", "ann"))),
        (&named, json!({ "org": "acme" }), Err(Fault::NoTenant)),
        (&named, json!({ "org": ["Org_9"] }), Err(Fault::NoTenant)),
        (&named, json!({}), Err(Fault::NoTenant)),
        (&inside, json!({ "app": { "org": "beta", "user": "bob" } }), Ok(("beta", "bob"))),
        (&inside, json!({ "app": { "org": "Beta", "user": "bob" } }), Err(Fault::NoTenant)),
        (&inside, json!({ "app": { "org": "beta", "user": 7 } }), Err(Fault::NoActor)),
        (&inside, json!({ "app": { "org": "beta" } }), Err(Fault::NoActor)),
        (&fixed, json!({ "org": "acme" }), Ok(("solo", "ann"))),
        (&fixed, json!({ "sub": "" }), Err(Fault::NoActor)),
    ] {
        let jwt = jwt(&signer, settings.clone());
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let granted = jwt.grant(sign(&signer, Some("1"), &claims).as_bytes(), NOW).await;
        let granted = granted
            .as_ref()
            .map(|granted| (granted.tenant.as_str(), granted.only_actor().unwrap().as_str()));
        assert_eq!(granted.map_err(|fault| *fault), result, "{settings} {more}");
    }
}

#[tokio::test]
async fn the_claims_name_roles_in_a_list_or_in_words() {
    let signer = Signer::eddsa();
    let jwt = jwt(&signer, json!({ "roles_claim": "/app/roles" }));
    for (claim, roles) in [
        (json!(["rep", "two words", "", 7, "CRM.Admin"]), vec!["CRM.Admin", "rep"]),
        (json!("rep  manager"), vec!["manager", "rep"]),
        (json!(7), vec![]),
        (json!({}), vec![]),
    ] {
        let mut claims = claims();
        claims["app"] = json!({ "roles": claim });
        let granted = jwt.grant(sign(&signer, Some("1"), &claims).as_bytes(), NOW).await.unwrap();
        let found: Vec<_> = granted.roles.iter().map(|role| role.as_str()).collect();
        assert_eq!(found, roles);
    }
}
