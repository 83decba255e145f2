//! TLS: the certificates that the system trusts, and the cryptography of ring.
//!
//! ring builds in a fraction of the time of aws-lc-rs, which is most of the C code of a first
//! build. An app that needs another provider installs it for its process
//! (`CryptoProvider::install_default`) before it makes a remote. The remote then uses that
//! provider.
//!
//! An app may use reqwest itself, without any of reqwest's TLS features. Together with this crate,
//! such a client panics when it is made, unless the app installs a provider first. With any TLS
//! feature of its own, nothing changes for it.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Returns the TLS configuration of all connections.
///
/// # Errors
/// If the system's certificates cannot be read, or the app's provider has no usable version of TLS.
pub(super) fn config() -> Result<ClientConfig, rustls::Error> {
    let provider = CryptoProvider::get_default()
        .map_or_else(|| Arc::new(ring::default_provider()), Arc::clone);
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_platform_verifier()?.with_no_client_auth())
}
