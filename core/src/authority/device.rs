//! Checks that a request comes from the device that it names.
//!
//! | the device | the request has | |
//! |---|---|---|
//! | has no key here | none | accepted: a book from before there were keys |
//! | has no key here | one | accepted, and the key is remembered |
//! | has a key | the same key | accepted |
//! | has a key | another, or none | refused; nothing changes, and no head is compared |
//!
//! A request that only reads is not checked: the credentials decide which pages a caller may read,
//! not the device.

use super::{AuthorityRead, ExchangeError, Refusal};
use crate::numbers::Hash;
use crate::protocol::ExchangeRequest;

/// The result of comparing a request's key with the remembered key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// The request's key is the remembered key, or there is no key to compare.
    Known,
    /// The request's key is new and is to be remembered.
    New(Hash),
}

/// Compares a request's key with the remembered hash of its device's key.
pub(super) fn know<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
) -> Result<Device, ExchangeError<S::Error>> {
    if request.units.is_empty() && request.head.is_none() {
        return Ok(Device::Known);
    }
    let known = state.device_key(&request.device).map_err(ExchangeError::State)?;
    match (known, request.device_key.map(|key| key.fingerprint())) {
        (None, None) => Ok(Device::Known),
        (None, Some(new)) => Ok(Device::New(new)),
        (Some(known), Some(claimed)) if known == claimed => Ok(Device::Known),
        (Some(_), _) => Err(Refusal::device_of_another().into()),
    }
}
