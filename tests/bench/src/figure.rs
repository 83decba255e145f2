//! Figures that are no median of one item: sizes, the slowest of a hundred, a difference.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::peer::Failure;
use crate::race::Setting;
use crate::report::duration;

/// What a figure counts. Less is better for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
}

/// One figure of fieldbook, beside SQLite's if SQLite has such a thing.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) sqlite: Option<f64>,
    pub(crate) fieldbook: Option<f64>,
    /// The most that fieldbook aims at.
    pub(crate) goal: Option<f64>,
    pub(crate) note: Option<String>,
}

impl Figure {
    /// Makes a figure in seconds without values.
    pub(crate) const fn seconds(name: &'static str, goal: Option<f64>) -> Self {
        Self { name, unit: Unit::Seconds, sqlite: None, fieldbook: None, goal, note: None }
    }

    /// Makes a figure in bytes without values.
    pub(crate) fn bytes(name: &'static str, goal: Option<f64>) -> Self {
        Self { unit: Unit::Bytes, ..Self::seconds(name, goal) }
    }

    /// Returns whether fieldbook needs more than it aims at.
    pub(crate) fn is_missed(&self) -> bool {
        self.fieldbook.zip(self.goal).is_some_and(|(value, goal)| value > goal)
    }

    fn shown(&self, value: f64) -> String {
        match self.unit {
            Unit::Seconds => duration(value),
            Unit::Bytes => format!("{:.1} MB", value / 1e6),
        }
    }
}

/// Measurements that give several figures at once.
pub(crate) struct Study {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Setting) -> Result<Vec<Figure>, Failure>,
}

/// Returns the time that so many of a hundred times do not exceed.
pub(crate) fn percentile(mut seconds: Vec<f64>, of_100: usize) -> Option<f64> {
    seconds.sort_by(f64::total_cmp);
    let rank = (seconds.len() * of_100).div_ceil(100);
    seconds.get(rank.saturating_sub(1)).copied()
}

/// Draws the figures as a table.
pub(crate) fn text(figures: &[Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["figure", "SQLite", "fieldbook", "goal"]);
    for figure in figures {
        let shown = |value: Option<f64>| value.map_or_else(String::new, |it| figure.shown(it));
        let goal =
            figure.goal.map_or_else(String::new, |goal| format!("<= {}", figure.shown(goal)));
        let values = [shown(figure.sqlite), shown(figure.fieldbook)];
        let [sqlite, fieldbook] = values;
        table.add_row([figure.name.to_owned(), sqlite, fieldbook, goal]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let notes = figures
        .iter()
        .filter_map(|figure| Some(format!("\n{}: {}", figure.name, figure.note.as_ref()?)));
    format!("{table}{}", notes.collect::<String>())
}

/// Lists the figures as JSON.
pub(crate) fn json(figures: &[Figure]) -> Value {
    let figures = figures.iter().map(|figure| {
        let unit = match figure.unit {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
        };
        json!({
            "name": figure.name,
            "unit": unit,
            "sqlite": figure.sqlite,
            "fieldbook": figure.fieldbook,
            "goal": figure.goal,
            "note": figure.note,
        })
    });
    figures.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(times.clone(), 95), Some(95.0));
        assert_eq!(percentile(times, 50), Some(50.0));
        assert_eq!(percentile(vec![7.0], 99), Some(7.0));
        assert_eq!(percentile(Vec::new(), 50), None);
    }
}
