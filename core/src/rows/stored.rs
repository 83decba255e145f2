//! A record's row as the table of records has it. A long tail is stored apart, one row for each op,
//! so that one more op of a record costs the same however many the record has.
//!
//! Invariants:
//! 1. A tail of at most [`OPS_IN_ROW`] ops is in the row, and a longer one is apart. So the same
//!    record has the same stored bytes, whatever happened to it before.
//! 2. What is in the row is enough for the app's reads, and for the fold of most new ops.
//!
//! What it does not do: read or write the ops that are apart. The tables do.

use super::record::{Confirmed, RecordRow, Visible};
use crate::codec::{Decode, Encode};
use crate::fields::FieldsJson;
use crate::numbers::Version;
use crate::record::{EditStamp, Pending};

/// The most ops of a tail that are stored in the record's row. Nearly every tail has a few ops, and
/// reading them with the row costs nothing. Each write of the record writes them all again, some 60
/// bytes an op.
pub const OPS_IN_ROW: usize = 8;

/// A record's row as it is stored: whole, or without a tail that is apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredRecord {
    /// The row. It has no tail if the tail is apart.
    pub(super) row: RecordRow,
    pub(super) apart: Option<Apart>,
}

/// What a row says of a tail that is apart.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub(super) struct Apart {
    pub(super) ops: u32,
    /// The greatest stamp of the ops.
    pub(super) greatest: EditStamp,
}

impl From<RecordRow> for StoredRecord {
    /// Makes it of a whole row, however long its tail is.
    fn from(row: RecordRow) -> Self {
        Self { row, apart: None }
    }
}

impl StoredRecord {
    /// Makes the stored form of a row whose ops are stored apart. Returns `None` if they are stored
    /// in the row.
    pub fn without_tail(row: &RecordRow) -> Option<Self> {
        if row.tail.len() <= OPS_IN_ROW {
            return None;
        }
        let greatest =
            row.tail.iter().map(Pending::greatest).fold(EditStamp::NEVER, EditStamp::max);
        let apart = Apart { ops: u32::try_from(row.tail.len()).unwrap_or(u32::MAX), greatest };
        let RecordRow { confirmed, visible, synced_at, .. } = row;
        let (confirmed, visible) = (confirmed.clone(), visible.clone());
        let row = RecordRow { confirmed, visible, tail: Vec::new(), synced_at: *synced_at };
        Some(Self { row, apart: Some(apart) })
    }

    /// Returns whether the ops of the tail are stored apart.
    pub const fn is_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Returns the row with its whole tail. `read` reads the ops that are apart, oldest first.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn whole<E>(
        mut self,
        read: impl FnOnce() -> Result<Vec<Pending>, E>,
    ) -> Result<RecordRow, E> {
        if self.apart.is_some() {
            self.row.tail = read()?;
        }
        Ok(self.row)
    }

    /// Returns the whole row; `None` if a part of it is apart.
    pub const fn as_whole(&self) -> Option<&RecordRow> {
        if self.apart.is_none() { Some(&self.row) } else { None }
    }

    /// Adds an op at the end of the tail, and sets what the app reads. Returns the op if it has to be
    /// written apart, and `None` if it is in the row now.
    pub fn push(&mut self, op: Pending, visible: Visible) -> Option<Pending> {
        let Some(apart) = &mut self.apart else {
            self.row.push(op, visible);
            return None;
        };
        self.row.visible = visible;
        apart.ops = apart.ops.saturating_add(1);
        apart.greatest = apart.greatest.max(op.greatest());
        Some(op)
    }

    /// Returns what [`RecordRow::image`] returns.
    pub fn image(&self) -> Option<&FieldsJson> {
        self.row.image()
    }

    /// Returns what [`RecordRow::version`] returns.
    pub fn version(&self) -> Option<Version> {
        self.row.version()
    }

    /// Returns the number of ops in the tail.
    pub fn pending(&self) -> usize {
        self.apart.map_or(self.row.tail.len(), |apart| apart.ops as usize)
    }

    /// Returns the confirmed record; none if the server never sent or acked it.
    pub const fn confirmed(&self) -> Option<&Confirmed> {
        self.row.confirmed.as_ref()
    }

    /// Returns the ops that are in the row.
    pub fn ops_in_row(&self) -> &[Pending] {
        &self.row.tail
    }

    /// Returns what [`RecordRow::greatest`] returns.
    pub fn greatest(&self) -> EditStamp {
        let apart = self.apart.map_or(EditStamp::NEVER, |apart| apart.greatest);
        self.row.greatest().max(apart)
    }

    /// Does what [`RecordRow::await_confirmation`] does, except with the ops that are apart.
    pub fn await_confirmation(&mut self) {
        self.row.await_confirmation();
    }

    /// Returns whether a live record was confirmed by a former server only.
    pub fn awaits_confirmation(&self) -> bool {
        self.row.awaits_confirmation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::ids::OpId;
    use crate::numbers::Seq;
    use crate::op::{OpKind, OpPlace};
    use crate::rows::RecordView;
    use crate::time::{Hlc, WallTime};

    fn op(number: u8, at: u64) -> Pending {
        let place = OpPlace { seq: Seq::new(u64::from(number)), index: 0 };
        Pending::new(OpId::from_bytes([number; 16]), place, OpKind::Update, Hlc::from_bits(at))
    }

    fn row(ops: u8) -> RecordRow {
        // The greatest stamp is in the middle: a clock was set back.
        let at = |number| if number == 3 { 1_000 } else { u64::from(number) };
        RecordRow {
            visible: Visible::Own(FieldsJson::parse(r#"{"a":1}"#).unwrap()),
            tail: (0..ops).map(|number| op(number, at(number))).collect(),
            synced_at: Some(WallTime::from_milliseconds(5)),
            ..RecordRow::default()
        }
    }

    #[test]
    fn a_short_tail_is_in_the_row_and_a_long_one_is_apart_with_what_new_ops_need_left_in_the_row() {
        let most = u8::try_from(OPS_IN_ROW).unwrap();
        assert_eq!(StoredRecord::without_tail(&row(most)), None);
        let long = row(most + 1);
        let stored = StoredRecord::without_tail(&long).unwrap();
        let bytes = codec::encode(&stored).unwrap();
        assert!(codec::encode(&long).is_err(), "its tail is not in the row");
        assert!(codec::decode::<RecordRow>(&bytes).is_err(), "it is not whole");
        let read: StoredRecord = codec::decode(&bytes).unwrap();
        assert_eq!(read, stored);
        assert_eq!((read.image(), read.version()), (long.image(), long.version()));
        assert_eq!((read.pending(), read.greatest()), (long.tail.len(), long.greatest()));
        let view = RecordView::read(&bytes).unwrap();
        assert_eq!((view.pending, view.synced_at), (long.tail.len(), long.synced_at));
        assert_eq!(view.image, long.image().map(FieldsJson::as_str));
        let tail = long.tail.clone();
        assert_eq!(read.whole(|| Ok::<_, ()>(tail)), Ok(long));
        for length in 0..bytes.len() {
            assert!(codec::decode::<StoredRecord>(&bytes[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn ops_pushed_onto_a_row_make_the_row_that_has_them_all() {
        let visible = row(1).visible;
        let (mut whole, mut apart) = (StoredRecord::default(), None::<StoredRecord>);
        let mut added = 0;
        for op in row(40).tail {
            if let Some(apart) = &mut apart {
                added += usize::from(apart.push(op.clone(), visible.clone()).is_some());
            }
            assert_eq!(whole.push(op, visible.clone()), None);
            let now = StoredRecord::without_tail(whole.as_whole().unwrap());
            apart = apart.or_else(|| now.clone());
            assert_eq!(apart, now, "what was pushed onto a tail that is apart counts as if read");
        }
        assert_eq!(added, 40 - OPS_IN_ROW - 1);
    }

    #[test]
    fn bytes_of_a_tail_that_is_apart_and_short_or_also_in_the_row_are_no_row() {
        let most = u8::try_from(OPS_IN_ROW).unwrap();
        let bytes = codec::encode(&StoredRecord::without_tail(&row(most + 1)).unwrap()).unwrap();
        let mut fewer = bytes.clone();
        // Flags, the length of the text, then the number of ops.
        fewer[5] = most;
        assert!(codec::decode::<StoredRecord>(&fewer).is_err());
        let mut both = bytes;
        both[0] |= 1 << 5;
        assert!(RecordView::read(&both).is_err());
    }
}
