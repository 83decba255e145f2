//! What somebody did on this device.

use super::{ERASED, MOST_SENTENCES, UNREADABLE, Words, fine};
use crate::entry::{Intent, OpMeta};
use crate::op::OpKind;
use crate::rules::status::words::counted;
use crate::rules::story::Sentence;
use crate::rules::story::values::{self, changes, in_words};

impl Words<'_> {
    pub(super) fn intent(&self, intent: &Intent) -> Vec<Sentence> {
        let ops = (0..).zip(&intent.ops).filter(|(_, op)| self.concerns(&op.key));
        let mut sentences: Vec<_> =
            ops.map(|(_, op)| fine(self.op(op, intent.ops.len()))).collect();
        if sentences.len() > MOST_SENTENCES {
            let more = sentences.len() - MOST_SENTENCES;
            sentences.truncate(MOST_SENTENCES);
            sentences.push(fine(format!(
                "{} more records in the same transaction.",
                values::grouped(more)
            )));
        }
        sentences
    }

    pub(super) fn op(&self, op: &OpMeta, together: usize) -> String {
        let (who, it) = (&self.entry.header.actor, self.name(&op.key));
        let mut text = match op.kind {
            OpKind::Create => format!("{who} created {it}: {}.", self.named(op)),
            OpKind::Update => format!("{}{who} {}.", self.within(&op.key), self.edited(op)),
            OpKind::Replace => {
                format!("{}{who} saved it anew, and so {}.", self.within(&op.key), self.edited(op))
            }
            OpKind::Delete => format!("{who} deleted {it}."),
        };
        if let Some(cited) = op.cites.and_then(|cited| self.teller.ops.get(&cited)) {
            text.push_str(&format!(" It is about change {cited}: a correction, or its undoing."));
        }
        if self.teller.about.is_some() && together > 1 {
            let others = counted(together - 1, "other change");
            text.push_str(&format!(" In one transaction with {others}."));
        }
        if op.clock_capped {
            text.push_str(
                " The device's clock was too far ahead, so the edit counts as made earlier.",
            );
        }
        text
    }

    /// Returns the fields that an op names.
    pub(super) fn named(&self, op: &OpMeta) -> String {
        op.fields.map_or_else(|| "no fields".to_owned(), |index| self.image_of(index))
    }

    /// Returns what an edit changed, from the images before and after it.
    pub(super) fn edited(&self, op: &OpMeta) -> String {
        match op.fields.map(|index| self.entry.fields(index)) {
            Some(Ok(None)) => return format!("changed fields: {ERASED}"),
            Some(Err(_)) => return format!("changed fields: {UNREADABLE}"),
            None | Some(Ok(Some(_))) => {}
        }
        let Some(effect) = self.effect(&op.key) else {
            return format!("changed fields: {}", self.named(op));
        };
        let found = changes(effect.seen.before.as_ref(), effect.seen.after.as_ref());
        if found.is_empty() {
            return "wrote what was there already".to_owned();
        }
        in_words(&found)
    }
}
