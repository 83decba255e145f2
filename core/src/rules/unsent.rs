//! Counts the ops that would be lost with the book, and whose they are.
//!
//! Every op of the tail counts: it waits, has no answer, is parked, or is a dead letter. Only ops
//! of entity types that never leave the device do not count: they are not on any way to a server.
//!
//! What it does not do: count the records that an accepted server may lack ([`Unsent::unconfirmed`]).
//! They are in the tables, not in the tail. It does not judge whether the book may go. That is the caller's, who may have an
//! export.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::names::{Actor, EntityType};
use crate::tail::Tail;

/// The ops of a book that the server does not have, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Unsent {
    /// The number of ops for each actor whose credentials send them.
    pub of: BTreeMap<Actor, u64>,
    /// The number of records that an accepted server has not confirmed yet. If it lacks one, the
    /// device offers it again.
    pub unconfirmed: u64,
}

impl Unsent {
    /// Returns the number of ops of all actors.
    pub fn ops(&self) -> u64 {
        self.of.values().sum()
    }

    /// Returns whether the server has everything.
    pub fn is_empty(&self) -> bool {
        self.ops() == 0 && self.unconfirmed == 0
    }
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ops() {
            1 => f.write_str("1 change was not sent")?,
            ops => write!(f, "{ops} changes were not sent")?,
        }
        for (number, (actor, ops)) in self.of.iter().enumerate() {
            write!(f, "{}{ops} of {actor}", if number == 0 { ": " } else { ", " })?;
        }
        match self.unconfirmed {
            0 => Ok(()),
            1 => f.write_str("; the accepted server may lack 1 record"),
            records => write!(f, "; the accepted server may lack {records} records"),
        }
    }
}

/// Counts the ops of a tail. `actor` uses the book, and `leaves` returns whether ops of an entity
/// type are sent at all.
pub fn unsent(tail: &Tail, actor: &Actor, leaves: impl Fn(&EntityType) -> bool) -> Unsent {
    let mut of: BTreeMap<_, _> = tail.others(actor, &leaves).into_iter().collect();
    let others: u64 = of.values().sum();
    of.insert(actor.clone(), tail.pending(&leaves).saturating_sub(others));
    of.retain(|_, ops| *ops > 0);
    Unsent { of, unconfirmed: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::OpKind;
    use crate::rules::test_tail::{pending, place, tail_row};

    fn actor(name: &str) -> Actor {
        Actor::parse(name).unwrap()
    }

    /// Makes three ops of Ann, one of them a dead letter, and one of Ben.
    fn tail() -> Tail {
        let mut tail =
            pending(&[("1", OpKind::Create), ("2", OpKind::Create), ("3", OpKind::Update)]);
        tail.set_dead(place(2), true);
        let of_ben =
            crate::rows::TailRow { actor: actor("ben"), ..tail_row("4", 4, OpKind::Create) };
        tail.insert(place(4), of_ben);
        tail
    }

    #[test]
    fn every_op_of_every_user_counts_whoever_uses_the_book() {
        for user in ["ann", "ben", "cleo"] {
            let found = unsent(&tail(), &actor(user), |_| true);
            assert_eq!(found.of, BTreeMap::from([(actor("ann"), 3), (actor("ben"), 1)]), "{user}");
            assert_eq!(found.to_string(), "4 changes were not sent: 3 of ann, 1 of ben");
        }
    }

    #[test]
    fn what_never_leaves_the_device_does_not_count() {
        let found = unsent(&tail(), &actor("ann"), |_| false);
        assert!(found.is_empty() && found.of.is_empty());
        assert!(unsent(&Tail::default(), &actor("ann"), |_| true).is_empty());
    }
}
