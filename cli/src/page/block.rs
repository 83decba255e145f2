//! Blocks of data in a page: JSON, deflated, as base64. And hashes for its policy.

use std::io::Write;

use data_encoding::BASE64;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::error::Failure;

/// Returns the element of a block. Base64 has no character that ends it.
pub(super) fn block(number: usize, data: &impl Serialize) -> Result<String, Failure> {
    let failed = || Failure::new("the data of the page cannot be written");
    let json = serde_json::to_vec(data).map_err(|error| failed().because(error))?;
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::default());
    deflated.write_all(&json).map_err(|error| failed().because(error))?;
    let deflated = deflated.finish().map_err(|error| failed().because(error))?;
    let text = BASE64.encode(&deflated);
    Ok(format!("<script type=\"text/plain\" id=\"fieldbook-data-{number}\">{text}</script>\n"))
}

/// Returns the hash of a script or a style, as a policy names it.
pub(super) fn policy_hash(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref()))
}

/// Returns the first 12 digits of a text's hash, to tell long values apart.
pub(super) fn short_hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    data_encoding::HEXLOWER.encode(hash.as_ref().get(..6).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_as_a_policy_names_it() {
        assert_eq!(policy_hash("abc"), "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        assert_eq!(short_hash("abc"), "ba7816bf8f01");
    }
}
