//! Credentials by actor: an op leaves only with the token of the actor who made it.
//!
//! Invariants:
//! 1. A remote asks for the token at the moment of sending. The token is never stored with what is
//!    sent.
//! 2. A [`Secret`] prints as `Secret(redacted)`, whatever the format.
//!
//! What it does not do: store or renew tokens. That is the app's part.

use std::fmt;

use fieldbook_core::{Actor, WallTime};

use crate::remote::BoxFuture;

/// The source of a remote's tokens.
pub trait Credentials: Send + Sync {
    /// Returns the actor's present token. With `None`, the remote sends the request without a
    /// token.
    fn token<'a>(&'a self, actor: &'a Actor) -> BoxFuture<'a, Option<Secret>>;

    /// Tries to renew the actor's token, because a server refused it or it is about to expire
    /// ([`Secret::expires_at`]). Returns whether there is a new token.
    ///
    /// A remote calls it at most once for a request and never twice at the same time. It waits for
    /// the result for a limited time only. A renewal that has begun runs to its end in a task of its
    /// own, also if the run ends meanwhile: only the end of the tokio runtime interrupts it. So a
    /// refresh token that is good for one use is not lost.
    fn refresh<'a>(&'a self, actor: &'a Actor) -> BoxFuture<'a, bool>;
}

/// A token that no output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    token: Box<str>,
    expires_at: Option<WallTime>,
}

impl Secret {
    /// Takes the token.
    pub fn new(token: impl Into<String>) -> Self {
        Self { token: token.into().into_boxed_str(), expires_at: None }
    }

    /// Says when the token expires, as its issuer told. A remote then has it renewed before a run
    /// instead of after a request that the server refused.
    #[must_use]
    pub fn expires_at(mut self, at: WallTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Returns the token itself. Use it to build a request and for nothing else.
    pub fn expose(&self) -> &str {
        &self.token
    }

    /// Returns whether the token is known to have expired at a moment.
    #[cfg(feature = "http")]
    pub(crate) fn is_over_at(&self, moment: WallTime) -> bool {
        self.expires_at.is_some_and(|at| at <= moment)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// No tokens: what a remote has until it is given credentials.
#[cfg(feature = "http")]
pub(crate) struct NoCredentials;

#[cfg(feature = "http")]
impl Credentials for NoCredentials {
    fn token<'a>(&'a self, _: &'a Actor) -> BoxFuture<'a, Option<Secret>> {
        Box::pin(std::future::ready(None))
    }

    fn refresh<'a>(&'a self, _: &'a Actor) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(false))
    }
}

/// One token of one actor, which is never renewed. Ops of other actors leave without a token, and
/// the server refuses them.
#[derive(Debug, Clone)]
pub struct StaticToken {
    actor: Actor,
    token: Secret,
}

impl StaticToken {
    /// Takes the actor and its token.
    pub fn new(actor: Actor, token: Secret) -> Self {
        Self { actor, token }
    }
}

impl Credentials for StaticToken {
    fn token<'a>(&'a self, actor: &'a Actor) -> BoxFuture<'a, Option<Secret>> {
        Box::pin(std::future::ready((*actor == self.actor).then(|| self.token.clone())))
    }

    fn refresh<'a>(&'a self, _: &'a Actor) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_static_token_is_only_for_its_actor() {
        let (ann, bob) = (Actor::parse("ann").unwrap(), Actor::parse("bob").unwrap());
        let credentials = StaticToken::new(ann.clone(), Secret::new("canary-71"));
        assert_eq!(credentials.token(&ann).await, Some(Secret::new("canary-71")));
        assert_eq!(credentials.token(&bob).await, None);
    }

    #[test]
    fn a_secret_never_prints() {
        let ann = Actor::parse("ann").unwrap();
        let printed = format!(
            "{:?} {:#?}",
            Secret::new("canary-71"),
            StaticToken::new(ann, Secret::new("canary-71"))
        );
        assert!(!printed.contains("canary"), "{printed}");
    }
}
