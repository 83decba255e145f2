//! The seam between the server and its store: a file of this process, or a database of several
//! servers. Nothing beyond it knows which of them it is.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use fieldbook_core::authority::{Accepted, Caller, Compared, Quota};
use fieldbook_core::protocol::{Change, CompareRequest, ExchangeAnswer};
use fieldbook_core::{ServerEpoch, ServerId, WallTime};

#[cfg(feature = "postgres")]
use super::Postgres;
use super::{Incoming, Keeper, StateError, StoreExchangeError, Tenant};
use crate::door::Turn;

/// The store of a server.
#[derive(Debug)]
pub(crate) enum AnyStore {
    File(Arc<Keeper>),
    #[cfg(feature = "postgres")]
    Postgres(Postgres),
}

impl AnyStore {
    /// Returns the server's id and epoch, as they were when the server started.
    pub(crate) fn identity(&self) -> (ServerId, ServerEpoch) {
        match self {
            Self::File(keeper) => keeper.identity(),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => postgres.identity(),
        }
    }

    /// Returns the public keys that sign receipts.
    pub(crate) fn verifiers(&self) -> Vec<String> {
        match self {
            Self::File(keeper) => keeper.verifiers().to_vec(),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => postgres.verifiers(),
        }
    }

    /// Returns whether the store can be read and written, as far as is known.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::File(keeper) => keeper.is_ready(),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => postgres.is_ready(),
        }
    }

    /// Anchors a request's head and applies its units, durably. Blocks. A request with writes lends
    /// its turn, if it has one, while it waits.
    pub(crate) fn accept(
        &self,
        incoming: Incoming<'_>,
        turn: Option<&Turn>,
    ) -> Result<Accepted, StoreExchangeError> {
        match self {
            Self::File(keeper) => keeper.accept(incoming, turn),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => postgres.accept(incoming, turn),
        }
    }

    /// Answers a request with the present store, and passes each change of the page on. The
    /// returned answer does not contain the changes. Blocks.
    pub(crate) fn answer(
        &self,
        incoming: Incoming<'_>,
        accepted: Accepted,
        take: impl FnMut(Change),
    ) -> Result<ExchangeAnswer, StoreExchangeError> {
        match self {
            Self::File(keeper) => keeper.answer(incoming, accepted, take),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => postgres.answer(incoming, accepted, take),
        }
    }

    /// Answers a request for a comparison. Blocks.
    pub(crate) fn compare(
        &self,
        tenant: &Tenant,
        request: &CompareRequest,
        now: WallTime,
        for_whom: (&Caller, &Quota),
    ) -> Result<Compared, StoreExchangeError> {
        match self {
            Self::File(keeper) => keeper.compare(tenant, request, now, for_whom),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => postgres.compare(tenant, request, now, for_whom),
        }
    }

    /// Copies the store into a new file. A database has tools of its own for that.
    pub(crate) fn backup(&self, path: &Path) -> Result<u64, Box<dyn Error + Send + Sync>> {
        match self {
            Self::File(keeper) => {
                let copied = keeper.backup(path).ok_or(StoreExchangeError::OutOfReach)?;
                Ok(copied?)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => {
                Err("a database is backed up by its own tools, such as pg_dump".into())
            }
        }
    }

    /// Keeps the store open, or notices when it can be reached again. Ends when dropped.
    pub(crate) async fn keep(&self) {
        match self {
            Self::File(keeper) => Arc::clone(keeper).keep().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => postgres.keep().await,
        }
    }

    /// Closes the store. Work that outlives the grace of a stop closes a file when it ends.
    pub(crate) fn close(self) -> Result<(), StateError> {
        match self {
            Self::File(keeper) => Arc::into_inner(keeper).map_or(Ok(()), Keeper::close),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => {
                postgres.close();
                Ok(())
            }
        }
    }
}
