//! The parts of a book that the rules read. The code that keeps a book implements this trait, which
//! needs no rule.

use crate::entry::FieldsSource;
use crate::fields::{FieldsJson, InvalidFields};
use crate::ids::{OpId, UnitId};
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::op::{OpContent, OpPlace};
use crate::rows::{RecordRow, UnitRow};

/// The parts of a book that rules may read.
pub trait View {
    /// The error of a book that cannot be read.
    type Error: From<InvalidFields>;

    /// Returns a record's row, or `None` if the book has no row of the record.
    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, Self::Error>;

    /// Returns the version of a record that is confirmed, if any is.
    fn confirmed_version(&mut self, key: &RecordKey) -> Result<Option<Version>, Self::Error> {
        Ok(self.record(key)?.and_then(|row| row.version()))
    }

    /// Returns false only if a change of the record certainly needs no rebase: the record has no
    /// tail, and no former server had it. A view that would have to read the row for this returns
    /// true.
    fn may_need_rebase(&mut self, _: &RecordKey) -> Result<bool, Self::Error> {
        Ok(true)
    }

    /// Returns a unit without a final answer.
    fn unit(&mut self, unit: &UnitId) -> Result<Option<UnitRow>, Self::Error>;

    /// Returns the unit without a final answer that holds this op.
    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, Self::Error>;

    /// Returns the content of an op of the log.
    fn op(&mut self, place: OpPlace) -> Result<OpContent, Self::Error>;

    /// Returns frozen fields; `None` for a change without fields or with erased ones.
    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, Self::Error>;
}
