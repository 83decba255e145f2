//! A list of leads that stays on the screen.

use fieldbook::query::{ListChange, LiveList, Stored};
use fieldbook::{Book, Error, RecordId};

use crate::lead::Lead;
use crate::words;

/// The most leads of a list.
const ROWS: usize = 200;

/// A row as the book gives it. A lead that does not fit the type fails alone.
pub(crate) type Row = Stored<Result<Lead, Error>>;

/// A live list, and its lines on the screen.
pub(crate) struct LeadList {
    live: LiveList<Result<Lead, Error>>,
    shown: Vec<(RecordId, String)>,
}

impl LeadList {
    /// Lists the leads of a stage, or all of them, and returns the list and what it shows now.
    pub(crate) fn of(book: &Book, stage: Option<&str>) -> Result<(Self, String), Error> {
        let query = book.query::<Lead>("by_stage").limit(ROWS);
        let query = stage.map_or(query.clone(), |stage| query.eq(stage));
        let mut list = Self { live: query.live()?, shown: Vec::new() };
        // The first change of a live list is the list itself.
        let more = list.live.take_change()?.is_some_and(|first| {
            list.follow(&first);
            first.next.is_some()
        });
        let mut lines = vec![words::heading()];
        lines.extend(list.shown.iter().map(|(_, line)| line.clone()));
        match (list.shown.is_empty(), more) {
            (true, _) => lines = vec!["no leads: `add` makes one".to_owned()],
            (_, true) => {
                lines.push(format!("… these are the first {ROWS}: `list STAGE`, `search`"))
            }
            _ => {}
        }
        Ok((list, lines.join("\n")))
    }

    /// Waits until a line on the screen differs, and returns what changed.
    pub(crate) async fn changed(&mut self) -> Result<String, Error> {
        while let Some(change) = self.live.changed().await? {
            let lines = self.follow(&change);
            if !lines.is_empty() {
                return Ok(lines.join("\n"));
            }
        }
        std::future::pending().await
    }

    /// Takes over a change, and returns a line for each lead that came, went or looks different.
    fn follow(&mut self, change: &ListChange<Result<Lead, Error>>) -> Vec<String> {
        let now: Vec<_> =
            change.items.iter().map(|row| (row.id.clone(), words::row(row))).collect();
        let before = std::mem::replace(&mut self.shown, now);
        let line_of = |lines: &[(RecordId, String)], id: &RecordId| {
            lines.iter().find(|(other, _)| other == id).map(|(_, line)| line.clone())
        };
        let gone = before.iter().filter(|(id, _)| line_of(&self.shown, id).is_none());
        let mut told: Vec<_> = gone.map(|(_, line)| format!("- {line}")).collect();
        for (id, line) in &self.shown {
            match line_of(&before, id) {
                None => told.push(format!("+ {line}")),
                Some(other) if other != *line => told.push(format!("~ {line}")),
                Some(_) => {}
            }
        }
        told
    }
}
