//! The laws, by name, and what is said when one is broken.

use std::fmt;

/// A law that every state of a world has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// What the rules are given reads, and what they make can be stored.
    Sound,
    /// Every op waits, or has ended once.
    Outcome,
    /// A conflict is on record only with writes that the author had not been told of.
    NoFalse,
    /// What is not at the server in the end was overwritten by somebody who knew it, or is on record, or ended by a person's word.
    NothingLost,
    /// What somebody overwrote knowingly does not come back.
    NothingTwice,
    /// Without faults it comes to rest.
    Rest,
    /// At rest, every device reads what the server has, but for what waits for a person.
    Equal,
    /// At rest, the server has the join of what was taken: in each field the write with the greatest stamp. Only asked for where the
    /// last write wins and nothing was deleted.
    Join,
}

/// Every law.
pub const LAWS: [Law; 8] = [
    Law::Sound,
    Law::Outcome,
    Law::NoFalse,
    Law::NothingLost,
    Law::NothingTwice,
    Law::Rest,
    Law::Equal,
    Law::Join,
];

impl Law {
    /// Returns the word for it on the command line and in what is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Outcome => "outcome",
            Self::NoFalse => "false",
            Self::NothingLost => "lost",
            Self::NothingTwice => "twice",
            Self::Rest => "rest",
            Self::Equal => "equal",
            Self::Join => "join",
        }
    }

    /// Finds a law by its word.
    pub fn parse(word: &str) -> Option<Self> {
        LAWS.into_iter().find(|law| law.as_str() == word)
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A law that is broken, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The law.
    pub law: Law,
    /// What was seen.
    pub what: String,
}

impl Broken {
    pub(super) fn new(law: Law, what: impl Into<String>) -> Self {
        Self { law, what: what.into() }
    }

    /// A rule or the fold failed.
    pub(super) fn unsound(error: &dyn std::error::Error) -> Self {
        let mut what = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            what = format!("{what}: {error}");
            source = error.source();
        }
        Self::new(Law::Sound, what)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}
