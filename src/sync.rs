//! Sync with a server: remotes and credentials, runs and workers, their reports, the state of each
//! op, and exchanges driven by hand.
//!
//! An app syncs once with [`Book::sync`], or in the background with [`Book::keep_syncing`]. Either
//! needs a [`Remote`]: the one over HTTP, or the app's own.
//!
//! ```
//! use std::sync::Arc;
//!
//! use fieldbook::sync::protocol::{ExchangeRequest, Failure};
//! use fieldbook::sync::{FnRemote, Stopped};
//! use fieldbook::{Book, BookOptions, Fields, RunOptions, SyncState, WorkerOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! book.records().create("lead/42".parse()?, Fields::parse(r#"{"name":"Ann"}"#)?)?;
//!
//! // A server that cannot be reached. Unanswered units are sent again under the same ids.
//! let nobody = FnRemote::new(|_: &ExchangeRequest| Err(Failure::Unreachable { code: "no_route" }.into()));
//! let report = book.sync(&nobody, &RunOptions::default()).await?;
//! assert!(matches!(report.stopped, Stopped::Failed(Failure::Unreachable { .. })));
//! assert_eq!(book.status().pending, 1);
//!
//! // In the background: at once, after each write, at intervals, and again after failures.
//! let mut status = book.watch_status();
//! let handle = book.keep_syncing(Arc::new(nobody), WorkerOptions::default())?;
//! status.wait_for(|status| matches!(status.state, SyncState::Offline { .. } | SyncState::BackingOff { .. })).await?;
//! handle.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: a scheduler of the operating system. An app that is only woken from time to time
//! calls [`Book::sync`] itself.
//!
//! [`Book::sync`]: crate::Book::sync
//! [`Book::keep_syncing`]: crate::Book::keep_syncing

pub use fieldbook_core::entry::ParkScope;
pub use fieldbook_core::protocol;
pub use fieldbook_core::rules::belonging::{InvalidServerIdentity, OTHER_TENANT, ServerIdentity};
pub use fieldbook_core::rules::group::Group;
pub use fieldbook_core::rules::plan::{Hold, Plan};
pub use fieldbook_core::rules::status::{
    Awaited, Held, OpState, ParkReason, RecordState, RecordStatus, SyncState, UserAction,
};
pub use fieldbook_core::rules::unsent::Unsent;
pub use fieldbook_core::{
    Cursor, DeviceKey, InvalidCursor, RequestId, ServerEpoch, ServerId, TenantId,
};
pub use fieldbook_transport::{
    BoxFuture, Budget, Credentials, ExchangeCounts, ExchangeParams, FnRemote, Left, Limit,
    MOST_EXCHANGES, NextStep, Received, ReceivedComparison, Remote, RemoteError, RunOptions,
    Secret, StaticToken, Stopped, SyncReport, WorkerError, WorkerOptions,
};
#[cfg(feature = "http")]
pub use fieldbook_transport::{HttpOptions, HttpRemote, InvalidOrigin, ProxyUse, SetUpError};

pub use crate::background::SyncHandle;
pub use crate::check::{CheckError, Difference, Differing, Mended, NotCompared, NotComparedType};
pub use crate::decisions::{Park, Resume, ServerState, Servers, TakeState};
pub use crate::exchange::Exchange;
pub use crate::failed::{Dependant, Failed, FailedOp};
pub use crate::status::{Queue, QueuedOp, SyncStatus};
