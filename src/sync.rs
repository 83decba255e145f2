//! Reaching the server: remotes and credentials, runs and workers, what they report, where each op stands, and driving an
//! exchange by hand.
//!
//! What it is not: a scheduler of the operating system. Where an app is only woken now and then, it calls
//! [`Book::sync`](crate::Book::sync) itself.

pub use fieldbook_core::entry::ParkScope;
pub use fieldbook_core::protocol;
pub use fieldbook_core::rules::belonging::{InvalidServerIdentity, OTHER_TENANT, ServerIdentity};
pub use fieldbook_core::rules::group::Group;
pub use fieldbook_core::rules::plan::{Hold, Plan};
pub use fieldbook_core::rules::status::{
    Awaited, Held, OpState, ParkReason, RecordState, RecordStatus, SyncState, UserAction,
};
pub use fieldbook_core::{Cursor, InvalidCursor, RequestId, ServerEpoch, ServerId, TenantId};
pub use fieldbook_transport::{
    Activity, Ask, BoxFuture, Budget, Credentials, FnRemote, Limit, MOST_EXCHANGES, Next, NoCredentials,
    Received, Remote, RemoteError, RunOptions, Secret, StaticToken, Stopped, SyncReport, Taken, WorkerError,
    WorkerOptions,
};
#[cfg(feature = "http")]
pub use fieldbook_transport::{
    HttpOptions, HttpRemote, InvalidOrigin, ProxyUse, Redirected, SetUpError, Unparsable,
};

pub use crate::background::SyncHandle;
pub use crate::status::{QueuedOp, SyncStatus};
