//! Keys, tokens and settings for tests.

use std::path::PathBuf;

use data_encoding::BASE64URL_NOPAD;
use fieldbook_core::WallTime;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use serde_json::{Value, json};

use crate::identity::Seen;
use crate::identity::jwt::{Jwt, JwtError};

pub(super) const NOW: WallTime = WallTime::from_milliseconds(1_800_000_000_000);
/// The leeway of the settings below, in seconds.
pub(super) const LEEWAY: u64 = 30;

/// A key of an issuer, or a forger's.
pub(super) enum Signer {
    Hs256(Vec<u8>),
    Rs256(Box<RsaKeyPair>),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn all() -> [Self; 4] {
        [Self::hs256(), Self::rs256(), Self::es256(), Self::eddsa()]
    }

    pub(super) fn hs256() -> Self {
        Self::Hs256(b"a secret of thirty-two bytes, or more".to_vec())
    }

    /// A key that is made for tests and used nowhere else.
    pub(super) fn rs256() -> Self {
        Self::Rs256(Box::new(RsaKeyPair::from_der(include_bytes!("rsa.der")).unwrap()))
    }

    pub(super) fn es256() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Es256(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    pub(super) fn eddsa() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::EdDsa(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub(super) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    /// Returns the public key as everyone has it.
    pub(super) fn public_key(&self) -> Vec<u8> {
        match self {
            Self::Hs256(secret) => secret.clone(),
            Self::Rs256(key) => key.public_key().as_ref().to_vec(),
            Self::Es256(key) => key.public_key().as_ref().to_vec(),
            Self::EdDsa(key) => key.public_key().as_ref().to_vec(),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Hs256(secret) => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
                ring::hmac::sign(&key, message).as_ref().to_vec()
            }
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Es256(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::EdDsa(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    fn jwk(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let public = self.public_key();
        match self {
            Self::Hs256(secret) => json!({ "kty": "oct", "kid": id, "k": text(secret) }),
            Self::Rs256(key) => {
                let PublicKeyComponents { n, e } =
                    PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": text(&n), "e": text(&e) })
            }
            Self::Es256(_) => {
                let (x, y) = (text(&public[1..33]), text(&public[33..]));
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y })
            }
            Self::EdDsa(_) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": text(&public) })
            }
        }
    }
}

/// The claims of a good token.
pub(super) fn claims() -> Value {
    json!({
        "iss": "https://login.example/",
        "aud": "fieldbook",
        "exp": NOW.milliseconds() / 1000 + 600,
        "sub": "ann",
        "tenant": "acme",
    })
}

pub(super) fn sign(signer: &Signer, key: Option<&str>, claims: &Value) -> String {
    let mut header = json!({ "alg": signer.algorithm(), "typ": "JWT" });
    if let Some(key) = key {
        header["kid"] = json!(key);
    }
    signed(signer, &header, claims)
}

pub(super) fn signed(signer: &Signer, header: &Value, claims: &Value) -> String {
    let mut token = unsigned(header, claims);
    let signature = signer.sign(token.trim_end_matches('.').as_bytes());
    token.push_str(&BASE64URL_NOPAD.encode(&signature));
    token
}

pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}.", part(header), part(claims))
}

pub(super) fn key_set(signers: &[(&str, &Signer)]) -> String {
    let keys: Vec<_> = signers.iter().map(|(id, signer)| signer.jwk(id)).collect();
    json!({ "keys": keys }).to_string()
}

/// Settings in a folder of their own. The files are for their owner only.
pub(super) struct Folder(pub(super) tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path
    }

    /// Reads good settings with these members changed.
    pub(super) fn read(&self, members: &Value) -> Result<Jwt, JwtError> {
        let mut settings = json!({
            "issuer": "https://login.example/",
            "audience": "fieldbook",
            "algorithms": ["ES256"],
            "leeway_seconds": LEEWAY,
        });
        let settings = settings.as_object_mut().unwrap();
        settings.extend(members.as_object().unwrap().clone());
        if !settings.contains_key("tenant") && !settings.contains_key("tenant_claim") {
            settings.insert("tenant_claim".to_owned(), json!("tenant"));
        }
        settings.retain(|_, value| !value.is_null());
        Jwt::read(&self.write("jwt.json", json!(settings).to_string()), None, &mut Seen::default())
    }
}

#[cfg(unix)]
pub(super) fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
pub(super) fn set_mode(_: &std::path::Path, _: u32) {}

/// Accepts the tokens of one signer, whose key has the id 1.
pub(super) fn jwt(signer: &Signer, mut members: Value) -> Jwt {
    members["algorithms"] = json!([signer.algorithm()]);
    if let Signer::Hs256(secret) = signer {
        let folder = Folder::new();
        folder.write("secret", [secret, &b"\n"[..]].concat());
        members["secret_file"] = json!("secret");
        return folder.read(&members).unwrap();
    }
    jwt_of_set(&key_set(&[("1", signer)]), members)
}

pub(super) fn jwt_of_set(set: &str, mut members: Value) -> Jwt {
    let folder = Folder::new();
    folder.write("keys.json", set);
    members["keys_file"] = json!("keys.json");
    folder.read(&members).unwrap()
}
