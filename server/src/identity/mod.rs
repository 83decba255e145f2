//! Who a request comes from: its bearer token, and the tenant and the actors that the token opens.
//!
//! ```text
//!   header ──► the token file (`crate::tokens`) ──► a grant
//!          └─► a signed token (`jwt`, feature `jwt`) ──► a grant
//! ```
//!
//! Invariants:
//! 1. No token is kept, shown or logged.
//! 2. Without credentials the server lets in every client of its own machine and no other.
//! 3. A file that cannot be used changes nothing: the former credentials stay valid.
//!
//! What it does not do: judge what a grant writes. The rules do (`fieldbook_core::authority`), by
//! the declared rights that this module reads.

mod files;
#[cfg(feature = "jwt")]
pub(crate) mod jwt;
mod rights;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use fieldbook_core::authority::{Caller, Limited, Rights, Role};
use fieldbook_core::{Actor, WallTime};

use crate::serve::ServeError;
use crate::store::Tenant;
use crate::tokens::Tokens;
pub use files::FileError;
pub(crate) use files::{Kind, Mode, Seen};
pub use rights::RightsError;

/// How often the files are looked at for a change.
const CHECKED_EVERY: Duration = Duration::from_secs(2);

/// The rights of a token.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) tenant: Tenant,
    /// The actors that the token allows; none for any actor.
    pub(crate) actors: Option<BTreeSet<Actor>>,
    pub(crate) roles: BTreeSet<Role>,
    /// Distinguishes the token from others of the tenant: its place in the token file, or a number
    /// of the actor of a signed token.
    pub(crate) number: u64,
    pub(crate) expires: Option<WallTime>,
}

impl Grant {
    /// Returns the rights of every client of a server without credentials.
    fn of_anyone() -> Self {
        let (tenant, actors, roles) = (Tenant::local(), None, BTreeSet::new());
        Self { tenant, actors, roles, number: 0, expires: None }
    }

    /// Returns the actor of a token that allows only one.
    pub(crate) fn only_actor(&self) -> Option<&Actor> {
        self.actors.as_ref().filter(|actors| actors.len() == 1)?.first()
    }

    #[cfg(test)]
    pub(crate) fn for_test(tenant: &str, number: u64) -> Arc<Self> {
        let tenant = Tenant::parse(tenant).unwrap();
        Arc::new(Self { tenant, number, ..Self::of_anyone() })
    }
}

/// The reason why a request's credentials are not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Missing,
    Unknown,
    Expired,
    /// A signed token is not accepted.
    #[cfg(feature = "jwt")]
    Signed(jwt::Fault),
}

impl Denied {
    /// Returns whether nobody knows yet if the token is valid: the client sends the same again.
    pub(crate) const fn is_transient(self) -> bool {
        match self {
            #[cfg(feature = "jwt")]
            Self::Signed(fault) => fault.is_transient(),
            _ => false,
        }
    }

    /// Returns the code for machines and the text for people.
    pub(crate) const fn code_and_text(self) -> (&'static str, &'static str) {
        match self {
            Self::Missing => ("token_missing", "send the header Authorization: Bearer TOKEN"),
            Self::Unknown => ("token_unknown", "this token is not known here: sign in again"),
            Self::Expired => ("token_expired", "this token has expired: sign in again"),
            #[cfg(feature = "jwt")]
            Self::Signed(fault) => fault.code_and_text(),
        }
    }
}

/// The files that say who may exchange.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// The token file.
    pub(crate) tokens: Option<PathBuf>,
    /// The settings of signed tokens.
    #[cfg(feature = "jwt")]
    pub(crate) jwt: Option<PathBuf>,
    /// The declared rights.
    pub(crate) rights: Option<PathBuf>,
}

/// The clients that may exchange, and what they may write.
#[derive(Debug)]
pub(crate) struct Present {
    credentials: Credentials,
    rights: Option<Arc<Rights>>,
}

impl Present {
    /// Returns the rights of the value of an `Authorization` header, as [`Credentials::grant`].
    pub(crate) async fn grant(
        &self,
        header: Option<&[u8]>,
        now: WallTime,
    ) -> Result<Arc<Grant>, Denied> {
        self.credentials.grant(header, now).await
    }

    /// Returns the caller that the rules judge.
    pub(crate) fn caller(&self, grant: &Grant) -> Caller {
        let actors = grant.actors.clone();
        match (&self.rights, actors) {
            (Some(rights), actors) => {
                let (roles, rights) = (grant.roles.clone(), Arc::clone(rights));
                Caller::Limited(Limited { actors, roles, rights })
            }
            (None, Some(actors)) => Caller::OneOf(actors),
            (None, None) => Caller::Anyone,
        }
    }
}

/// The clients that may exchange.
#[derive(Debug)]
enum Credentials {
    /// Every client that reaches the server, as the only tenant.
    Open(Arc<Grant>),
    /// Every client with a token that one of these knows.
    Checked {
        tokens: Option<Tokens>,
        #[cfg(feature = "jwt")]
        jwt: Option<Box<jwt::Jwt>>,
    },
}

impl Credentials {
    /// Returns the rights of the value of an `Authorization` header. It may wait for the keys of
    /// signed tokens, within [`jwt`]'s limit.
    async fn grant(&self, header: Option<&[u8]>, now: WallTime) -> Result<Arc<Grant>, Denied> {
        let (tokens, token) = match self {
            Self::Open(grant) => return Ok(Arc::clone(grant)),
            Self::Checked { tokens, .. } => {
                (tokens, header.and_then(bearer).ok_or(Denied::Missing)?)
            }
        };
        let found = tokens.as_ref().map_or(Err(Denied::Unknown), |tokens| tokens.grant(token, now));
        #[cfg(feature = "jwt")]
        if let (Err(Denied::Unknown), Self::Checked { jwt: Some(jwt), .. }) = (&found, self) {
            return jwt.grant(token, now).await.map(Arc::new).map_err(Denied::Signed);
        }
        found
    }
}

/// The present credentials and rights, and the files that they were read from.
#[derive(Debug)]
pub(crate) struct Identity {
    sources: Sources,
    present: RwLock<Arc<Present>>,
    /// The files, as they were before they were last read. Whoever reads them holds the lock.
    seen: Mutex<Seen>,
}

impl Identity {
    /// Reads the files. Without any, every client is let in.
    pub(crate) fn read(sources: Sources) -> Result<Self, ServeError> {
        let mut seen = Seen::default();
        let present = RwLock::new(Arc::new(sources.read(None, &mut seen)?));
        Ok(Self { sources, present, seen: Mutex::new(seen) })
    }

    /// Returns the present credentials.
    pub(crate) fn present(&self) -> Arc<Present> {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns whether any client is let in.
    pub(crate) const fn is_open(&self) -> bool {
        self.sources.is_empty()
    }

    /// Reads the files again, and logs the result.
    pub(crate) fn read_again(&self) -> Result<(), ServeError> {
        let mut seen = self.lock_seen();
        if seen.is_empty() {
            tracing::warn!("there is no token file to be read again, and no file of rights");
            return Ok(());
        }
        *seen = Seen::default();
        match self.sources.read(Some(&self.present()), &mut seen) {
            Ok(read) => {
                *self.present.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
                tracing::warn!(
                    "the files of tokens and rights were read again: they are valid from now on"
                );
                Ok(())
            }
            Err(error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(
                    error = cause,
                    "a file of tokens or rights cannot be used: the former tokens and rights stay valid"
                );
                Err(error)
            }
        }
    }

    /// Reads the files again if one of them has changed. A file with a fault is logged once.
    fn read_changed(&self) {
        let have_changed = self.lock_seen().have_changed();
        if have_changed {
            drop(self.read_again());
        }
    }

    /// Reads changed files again, and fetched keys from time to time. Ends when dropped.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut every = tokio::time::interval(CHECKED_EVERY);
        loop {
            every.tick().await;
            let identity = Arc::clone(&self);
            drop(tokio::task::spawn_blocking(move || identity.read_changed()).await);
            #[cfg(feature = "jwt")]
            if let Credentials::Checked { jwt: Some(jwt), .. } = &self.present().credentials {
                jwt.keep_keys().await;
            }
        }
    }

    fn lock_seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sources {
    /// Returns whether no file says who may exchange.
    pub(crate) const fn is_empty(&self) -> bool {
        #[cfg(feature = "jwt")]
        if self.jwt.is_some() {
            return false;
        }
        self.tokens.is_none()
    }

    fn read(&self, former: Option<&Present>, seen: &mut Seen) -> Result<Present, ServeError> {
        let rights = self.rights.as_deref().map(|path| rights::read(path, seen)).transpose()?;
        let rights = rights.map(Arc::new);
        let credentials = self.credentials(former.map(|former| &former.credentials), seen)?;
        Ok(Present { credentials, rights })
    }

    fn credentials(
        &self,
        former: Option<&Credentials>,
        seen: &mut Seen,
    ) -> Result<Credentials, ServeError> {
        if self.is_empty() {
            return Ok(Credentials::Open(Arc::new(Grant::of_anyone())));
        }
        let tokens = self.tokens.as_deref().map(|path| Tokens::read(path, seen)).transpose()?;
        #[cfg(not(feature = "jwt"))]
        let _ = former;
        #[cfg(feature = "jwt")]
        let jwt = {
            let former = match former {
                Some(Credentials::Checked { jwt, .. }) => jwt.as_deref(),
                _ => None,
            };
            self.jwt
                .as_deref()
                .map(|path| jwt::Jwt::read(path, former, seen).map(Box::new))
                .transpose()?
        };
        Ok(Credentials::Checked {
            tokens,
            #[cfg(feature = "jwt")]
            jwt,
        })
    }
}

/// Returns the token of `Bearer TOKEN`. The case of the scheme does not matter (RFC 9110, section
/// 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::bearer;

    #[test]
    fn a_header_has_a_bearer_token_or_none() {
        assert_eq!(bearer(b"bearer  0123"), Some(&b"0123"[..]));
        for none in [&b"Basic 0123456789abcdef"[..], b"Bearer", b"Bearer ", b""] {
            assert_eq!(bearer(none), None);
        }
    }
}
