//! The pipeline: how many leads are in each stage, and what they are worth. The book keeps the
//! totals in the commit that changes a lead, so they are never behind.

use std::sync::Arc;

use fieldbook::projection::{Projection, ProjectionError, ProjectionTable, RecordChange};
use fieldbook::{Book, Entity, Error, Fields, RecordKey};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::lead::Lead;

/// The totals of each stage, as a projection.
pub(crate) struct Pipeline;

const NAME: &str = "pipeline";

/// The leads of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Total {
    leads: i64,
    amount: i64,
}

impl Total {
    /// Reads a row of the table.
    fn read(row: &[u8]) -> Option<Self> {
        let (leads, amount) = row.split_at_checked(8)?;
        let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
        Some(Self { leads: number(leads)?, amount: number(amount)? })
    }

    /// Makes a row of the table.
    fn row(self) -> Vec<u8> {
        [self.leads.to_be_bytes(), self.amount.to_be_bytes()].concat()
    }

    /// Adds leads, or takes them away. A sum that overflows comes back when they are taken away.
    fn plus(self, leads: i64, amount: i64) -> Self {
        let amount = self.amount.wrapping_add(amount);
        Self { leads: self.leads.wrapping_add(leads), amount }
    }
}

impl Projection for Pipeline {
    fn name(&self) -> &str {
        NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn fold(
        &self,
        change: &RecordChange<'_>,
        table: &mut ProjectionTable<'_>,
    ) -> Result<(), ProjectionError> {
        if change.key.entity.as_str() != Lead::ENTITY {
            return Ok(());
        }
        // Subtract the lead before the change, add the lead after it.
        for (lead, sign) in [(change.before, -1), (change.after, 1)] {
            let Some(lead) = lead else { continue };
            let (stage, amount) = stage_and_amount(lead);
            let before = table.get(stage)?.and_then(|row| Total::read(&row)).unwrap_or_default();
            let total = before.plus(sign, amount.wrapping_mul(sign));
            match total.leads {
                0 => table.remove(stage)?,
                _ => table.put(stage, &total.row())?,
            }
        }
        Ok(())
    }
}

fn stage_and_amount(lead: &Fields) -> (&[u8], i64) {
    let stage = lead.get("stage").and_then(|stage| stage.as_str()).unwrap_or("none");
    let amount = lead.get("amount").and_then(|amount| amount.as_i64()).unwrap_or(0);
    (stage.as_bytes(), amount)
}

/// Returns the totals as a table.
pub(crate) fn totals(book: &Book) -> Result<String, Error> {
    let line =
        |stage: &str, leads: &str, amount: &str| format!("{stage:<6} {leads:>7} {amount:>12}");
    let mut lines = vec![line("stage", "leads", "amount")];
    let mut all = Total::default();
    for (stage, row) in book.projection(NAME).range(.., 100)? {
        let total = Total::read(&row).unwrap_or_default();
        all = all.plus(total.leads, total.amount);
        let stage = String::from_utf8_lossy(&stage);
        lines.push(line(&stage, &total.leads.to_string(), &total.amount.to_string()));
    }
    lines.push(line("all", &all.leads.to_string(), &all.amount.to_string()));
    Ok(lines.join("\n"))
}

/// Totals that stay on the screen.
pub(crate) struct LiveTotals {
    book: Book,
    commits: Receiver<Arc<[RecordKey]>>,
    shown: String,
}

impl LiveTotals {
    /// Returns the totals that stay, and what they are now.
    pub(crate) fn of(book: &Book) -> Result<(Self, String), Error> {
        // The channel is opened before the totals are read, so no commit in between is missed.
        let commits = book.watch();
        let shown = totals(book)?;
        Ok((Self { book: book.clone(), commits, shown: shown.clone() }, shown))
    }

    /// Waits until the totals differ from those on the screen, and returns them.
    pub(crate) async fn changed(&mut self) -> Result<String, Error> {
        // A receiver that lagged has missed a commit, which is a reason to read as well.
        while !matches!(self.commits.recv().await, Err(RecvError::Closed)) {
            let now = totals(&self.book)?;
            if now != self.shown {
                self.shown.clone_from(&now);
                return Ok(now);
            }
        }
        std::future::pending().await
    }
}
