//! An app's own functions, declared with its entity types.
//!
//! The app has to keep one invariant: each function is pure. Its result depends on its arguments
//! only, on every device and after every restart.
//!
//! What they are not: a part of the fold. The log holds each result, so folding it again calls no
//! function.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::fields::Fields;
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::time::Hlc;

/// A shared function. `Debug` shows nothing of it, and it equals only its own clones.
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

/// Converts fields from one schema version to the next: those of an op that waits, and those of a
/// record when the app reads it.
///
/// A record is read through the upcasters whatever the version of its fields is. So an upcaster
/// leaves fields alone that are in the later form already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upcaster(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The former name of each field, and its name.
    Renames(Vec<(String, String)>),
    Function(Shared<dyn Fn(OpKind, Fields) -> Fields + Send + Sync>),
}

impl Upcaster {
    /// Makes an upcaster of the app's function. The function receives an image for a create, a
    /// replace or a record, and a patch for an update.
    pub fn new(function: impl Fn(OpKind, Fields) -> Fields + Send + Sync + 'static) -> Self {
        Self(Kind::Function(Shared(Arc::new(function))))
    }

    /// Makes an upcaster that changes nothing, for a version that needs no conversion.
    pub const fn unchanged() -> Self {
        Self(Kind::Renames(Vec::new()))
    }

    /// Makes an upcaster that gives a field another name. It is data, so a book can record it, and
    /// a program without the app can follow it.
    pub fn rename(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self(Kind::Renames(vec![(from.into(), to.into())]))
    }

    /// Makes an upcaster that does this and then that.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        match (self.0, next.0) {
            (Kind::Renames(mut renames), Kind::Renames(more)) => {
                renames.extend(more);
                Self(Kind::Renames(renames))
            }
            (first, next) => {
                let (first, next) = (Self(first), Self(next));
                Self::new(move |kind, fields| next.apply(kind, first.apply(kind, fields)))
            }
        }
    }

    /// Converts fields.
    pub fn apply(&self, kind: OpKind, mut fields: Fields) -> Fields {
        match &self.0 {
            Kind::Renames(renames) => {
                for (from, to) in renames {
                    if let Some(value) = fields.remove(from) {
                        fields.set(to.clone(), value);
                    }
                }
                fields
            }
            Kind::Function(function) => (function.0)(kind, fields),
        }
    }

    /// Returns the former and the new names, if it renames fields and does nothing else.
    pub(crate) fn renames(&self) -> Option<&[(String, String)]> {
        match &self.0 {
            Kind::Renames(renames) => Some(renames),
            Kind::Function(_) => None,
        }
    }

    /// Makes an upcaster of former and new names.
    pub(crate) const fn of_renames(renames: Vec<(String, String)>) -> Self {
        Self(Kind::Renames(renames))
    }

    /// Returns whether it can change an image with this text. It may return true for an image that
    /// it does not change.
    pub(crate) fn may_change(&self, image: &str) -> bool {
        // A name with characters that JSON escapes is in the text in another form.
        let plain = |name: &str| !name.chars().any(|c| c.is_control() || c == '"' || c == '\\');
        self.renames().is_none_or(|renames| {
            renames.iter().any(|(from, _)| !plain(from) || image.contains(from.as_str()))
        })
    }
}

/// A change, as it would be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outgoing<'a> {
    /// The record.
    pub key: &'a RecordKey,
    /// What the change does to the record.
    pub kind: OpKind,
    /// An image for a create or a replace, a patch for an update, nothing for a delete.
    pub fields: &'a Fields,
    /// The record after the change, as the app reads it and as far as this device knows it; `None`
    /// for a delete.
    pub image: Option<&'a Fields>,
}

/// Checks a change before it is sent, so that a change that the server would refuse is held for the
/// user at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validator(Shared<Check>);

type Check = dyn Fn(&Outgoing<'_>) -> Result<(), String> + Send + Sync;

impl Validator {
    /// Makes a validator of the app's function. People read the text of its error, so the text must
    /// not hold values of fields.
    pub fn new(
        function: impl Fn(&Outgoing<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self(Shared(Arc::new(function)))
    }

    /// Calls the function.
    ///
    /// # Errors
    /// The reason why the change should not be sent.
    pub fn check(&self, outgoing: &Outgoing<'_>) -> Result<(), String> {
        (self.0.0)(outgoing)
    }
}

/// The changes of both sides, for a rule of the app.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MergeInput<'a> {
    /// The record.
    pub key: &'a RecordKey,
    /// The field; `None` if the whole record is in conflict, because one side deletes or replaces
    /// it.
    pub field: Option<&'a str>,
    /// The last value that both sides had; null if there was none. For a whole record it is an
    /// object, or null if the record did not exist.
    pub base: &'a Value,
    /// This device's value. For a whole record, null is a deletion.
    pub local: &'a Value,
    /// The server's value. For a whole record, null is a deletion.
    pub remote: &'a Value,
    /// When this device's value was edited.
    pub local_edited_at: Hlc,
    /// When the server's value was edited.
    pub remote_edited_at: Hlc,
    /// Whether this device's value is the later one, in the order that all devices share.
    pub local_is_later: bool,
}

/// The result of an app's rule.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MergeDecision {
    /// This device's value wins.
    Local,
    /// The server's value wins.
    Remote,
    /// A value merged of both wins. A whole record cannot be merged: the later side wins.
    Merged(Value),
    /// A person has to choose.
    Ask,
}

/// An app's rule for changes of both sides. Its name is recorded with each conflict that it
/// decides.
///
/// Devices converge only if the result does not depend on which side is the local one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictFunction {
    name: Arc<str>,
    function: Shared<Decide>,
}

type Decide = dyn Fn(&MergeInput<'_>) -> MergeDecision + Send + Sync;

impl ConflictFunction {
    /// Makes a rule of the app's function and the name to record.
    pub fn new(
        name: &str,
        function: impl Fn(&MergeInput<'_>) -> MergeDecision + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), function: Shared(Arc::new(function)) }
    }

    /// Returns the name to record.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls the function.
    pub fn decide(&self, input: &MergeInput<'_>) -> MergeDecision {
        (self.function.0)(input)
    }
}
