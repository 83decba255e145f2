//! Standard output: buffered, with the width of the terminal, and silent when the reader has closed
//! it.

use std::fs::File;
use std::io::{self, BufWriter, Stdout, Write};
use std::path::Path;

use crate::error::Failure;
use crate::files::{may_be_written, shown};
use crate::show::Visible;

/// The destination of results. Commands write to it with `write!` and `writeln!`.
pub(crate) struct Output {
    writer: BufWriter<Stdout>,
    terminal: console::Term,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { writer: BufWriter::new(io::stdout()), terminal: console::Term::stdout() }
    }

    /// Returns whether standard output is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal.is_term()
    }

    /// Returns the number of columns, if standard output is a terminal.
    pub(crate) fn width(&self) -> Option<u16> {
        self.is_terminal().then(|| self.terminal.size().1)
    }

    /// Returns whether to use colours: on a terminal, unless `NO_COLOR` or `CLICOLOR=0` forbids
    /// them.
    pub(crate) fn colours(&self) -> bool {
        console::colors_enabled()
    }

    /// Writes a value as one line of JSON, with hidden characters escaped.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        value
            .serialize(&mut serde_json::Serializer::with_formatter(&mut self.writer, Visible))
            .map_err(io::Error::from)?;
        self.writer.write_all(b"\n")?;
        Ok(())
    }

    /// Sends everything written so far to the reader.
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

/// Writes a temporary file beside `path`, and moves it to `path` when it is complete.
pub(crate) fn write_whole<T>(
    path: &Path,
    overwrite: bool,
    write: impl FnOnce(&mut File) -> Result<T, Failure>,
) -> Result<T, Failure> {
    may_be_written(path, overwrite)?;
    let failed = |error| Failure::new(format!("cannot write {}", shown(path))).because(error);
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary =
        tempfile::Builder::new().prefix(".fieldbook-").tempfile_in(folder).map_err(failed)?;
    let written = write(temporary.as_file_mut())?;
    temporary.as_file().sync_all().map_err(failed)?;
    let moved = if overwrite { temporary.persist(path) } else { temporary.persist_noclobber(path) };
    moved.map_err(|refused| match refused.error.kind() {
        // Another program made the file in the meantime.
        io::ErrorKind::AlreadyExists => {
            may_be_written(path, overwrite).err().unwrap_or_else(|| failed(refused.error))
        }
        _ => failed(refused.error),
    })?;
    Ok(written)
}
