//! A report as rows for people: a name, a figure, and its meaning.

use crate::census::ConflictCount;
use crate::numbers::{bytes, count};
use crate::report::Report;

/// One row of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What is counted; empty if the row continues the one above.
    pub name: &'static str,
    /// The figure, for people.
    pub figure: String,
    /// Whether the figure is good.
    pub tone: Tone,
    /// The meaning of the figure.
    pub about: String,
}

/// Whether a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Any figure is right.
    Plain,
    /// Good.
    Good,
    /// A person has to look.
    Bad,
}

impl Row {
    fn new(name: &'static str, figure: impl Into<String>, about: impl Into<String>) -> Self {
        Self { name, figure: figure.into(), tone: Tone::Plain, about: about.into() }
    }

    fn counted(name: &'static str, number: u64, about: impl Into<String>) -> Self {
        Self::new(name, count(number), about)
    }

    fn good_if(mut self, is_good: bool) -> Self {
        self.tone = if is_good { Tone::Good } else { Tone::Bad };
        self
    }
}

impl Report {
    /// Returns the rows of the report in their order.
    pub fn rows(&self) -> Vec<Row> {
        let parts = [
            self.rows_of_writes(),
            self.rows_of_traffic(),
            self.rows_of_units(),
            self.rows_of_conflicts(),
            self.rows_of_the_end(),
        ];
        parts.concat()
    }

    fn rows_of_writes(&self) -> Vec<Row> {
        let writes = &self.writes;
        let adapted = format!(
            "{} creates of existing records, {} updates and {} deletes of missing ones",
            writes.creates_as_replaces, writes.updates_as_creates, writes.deletes_left_out
        );
        let in_transactions = format!("in {} transactions of the stream", count(self.transactions));
        let none = format!("{} mutations had no effect", count(writes.without_effect));
        let late = "mutations that need more than the base position, written at their own";
        let mut rows = vec![
            Row::counted("mutations", self.mutations, in_transactions),
            Row::counted("devices", self.devices, "one book each"),
            Row::counted("ops", writes.ops, none),
            Row::counted(
                "adapted",
                writes.creates_as_replaces + writes.updates_as_creates + writes.deletes_left_out,
                adapted,
            ),
            Row::counted("late", writes.late, late),
        ];
        if writes.postponed_transactions > 0 {
            let about = "transactions whose author had two others not pushed yet";
            rows.push(Row::counted("postponed", writes.postponed_transactions, about));
        }
        if writes.split_transactions > 0 {
            let about = format!("transactions over the limits, into {} parts", writes.split_parts);
            rows.push(Row::counted("split", writes.split_transactions, about));
        }
        rows
    }

    fn rows_of_traffic(&self) -> Vec<Row> {
        let traffic = &self.traffic;
        let failed =
            format!("{} of them failed and were repeated", count(traffic.failed_exchanges));
        let mut rows = vec![Row::counted("exchanges", traffic.exchanges, failed)];
        if let Some(injected) = &self.injected {
            let lost = format!(
                "requests: {} lost, {} doubled, {} late; answers: {} lost, {} old",
                injected.requests_lost,
                injected.requests_doubled,
                injected.requests_late,
                injected.answers_lost,
                injected.answers_late
            );
            let refused = format!(
                "{} times 503, {} after it took effect; {} units deferred; {} times 401",
                injected.unavailable + injected.applied_then_unavailable,
                injected.applied_then_unavailable,
                injected.units_put_off,
                injected.unauthorized
            );
            rows.push(Row::counted("faults", injected.sum(), lost));
            rows.push(Row::new("", "", refused));
        }
        let both = bytes(traffic.bytes_sent + traffic.bytes_received);
        let each = format!(
            "{} sent, {} received",
            bytes(traffic.bytes_sent),
            bytes(traffic.bytes_received)
        );
        rows.push(Row::new("bytes", both, each));
        rows
    }

    fn rows_of_units(&self) -> Vec<Row> {
        let (changes, stale) = (count(self.changes), count(self.traffic.stale_units));
        vec![
            Row::counted(
                "units",
                self.units,
                format!("with {changes} changes; {stale} came back stale"),
            ),
            Row::counted(
                "coalesced ops",
                self.coalesced_ops,
                "sent as part of another op's change",
            ),
            Row::counted("cancelled ops", self.cancelled_ops, "not sent, without effect"),
        ]
    }

    fn rows_of_conflicts(&self) -> Vec<Row> {
        let all = self.conflicts.iter().map(|conflict| conflict.count).sum();
        let (records, lost) = (count(self.records_in_conflict), count(self.superseded_ops));
        let about = format!("on {records} records; {lost} ops lost all their fields");
        let mut rows = vec![Row::counted("conflicts", all, about)];
        rows.extend(self.conflicts.iter().map(|ConflictCount { policy, winner, count }| {
            Row::counted("", *count, format!("{policy}: {winner} won"))
        }));
        let pending = format!("{} ops pending", count(self.pending_ops));
        rows.push(
            Row::counted("dead letters", self.dead_letters, pending)
                .good_if(self.dead_letters == 0),
        );
        rows
    }

    fn rows_of_the_end(&self) -> Vec<Row> {
        let of = format!(
            "of {}, with the server's {} records",
            count(self.devices),
            count(self.records)
        );
        let mut rows = vec![
            Row::counted("equal devices", self.equal_devices, of).good_if(self.unequal.is_empty()),
        ];
        if let Some(oracle) = &self.oracle {
            let named = count(oracle.fields_named);
            let about = format!(
                "differences from the oracle that a conflict entry names; of {named} it names every field"
            );
            rows.push(Row::counted("explained", oracle.explained.len() as u64, about));
            let unexplained = Row::counted(
                "unexplained",
                oracle.unexplained.len() as u64,
                "differences from the oracle",
            );
            rows.push(unexplained.good_if(oracle.unexplained.is_empty()));
        }
        if self.checked {
            let about = "chains verified, tables folded anew and compared";
            let faulty = Row::counted("faulty books", self.faults.len() as u64, about);
            rows.push(faulty.good_if(self.faults.is_empty()));
        }
        let books = format!("books of {} in all", bytes(self.book_bytes));
        rows.push(Row::counted("log entries", self.log_entries, books));
        let memory = self.peak_memory_bytes.map(|peak| format!("peak memory {}", bytes(peak)));
        rows.push(Row::new("time", format!("{:.1} s", self.seconds), memory.unwrap_or_default()));
        rows
    }
}
