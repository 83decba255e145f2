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

use fieldbook::{Rejected, StoreError};

use crate::show::plain;

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

    /// Says what an error says, and its causes.
    pub(crate) fn caused_by(error: impl Error + Send + Sync + 'static) -> Self {
        Self::new(error.to_string()).because(error)
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
        writeln!(writer, "{} {}", console::style("error:").for_stderr().red().bold(), plain(&self.what))?;
        let mut said = self.what.clone();
        let mut cause: Option<&(dyn Error + 'static)> = self.source.as_deref().map(|source| source as _);
        while let Some(error) = cause {
            let words = error.to_string();
            // A transparent wrapper says the same as what it wraps, and some repeat it at their end.
            if !said.ends_with(&words) {
                writeln!(writer, "  because {}", plain(&words))?;
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

/// Tells something beside the result on standard error.
pub(crate) fn note(text: &str) {
    // If standard error is gone, nobody would have read it.
    drop(writeln!(io::stderr().lock(), "{} {text}", console::style("note:").for_stderr().yellow()));
}

/// What the book says, and what to do where the message does not tell.
impl From<fieldbook::Error> for Failure {
    fn from(error: fieldbook::Error) -> Self {
        let hint = match &error {
            fieldbook::Error::Store(store) => store_hint(store),
            fieldbook::Error::Rejected(Rejected::Exists(_)) => {
                Some("`fieldbook put --replace` gives it a new image, `fieldbook patch` changes some fields")
            }
            fieldbook::Error::Rejected(Rejected::Missing(_)) => {
                Some("`fieldbook put` creates a record, `fieldbook ls` shows what there is")
            }
            _ => None,
        };
        let failure = Self::caused_by(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        fieldbook::Error::from(error).into()
    }
}

fn store_hint(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::NotFound { .. } => Some("check the path; `fieldbook init PATH` makes a new book"),
        StoreError::AlreadyOpen { .. } => {
            Some("close the app or program that has it open, or look at a copy of the file")
        }
        StoreError::NotABook { .. } => Some("check the path; the file was left as it is"),
        StoreError::Corrupt { .. } => {
            Some("keep the file as it is; `fieldbook verify` says where the log is damaged")
        }
        _ => None,
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
