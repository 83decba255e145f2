//! The result of a play, and whether it passes.

use serde::Serialize;

use crate::census::ConflictCount;
use crate::compare::Difference;
use crate::faults::FaultCounts;
use crate::sync::Traffic;
use crate::write::Writes;

/// The most names in a list.
const NAMES: usize = 20;

/// The result of a play.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The stream, by its name in messages.
    pub stream: String,
    /// The mutations of the stream.
    pub mutations: u64,
    /// The transactions of the stream.
    pub transactions: u64,
    /// The devices, one for each author.
    pub devices: u64,
    /// How the mutations were adapted.
    pub writes: Writes,
    /// The exchanges between the devices and the server.
    pub traffic: Traffic,
    /// The faults on purpose, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injected: Option<FaultCounts>,
    /// The units that the devices planned.
    pub units: u64,
    /// The changes in those units.
    pub changes: u64,
    /// Ops that were sent only as part of a later op's change.
    pub coalesced_ops: u64,
    /// Ops that need not be sent.
    pub cancelled_ops: u64,
    /// Ops that lost all their fields to conflicts.
    pub superseded_ops: u64,
    /// The conflicts that the devices found, by policy and winner.
    pub conflicts: Vec<ConflictCount>,
    /// The records of those conflicts.
    pub records_in_conflict: u64,
    /// The conflicts that are open.
    pub open_conflicts: u64,
    /// The ops that the server refused.
    pub dead_letters: u64,
    /// The ops that are pending.
    pub pending_ops: u64,
    /// The ops that could not be pushed at their position and were left for the end.
    pub late_ops: u64,
    /// Whether nothing was sent or received any more at the end.
    pub quiet: bool,
    /// The number of rounds of syncing all devices until then.
    pub rounds: u32,
    /// The records of the server.
    pub records: u64,
    /// A digest of those records: the same for the same records with the same values.
    pub digest: String,
    /// The devices whose records equal the server's.
    pub equal_devices: u64,
    /// The other devices.
    pub unequal: Vec<Unequal>,
    /// How the server's records compare with the oracle, if there is one.
    pub oracle: Option<Oracle>,
    /// Whether logs were verified and tables folded anew.
    pub checked: bool,
    /// The faults that the check found.
    pub faults: Vec<String>,
    /// The entries of all logs.
    pub log_entries: u64,
    /// The bytes of all books.
    pub book_bytes: u64,
    /// The duration of the play, in seconds.
    pub seconds: f64,
    /// The most memory that the process needed, if the system reports it.
    pub peak_memory_bytes: Option<u64>,
    /// Whether the play passes: [`faults`](Self::faults) is empty.
    pub holds: bool,
}

/// A device whose records differ from the server's.
#[derive(Debug, Clone, Serialize)]
pub struct Unequal {
    /// Its author.
    pub author: String,
    /// The records that differ.
    pub records: Vec<Difference>,
}

/// The comparison of the server's table with the oracle.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Oracle {
    /// Records that differ and have a conflict entry.
    pub explained: Vec<Difference>,
    /// The number of those that differ only in fields that a conflict entry names.
    pub fields_named: u64,
    /// Records that differ without a conflict entry.
    pub unexplained: Vec<Difference>,
}

impl Report {
    /// Returns the faults of the play in words. Empty if the play passes.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.quiet {
            faults.push(format!("not quiet after {} rounds", self.rounds));
        }
        if self.pending_ops > 0 {
            faults.push(format!("{} ops are pending", self.pending_ops));
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
            faults.push(format!(
                "unexplained differences from the oracle: {}",
                names(&oracle.unexplained)
            ));
        }
        faults.extend(self.faults.iter().cloned());
        faults
    }
}

fn names(differences: &[Difference]) -> String {
    let named = differences.iter().take(NAMES);
    let mut names: Vec<_> = named.map(Difference::words).collect();
    if differences.len() > NAMES {
        names.push(format!("and {} more", differences.len() - NAMES));
    }
    names.join(", ")
}

/// Returns the most memory that this process needed, if the system reports it.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
