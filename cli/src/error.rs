//! Why a command did not do what was asked: one line, the causes below it, and what to do.
//!
//! ```text
//! error: there is no conflict 9.2
//! hint: these are those that there are:
//!   fieldbook conflicts list ann.book
//! ```
//!
//! What others wrote is shown so that it cannot steer the terminal, and commands run as they are printed.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use fieldbook::error::{NotPossible, Rejected, StoreError};

use crate::show::advice::{Advice, BOOK};
use crate::show::plain;

/// A command that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    kind: Kind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    also: Vec<String>,
    hint: Option<String>,
    advice: Advice,
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
        Self {
            kind: Kind::Failed,
            what: what.into(),
            source: None,
            also: Vec::new(),
            hint: None,
            advice: Advice::default(),
        }
    }

    /// Says what is wrong with the call itself.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(what) }
    }

    /// Says what an error says, and its causes.
    pub(crate) fn caused_by(error: impl Error + Send + Sync + 'static) -> Self {
        Self::new(error.to_string()).because(error)
    }

    /// Says what it means for what was asked.
    #[must_use]
    pub(crate) fn of(mut self, what: impl Into<String>) -> Self {
        self.what = what.into();
        self
    }

    /// Says why. Its own causes follow line by line.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says what else is wrong, a line each.
    #[must_use]
    pub(crate) fn also(mut self, others: impl IntoIterator<Item = String>) -> Self {
        self.also.extend(others);
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says which commands help.
    #[must_use]
    pub(crate) fn advise(mut self, advice: Advice) -> Self {
        self.advice = self.advice.and(advice);
        self
    }

    /// Writes the failure to standard error and returns the exit code. `book` is the one that was asked about.
    pub(crate) fn report(&self, book: Option<&Path>) -> ExitCode {
        match self.kind {
            Kind::OutputClosed => return ExitCode::SUCCESS,
            // If standard error is gone too, the exit code still tells.
            Kind::Failed | Kind::Usage => drop(self.write_to(book, &mut io::stderr().lock())),
        }
        ExitCode::from(self.code())
    }

    /// Returns the exit code.
    pub(crate) fn code(&self) -> u8 {
        match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::OutputClosed => 0,
        }
    }

    fn write_to(&self, book: Option<&Path>, writer: &mut impl Write) -> io::Result<()> {
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
        self.also.iter().try_for_each(|other| writeln!(writer, "  also {}", plain(other)))?;
        let lines = self.advice.lines(book);
        let hint = self.hint.as_deref().or((!lines.is_empty()).then_some("this helps:"));
        if let Some(hint) = hint {
            writeln!(writer, "{} {}", console::style("hint:").for_stderr().cyan(), plain(hint))?;
        }
        lines.iter().try_for_each(|line| writeln!(writer, "  {line}"))
    }
}

/// Tells something beside the result on standard error, and which commands help.
pub(crate) fn note(text: &str, advice: &Advice, book: &Path) {
    let mut stderr = io::stderr().lock();
    let told = writeln!(stderr, "{} {}", console::style("note:").for_stderr().yellow(), plain(text));
    let lines = advice.lines(Some(book));
    // If standard error is gone, nobody would have read it.
    drop(told.and_then(|()| lines.iter().try_for_each(|line| writeln!(stderr, "  {line}"))));
}

/// What the book says, and what to do where the message does not tell.
impl From<fieldbook::Error> for Failure {
    fn from(error: fieldbook::Error) -> Self {
        let (hint, advice) = match &error {
            fieldbook::Error::Store(store) => store_hint(store),
            fieldbook::Error::Rejected(Rejected::Exists(key)) => (
                "look at it first; `put --replace` gives it a new image, `patch` changes some fields",
                Advice::default().run(["get", BOOK, &key.to_string()]),
            ),
            fieldbook::Error::Rejected(Rejected::Missing(key)) => (
                "this is what there is, and what creates a record:",
                Advice::default().run(["ls", BOOK, key.entity.as_str()]).choose([
                    "put",
                    BOOK,
                    &key.to_string(),
                    "{}",
                ]),
            ),
            fieldbook::Error::NotPossible(why) => not_possible_hint(*why),
            _ => return Self::caused_by(error),
        };
        let failure = Self::caused_by(error).advise(advice);
        if hint.is_empty() { failure } else { failure.hint(hint) }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        fieldbook::Error::from(error).into()
    }
}

/// Why a play could not be made.
impl From<fieldbook_play::Failure> for Failure {
    fn from(failure: fieldbook_play::Failure) -> Self {
        let kind = if failure.is_usage { Kind::Usage } else { Kind::Failed };
        let hint = failure.hint.map(str::to_owned);
        Self { kind, source: failure.source, hint, ..Self::new(failure.what) }
    }
}

/// What there is to decide about, where a decision cannot be carried out.
fn not_possible_hint(why: NotPossible) -> (&'static str, Advice) {
    let advice = Advice::default();
    match why {
        NotPossible::NoSuchOp(_) => ("the log names the place of each op:", advice.run(["log", BOOK])),
        NotPossible::NotPending(_) | NotPossible::NotRefused(_) | NotPossible::NotHeld(_) => {
            ("this is what waits, and for what:", advice.run(["queue", BOOK]))
        }
        NotPossible::NoSuchConflict(_)
        | NotPossible::ConflictIsOpen
        | NotPossible::ConflictIsSettled
        | NotPossible::ConflictIsMerged => {
            ("these are the conflicts that there are:", advice.run(["conflicts", "list", BOOK]))
        }
        _ => ("", advice),
    }
}

fn store_hint(error: &StoreError) -> (&'static str, Advice) {
    let advice = Advice::default();
    match error {
        StoreError::NotFound { path } => (
            "check the path; this makes a new book:",
            advice.choose(["init".into(), path.as_os_str().to_owned()]),
        ),
        // A copy made meanwhile may hold the halves of two commits, so it is no way to look.
        StoreError::AlreadyOpen { .. } => {
            ("close the app or program that has it open; a copy made while it is open may be damaged", advice)
        }
        StoreError::NotABook { .. } => ("check the path; the file was left as it is", advice),
        StoreError::ReadOnly { .. } => (
            "to look at the book needs no more than reading; to change it, copy it to where it can be written",
            advice,
        ),
        StoreError::Denied { .. } => ("ask whoever owns the file", advice),
        StoreError::Corrupt { .. } => damage_hint(),
        _ => ("", advice),
    }
}

/// What to do about a damaged book.
fn damage_hint() -> (&'static str, Advice) {
    (
        "keep the file as it is. A copy made while an app had the book open is damaged easily: close the app and copy it \
         again. This lists what is damaged; if the log is not, the tables can be folded anew from it:",
        Advice::default().run(["verify", BOOK]).choose(["rebuild", BOOK]),
    )
}

/// The storage engine stopped over what it read.
pub(crate) fn damaged_pages() -> Failure {
    let (hint, advice) = damage_hint();
    Failure::new("the book is damaged")
        .because("its file holds pages that the storage engine cannot read")
        .hint(hint)
        .advise(advice)
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
