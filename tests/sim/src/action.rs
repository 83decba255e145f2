//! What can happen in a simulated world, and what it starts from: data, so that a failing run can be kept, cut down and
//! played again.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::disk::Loss;
use crate::server::Trouble;
use crate::way::Way;

/// What a world starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Where ids, salts and jitter come from.
    pub seed: u64,
    /// How many devices there are.
    pub devices: usize,
    /// How many records of each entity type there can be.
    pub records: usize,
    /// How conflicts are settled: see [`crate::app::schema`].
    pub policy: u8,
    /// Whether the fields of a record win or lose together.
    pub whole_record: bool,
    /// How long an op can be undone, in milliseconds.
    pub undo_window: u64,
    /// Whether notes go before leads.
    pub priorities: bool,
    /// Whether leads refer to notes as notes do to leads.
    pub mutual_references: bool,
    /// Whether an answer is still taken in after its exchange was given up.
    pub late_answers: bool,
    /// How far each device's wall clock is off at the start, in milliseconds.
    pub clock_errors: Vec<i64>,
    /// Whether each exchange is made by a process of its own, so that nothing is remembered from the one before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_shot: bool,
}

/// One mutation as the world's app asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// What.
    pub kind: Kind,
    /// Whether of a note; else of a lead.
    pub note: bool,
    /// Whether of a task, of which the first version of the app knows nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub task: bool,
    /// Which, counted round.
    pub record: usize,
    /// The fields.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

const fn is_false(value: &bool) -> bool {
    !*value
}

/// What may be denied to someone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// To exchange anything, for who uses this device.
    Exchange(usize),
    /// To change records of this entity type, counted round.
    Change(usize),
}

/// What an edit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Makes a record.
    Create,
    /// Changes some fields.
    Update,
    /// Gives a new image.
    Replace,
    /// Takes it away.
    Delete,
    /// An update if it is there, else a create: what a form does.
    Save,
}

/// One thing that happens. Numbers of devices and messages are counted round, so that a list with actions left out still
/// plays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The app writes.
    Write {
        /// Where.
        device: usize,
        /// What.
        edit: Edit,
    },
    /// The app writes several changes as one.
    Transaction {
        /// Where.
        device: usize,
        /// What.
        edits: Vec<Edit>,
    },
    /// A device prepares an exchange, and its request leaves.
    Begin {
        /// Which device.
        device: usize,
        /// Whether it sends units.
        push: bool,
        /// Whether it wants an exchange even so.
        pull: bool,
        /// The most ops.
        batch: usize,
        /// The most changes.
        page: u32,
    },
    /// A message arrives.
    Deliver {
        /// Which of those under way.
        message: usize,
        /// What the server does out of the ordinary.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trouble: Option<Trouble>,
    },
    /// A message is lost.
    Drop {
        /// Which of those under way.
        message: usize,
    },
    /// A message is there twice.
    Duplicate {
        /// Which of those under way.
        message: usize,
    },
    /// The end of an answer is cut off.
    Truncate {
        /// Which of those under way.
        message: usize,
    },
    /// A device gives its exchange up.
    GiveUp {
        /// Which device.
        device: usize,
    },
    /// Time goes by everywhere.
    Advance {
        /// How much.
        milliseconds: u64,
    },
    /// A wall clock is moved.
    ClockJump {
        /// Which device's.
        device: usize,
        /// By how much.
        milliseconds: i64,
    },
    /// A wall clock stands elsewhere for one edit and a minute.
    ClockStrays {
        /// Which device's.
        device: usize,
        /// By how much.
        milliseconds: i64,
        /// What is written meanwhile.
        edit: Edit,
    },
    /// Something stands in the way of everyone from now on, or is wrong with the server, in place of what was; or nothing is.
    Way(Option<Way>),
    /// The power goes, or the process is killed, between two calls.
    Crash {
        /// Which device's.
        device: usize,
        /// What is lost.
        loss: Loss,
        /// Whether unsynced writes can still be lost later: the process died, not the machine.
        killed: bool,
    },
    /// The power will go amid a call.
    CrashAfter {
        /// Which device's.
        device: usize,
        /// After so many further changes of the disk.
        changes: u64,
        /// What is lost then.
        loss: Loss,
        /// And once more, so many changes into the recovery.
        again: Option<u64>,
    },
    /// One change of the disk will fail.
    DiskError {
        /// Which device's.
        device: usize,
        /// After so many further changes.
        changes: u64,
    },
    /// The book is closed and opened.
    Reopen {
        /// Which device's.
        device: usize,
    },
    /// A person sends a dead letter again.
    Retry {
        /// Which device.
        device: usize,
        /// Which dead letter, counted round.
        letter: usize,
    },
    /// A person gives a dead letter up.
    Discard {
        /// Which device.
        device: usize,
        /// Which dead letter, counted round.
        letter: usize,
    },
    /// A person corrects a dead letter and sends it again.
    Correct {
        /// Which device.
        device: usize,
        /// Which dead letter, counted round.
        letter: usize,
        /// The correction.
        fields: Map<String, Value>,
    },
    /// A person takes an op back.
    Undo {
        /// Which device.
        device: usize,
        /// Which of its ops, counted back from the newest, counted round.
        back: usize,
    },
    /// A person chooses in an open conflict, or has the other side of a settled one win.
    Decide {
        /// Which device.
        device: usize,
        /// Which conflict, counted back from the newest, counted round.
        back: usize,
        /// Whether the device's own value is to stand.
        mine: bool,
    },
    /// There are new credentials, and the app was upgraded.
    Renew {
        /// Which device.
        device: usize,
    },
    /// The tables are thrown away and folded anew.
    Rebuild {
        /// Which device's.
        device: usize,
    },
    /// No message gets through to a device or from it, until one does again.
    Partition {
        /// Which device.
        device: usize,
        /// Whether it begins.
        begins: bool,
    },
    /// The server denies something, until it grants it again.
    Permission {
        /// What.
        right: Right,
        /// Whether it is granted.
        granted: bool,
    },
    /// The next version of the app opens the book.
    Upgrade {
        /// Which device's.
        device: usize,
    },
    /// The disk is copied to a new device.
    Clone {
        /// Which device's.
        device: usize,
    },
    /// A backup of the server's store is made.
    Backup,
    /// The server's store goes back to the backup, or to its beginning.
    Restore {
        /// Whether the server says so by a new epoch.
        declared: bool,
    },
    /// A person accepts the server that answers.
    AcceptServer {
        /// Which device.
        device: usize,
    },
}

/// A run that can be played: what it starts from and what happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// What it showed.
    pub story: String,
    /// What it starts from.
    pub setup: Setup,
    /// What happens.
    pub actions: Vec<Action>,
}

impl Action {
    /// Returns the kind of fault this is, if it is one.
    pub const fn fault(&self) -> Option<&'static str> {
        Some(match self {
            Self::Deliver { trouble: Some(_), .. } => "server trouble",
            Self::Drop { .. } => "message lost",
            Self::Duplicate { .. } => "message doubled",
            Self::Truncate { .. } => "answer truncated",
            Self::GiveUp { .. } => "exchange given up",
            Self::ClockJump { .. } => "clock jump",
            Self::ClockStrays { .. } => "clock astray for a minute",
            Self::Way(Some(way)) => way.fault(),
            Self::Crash { .. } => "crash between calls",
            Self::CrashAfter { .. } => "crash amid a call",
            Self::DiskError { .. } => "disk error",
            Self::Partition { begins: true, .. } => "partition",
            Self::Permission { granted: false, .. } => "permission revoked",
            Self::Upgrade { .. } => "schema upgrade",
            Self::Clone { .. } => "disk cloned",
            Self::Restore { .. } => "server restored",
            _ => return None,
        })
    }
}
