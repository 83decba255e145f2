//! Whose device a request speaks for.
//!
//! | the device | the request has | |
//! |---|---|---|
//! | has no key here | none | taken: a book from before there were keys |
//! | has no key here | one | taken, and remembered from now on |
//! | has one | that one | taken |
//! | has one | another, or none | refused; nothing is changed, and no head is looked at |
//!
//! What only reads is not held to it: which pages a caller may read is the credentials' matter, not the device's.

use super::{AuthorityRead, ExchangeError, Refusal};
use crate::numbers::Hash;
use crate::protocol::ExchangeRequest;

/// How well the device is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// As well as it can be.
    Known,
    /// Its key is new and is to be remembered.
    New(Hash),
}

/// Compares a request's key with what is remembered of its device's.
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
        (Some(known), Some(told)) if known == told => Ok(Device::Known),
        (Some(_), _) => Err(Refusal::device_of_another().into()),
    }
}
