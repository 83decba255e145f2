//! The text of an answer. It is written while its page is read, so that memory holds the text of a
//! page and never its changes too.
//!
//! The changes come first, because the rest of the answer is known only after the last change. The
//! order of members has no meaning.

use fieldbook_core::protocol::{Change, ExchangeAnswer};

/// A text that is being written.
#[derive(Debug, Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
    /// The number of changes in the text.
    pub(super) changes: usize,
    failed: Option<serde_json::Error>,
}

impl Text {
    /// Appends a change.
    pub(super) fn add(&mut self, change: &Change) {
        let before: &[u8] = if self.changes == 0 { br#"{"changes":["# } else { b"," };
        self.bytes.extend_from_slice(before);
        self.changes += 1;
        if let Err(error) = serde_json::to_writer(&mut self.bytes, change) {
            self.failed.get_or_insert(error);
        }
    }

    /// Writes the rest of the answer, and returns the whole text.
    ///
    /// # Errors
    /// If a part of the answer has no text.
    pub(super) fn end(mut self, answer: &ExchangeAnswer) -> Result<Vec<u8>, serde_json::Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.changes == 0 {
            return serde_json::to_vec(answer);
        }
        self.bytes.extend_from_slice(b"],");
        let at = self.bytes.len();
        serde_json::to_writer(&mut self.bytes, answer)?;
        // The text of the changes has an opening brace already.
        self.bytes.remove(at);
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use fieldbook_core::{
        Cursor, FieldsJson, Hlc, OpId, RequestId, ServerEpoch, ServerId, Version, WallTime,
    };

    fn change(number: u64) -> Change {
        Change {
            key: format!("lead/{number}").parse().unwrap(),
            version: Version::new(number + 1),
            edited_at: Hlc::from_bits(number),
            op: OpId::from_bytes([9; 16]),
            by: None,
            older: Vec::new(),
            floor: None,
            deleted: number == 1,
            partial: false,
            fields: (number != 1).then(|| FieldsJson::parse(r#"{"a":[1,"}],"]}"#).unwrap()),
        }
    }

    #[test]
    fn an_answer_that_is_written_change_by_change_reads_as_one_that_is_written_whole() {
        let id = [1; 16];
        for count in 0..3 {
            let changes: Vec<_> = (0..count).map(change).collect();
            let (server, epoch) = (ServerId::from_bytes(id), ServerEpoch::from_bytes(id));
            let at = WallTime::from_milliseconds(7);
            let answer = ExchangeAnswer {
                cursors: [("lead".parse().unwrap(), Cursor::new(vec![1]).unwrap())].into(),
                more: true,
                ..ExchangeAnswer::new(RequestId::from_bytes(id), server, epoch, at)
            };
            let mut text = Text::default();
            changes.iter().for_each(|change| text.add(change));
            let bytes = text.end(&answer).unwrap();
            let read: ExchangeAnswer = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(read, ExchangeAnswer { changes, ..answer });
        }
    }
}
