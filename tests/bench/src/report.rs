//! The results of a run: a table for people, or JSON.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::benchmarks::{Benchmark, Goal};
use crate::commits::Commits;
use crate::count::Count;
use crate::figure::{self, Figure};
use crate::first_sync::FirstSync;
use crate::peer::Contender;
use crate::race::Time;

/// One benchmark and the time of each contender.
pub(crate) struct Line {
    pub(crate) benchmark: &'static Benchmark,
    pub(crate) times: Vec<Time>,
}

impl Line {
    fn seconds(&self, contender: Contender) -> Option<f64> {
        self.times.iter().find(|time| time.contender == contender).map(|time| time.median)
    }

    /// Returns how many times as fast as SQLite a contender is.
    fn times_sqlite(&self, contender: Contender) -> Option<f64> {
        Some(self.seconds(Contender::Sqlite)? / self.seconds(contender)?)
    }
}

/// Returns the names of the results that miss their goals. The measurements with a server are not
/// among them: they have several goals each.
pub(crate) fn missed(lines: &[Line], figures: &[Figure]) -> Vec<&'static str> {
    let is_missed = |line: &&Line| match line.benchmark.goal {
        Goal::TimesSqlite(times) => {
            line.times_sqlite(Contender::Fieldbook).is_some_and(|reached| reached < times)
        }
        Goal::Seconds(most) => {
            line.seconds(Contender::Fieldbook).is_some_and(|seconds| seconds > most)
        }
        Goal::None => false,
    };
    let lines = lines.iter().filter(is_missed).map(|line| line.benchmark.name);
    let figures = figures.iter().filter(|figure| figure.is_missed()).map(|figure| figure.name);
    lines.chain(figures).collect()
}

fn others() -> impl Iterator<Item = Contender> {
    Contender::ALL.into_iter().filter(|contender| *contender != Contender::Sqlite)
}

/// The measurements with a server, which has no peer here.
#[derive(Default)]
pub(crate) struct Served {
    pub(crate) first_sync: Option<FirstSync>,
    pub(crate) commits: Vec<Commits>,
}

/// Draws the table and, below it, the measurements with a server.
pub(crate) fn text(lines: &[Line], served: &Served, figures: &[Figure]) -> String {
    let table = if lines.is_empty() { String::new() } else { table(lines) };
    let synced = served.first_sync.as_ref().map_or_else(String::new, first_sync);
    let commits =
        served.commits.iter().map(|commits| format!("\n{}", commits.line(served.commits.first())));
    let parts = [table, synced, commits.collect(), figure::text(figures)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn first_sync(synced: &FirstSync) -> String {
    let FirstSync {
        records,
        seconds,
        records_per_second,
        requests,
        bytes_sent,
        bytes_received,
        ..
    } = synced;
    let memory =
        synced.peak_bytes.map_or_else(String::new, |peak| format!(", {} MiB at most", peak >> 20));
    let again = &synced.nothing_new;
    format!(
        "\nfirst sync of {records} records: {seconds:.2} s, {records_per_second:.0} records/s (goal: 250,000){memory} (goal: 48), \
         {requests} requests, {bytes_sent} bytes sent, {bytes_received} received\n\
         an exchange with nothing new: {} request, {} bytes sent and {} received with their headers (goal: 400 and 350), {} entries written",
        again.requests, again.wire_bytes_sent, again.wire_bytes_received, again.entries_written
    )
}

/// Draws the table. Times differ from machine to machine, so compare ratios.
fn table(lines: &[Line]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    let mut header = vec!["median, one item".to_owned(), "item".to_owned()];
    header.extend(Contender::ALL.map(|contender| contender.name().to_owned()));
    header.extend(others().map(|contender| format!("{} vs SQLite", contender.name())));
    header.push("goal".to_owned());
    table.set_header(header);
    for line in lines {
        let mut row = vec![line.benchmark.name.to_owned(), line.benchmark.item.to_owned()];
        row.extend(
            Contender::ALL
                .map(|contender| line.seconds(contender).map_or_else(String::new, duration)),
        );
        row.extend(others().map(|contender| {
            line.times_sqlite(contender).map_or_else(String::new, |ratio| format!("{ratio:.2} x"))
        }));
        row.push(goal(line.benchmark));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let notes = lines.iter().flat_map(|line| {
        line.times.iter().filter_map(|time| {
            Some(format!(
                "\n{}, {}: {}",
                line.benchmark.name,
                time.contender.name(),
                time.note.as_ref()?
            ))
        })
    });
    format!("{table}{}", notes.collect::<String>())
}

fn goal(benchmark: &Benchmark) -> String {
    match benchmark.goal {
        Goal::TimesSqlite(times) => format!(">= {times} x"),
        Goal::Seconds(seconds) => format!("<= {}", duration(seconds)),
        Goal::None => String::new(),
    }
}

/// Draws the table of counts. The goals are times, so the ratios of instructions only hint at them.
pub(crate) fn counts(lines: &[(&Benchmark, Vec<Count>)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    let header = [
        "instructions, one item",
        "item",
        "SQLite",
        "fieldbook",
        "fieldbook vs SQLite",
        "goal, in time",
    ];
    table.set_header(header);
    for (benchmark, counts) in lines {
        let of = |contender| counts.iter().find(|count| count.contender == contender);
        let (sqlite, fieldbook) = (of(Contender::Sqlite), of(Contender::Fieldbook));
        let shown = |count: Option<&Count>| {
            count.map_or_else(String::new, |count| thousands(count.instructions))
        };
        let ratio = sqlite
            .zip(fieldbook)
            .map(|(sqlite, fieldbook)| sqlite.instructions / fieldbook.instructions);
        table.add_row([
            benchmark.name.to_owned(),
            benchmark.item.to_owned(),
            shown(sqlite),
            shown(fieldbook),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2} x")),
            goal(benchmark),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Lists the counts as JSON.
pub(crate) fn counts_json(lines: &[(&Benchmark, Vec<Count>)]) -> Value {
    let lines = lines.iter().map(|(benchmark, counts)| {
        let counts = counts.iter().map(
            |count| json!({ "peer": count.contender.name(), "instructions": count.instructions.round() }),
        );
        json!({ "name": benchmark.name, "item": benchmark.item, "peers": counts.collect::<Vec<_>>() })
    });
    json!({ "counts": lines.collect::<Vec<_>>() })
}

/// Writes a whole number with commas between its thousands.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Lists the results as JSON.
pub(crate) fn json(lines: &[Line], served: &Served, figures: &[Figure]) -> Value {
    let lines = lines.iter().map(|line| {
        let times = line.times.iter().map(|time| {
            json!({
                "peer": time.contender.name(),
                "median_seconds": time.median,
                "mean_seconds": time.mean,
                "per_second": 1.0 / time.median,
                "samples": time.samples,
                "times_sqlite": line.times_sqlite(time.contender),
                "note": time.note,
            })
        });
        let goal = match line.benchmark.goal {
            Goal::TimesSqlite(times) => json!({ "times_sqlite": times }),
            Goal::Seconds(seconds) => json!({ "seconds": seconds }),
            Goal::None => Value::Null,
        };
        json!({
            "name": line.benchmark.name,
            "item": line.benchmark.item,
            "goal": goal,
            "peers": times.collect::<Vec<_>>(),
        })
    });
    json!({
        "benchmarks": lines.collect::<Vec<_>>(),
        "first_sync": served.first_sync,
        "server_commits": served.commits,
        "figures": figure::json(figures),
    })
}

/// Writes a time with a fitting unit.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.2} us", s * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_above_its_goal_is_missed_and_one_without_a_value_is_not() {
        let figure = |fieldbook| Figure { fieldbook, ..Figure::seconds("a search", Some(0.05)) };
        let figures = [figure(Some(0.06)), figure(Some(0.05)), figure(None)];
        assert_eq!(missed(&[], &figures), ["a search"]);
    }

    #[test]
    fn thousands_are_told_apart() {
        let numbers = [0.0, 999.4, 999.6, 12_345.0, 1_234_567.0];
        assert_eq!(numbers.map(thousands), ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
