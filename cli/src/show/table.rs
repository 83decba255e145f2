//! Tables: a dim header, aligned columns, no lines. Fitted to the terminal, never cut when something else reads.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};

use crate::error::Failure;
use crate::output::Output;
use std::io::Write;

/// A table with a header.
pub(crate) struct Listing {
    table: Table,
}

/// What a cell's colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// On the way, or waiting.
    Waiting,
    /// Someone has to look.
    Bad,
}

impl Listing {
    /// Starts a table. A header that begins with `>` makes a right-aligned column, for numbers.
    pub(crate) fn new(headers: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(headers.iter().map(|header| {
            Cell::new(header.trim_start_matches('>').to_uppercase()).add_attribute(Attribute::Dim)
        }));
        for (column, header) in table.column_iter_mut().zip(headers) {
            column.set_padding((0, 2));
            if header.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table }
    }

    /// Adds a row.
    pub(crate) fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.table.add_row(cells.into_iter().map(Into::into).collect::<Vec<Cell>>());
    }

    /// Writes the table.
    pub(crate) fn write(mut self, output: &mut Output) -> Result<(), Failure> {
        match output.width() {
            Some(width) => self.table.set_width(width),
            None => self.table.set_content_arrangement(ContentArrangement::Disabled),
        };
        if output.colours() {
            self.table.enforce_styling();
        } else {
            self.table.force_no_tty();
        }
        for line in self.table.lines() {
            writeln!(output, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Makes a cell in a colour that says how things stand.
pub(crate) fn toned(text: impl ToString, tone: Tone) -> Cell {
    Cell::new(text).fg(match tone {
        Tone::Good => Color::Green,
        Tone::Waiting => Color::Yellow,
        Tone::Bad => Color::Red,
    })
}
