//! Counts of what the server does, for a monitor, in the text format of Prometheus.
//!
//! Invariants:
//! 1. Every label is a word of this program. So the number of counts is bounded, and none names a
//!    tenant, an actor or a device.
//! 2. Counting waits for nothing but another count.
//!
//! What it does not do: keep anything. A restart begins at zero, as a monitor expects.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fieldbook_core::protocol::{Outcome, UnitOutcome};

/// The upper bounds of the classes of durations, in seconds.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The counts since the server started.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Requests by route and code.
    requests: BTreeMap<(&'static str, &'static str), u64>,
    /// Units by outcome.
    units: BTreeMap<&'static str, u64>,
    changes: u64,
    received: u64,
    sent: u64,
    /// The number of exchanges in each class of durations; the last class has no upper bound.
    durations: [u64; SECONDS.len() + 1],
    seconds: f64,
}

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) route: &'static str,
    pub(crate) code: &'static str,
    pub(crate) took: Duration,
    /// The changes of its page.
    pub(crate) changes: usize,
    /// The bytes of its body and of its answer.
    pub(crate) bytes: (usize, usize),
}

/// The present state of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present {
    pub(crate) is_ready: bool,
    pub(crate) connections: usize,
    pub(crate) running: usize,
}

impl Metrics {
    /// Counts a request that has ended.
    pub(crate) fn ended(&self, ended: Ended) {
        let Ended { route, code, took, changes, bytes: (received, sent) } = ended;
        let mut counts = self.lock();
        *counts.requests.entry((route, code)).or_default() += 1;
        counts.changes += changes as u64;
        counts.received += received as u64;
        counts.sent += sent as u64;
        if route == "exchange" {
            let seconds = took.as_secs_f64();
            counts.seconds += seconds;
            let class = SECONDS.iter().position(|most| seconds <= *most).unwrap_or(SECONDS.len());
            if let Some(count) = counts.durations.get_mut(class) {
                *count += 1;
            }
        }
    }

    /// Counts the outcomes of units.
    pub(crate) fn outcomes(&self, units: &[UnitOutcome]) {
        let mut counts = self.lock();
        for unit in units {
            *counts.units.entry(name(&unit.outcome)).or_default() += 1;
        }
    }

    /// Returns the counts as text.
    pub(crate) fn text(&self, present: Present) -> String {
        let counts = self.lock();
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, value: usize| {
            write_head(&mut text, name, "gauge", help);
            writeln!(text, "{name} {value}").ok();
        };
        gauge(
            "fieldbook_ready",
            "1 if the store can be read and written.",
            present.is_ready.into(),
        );
        gauge("fieldbook_connections", "Open connections.", present.connections);
        gauge("fieldbook_exchanges_running", "Exchanges that are running.", present.running);
        counts.write(&mut text);
        text
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn write(&self, text: &mut String) {
        let name = "fieldbook_requests_total";
        write_head(text, name, "counter", "Requests by route and code; `ok` is an answer.");
        for ((route, code), count) in &self.requests {
            writeln!(text, "{name}{{route=\"{route}\",code=\"{code}\"}} {count}").ok();
        }
        let name = "fieldbook_units_total";
        write_head(text, name, "counter", "Units by outcome.");
        for (outcome, count) in &self.units {
            writeln!(text, "{name}{{outcome=\"{outcome}\"}} {count}").ok();
        }
        for (name, help, count) in [
            ("fieldbook_changes_sent_total", "Records in pages.", self.changes),
            ("fieldbook_received_bytes_total", "Bytes of request bodies.", self.received),
            ("fieldbook_sent_bytes_total", "Bytes of answer bodies.", self.sent),
        ] {
            write_head(text, name, "counter", help);
            writeln!(text, "{name} {count}").ok();
        }
        let name = "fieldbook_exchange_seconds";
        write_head(text, name, "histogram", "Durations of exchanges, from the head to the answer.");
        let mut up_to = 0;
        let bounds = SECONDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.durations) {
            up_to += count;
            writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {up_to}").ok();
        }
        writeln!(text, "{name}_sum {}\n{name}_count {up_to}", self.seconds).ok();
    }
}

fn write_head(text: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
}

const fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied { .. } => "applied",
        Outcome::Duplicate { .. } => "duplicate",
        Outcome::Stale { .. } => "stale",
        Outcome::Ahead => "ahead",
        Outcome::Transient { .. } => "transient",
        Outcome::Rejected { .. } => "rejected",
        Outcome::Unsupported { .. } => "unsupported",
        Outcome::Unauthorized { .. } => "unauthorized",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_each_count_under_its_name_and_classes_that_add_up() {
        let metrics = Metrics::default();
        for (code, milliseconds) in [("ok", 1), ("ok", 30), ("busy", 60_000)] {
            let took = Duration::from_millis(milliseconds);
            metrics.ended(Ended { route: "exchange", code, took, changes: 2, bytes: (10, 20) });
        }
        metrics.ended(Ended {
            route: "health",
            code: "ok",
            took: Duration::from_secs(1),
            changes: 0,
            bytes: (0, 5),
        });
        let unit = fieldbook_core::UnitId::from_bytes([1; 16]);
        metrics.outcomes(&[UnitOutcome { unit, outcome: Outcome::Ahead }]);
        let present = Present { is_ready: true, connections: 3, running: 1 };
        let text = metrics.text(present);
        for line in [
            "fieldbook_ready 1",
            "fieldbook_connections 3",
            "fieldbook_exchanges_running 1",
            "fieldbook_requests_total{route=\"exchange\",code=\"ok\"} 2",
            "fieldbook_requests_total{route=\"exchange\",code=\"busy\"} 1",
            "fieldbook_requests_total{route=\"health\",code=\"ok\"} 1",
            "fieldbook_units_total{outcome=\"ahead\"} 1",
            "fieldbook_changes_sent_total 6",
            "fieldbook_received_bytes_total 30",
            "fieldbook_sent_bytes_total 65",
            "fieldbook_exchange_seconds_bucket{le=\"0.001\"} 1",
            "fieldbook_exchange_seconds_bucket{le=\"0.025\"} 1",
            "fieldbook_exchange_seconds_bucket{le=\"0.1\"} 2",
            "fieldbook_exchange_seconds_bucket{le=\"10\"} 2",
            "fieldbook_exchange_seconds_bucket{le=\"+Inf\"} 3",
            "fieldbook_exchange_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        // A monitor refuses a text in which a line is neither a comment nor a count.
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
