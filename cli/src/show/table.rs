//! Tables: a dim header and aligned columns, without rules.
//!
//! 1. A very long cell is cut and shows its length, also in a pipe. `--full` shows all of it.
//! 2. On a terminal the last column is cut, or broken into lines, to fit. If there is too little
//!    room, each row becomes lines of its own: the short cells, and the last cell below them.
//! 3. No line ends in blanks. Widths are those on the screen.

use std::io::{self, Write};

use console::{Style, StyledObject};
use indicatif::HumanCount;

use super::plain;
use crate::error::Failure;
use crate::output::Output;

/// A table that is being filled.
pub(crate) struct Listing {
    headers: &'static [&'static str],
    rows: Vec<Vec<Text>>,
    full: bool,
    wrapped: bool,
}

/// The meaning of a cell's colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// No meaning.
    Plain,
    /// Good.
    Good,
    /// In progress, or waiting.
    Waiting,
    /// A person has to act.
    Bad,
}

/// A cell.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    text: String,
    tone: Tone,
}

impl Listing {
    /// Starts a table. A header that begins with `>` makes a right-aligned column, for numbers.
    pub(crate) const fn new(headers: &'static [&'static str]) -> Self {
        Self { headers, rows: Vec::new(), full: false, wrapped: false }
    }

    /// Shows long cells whole.
    pub(crate) const fn full(mut self, full: bool) -> Self {
        self.full = full;
        self
    }

    /// On a terminal, breaks the last column into lines instead of cutting it: for sentences.
    pub(crate) const fn wrapped(mut self) -> Self {
        self.wrapped = true;
        self
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Text>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Writes the table. An empty table has no header either.
    pub(crate) fn write(self, output: &mut Output) -> Result<(), Failure> {
        let (width, colours) = (output.width().map(usize::from), output.colours());
        Ok(self.write_to(output, width, colours)?)
    }

    fn write_to(
        mut self,
        writer: &mut impl Write,
        width: Option<usize>,
        colours: bool,
    ) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        if !self.full {
            self.rows.iter_mut().flatten().for_each(|cell| cell.text = cut(&cell.text, LONGEST));
        }
        let Some(width) = width else { return self.write_aligned(writer, None, colours) };
        let room = width.saturating_sub(self.taken());
        if room < LEAST.min(self.widest(self.last())) {
            return self.write_stacked(writer, width.max(LEAST));
        }
        self.write_aligned(writer, Some(room.max(1)), colours)
    }

    fn write_aligned(
        mut self,
        writer: &mut impl Write,
        room: Option<usize>,
        colours: bool,
    ) -> io::Result<()> {
        if let Some(room) = room {
            self.fit_last(room);
        }
        let widths: Vec<_> = (0..self.headers.len()).map(|column| self.widest(column)).collect();
        let mut heading = Line::new(self.headers, &widths);
        for header in self.headers {
            heading.put(&title(header), Style::new().dim().force_styling(colours));
        }
        writeln!(writer, "{}", heading.text)?;
        for row in self.rows {
            let cells: Vec<Vec<&str>> =
                row.iter().map(|cell| cell.text.split('\n').collect()).collect();
            for number in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
                let mut line = Line::new(self.headers, &widths);
                for (cell, lines) in row.iter().zip(&cells) {
                    let text = lines.get(number).copied().unwrap_or_default();
                    line.put(text, cell.tone.style().force_styling(colours));
                }
                writeln!(writer, "{}", line.text)?;
            }
        }
        Ok(())
    }

    /// Cuts the last column, or breaks it into lines, so that it fits.
    fn fit_last(&mut self, room: usize) {
        for last in self.rows.iter_mut().filter_map(|row| row.last_mut()) {
            if console::measure_text_width(&last.text) > room {
                let whole = self.full || self.wrapped;
                last.text =
                    if whole { wrap(&last.text, room).join("\n") } else { cut(&last.text, room) };
            }
        }
    }

    /// Writes each row as lines of its own, for a narrow terminal: the short cells, then the last
    /// cell on the same line if it fits, else below.
    fn write_stacked(self, writer: &mut impl Write, width: usize) -> io::Result<()> {
        let indented = width.saturating_sub(INDENT);
        let named =
            self.headers.iter().map(|header| title(header)).filter(|header| !header.is_empty());
        writeln!(writer, "{}", console::style(named.collect::<Vec<_>>().join(" · ")).dim())?;
        for row in self.rows {
            let cells: Vec<_> = row.iter().filter(|cell| !cell.text.is_empty()).collect();
            let last = row.last();
            let mut used = 0;
            for cell in cells {
                let wide = console::measure_text_width(&cell.text);
                let is_last = last.is_some_and(|last| std::ptr::eq(last, cell));
                if used == 0 {
                    write!(writer, "{}", cell.styled(&cell.text))?;
                } else if used + usize::from(GAP) + wide <= width {
                    write!(writer, "{:2$}{}", "", cell.styled(&cell.text), usize::from(GAP))?;
                    used += usize::from(GAP);
                } else {
                    let whole = self.full || self.wrapped || !is_last;
                    let shown = if whole {
                        cell.text.clone()
                    } else {
                        cut(&cell.text, indented * STACKED_LINES)
                    };
                    for line in wrap(&shown, indented) {
                        write!(writer, "\n{:2$}{}", "", cell.styled(&line), INDENT)?;
                        used = INDENT + console::measure_text_width(&line);
                    }
                    continue;
                }
                used += wide;
            }
            writeln!(writer)?;
        }
        Ok(())
    }

    const fn last(&self) -> usize {
        self.headers.len().saturating_sub(1)
    }

    /// Returns the width of all columns but the last.
    fn taken(&self) -> usize {
        (0..self.last()).map(|column| self.widest(column) + usize::from(GAP)).sum()
    }

    fn widest(&self, column: usize) -> usize {
        let cells =
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.as_str());
        let header = self.headers.get(column).map(|header| header.trim_start_matches('>'));
        cells.chain(header).map(console::measure_text_width).max().unwrap_or(0)
    }
}

impl Text {
    /// Makes a cell with a tone.
    pub(crate) fn toned(text: impl ToString, tone: Tone) -> Self {
        Self { text: plain(&text.to_string()), tone }
    }

    /// Makes a cell of a name, with hidden characters escaped.
    pub(crate) fn name(name: impl ToString) -> Self {
        Self { text: super::name(&name.to_string()), tone: Tone::Plain }
    }

    fn styled<'t>(&self, text: &'t str) -> StyledObject<&'t str> {
        self.tone.style().apply_to(text)
    }
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => Style::new().green(),
            Self::Waiting => Style::new().yellow(),
            Self::Bad => Style::new().red(),
        }
    }
}

impl<T: ToString> From<T> for Text {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// A line of a table, cell by cell.
struct Line<'a> {
    columns: std::iter::Zip<std::slice::Iter<'a, &'static str>, std::slice::Iter<'a, usize>>,
    text: String,
    /// Blanks before the next text. They are not written at the end of a line.
    blanks: usize,
}

impl<'a> Line<'a> {
    fn new(headers: &'a [&'static str], widths: &'a [usize]) -> Self {
        Self { columns: headers.iter().zip(widths), text: String::new(), blanks: 0 }
    }

    /// Adds the cell of the next column.
    fn put(&mut self, text: &str, style: Style) {
        let Some((header, width)) = self.columns.next() else { return };
        let text = text.trim_end();
        let free = width.saturating_sub(console::measure_text_width(text));
        let is_right = header.starts_with('>');
        self.blanks += if is_right { free } else { 0 };
        if !text.is_empty() {
            self.text.push_str(&" ".repeat(self.blanks));
            self.text.push_str(&style.apply_to(text).to_string());
            self.blanks = 0;
        }
        self.blanks += usize::from(GAP) + if is_right { 0 } else { free };
    }
}

/// Adds a row of cells, each made with `Text::from`.
macro_rules! row {
    ($listing:expr, $($cell:expr),+ $(,)?) => {
        $listing.row([$($crate::show::table::Text::from($cell)),+])
    };
}
pub(crate) use row;

fn title(header: &str) -> String {
    header.trim_start_matches('>').to_uppercase()
}

/// Cuts a text to a width. A long text that is cut ends with its length.
pub(crate) fn cut(text: &str, width: usize) -> String {
    // Most texts are short, and a text has at least as many bytes as columns.
    if text.len() <= width || console::measure_text_width(text) <= width {
        return text.to_owned();
    }
    let size = format!("… {} bytes", HumanCount(text.len() as u64));
    let is_worth_telling = text.len() >= LARGE && width >= size.len() * 2;
    let mark = if is_worth_telling { size } else { "…".to_owned() };
    console::truncate_str(text, width, &mark).into_owned()
}

/// Breaks a text into lines of a width, between words where possible.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        let wide = console::measure_text_width(word.trim_end());
        if used > 0 && used + wide > width {
            lines.push(String::new());
            used = 0;
        }
        for character in word.chars() {
            let wide = console::measure_text_width(character.encode_utf8(&mut [0; 4]));
            if used + wide > width && character != ' ' {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.push(character);
            }
            used += wide;
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Blanks between columns.
const GAP: u16 = 2;
/// The minimum width of the last column. With less room, rows become lines of their own.
const LEAST: usize = 32;
/// Blanks before the further lines of a row.
const INDENT: usize = 4;
/// The most lines of the last cell of such a row.
const STACKED_LINES: usize = 3;
/// A cell of at least this many bytes shows its length when it is cut.
const LARGE: usize = 200;
/// The longest cell, in columns, without `--full`.
const LONGEST: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_how_long_it_is() {
        assert_eq!(cut("short", 5), "short");
        let shown = cut(&"x".repeat(60_000), 400);
        assert!(shown.ends_with("x… 60,000 bytes"), "{shown}");
        assert_eq!(console::measure_text_width(&shown), 400);
        assert_eq!(cut("日本語日本語", 5), "日本…", "by what it takes on the screen");
    }

    fn shown(listing: Listing, width: Option<usize>) -> String {
        let mut bytes = Vec::new();
        listing.write_to(&mut bytes, width, false).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn of_a_log() -> Listing {
        let mut listing = Listing::new(&[">entry", "time", "actor", "kind", "what"]);
        let at = "2026-03-01 09:00:00 +00:00";
        row!(
            listing,
            9,
            at,
            "ann",
            "intent",
            format!("create note/1 {{\"text\":\"{}\"}}", "word ".repeat(12_000))
        );
        row!(listing, 10, at, "ann", "control", "acked note/1 r1");
        listing
    }

    /// A value of 60,000 bytes once padded each line of a `log` to 65,586 characters.
    #[test]
    fn no_line_is_padded_and_a_long_value_is_cut_unless_it_is_asked_for() {
        let piped = shown(of_a_log(), None);
        assert!(piped.lines().all(|line| line.len() < 500 && line.trim_end() == line), "{piped}");
        assert!(piped.contains("… 60,025 bytes"), "{piped}");
        let full = shown(of_a_log().full(true), None);
        let lengths: Vec<_> = full.lines().map(str::len).collect();
        assert!(
            lengths.len() == 3 && lengths[0] < 100 && lengths[1] > 60_000 && lengths[2] < 100,
            "{lengths:?}"
        );
    }

    /// At 60 columns, the last column once had 15.
    #[test]
    fn what_a_row_says_has_room_however_narrow_the_terminal_is() {
        for width in [40, 60, 80, 120] {
            let shown = shown(of_a_log(), Some(width));
            let widest = shown.lines().map(console::measure_text_width).max().unwrap();
            assert!(widest <= width, "{widest} of {width}: {shown}");
            let said: usize =
                shown.lines().filter(|line| line.contains("word")).map(str::len).sum();
            assert!(said >= 60, "{width}: {shown}");
        }
        let narrow = shown(of_a_log(), Some(60));
        assert!(
            narrow.contains("10  2026-03-01 09:00:00 +00:00  ann  control\n    acked note/1 r1\n"),
            "{narrow}"
        );
        let wide = shown(of_a_log(), Some(120));
        assert!(wide.contains("ann    control  acked note/1 r1\n"), "{wide}");
    }

    #[test]
    fn sentences_are_broken_into_lines_and_never_cut() {
        let mut listing = Listing::new(&["field", "value"]).wrapped();
        let sentence =
            "held: it refers to person/2, which was deleted, and someone has to correct it first";
        row!(listing, "state", sentence);
        let lines = shown(listing, Some(40));
        assert_eq!(lines.split_whitespace().skip(3).collect::<Vec<_>>().join(" "), sentence);
    }

    #[test]
    fn lines_are_broken_between_words_and_else_where_they_end() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("日本語", 4), ["日本", "語"]);
    }
}
