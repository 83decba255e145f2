//! A failure: one line, its causes below it, and what to do.
//!
//! ```text
//! error: there is no conflict 9.2
//! hint: this lists the conflicts:
//!   fieldbook conflicts list ann.book
//! ```
//!
//! Text from elsewhere is escaped, so it cannot control the terminal. Commands run as they are
//! printed.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use fieldbook::error::{NotPossible, Rejected, StoreError};

use crate::files::{begins_like_an_exported_log, redaction_of};
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
    /// The command could not be carried out, or a check found a fault: exit code 1.
    Failed,
    /// The arguments are wrong: exit code 2.
    Usage,
    /// The reader closed the output, as `head` does. Nothing is printed: exit code 0.
    OutputClosed,
}

impl Failure {
    /// Makes a failure of a command.
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

    /// Makes a failure of wrong arguments.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(what) }
    }

    /// Makes a failure with an error's text and causes.
    pub(crate) fn caused_by(error: impl Error + Send + Sync + 'static) -> Self {
        Self::new(error.to_string()).because(error)
    }

    /// Replaces the first line.
    #[must_use]
    pub(crate) fn of(mut self, what: impl Into<String>) -> Self {
        self.what = what.into();
        self
    }

    /// Adds the cause. Its own causes follow, a line each.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds further faults, a line each.
    #[must_use]
    pub(crate) fn also(mut self, others: impl IntoIterator<Item = String>) -> Self {
        self.also.extend(others);
        self
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds commands that help.
    #[must_use]
    pub(crate) fn advise(mut self, advice: Advice) -> Self {
        self.advice = self.advice.and(advice);
        self
    }

    /// Writes the failure to standard error and returns the exit code. `book` is the book of the
    /// command.
    pub(crate) fn report(&self, book: Option<&Path>) -> ExitCode {
        match self.kind {
            Kind::OutputClosed => return ExitCode::SUCCESS,
            // Standard error may be closed too. The exit code reports the failure.
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
        writeln!(
            writer,
            "{} {}",
            console::style("error:").for_stderr().red().bold(),
            plain(&self.what)
        )?;
        let mut said = self.what.clone();
        let mut cause: Option<&(dyn Error + 'static)> =
            self.source.as_deref().map(|source| source as _);
        while let Some(error) = cause {
            let words = error.to_string();
            // A transparent error has the same text as its cause, and some errors end with it.
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

/// Writes a note to standard error, with commands that help.
pub(crate) fn note(text: &str, advice: &Advice, book: &Path) {
    let mut stderr = io::stderr().lock();
    let told =
        writeln!(stderr, "{} {}", console::style("note:").for_stderr().yellow(), plain(text));
    let lines = advice.lines(Some(book));
    // Standard error may be closed.
    drop(told.and_then(|()| lines.iter().try_for_each(|line| writeln!(stderr, "  {line}"))));
}

/// An error of the book, with what to do if its text does not contain that.
impl From<fieldbook::Error> for Failure {
    fn from(error: fieldbook::Error) -> Self {
        let (hint, advice) = match &error {
            fieldbook::Error::Store(store) => store_hint(store),
            fieldbook::Error::Rejected(Rejected::Exists(key)) => (
                "look at it first; `put --replace` replaces it, `patch` changes some fields",
                Advice::default().run(["get", BOOK, &key.to_string()]),
            ),
            fieldbook::Error::Rejected(Rejected::Missing(key)) => (
                "these list the records of its type and create it:",
                Advice::default().run(["ls", BOOK, key.entity.as_str()]).choose([
                    "put",
                    BOOK,
                    &key.to_string(),
                    "{}",
                ]),
            ),
            fieldbook::Error::NotPossible(why) => not_possible_hint(*why),
            fieldbook::Error::LacksRules { .. } => (
                "the file is unchanged. The app itself can do this. The help of this command says what may go wrong \
                 with --without-app-rules",
                Advice::default(),
            ),
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

/// A failure of a play.
impl From<fieldbook_play::Failure> for Failure {
    fn from(failure: fieldbook_play::Failure) -> Self {
        let kind = if failure.is_usage { Kind::Usage } else { Kind::Failed };
        let hint = failure.hint.map(str::to_owned);
        Self { kind, source: failure.source, hint, ..Self::new(failure.what) }
    }
}

/// Returns the command that shows what can be decided about, after a decision that is not possible.
fn not_possible_hint(why: NotPossible) -> (&'static str, Advice) {
    let advice = Advice::default();
    match why {
        NotPossible::NoSuchOp(_) => {
            ("the log shows the place of each op:", advice.run(["log", BOOK]))
        }
        NotPossible::NotPending(_) | NotPossible::NotRefused(_) | NotPossible::NotHeld(_) => {
            ("this lists the pending ops, and why they wait:", advice.run(["queue", BOOK]))
        }
        NotPossible::NoSuchConflict(_)
        | NotPossible::ConflictIsOpen
        | NotPossible::ConflictIsResolved
        | NotPossible::ConflictIsMerged => {
            ("this lists the conflicts:", advice.run(["conflicts", "list", BOOK]))
        }
        _ => ("", advice),
    }
}

fn store_hint(error: &StoreError) -> (&'static str, Advice) {
    let advice = Advice::default();
    match error {
        StoreError::NotFound { path } => (
            "check the path; this creates a book:",
            advice.choose(["init".into(), path.as_os_str().to_owned()]),
        ),
        // A copy made while the book is open may have half of a commit, so the hint advises against
        // one.
        StoreError::AlreadyOpen { .. } => (
            "close the app or program that has it open; a copy made while it is open may be damaged",
            advice,
        ),
        StoreError::NotABook { path, .. } if begins_like_an_exported_log(path) => (
            "it is an exported log or a bundle. Commands that only read take it, and this checks it:",
            advice.run(["verify", BOOK]),
        ),
        StoreError::NotABook { .. } => (
            "check the path; the file is unchanged. If it was a book, this makes a new one of what is left in it:",
            advice.choose(["salvage", BOOK, "new.book"]),
        ),
        StoreError::ReadOnly { .. } => (
            "commands that only read still work; to change the book, copy it to a folder that can be written",
            advice,
        ),
        StoreError::Denied { .. } => ("ask the owner of the file", advice),
        StoreError::Corrupt { .. } => damage_hint(),
        _ => ("", advice),
    }
}

/// Returns what to do about a damaged exported log or bundle.
pub(crate) fn export_again(path: &Path) -> &'static str {
    if is_bundle(path) {
        "the bundle is damaged, and nothing is known of the book: ask for the file again, or for a new bundle"
    } else {
        "export the log again; if that fails too, the book itself is damaged"
    }
}

/// Returns whether a file is a bundle, as far as its cover can be read.
fn is_bundle(path: &Path) -> bool {
    redaction_of(path).is_ok_and(|redaction| redaction.is_some())
}

/// Makes the failure for an exported log or a bundle that cannot be read.
pub(crate) fn of_export(error: fieldbook::Error, path: &Path) -> Failure {
    let is_damaged = matches!(
        &error,
        fieldbook::Error::Store(store) if matches!(**store, StoreError::Corrupt { .. })
    );
    if is_damaged {
        let what = if is_bundle(path) { "the bundle" } else { "the exported log" };
        let failure = Failure::caused_by(error).of(format!("{what} is damaged"));
        return failure.hint(export_again(path));
    }
    error.into()
}

/// Returns what to do about a damaged book.
fn damage_hint() -> (&'static str, Advice) {
    (
        "keep the file. A copy made while an app has the book open may be damaged: close the app and copy it \
         again. The first command lists the damage. If the log is sound, the second folds the tables anew. \
         Otherwise the third makes a new book of what is left in the file:",
        Advice::default()
            .run(["verify", BOOK])
            .choose(["rebuild", BOOK])
            .choose(["salvage", BOOK, "new.book"]),
    )
}

/// Makes the failure for a panic of the storage engine.
pub(crate) fn damaged_pages() -> Failure {
    let (hint, advice) = damage_hint();
    Failure::new("the book is damaged")
        .because("the storage engine cannot read some pages of its file")
        .hint(hint)
        .advise(advice)
}

/// A failure to write to standard output. A failure to write another file is made with
/// [`Failure::because`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { kind: Kind::OutputClosed, ..Self::new("the reader closed the output") };
        }
        Self::new("cannot write to standard output").because(error)
    }
}
