//! Credentials by actor: a change only ever leaves with the token of the actor that made it.
//!
//! Invariants:
//! 1. Tokens are asked for at the moment of sending and never stored with what is sent.
//! 2. A [`Secret`] prints as `Secret(redacted)`, whatever the format.
//!
//! What it is not: a key store. Where tokens live and how they are renewed is the app's.

use std::fmt;

use fieldbook_core::Actor;

use crate::remote::BoxFuture;

/// Where a remote gets tokens from.
pub trait Credentials: Send + Sync {
    /// Returns the actor's present token; `None` sends the request without one.
    fn token<'a>(&'a self, actor: &'a Actor) -> BoxFuture<'a, Option<Secret>>;

    /// Tries to renew the actor's token after a server refused it, and returns whether there is a new one.
    ///
    /// A remote calls it at most once for a request, never twice at a time, and waits for it only so long.
    fn refresh<'a>(&'a self, actor: &'a Actor) -> BoxFuture<'a, bool>;
}

/// A token that no output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes the token.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into().into_boxed_str())
    }

    /// Returns the token itself, to be put into a request and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// No tokens at all, for a server on the same machine that asks for none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

impl Credentials for NoCredentials {
    fn token<'a>(&'a self, _: &'a Actor) -> BoxFuture<'a, Option<Secret>> {
        Box::pin(std::future::ready(None))
    }

    fn refresh<'a>(&'a self, _: &'a Actor) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(false))
    }
}

/// One token of one actor that is never renewed. Other actors' changes leave without a token, and are refused.
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
        let printed =
            format!("{:?} {:#?}", Secret::new("canary-71"), StaticToken::new(ann, Secret::new("canary-71")));
        assert!(!printed.contains("canary"), "{printed}");
    }
}
