//! What a play came to: as a table for people, as one JSON object for machines, and whether it holds.

use std::io::Write;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::census::ConflictCount;
use super::compare::Difference;
use super::faults::FaultCounts;
use super::sync::Traffic;
use super::write::Writes;
use crate::error::Failure;
use crate::output::Output;
use crate::show::table::{Listing, Text, Tone, row};

/// How many names of a kind are written out.
const NAMES: usize = 20;

/// Everything that a play came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) stream: String,
    pub(crate) mutations: u64,
    pub(crate) transactions: u64,
    pub(crate) devices: u64,
    pub(crate) writes: Writes,
    pub(crate) traffic: Traffic,
    /// What was made to go wrong, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) injected: Option<FaultCounts>,
    pub(crate) units: u64,
    pub(crate) changes: u64,
    pub(crate) coalesced_ops: u64,
    pub(crate) annulled_ops: u64,
    pub(crate) superseded_ops: u64,
    pub(crate) conflicts: Vec<ConflictCount>,
    pub(crate) records_in_conflict: u64,
    pub(crate) open_conflicts: u64,
    pub(crate) dead_letters: u64,
    pub(crate) pending_ops: u64,
    pub(crate) late_ops: u64,
    pub(crate) quiet: bool,
    pub(crate) rounds: u32,
    pub(crate) records: u64,
    pub(crate) digest: String,
    pub(crate) equal_devices: u64,
    pub(crate) unequal: Vec<Unequal>,
    pub(crate) oracle: Option<Oracle>,
    pub(crate) checked: bool,
    pub(crate) faults: Vec<String>,
    pub(crate) log_entries: u64,
    pub(crate) book_bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) holds: bool,
}

/// A device that does not show what the server has.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Unequal {
    pub(crate) author: String,
    pub(crate) records: Vec<Difference>,
}

/// How the server's table compares with the oracle.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Oracle {
    /// Records that differ and that a conflict entry names.
    pub(crate) explained: Vec<Difference>,
    /// How many of those differ in nothing but fields that a conflict entry names.
    pub(crate) fields_named: u64,
    /// Records that differ for no recorded reason.
    pub(crate) unexplained: Vec<Difference>,
}

impl Report {
    /// Returns what keeps the play from holding, in words; empty if it holds.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.quiet {
            faults.push(format!("not quiet after {} rounds", self.rounds));
        }
        if self.pending_ops > 0 {
            faults.push(format!("{} ops are still owed to the server", self.pending_ops));
        }
        if self.dead_letters > 0 {
            faults.push(format!("{} dead letters", self.dead_letters));
        }
        for unequal in &self.unequal {
            faults.push(format!(
                "the device of {} differs from the server: {}",
                unequal.author,
                names(&unequal.records)
            ));
        }
        if let Some(oracle) = self.oracle.as_ref().filter(|oracle| !oracle.unexplained.is_empty()) {
            faults.push(format!("unexplained differences from the oracle: {}", names(&oracle.unexplained)));
        }
        faults.extend(self.faults.iter().cloned());
        faults
    }

    /// Writes the table.
    pub(crate) fn write(&self, output: &mut Output) -> Result<(), Failure> {
        let mut listing = Listing::new(&["", ">", ""]);
        self.rows_of_work(&mut listing);
        self.rows_of_conflicts(&mut listing);
        self.rows_of_the_end(&mut listing);
        listing.write(output)?;
        writeln!(output)?;
        writeln!(output, "final state {}", self.digest)?;
        Ok(())
    }

    fn rows_of_work(&self, listing: &mut Listing) {
        let (writes, traffic) = (&self.writes, &self.traffic);
        row!(
            listing,
            "mutations",
            number(self.mutations),
            format!("in {} transactions of the stream", number(self.transactions))
        );
        row!(listing, "devices", number(self.devices), "one book each");
        row!(
            listing,
            "ops",
            number(writes.ops),
            format!("{} mutations needed none", number(writes.without_effect))
        );
        row!(
            listing,
            "adapted",
            number(writes.creates_as_replaces + writes.updates_as_creates + writes.deletes_left_out),
            format!(
                "{} creates of what was there, {} updates and {} deletes of what was not",
                writes.creates_as_replaces, writes.updates_as_creates, writes.deletes_left_out
            )
        );
        row!(
            listing,
            "late",
            number(writes.late),
            "mutations of what the base position lacks, written at their own"
        );
        if writes.postponed_transactions > 0 {
            row!(
                listing,
                "postponed",
                number(writes.postponed_transactions),
                "transactions whose author had two others yet to push"
            );
        }
        if writes.split_transactions > 0 {
            row!(
                listing,
                "split",
                number(writes.split_transactions),
                format!("transactions over the limits, into {} parts", writes.split_parts)
            );
        }
        row!(
            listing,
            "exchanges",
            number(traffic.exchanges),
            format!("{} of them failed and were made again", number(traffic.failed_exchanges))
        );
        if let Some(injected) = &self.injected {
            row!(
                listing,
                "gone wrong",
                number(injected.sum()),
                format!(
                    "requests: {} lost, {} doubled, {} late; answers: {} lost, {} old",
                    injected.requests_lost,
                    injected.requests_doubled,
                    injected.requests_late,
                    injected.answers_lost,
                    injected.answers_late
                )
            );
            row!(
                listing,
                "",
                "",
                format!(
                    "{} times 503, {} after it took effect; {} units put off; {} times 401",
                    injected.unavailable + injected.applied_then_unavailable,
                    injected.applied_then_unavailable,
                    injected.units_put_off,
                    injected.unauthorized
                )
            );
        }
        row!(
            listing,
            "bytes",
            HumanBytes(traffic.bytes_sent + traffic.bytes_received).to_string(),
            format!(
                "{} sent, {} received",
                HumanBytes(traffic.bytes_sent),
                HumanBytes(traffic.bytes_received)
            )
        );
        row!(
            listing,
            "units",
            number(self.units),
            format!("with {} changes; {} came back stale", number(self.changes), number(traffic.stale_units))
        );
        row!(listing, "coalesced ops", number(self.coalesced_ops), "left as part of another op's change");
        row!(listing, "annulled ops", number(self.annulled_ops), "needed not be sent");
    }

    fn rows_of_conflicts(&self, listing: &mut Listing) {
        let all: u64 = self.conflicts.iter().map(|conflict| conflict.count).sum();
        row!(
            listing,
            "conflicts",
            number(all),
            format!(
                "on {} records; {} ops lost all they had to say",
                number(self.records_in_conflict),
                number(self.superseded_ops)
            )
        );
        for ConflictCount { policy, winner, count } in &self.conflicts {
            row!(listing, "", number(*count), format!("{policy}: {winner} won"));
        }
        row!(
            listing,
            "dead letters",
            good_if_none(self.dead_letters),
            format!("{} ops still owed", number(self.pending_ops))
        );
    }

    fn rows_of_the_end(&self, listing: &mut Listing) {
        let equal = if self.unequal.is_empty() { Tone::Good } else { Tone::Bad };
        row!(
            listing,
            "equal devices",
            Text::toned(number(self.equal_devices), equal),
            format!("of {}, with the server's {} records", number(self.devices), number(self.records))
        );
        if let Some(oracle) = &self.oracle {
            row!(
                listing,
                "explained",
                number(oracle.explained.len() as u64),
                format!(
                    "differences from the oracle that a conflict entry names; of {} it names every field",
                    number(oracle.fields_named)
                )
            );
            row!(
                listing,
                "unexplained",
                good_if_none(oracle.unexplained.len() as u64),
                "differences from the oracle"
            );
        }
        if self.checked {
            row!(
                listing,
                "faulty books",
                good_if_none(self.faults.len() as u64),
                "chains verified, tables folded anew and compared"
            );
        }
        row!(
            listing,
            "log entries",
            number(self.log_entries),
            format!("books of {} in all", HumanBytes(self.book_bytes))
        );
        let memory = self.peak_memory_bytes.map(|bytes| format!("peak memory {}", HumanBytes(bytes)));
        row!(listing, "time", format!("{:.1} s", self.seconds), memory.unwrap_or_default());
    }
}

fn number(number: u64) -> String {
    HumanCount(number).to_string()
}

fn good_if_none(count: u64) -> Text {
    Text::toned(number(count), if count == 0 { Tone::Good } else { Tone::Bad })
}

fn names(differences: &[Difference]) -> String {
    let named = differences.iter().take(NAMES);
    let mut names: Vec<_> = named.map(Difference::words).collect();
    if differences.len() > NAMES {
        names.push(format!("and {} more", differences.len() - NAMES));
    }
    names.join(", ")
}

/// Returns the most memory that this process ever had, where the system tells.
pub(super) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
