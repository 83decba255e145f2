//! Why a command did not do what was asked: one line, the causes below it, and what to do.
//!
//! ```text
//! error: cannot open ann.book
//!   because another process has this book open
//! hint: close the app that has it open, or copy the file and look at the copy
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

/// A command that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    kind: Kind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What was asked could not be done, or a check found a fault: exit code 1.
    Failed,
    /// What was asked makes no sense: exit code 2.
    Usage,
    /// Whoever read the output has gone, as `head` does: not worth a word, exit code 0.
    OutputClosed,
}

impl Failure {
    /// Says what could not be done.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, what: what.into(), source: None, hint: None }
    }

    /// Says what is wrong with the call itself.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(what) }
    }

    /// Says why. Its own causes follow line by line.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Writes the failure to standard error and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self.kind {
            Kind::OutputClosed => return ExitCode::SUCCESS,
            // If standard error is gone too, the exit code still tells.
            Kind::Failed | Kind::Usage => drop(self.write_to(&mut io::stderr().lock())),
        }
        ExitCode::from(if self.kind == Kind::Usage { 2 } else { 1 })
    }

    fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        writeln!(writer, "{} {}", console::style("error:").for_stderr().red().bold(), self.what)?;
        let mut said = self.what.clone();
        let mut cause: Option<&(dyn Error + 'static)> = self.source.as_deref().map(|source| source as _);
        while let Some(error) = cause {
            let words = error.to_string();
            // A transparent wrapper says the same as what it wraps.
            if words != said {
                writeln!(writer, "  because {words}")?;
            }
            said = words;
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            writeln!(writer, "{} {hint}", console::style("hint:").for_stderr().cyan())?;
        }
        Ok(())
    }
}

/// Writing to standard output failed. Other files say what they are with [`Failure::because`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { kind: Kind::OutputClosed, ..Self::new("the reader has gone") };
        }
        Self::new("cannot write to standard output").because(error)
    }
}
