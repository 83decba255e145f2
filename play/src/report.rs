//! What a play came to, and whether it holds.

use serde::Serialize;

use crate::census::ConflictCount;
use crate::compare::Difference;
use crate::faults::FaultCounts;
use crate::sync::Traffic;
use crate::write::Writes;

/// How many names of a kind are written out.
const NAMES: usize = 20;

/// Everything that a play came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was played, as messages name it.
    pub stream: String,
    /// The mutations of the stream.
    pub mutations: u64,
    /// The transactions of the stream.
    pub transactions: u64,
    /// The devices, one for each author.
    pub devices: u64,
    /// How the mutations were written.
    pub writes: Writes,
    /// What went between the devices and the server.
    pub traffic: Traffic,
    /// What was made to go wrong, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injected: Option<FaultCounts>,
    /// The units that the devices planned.
    pub units: u64,
    /// The changes in those units.
    pub changes: u64,
    /// Ops that left their device only as part of a later one's change.
    pub coalesced_ops: u64,
    /// Ops that needed not be sent.
    pub annulled_ops: u64,
    /// Ops that lost all that they had to say.
    pub superseded_ops: u64,
    /// The conflicts that the devices found, by rule and winner.
    pub conflicts: Vec<ConflictCount>,
    /// The records that those conflicts name.
    pub records_in_conflict: u64,
    /// The conflicts that nobody has settled.
    pub open_conflicts: u64,
    /// The ops that the server refused for good.
    pub dead_letters: u64,
    /// The ops that are still owed to the server.
    pub pending_ops: u64,
    /// The ops that could not be pushed at their position and were left for the end.
    pub late_ops: u64,
    /// Whether nothing came or went any more at the end.
    pub quiet: bool,
    /// How many rounds of syncing all devices that took.
    pub rounds: u32,
    /// The records of the server.
    pub records: u64,
    /// A digest of those records: the same for the same records with the same values.
    pub digest: String,
    /// The devices that show what the server has.
    pub equal_devices: u64,
    /// The devices that do not.
    pub unequal: Vec<Unequal>,
    /// How the server's records compare with the oracle, if there is one.
    pub oracle: Option<Oracle>,
    /// Whether logs were verified and tables folded anew.
    pub checked: bool,
    /// What that found.
    pub faults: Vec<String>,
    /// The entries of all logs.
    pub log_entries: u64,
    /// The bytes of all books.
    pub book_bytes: u64,
    /// How long the play took, in seconds.
    pub seconds: f64,
    /// The most memory that the process had, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Whether the play holds: [`faults`](Self::faults) names nothing.
    pub holds: bool,
}

/// A device that does not show what the server has.
#[derive(Debug, Clone, Serialize)]
pub struct Unequal {
    /// Whose device it is.
    pub author: String,
    /// The records that differ.
    pub records: Vec<Difference>,
}

/// How the server's table compares with the oracle.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Oracle {
    /// Records that differ and that a conflict entry names.
    pub explained: Vec<Difference>,
    /// How many of those differ in nothing but fields that a conflict entry names.
    pub fields_named: u64,
    /// Records that differ for no recorded reason.
    pub unexplained: Vec<Difference>,
}

impl Report {
    /// Returns what keeps the play from holding, in words; empty if it holds.
    pub fn faults(&self) -> Vec<String> {
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
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
