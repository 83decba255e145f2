//! A spec case as data, as `tests/spec/README.md` describes it, member by member.
//!
//! Invariant: an unknown member is an error, so that every member of a case is checked. The one
//! exception is a result's description of the message, which is for people.

use std::collections::{BTreeMap, HashMap};

use fieldbook::record::OpKind;
use fieldbook::schema::{Granularity, Policy};
use fieldbook::{EntityType, Fields, RecordKey};
use serde::Deserialize;
use serde_json::Value;

/// The kind of case that the runner runs.
pub(super) const TRACE: &str = "trace";

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// Names the case in reports and in `docs/sync-rules.md`.
    #[serde(rename = "id")]
    _id: String,
    /// The rule in a sentence.
    #[serde(rename = "title")]
    _title: String,
    /// [`TRACE`].
    #[serde(rename = "kind")]
    _kind: String,
    /// The device's state at the start.
    #[serde(default)]
    pub(super) given: Given,
    /// The steps.
    pub(super) steps: Vec<Step>,
    /// The expected state at the end.
    pub(super) expect: Expect,
    /// The reason, if the case is about one run of the app, so that ending it between steps would
    /// be another case.
    #[serde(default)]
    pub(super) one_run: Option<String>,
    /// A note for people.
    #[serde(default, rename = "note")]
    _note: Option<String>,
}

/// The device's state at the start.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    /// Its rows and its queue.
    #[serde(default)]
    pub(super) local: Local,
    /// The app's declarations of entity types that differ from the default.
    #[serde(default)]
    pub(super) schema: BTreeMap<EntityType, Declared>,
    /// Whether entity types that `schema` does not name are unknown.
    #[serde(default)]
    pub(super) closed: bool,
    /// The user of the book.
    #[serde(default)]
    pub(super) actor: Option<String>,
}

/// The device's rows and its queue.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Local {
    /// How far the device has read.
    #[serde(default)]
    pub(super) cursor: u64,
    /// The confirmed records of the server.
    #[serde(default)]
    pub(super) rows: BTreeMap<RecordKey, Row>,
    /// The pending ops, oldest first.
    #[serde(default)]
    pub(super) queue: Vec<Queued>,
}

/// A confirmed record.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// The server's version.
    pub(super) version: u64,
    /// Its image.
    #[serde(default)]
    pub(super) payload: Option<Fields>,
    /// Whether it is deleted instead.
    #[serde(default)]
    pub(super) deleted: bool,
}

/// An op that is pending at the start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queued {
    /// What it does.
    pub(super) op: OpKind,
    /// The record.
    pub(super) key: RecordKey,
    /// Its fields.
    #[serde(default)]
    pub(super) payload: Option<Fields>,
    /// How many classified transient answers it has had.
    #[serde(default)]
    pub(super) tries: u32,
}

/// The app's declaration of an entity type. An absent member has the default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Declared {
    /// Fields that hold the id of a record, each with the entity type of that record.
    #[serde(default)]
    pub(super) references: BTreeMap<String, EntityType>,
    /// A higher priority is sent earlier.
    #[serde(default)]
    pub(super) priority: i32,
    /// The priorities of creates, updates and deletes, where they differ.
    #[serde(default)]
    pub(super) priorities: HashMap<OpKind, i32>,
    /// The policy of conflicts.
    #[serde(default)]
    pub(super) policy: Policy,
    /// The policies of conflicts of single fields.
    #[serde(default)]
    pub(super) field_policies: BTreeMap<String, Policy>,
    /// Whether all fields of an edit win or lose together.
    #[serde(default)]
    pub(super) whole_record: bool,
    /// How long an op can be undone.
    #[serde(default)]
    pub(super) undo_window_ms: u64,
    /// Whether it needs an unmetered network.
    #[serde(default)]
    pub(super) unmetered: bool,
    /// Whether its records never leave the device.
    #[serde(default)]
    pub(super) local_only: bool,
    /// The app's schema version.
    #[serde(default)]
    pub(super) schema_version: Option<u32>,
    /// The new names of fields after a schema version, by that version: an upcaster that renames.
    #[serde(default)]
    pub(super) upcasters: BTreeMap<String, BTreeMap<String, String>>,
    /// Fields without which the app's validator refuses a record.
    #[serde(default)]
    pub(super) required: Vec<String>,
    /// The app's function that resolves conflicts.
    #[serde(default)]
    pub(super) function: Option<String>,
    /// The app's functions that resolve conflicts of single fields.
    #[serde(default)]
    pub(super) field_functions: BTreeMap<String, String>,
}

impl Declared {
    /// Returns how much of an edit is resolved at a time.
    pub(super) const fn granularity(&self) -> Granularity {
        if self.whole_record { Granularity::WholeRecord } else { Granularity::Field }
    }
}

/// One step.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// The app writes. A refused write writes nothing; `refused` requires a refusal, and names it.
    Edit {
        /// What it does.
        op: OpKind,
        /// The record.
        key: RecordKey,
        /// Its fields.
        #[serde(default)]
        payload: Option<Fields>,
        /// Why it must be refused.
        #[serde(default)]
        refused: Option<String>,
    },
    /// The app writes several changes in one transaction.
    EditAll {
        /// The changes in order.
        edits: Vec<Edit>,
        /// Why it must be refused.
        #[serde(default)]
        refused: Option<String>,
    },
    /// Plans and freezes the next units, and sends them.
    BeginPush {
        /// The most ops.
        #[serde(default)]
        limit: Option<usize>,
        /// The most bytes.
        #[serde(default)]
        limit_bytes: Option<usize>,
        /// Whether units that back off keep waiting.
        #[serde(default)]
        heed_backoff: bool,
    },
    /// The server's answer to all that is in flight.
    EndPush {
        /// The result of each record's unit.
        results: Vec<Answered>,
    },
    /// Does a `BeginPush`, and then an `EndPush`.
    Push {
        /// The result of each record's unit.
        results: Vec<Answered>,
        /// The most ops.
        #[serde(default)]
        limit: Option<usize>,
        /// The most bytes.
        #[serde(default)]
        limit_bytes: Option<usize>,
        /// Whether units that back off keep waiting.
        #[serde(default)]
        heed_backoff: bool,
    },
    /// A page of the server.
    Pull {
        /// The records on it.
        changes: Vec<Pulled>,
        /// The cursor after the page; absent for a page that moves no cursor. A cursor before the
        /// device's own is the late answer to an earlier request.
        #[serde(default)]
        cursor: Option<u64>,
    },
    /// The app has new credentials.
    TokenRefreshed {},
    /// A new version of the app or of the server.
    Upgraded {},
    /// Time passes, for the device and for the server.
    Clock {
        /// The time that passes.
        #[serde(default)]
        advance_ms: i64,
        /// The amount by which the device's own wall clock is set forward, or back.
        #[serde(default)]
        jump_ms: i64,
    },
    /// A person sends the dead letters of these records again.
    Retry {
        /// The records.
        keys: Vec<RecordKey>,
        /// The number of the only dead letter to send, from 0, oldest first.
        #[serde(default)]
        nth: Option<usize>,
    },
    /// A person discards the dead letters of these records.
    Discard {
        /// The records.
        keys: Vec<RecordKey>,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// A person undoes the last op of a record, or an earlier op.
    Undo {
        /// The record.
        key: RecordKey,
        /// The number of the op, from 0, oldest first; the last op if absent.
        #[serde(default)]
        nth: Option<usize>,
        /// The expected result of the undo: `cancelled`, `compensated` or `nothing`.
        becomes: String,
    },
    /// A person flips a record's last conflict.
    Flip {
        /// The record.
        key: RecordKey,
    },
    /// A person resolves a record's open conflict.
    Choose {
        /// The record.
        key: RecordKey,
        /// The side that wins.
        choice: Side,
        /// The values, for `merged`.
        #[serde(default)]
        payload: Option<Fields>,
    },
    /// A person corrects a record's dead letter, and sends it again.
    Correct {
        /// The record.
        key: RecordKey,
        /// The fields to change.
        payload: Fields,
        /// The number of the dead letter among those of the record, from 0.
        #[serde(default)]
        nth: usize,
    },
    /// The server has another epoch from now on, as after a backup was restored.
    Server {
        /// The number of the epoch.
        epoch: u8,
    },
    /// A person accepts the server that answered last.
    AcceptServer {},
    /// The network changes.
    Network {
        /// Whether the network costs by the byte.
        metered: bool,
    },
    /// Another actor uses the book from now on.
    ActAs {
        /// The actor.
        actor: String,
    },
    /// The app ends and starts again.
    Reopen {
        /// Declarations that differ from before.
        #[serde(default)]
        schema: BTreeMap<EntityType, Declared>,
    },
}

/// The sides of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Side {
    /// This device's values.
    Mine,
    /// The server's values.
    Theirs,
    /// Other values.
    Merged,
}

/// One change of a transaction.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    /// What it does.
    pub(super) op: OpKind,
    /// The record.
    pub(super) key: RecordKey,
    /// Its fields.
    #[serde(default)]
    pub(super) payload: Option<Fields>,
}

/// The result of the unit of one record. Members that are not named here describe the message, for
/// people.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Answered {
    /// The record.
    pub(super) key: RecordKey,
    /// The result.
    pub(super) result: ResultClass,
    /// The server's version.
    #[serde(default)]
    pub(super) version: Option<u64>,
    /// The server's row; for a conflict, none means that it is deleted.
    #[serde(default)]
    pub(super) row: Option<Fields>,
    /// The server's code.
    #[serde(default)]
    pub(super) code: Option<String>,
    /// The shortest wait before the device sends the unit again, in milliseconds.
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
    /// When the server's row was edited, for a conflict.
    #[serde(default)]
    pub(super) edited: Option<Edited>,
}

/// The classes of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResultClass {
    /// The unit is accepted now.
    Applied,
    /// The unit was accepted before.
    Duplicate,
    /// Another version is current.
    Conflict,
    /// The unit is refused for good.
    Rejected,
    /// The unit is not accepted now.
    Retryable,
    /// The credentials are no longer valid.
    AuthExpired,
    /// The server does not know the entity type.
    Unsupported,
    /// A stamp of the unit is too far ahead of the server's time.
    Ahead,
}

/// When something was edited, compared with the ops of this device that it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Edited {
    /// The edit was before all of these ops.
    Earlier,
    /// The edit was after all of these ops.
    Later,
}

/// A record on a page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pulled {
    /// The record.
    pub(super) key: RecordKey,
    /// The server's version.
    pub(super) version: u64,
    /// Its image, or some fields.
    #[serde(default)]
    pub(super) payload: Option<Fields>,
    /// Whether it was deleted.
    #[serde(default)]
    pub(super) deleted: bool,
    /// Whether `payload` has only some fields.
    #[serde(default)]
    pub(super) partial: bool,
    /// Whether it is our own op that comes back.
    #[serde(default)]
    pub(super) own: bool,
    /// The time of the edit; before pending local edits if absent.
    #[serde(default)]
    pub(super) edited: Option<Edited>,
    /// When it was edited, in milliseconds after the true time of the step; in place of `edited`.
    #[serde(default)]
    pub(super) edited_ms: Option<i64>,
    /// Fields whose last edit was before the record's.
    #[serde(default)]
    pub(super) older: Vec<String>,
}

/// The expected state at the end. Absent members are not checked, except `dead` and `conflicts`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// The requests in order.
    #[serde(default)]
    pub(super) sent: Option<Vec<Vec<Value>>>,
    /// One of these is the expected `sent`.
    #[serde(default)]
    pub(super) sent_any_of: Option<Vec<Vec<Vec<Value>>>>,
    /// The pending ops.
    #[serde(default)]
    pub(super) queue: Option<Vec<Value>>,
    /// The records that the app reads.
    #[serde(default)]
    pub(super) view: Option<BTreeMap<RecordKey, Value>>,
    /// The number of transient answers of the pending ops.
    #[serde(default)]
    pub(super) tries: Option<Value>,
    /// The dead letters.
    #[serde(default)]
    pub(super) dead: Vec<Value>,
    /// The local edits that lost.
    #[serde(default)]
    pub(super) conflicts: Vec<Value>,
    /// How far the device has read.
    #[serde(default)]
    pub(super) cursor: Option<u64>,
    /// Every conflict, whoever won. Each expected member is compared.
    #[serde(default)]
    pub(super) settled: Option<Vec<Value>>,
    /// Why a record's first waiting op is not sent.
    #[serde(default)]
    pub(super) held: Option<BTreeMap<RecordKey, String>>,
    /// The status of a record.
    #[serde(default)]
    pub(super) status: Option<BTreeMap<RecordKey, String>>,
    /// The fate of each op of a record, oldest first.
    #[serde(default)]
    pub(super) fates: Option<BTreeMap<RecordKey, Vec<String>>>,
    /// How many entries the log has.
    #[serde(default)]
    pub(super) entries: Option<u64>,
}
