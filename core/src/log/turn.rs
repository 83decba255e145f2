//! Who holds a book, and who asks for it: two files beside the book, each of one line and a lock.
//!
//! ```text
//!   crm.book.holder   the program that has the book open, as long as it has it
//!   crm.book.turn     the program that asks for the book, or waits to have it back
//! ```
//!
//! Invariants:
//! 1. The lock of the operating system decides. A line counts only while its file is locked, so
//!    nothing that a killed program left is believed. The id of a process is for people to read.
//! 2. A program locks a file before it writes its line, and empties the file before it unlocks it.
//! 3. The files say nothing about what is in the book. If they cannot be made, nobody is named and
//!    nobody can ask.
//!
//! What it is not: the lock of the book. The storage engine holds that one on the book itself.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::rules::lend::Role;
use crate::time::WallTime;

/// A program that holds a book, or asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Program {
    /// What the program is.
    pub role: Role,
    /// The id of its process. The system may use an id again.
    pub process: u32,
    /// Since when it holds the book, or asks for it, by its own clock.
    pub since: WallTime,
    /// The name and the version of the app, if it has told them.
    pub app: Option<String>,
}

impl Program {
    /// Describes this process.
    pub fn this(role: Role, since: WallTime, app: Option<String>) -> Self {
        Self { role, process: std::process::id(), since, app }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.process)?;
        if let Some(app) = &self.app {
            write!(f, " ({app})")?;
        }
        write!(f, " since {}", self.since)
    }
}

/// What a program wants of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wants {
    /// It has the book.
    Nothing,
    /// It asks for the book.
    Book,
    /// It has lent the book, and waits until the other lets go of it.
    Return,
}

/// The line of a file.
#[derive(Serialize, Deserialize)]
struct Line {
    wants: Wants,
    role: Role,
    process: u32,
    since_milliseconds: i64,
    app: Option<String>,
}

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Of the program that has the book.
    Holder,
    /// Of the program that asks.
    Turn,
}

/// Returns where a file is, for a book at this path.
pub fn beside(book: &Path, which: Which) -> PathBuf {
    let mut name = OsString::from(book);
    name.push(match which {
        Which::Holder => ".holder",
        Which::Turn => ".turn",
    });
    name.into()
}

/// A file that this process has locked. Dropping it empties and unlocks the file.
#[derive(Debug)]
pub struct Place(File);

impl Place {
    /// Locks a file and writes the line. `None` if another program has it locked.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn take(
        book: &Path,
        which: Which,
        program: &Program,
        wants: Wants,
    ) -> io::Result<Option<Self>> {
        let path = beside(book, which);
        // Emptied only once it is locked: the line may be of another program.
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut place = Self(file);
        let line = Line {
            wants,
            role: program.role,
            process: program.process,
            since_milliseconds: program.since.milliseconds(),
            app: program.app.clone(),
        };
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        place.0.set_len(0)?;
        place.0.rewind()?;
        place.0.write_all(&line)?;
        Ok(Some(place))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A line that stays is not believed without the lock.
        drop(self.0.set_len(0));
        drop(self.0.unlock());
    }
}

/// Returns who has a file locked now; `None` if nobody has, or nobody can tell.
pub fn look(book: &Path, which: Which) -> Option<(Program, Wants)> {
    let file = File::open(beside(book, which)).ok()?;
    match file.try_lock_shared() {
        Ok(()) => {
            drop(file.unlock());
            return None;
        }
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(_)) => return None,
    }
    let mut line = String::new();
    (&file).take(LINE_BYTES).read_to_string(&mut line).ok()?;
    let Line { wants, role, process, since_milliseconds, app } =
        serde_json::from_str(line.trim_end()).ok()?;
    let since = WallTime::from_milliseconds(since_milliseconds);
    Some((Program { role, process, since, app }, wants))
}

/// The longest line that is read.
const LINE_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        let app = Some("crm 2".to_owned());
        Program::this(Role::Background, WallTime::from_milliseconds(86_400_000), app)
    }

    #[test]
    fn a_line_counts_only_while_its_file_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("crm.book");
        let take = || Place::take(&book, Which::Turn, &program(), Wants::Book).unwrap();
        assert_eq!(look(&book, Which::Turn), None);
        let place = take().unwrap();
        assert_eq!(look(&book, Which::Turn), Some((program(), Wants::Book)));
        assert!(take().is_none(), "one at a time");
        assert_eq!(look(&book, Which::Holder), None);

        // A killed program leaves its line and no lock. Its process id may be somebody else's.
        let left = std::fs::read(beside(&book, Which::Turn)).unwrap();
        drop(place);
        std::fs::write(beside(&book, Which::Turn), left).unwrap();
        assert_eq!(look(&book, Which::Turn), None);
        assert!(take().is_some());
    }

    #[test]
    fn what_is_no_line_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("crm.book");
        let file = File::create(beside(&book, Which::Holder)).unwrap();
        file.lock().unwrap();
        for content in [&b""[..], b"{", b"{\"wants\":\"all\"}", &[0xff; 9_000]] {
            std::fs::write(beside(&book, Which::Holder), content).unwrap();
            assert_eq!(look(&book, Which::Holder), None);
        }
    }

    #[test]
    fn a_program_is_told_in_words() {
        let told = format!("process {} (crm 2) since 1970-01-02T00:00:00.000Z", std::process::id());
        assert_eq!(program().to_string(), told);
    }
}
