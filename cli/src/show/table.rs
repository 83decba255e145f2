//! Tables: a dim header and aligned columns, no lines. On a terminal the last column is cut to what fits; whatever else
//! reads gets everything.

use std::io::Write;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::plain;
use crate::error::Failure;
use crate::output::Output;

/// A table that is being filled.
pub(crate) struct Listing {
    headers: &'static [&'static str],
    rows: Vec<Vec<Text>>,
}

/// What a cell's colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing special.
    Plain,
    /// As it should be.
    Good,
    /// On the way, or waiting.
    Waiting,
    /// Someone has to look.
    Bad,
}

/// What stands in one cell, on one line.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    text: String,
    tone: Tone,
}

impl Listing {
    /// Starts a table. A header that begins with `>` makes a right-aligned column, for numbers.
    pub(crate) const fn new(headers: &'static [&'static str]) -> Self {
        Self { headers, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Text>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns how many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Writes the table; of an empty one not even the header.
    pub(crate) fn write(self, output: &mut Output) -> Result<(), Failure> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if output.colours() {
            table.enforce_styling();
            // Blanks at the end of a line are cut off, which they cannot be within a style.
            table.style_text_only();
        } else {
            table.force_no_tty();
        }
        table.set_header(self.headers.iter().map(|header| {
            Cell::new(header.trim_start_matches('>').to_uppercase()).add_attribute(Attribute::Dim)
        }));
        for (column, header) in table.column_iter_mut().zip(self.headers) {
            column.set_padding((0, GAP));
            if header.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let room = output.width().map(|width| self.room_for_last(usize::from(width)));
        for mut row in self.rows {
            if let (Some(room), Some(last)) = (room, row.last_mut()) {
                last.text = console::truncate_str(&last.text, room, "…").into_owned();
            }
            table.add_row(row.into_iter().map(Cell::from).collect::<Vec<_>>());
        }
        for line in table.lines() {
            writeln!(output, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn room_for_last(&self, width: usize) -> usize {
        let others = self.headers.len().saturating_sub(1);
        let taken: usize = (0..others)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.as_str());
                let widest = cells.chain(self.headers.get(column).copied()).map(console::measure_text_width);
                widest.max().unwrap_or(0) + usize::from(GAP)
            })
            .sum();
        width.saturating_sub(taken).max(LEAST)
    }
}

impl Text {
    /// Makes a cell in a colour that says how things stand.
    pub(crate) fn toned(text: impl ToString, tone: Tone) -> Self {
        Self { text: plain(&text.to_string()), tone }
    }
}

impl<T: ToString> From<T> for Text {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl From<Text> for Cell {
    fn from(text: Text) -> Self {
        let cell = Self::new(text.text);
        match text.tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Waiting => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed),
        }
    }
}

/// Makes a row of things that know how they are shown.
macro_rules! row {
    ($listing:expr, $($cell:expr),+ $(,)?) => {
        $listing.row([$($crate::show::table::Text::from($cell)),+])
    };
}
pub(crate) use row;

/// Blanks between columns.
const GAP: u16 = 2;
/// What the last column gets however narrow the terminal is.
const LEAST: usize = 16;
