//! An explanation as data: what an app shows, and what the words are made of.

use std::fmt;

use serde::Serialize;

use crate::entry::Winner;
use crate::ids::OpId;
use crate::names::{Actor, RecordKey};
use crate::numbers::{ConflictId, Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::schema::Policy;
use crate::time::WallTime;

/// What there is to say of one record. Displayed, it is one sentence a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The record.
    pub key: RecordKey,
    /// Where it stands, in a word.
    pub standing: Standing,
    /// What the user sees.
    pub seen: Seen,
    /// What the server has confirmed; `None` if nothing.
    pub confirmed: Option<ExplainedVersion>,
    /// The ops that are still owed to the server, oldest first.
    pub ops: Vec<ExplainedOp>,
    /// The conflicts there were, oldest first.
    pub conflicts: Vec<ExplainedConflict>,
    /// Whether the server sent it, but its entity type is not declared.
    pub kept_aside: bool,
    /// When the server last said something of this record, by the device's clock.
    pub synced_at: Option<WallTime>,
    /// When records of its entity type were last brought up to date.
    pub entity_synced_at: Option<WallTime>,
    /// When the server last answered with anything new at all.
    pub book_synced_at: Option<WallTime>,
    /// The same in words, one sentence each.
    pub sentences: Vec<String>,
}

/// Where a record stands, in a word: the first of these that is true of any of its ops, from the last up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Standing {
    /// This device does not know it.
    Unknown,
    /// The server has everything.
    Synced,
    /// It waits for its turn.
    Pending,
    /// It was sent, or is about to be, and the answer has yet to come.
    InFlight,
    /// It is not sent now.
    Held,
    /// It stops until something outside changes.
    Parked,
    /// A conflict waits for a person.
    InConflict,
    /// The server refused a change for good.
    DeadLettered,
}

/// What the user sees of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Seen {
    /// Nothing, and this device never knew of one.
    Nothing,
    /// What the server confirmed.
    AsConfirmed,
    /// Nothing, since the server says that it is deleted.
    DeletedByServer,
    /// What the server confirmed, with changes of this device on top.
    WithOwnChanges,
    /// Nothing, since it was deleted on this device.
    DeletedHere,
}

/// A version that the server confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedVersion {
    /// The server's number.
    pub version: Version,
    /// When it was edited, by the clock of whoever edited it.
    pub edited_at: WallTime,
    /// Whether it is a deletion.
    pub deleted: bool,
}

/// An op that is still owed to the server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExplainedOp {
    /// The op.
    pub op: OpId,
    /// Where it stands in the log.
    pub place: OpPlace,
    /// What it does.
    pub kind: OpKind,
    /// Who made it.
    pub actor: Option<Actor>,
    /// When, by the device's clock.
    pub made_at: Option<WallTime>,
    /// Why it is not synced.
    pub state: OpState,
}

/// Why an op is not synced.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OpState {
    /// Nothing holds it back: the next sync sends it.
    Pending,
    /// It is under way.
    InFlight {
        /// The entry since which it is.
        since: Seq,
        /// When that was, by the device's clock.
        since_at: Option<WallTime>,
        /// How many times the server said that it cannot take it now.
        tries: u32,
    },
    /// It is not sent now.
    Held(Held),
    /// It stops until something outside changes.
    Parked {
        /// What stops.
        scope: ParkedScope,
        /// The server's code.
        code: String,
    },
    /// The server refused it for good.
    DeadLettered {
        /// The server's code.
        code: String,
        /// The server's message.
        message: String,
        /// How many answers it had.
        tries: u32,
        /// When the last of them came, by the device's clock.
        last_at: Option<WallTime>,
    },
}

/// Why an op is not sent now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Held {
    /// It can still be undone.
    UndoWindow {
        /// When that ends.
        until: WallTime,
    },
    /// The server could not take it.
    BackingOff {
        /// When it is tried again.
        until: WallTime,
        /// The server's code.
        code: String,
        /// How often it was tried.
        tries: u32,
    },
    /// Requests with it have not got through, while others have.
    NotLetThrough {
        /// When it is tried again; none if it waits for its turn after everything else.
        until: Option<WallTime>,
        /// What came in place of an answer.
        code: String,
        /// How often it was sent alone.
        times: u32,
    },
    /// Another record has to reach the server first.
    WaitsFor {
        /// Which one.
        record: RecordKey,
    },
    /// The record's creation is a dead letter.
    DeadCreate,
    /// An earlier change of the record goes first.
    Behind {
        /// The entry since which that one is under way; none if it is held itself.
        since: Option<Seq>,
    },
    /// An earlier change goes first, and that one has not got through, while others have.
    BehindNotLetThrough {
        /// Which one.
        op: OpPlace,
        /// What came in place of an answer.
        code: String,
    },
    /// An earlier change of the record goes first, and the two cannot go as one.
    After {
        /// Which one.
        op: OpPlace,
    },
    /// It wants an unmetered network.
    UnmeteredNetwork,
    /// Someone else made it.
    OtherActor {
        /// Who.
        actor: Actor,
    },
    /// Records of its entity type never leave the device.
    LocalOnly,
    /// Another change met a conflict that waits for a person, and goes before it or with it.
    BehindConflict {
        /// Which one.
        op: OpPlace,
    },
    /// It refers to a record that was deleted, and would be refused.
    Gone {
        /// Which one.
        record: RecordKey,
    },
    /// The app's validator refuses it.
    Refused {
        /// Why, in the app's words.
        reason: String,
    },
    /// The record would be larger than a server takes.
    TooLarge {
        /// How many bytes its fields would take.
        bytes: usize,
        /// How many they may take.
        most: usize,
    },
}

/// What stops until something outside changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParkedScope {
    /// Everything that its actor made, until there are new credentials.
    Actor,
    /// Its entity type, until the app or the server is upgraded.
    Entity,
    /// This op, until a person chooses.
    Op,
    /// Everything, until someone confirms which server this is.
    Server,
    /// Everything: the credentials are of another tenant than the book belongs to.
    Tenant,
    /// Everything, until the app is upgraded.
    Protocol,
    /// What was made under an older schema version, until a version of the app knows what becomes of it.
    SchemaVersion,
}

/// A conflict that there was.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExplainedConflict {
    /// Which one.
    pub id: ConflictId,
    /// When it was found, by the device's clock.
    pub at: WallTime,
    /// The op of this device.
    pub op: OpPlace,
    /// What it does.
    pub kind: OpKind,
    /// The server's version that it met.
    pub version: Version,
    /// Whether that version is a deletion.
    pub deleted_by_server: bool,
    /// Each field that both changed, its rule and who won; none where one side is a deletion.
    pub fields: Vec<(String, Policy, Winner)>,
    /// Who won as a whole.
    pub winner: Winner,
    /// The rule by which.
    pub rule: Policy,
    /// The functions of the app that settled it: the field, none for the whole, and the function's name.
    pub functions: Vec<(Option<String>, String)>,
    /// Whether a person still has to choose.
    pub open: bool,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences.join("\n"))
    }
}
