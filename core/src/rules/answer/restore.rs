//! Offers again what a former epoch of the server had, after a restore of the server.
//!
//! Invariants:
//! 1. An offer keeps its time, so that an older state never wins over a newer state.
//! 2. A record is not offered if the tail deletes it: its user does not want the record either.

use super::Reoffer;
use crate::fields::{FieldsJson, InvalidFields};
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::protocol::Change;
use crate::rows::RecordRow;

/// Returns the offer for a record of a former epoch, if the present epoch of the server has an
/// older state of it.
pub(super) fn reoffer(
    key: &RecordKey,
    row: &RecordRow,
    changes: &[&Change],
) -> Result<Option<Reoffer>, InvalidFields> {
    let former = row.confirmed.as_ref().filter(|confirmed| confirmed.version.number() == 0);
    let (Some(former), Some(last)) = (former, changes.last()) else { return Ok(None) };
    let deletes = row.tail.iter().any(|pending| !pending.dead && pending.kind == OpKind::Delete);
    if last.edited_at >= former.edited_at || deletes {
        return Ok(None);
    }
    let image = row.confirmed_image().map(FieldsJson::to_fields).transpose()?;
    let is_wanted = image.is_some() || !last.deleted;
    Ok(is_wanted.then(|| Reoffer { key: key.clone(), image, edited_at: former.edited_at }))
}
