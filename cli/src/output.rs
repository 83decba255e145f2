//! Standard output: buffered, aware of whether a person looks at it, and quiet when the reader has gone.

use std::io::{self, BufWriter, Stdout, Write};

use crate::error::Failure;

/// Where results go. Written with `write!` and `writeln!`.
pub(crate) struct Output {
    writer: BufWriter<Stdout>,
    terminal: console::Term,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { writer: BufWriter::new(io::stdout()), terminal: console::Term::stdout() }
    }

    /// Returns whether a terminal shows what is written.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal.is_term()
    }

    /// Returns how many columns the terminal has, if one shows what is written.
    pub(crate) fn width(&self) -> Option<u16> {
        self.is_terminal().then(|| self.terminal.size().1)
    }

    /// Returns whether colours are welcome: on a terminal, unless `NO_COLOR` or `CLICOLOR=0` says otherwise.
    pub(crate) fn colours(&self) -> bool {
        console::colors_enabled()
    }

    /// Writes a value as JSON, one line.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, value).map_err(io::Error::from)?;
        self.writer.write_all(b"\n")?;
        Ok(())
    }

    /// Hands everything on to the reader now.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.writer.flush()?)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
