//! After a restore of the server: what its former life had last, to be offered again.
//!
//! Invariants:
//! 1. An offer keeps the stamp that it had, so that an older state never wins over a newer one.
//! 2. What a deletion of ours waits for is not offered: we do not want it either.

use super::Reoffer;
use crate::fields::{FieldsJson, InvalidFields};
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::protocol::Change;
use crate::rows::RecordRow;

/// Returns what is offered again of a record that a former life of the server had, if this one has something older.
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
