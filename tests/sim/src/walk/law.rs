//! The laws, by name, and the report of a broken law.

use std::fmt;

/// A law that every state of a world has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// Everything that the rules receive can be read, and everything that they make can be stored.
    Sound,
    /// Every op waits, or has ended once.
    Outcome,
    /// A conflict is recorded only with writes that its author had not received.
    NoFalse,
    /// A write that is not at the server in the end was overwritten by an author who had read it,
    /// or is recorded, or a person's decision ended it.
    NothingLost,
    /// A write does not return after an author who had read it has overwritten it.
    NothingTwice,
    /// Without faults the world comes to rest.
    Rest,
    /// At rest, every device reads the server's state, except for ops that wait for a person.
    Equal,
    /// At rest, the server has the join of the accepted writes: in each field the write with the
    /// greatest stamp. It is tested only with last write wins and without deletions.
    Join,
    /// An index lists what a scan finds, and a live list is told of every change in it, with the
    /// steps from its rows before to those after.
    Lists,
    /// A search finds what a scorer finds that looks at every record.
    Search,
}

/// Every law.
pub const LAWS: [Law; 10] = [
    Law::Sound,
    Law::Outcome,
    Law::NoFalse,
    Law::NothingLost,
    Law::NothingTwice,
    Law::Rest,
    Law::Equal,
    Law::Join,
    Law::Lists,
    Law::Search,
];

impl Law {
    /// Returns the name on the command line and in the output.
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
            Self::Lists => "lists",
            Self::Search => "search",
        }
    }

    /// Finds a law by its name.
    pub fn parse(word: &str) -> Option<Self> {
        LAWS.into_iter().find(|law| law.as_str() == word)
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A broken law, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The law.
    pub law: Law,
    /// The evidence.
    pub what: String,
}

impl Broken {
    pub(super) fn new(law: Law, what: impl Into<String>) -> Self {
        Self { law, what: what.into() }
    }

    /// Makes the report of a failure of a rule or of the fold.
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
