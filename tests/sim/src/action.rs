//! The actions of a simulated world, and its setup. They are data, so that a failing run can be
//! kept, shrunk and repeated.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::disk::Loss;
use crate::server::Trouble;
use crate::way::Way;

/// The setup of a world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The seed of ids, salts and jitter.
    pub seed: u64,
    /// The number of devices.
    pub devices: usize,
    /// The most records of each entity type.
    pub records: usize,
    /// How conflicts are resolved: see [`crate::app::schema`].
    pub policy: u8,
    /// Whether the fields of a record win or lose together.
    pub whole_record: bool,
    /// How long an op can be undone, in milliseconds.
    pub undo_window: u64,
    /// Whether notes go before leads.
    pub priorities: bool,
    /// Whether leads refer to notes as notes do to leads.
    pub mutual_references: bool,
    /// Whether an answer is still applied after its exchange was given up.
    pub late_answers: bool,
    /// How far each device's wall clock is off at the start, in milliseconds.
    pub clock_errors: Vec<i64>,
    /// Whether a separate process makes each exchange, so that nothing in memory is left from the
    /// one before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_shot: bool,
}

/// One mutation that the world's app asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// The kind of mutation.
    pub kind: Kind,
    /// Whether the record is a note; otherwise it is a lead.
    pub note: bool,
    /// Whether the record is a task. The first version of the app has no tasks.
    #[serde(default, skip_serializing_if = "is_false")]
    pub task: bool,
    /// The number of the record, counted round.
    pub record: usize,
    /// The fields.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

const fn is_false(value: &bool) -> bool {
    !*value
}

/// A right that may be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// To exchange anything, for the user of this device.
    Exchange(usize),
    /// To change records of this entity type, counted round.
    Change(usize),
}

/// The kind of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Makes a record.
    Create,
    /// Changes some fields of the record.
    Update,
    /// Gives the record a new image.
    Replace,
    /// Deletes the record.
    Delete,
    /// An update if the record exists, otherwise a create, like saving a form.
    Save,
}

/// One action. Numbers of devices and messages wrap around, so that a list with actions left out
/// can still be played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The app writes.
    Write {
        /// The device.
        device: usize,
        /// The edit.
        edit: Edit,
    },
    /// The app writes several changes in one transaction.
    Transaction {
        /// The device.
        device: usize,
        /// The edits.
        edits: Vec<Edit>,
    },
    /// A device prepares an exchange, and its request leaves.
    Begin {
        /// The device.
        device: usize,
        /// Whether it sends units.
        push: bool,
        /// Whether it exchanges even without units to send.
        pull: bool,
        /// The most ops.
        batch: usize,
        /// The most changes.
        page: u32,
    },
    /// A message arrives.
    Deliver {
        /// The number of the message among those in flight.
        message: usize,
        /// A special behaviour of the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trouble: Option<Trouble>,
    },
    /// A message is lost.
    Drop {
        /// The number of the message among those in flight.
        message: usize,
    },
    /// A message is duplicated.
    Duplicate {
        /// The number of the message among those in flight.
        message: usize,
    },
    /// An answer arrives without one of the changes of its page, though its cursors pass over it.
    LeaveOut {
        /// The number of the answer among those in flight, counted round.
        message: usize,
        /// The number of the change, counted round.
        change: usize,
    },
    /// A device checks its records with the server.
    Check {
        /// The device.
        device: usize,
        /// Whether it mends what differs.
        mend: bool,
    },
    /// The end of an answer is cut off.
    Truncate {
        /// The number of the message among those in flight.
        message: usize,
    },
    /// A device gives its exchange up.
    GiveUp {
        /// The device.
        device: usize,
    },
    /// Time passes everywhere.
    Advance {
        /// The time that passes.
        milliseconds: u64,
    },
    /// A wall clock is moved.
    ClockJump {
        /// The device.
        device: usize,
        /// The change of the clock.
        milliseconds: i64,
    },
    /// A wall clock is wrong for one edit and a minute.
    ClockStrays {
        /// The device.
        device: usize,
        /// The change of the clock.
        milliseconds: i64,
        /// The edit that is written then.
        edit: Edit,
    },
    /// A fault affects everybody from now on, in the network or at the server, and replaces an
    /// earlier one; or the fault ends.
    Way(Option<Way>),
    /// The power fails, or the process is killed, between two calls.
    Crash {
        /// The device.
        device: usize,
        /// The loss.
        loss: Loss,
        /// Whether unsynced writes can still be lost later: the process died, not the machine.
        killed: bool,
    },
    /// The power will fail during a call.
    CrashAfter {
        /// The device.
        device: usize,
        /// The number of further changes of the disk before that.
        changes: u64,
        /// The loss.
        loss: Loss,
        /// A second power failure, after this many changes of the recovery.
        again: Option<u64>,
    },
    /// One change of the disk will fail.
    DiskError {
        /// The device.
        device: usize,
        /// The number of further changes of the disk before that.
        changes: u64,
    },
    /// The book is closed and opened.
    Reopen {
        /// The device.
        device: usize,
    },
    /// A person sends a dead letter again.
    Retry {
        /// The device.
        device: usize,
        /// The number of the dead letter, counted round.
        letter: usize,
    },
    /// A person discards a dead letter.
    Discard {
        /// The device.
        device: usize,
        /// The number of the dead letter, counted round.
        letter: usize,
    },
    /// A person corrects a dead letter and sends it again.
    Correct {
        /// The device.
        device: usize,
        /// The number of the dead letter, counted round.
        letter: usize,
        /// The correction.
        fields: Map<String, Value>,
    },
    /// A person undoes an op.
    Undo {
        /// The device.
        device: usize,
        /// The number of its op, counted back from the newest, counted round.
        back: usize,
    },
    /// A person chooses in an open conflict, or flips a resolved one.
    Decide {
        /// The device.
        device: usize,
        /// The number of the conflict, counted back from the newest, counted round.
        back: usize,
        /// Whether the device's own value should win.
        mine: bool,
    },
    /// There are new credentials, and the app was upgraded.
    Renew {
        /// The device.
        device: usize,
    },
    /// The tables are thrown away and folded again.
    Rebuild {
        /// The device.
        device: usize,
    },
    /// No message reaches a device or leaves it, until the partition ends.
    Partition {
        /// The device.
        device: usize,
        /// Whether it begins.
        begins: bool,
    },
    /// The server denies something, until it grants it again.
    Permission {
        /// The right.
        right: Right,
        /// Whether it is granted.
        granted: bool,
    },
    /// The next version of the app opens the book.
    Upgrade {
        /// The device.
        device: usize,
    },
    /// The disk is copied to a new device.
    Clone {
        /// The device.
        device: usize,
    },
    /// A backup of the server's store is made.
    Backup,
    /// The server's store goes back to the backup, or to its beginning.
    Restore {
        /// Whether the server declares it with a new epoch.
        declared: bool,
    },
    /// A person accepts the server that answers.
    AcceptServer {
        /// The device.
        device: usize,
    },
    /// The other of the device's two users uses the book from now on.
    SignIn {
        /// The device.
        device: usize,
    },
    /// A person hands a pending op of one of the device's users over to the other one.
    HandOver {
        /// The device.
        device: usize,
        /// The number of the pending op, counted round.
        back: usize,
    },
    /// A person takes the server's state in place of everything unsent.
    TakeState {
        /// The device.
        device: usize,
    },
    /// The user signs out and in again, and the device keeps the values of unsent changes only.
    KeepUnsent {
        /// The device.
        device: usize,
    },
    /// The app trims the oldest entries of the log.
    Compact {
        /// The device.
        device: usize,
        /// The number of the last entries that stay, at least.
        keep: u64,
    },
    /// A person searches.
    Search {
        /// The device.
        device: usize,
        /// The number of the entity type, counted round.
        entity: usize,
        /// What is asked for.
        asked: String,
        /// Whether the app folds the words first, as it does when it has nothing else to do.
        fold: bool,
    },
}

/// A run that can be played: its setup and its actions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The fault that it showed.
    pub story: String,
    /// The setup.
    pub setup: Setup,
    /// The actions.
    pub actions: Vec<Action>,
}

impl Action {
    /// Returns the kind of fault of this action, if it is a fault.
    pub const fn fault(&self) -> Option<&'static str> {
        Some(match self {
            Self::Deliver { trouble: Some(_), .. } => "server trouble",
            Self::Drop { .. } => "message lost",
            Self::Duplicate { .. } => "message doubled",
            Self::LeaveOut { .. } => "change left out",
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
