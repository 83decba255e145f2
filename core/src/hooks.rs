//! An app's own functions, declared with its entity types.
//!
//! Invariants that the app has to keep: each is pure. It looks at its arguments only, and gives the same result for the same
//! arguments, on every device and after every restart.
//!
//! What they are not: part of the fold. What one of them made is on record in the log, so that folding it anew calls none.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::fields::Fields;
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::time::Hlc;

/// A shared function that says nothing of itself and equals only its own clones.
struct Shared<F: ?Sized>(Arc<F>);

impl<F: ?Sized> Clone for Shared<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: ?Sized> fmt::Debug for Shared<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fn")
    }
}

impl<F: ?Sized> PartialEq for Shared<F> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<F: ?Sized> Eq for Shared<F> {}

/// Turns the fields of an op that was made under one schema version into those of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upcaster(Shared<dyn Fn(OpKind, Fields) -> Fields + Send + Sync>);

impl Upcaster {
    /// Takes the app's function. It gets an image for a create or a replace, a patch for an update.
    pub fn new(function: impl Fn(OpKind, Fields) -> Fields + Send + Sync + 'static) -> Self {
        Self(Shared(Arc::new(function)))
    }

    /// Leaves fields as they are: for a version that changed nothing in what is queued.
    pub fn unchanged() -> Self {
        Self::new(|_, fields| fields)
    }

    /// Calls the function.
    pub fn apply(&self, kind: OpKind, fields: Fields) -> Fields {
        (self.0.0)(kind, fields)
    }
}

/// A change as it would be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outgoing<'a> {
    /// The record.
    pub key: &'a RecordKey,
    /// What is done to it.
    pub kind: OpKind,
    /// An image for a create or a replace, a patch for an update, nothing for a delete.
    pub fields: &'a Fields,
    /// What the record would be by it, as far as this device knows; `None` for a delete.
    pub image: Option<&'a Fields>,
}

/// Looks at a change before it is sent, so that what the server would refuse is held for the user at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validator(Shared<Check>);

type Check = dyn Fn(&Outgoing<'_>) -> Result<(), String> + Send + Sync;

impl Validator {
    /// Takes the app's function. What it returns as an error is shown to people, and must not hold values of fields.
    pub fn new(function: impl Fn(&Outgoing<'_>) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Shared(Arc::new(function)))
    }

    /// Calls the function.
    ///
    /// # Errors
    /// The reason why the change is not to be sent.
    pub fn check(&self, outgoing: &Outgoing<'_>) -> Result<(), String> {
        (self.0.0)(outgoing)
    }
}

/// What both sides changed, for an app's own rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Meeting<'a> {
    /// The record.
    pub key: &'a RecordKey,
    /// The field; `None` if the record as a whole is in question, since one side deletes or replaces it.
    pub field: Option<&'a str>,
    /// The value that both sides had last; a null if there was none. Of a whole record an object, or a null if it was not there.
    pub base: &'a Value,
    /// This device's value; of a whole record a null for a deletion.
    pub mine: &'a Value,
    /// The server's value; of a whole record a null for a deletion.
    pub theirs: &'a Value,
    /// When this device's value was edited.
    pub mine_edited_at: Hlc,
    /// When the server's value was edited.
    pub theirs_edited_at: Hlc,
    /// Whether this device's value is the later one, in the order that all devices agree on.
    pub mine_is_later: bool,
}

/// What an app's own rule says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Ruling {
    /// This device's value stands.
    Mine,
    /// The server's value stands.
    Theirs,
    /// Another value stands, made of both. A whole record cannot be merged so: the later side stands.
    Merged(Value),
    /// A person has to choose.
    Ask,
}

/// An app's own rule for what both sides changed, under a name that goes on record.
///
/// Devices come to agree only if its result does not depend on which side is called mine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictFunction {
    name: Arc<str>,
    function: Shared<Settle>,
}

type Settle = dyn Fn(&Meeting<'_>) -> Ruling + Send + Sync;

impl ConflictFunction {
    /// Takes the app's function and the name by which conflicts that it settled are to be known.
    pub fn new(name: &str, function: impl Fn(&Meeting<'_>) -> Ruling + Send + Sync + 'static) -> Self {
        Self { name: name.into(), function: Shared(Arc::new(function)) }
    }

    /// Returns the name that goes on record.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls the function.
    pub fn settle(&self, meeting: &Meeting<'_>) -> Ruling {
        (self.function.0)(meeting)
    }
}
