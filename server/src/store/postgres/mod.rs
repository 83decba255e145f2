//! The store of several servers: a Postgres database.
//!
//! ```text
//!   connections   lent connections, flights of statements
//!   statements    the SQL
//!   load ─► loaded ─► overlay ─► writing     what a request needs, the rules above it, what they changed
//!   page, comparison                         what an answer shows
//!   migrations, opening, keys, address       what a database is, and whether it is ours
//! ```
//!
//! An exchange with units is three round trips, whatever the units are:
//!
//! ```text
//!   1  begin, lock the tenant's row, read what the request can need
//!      the rules, on a blocking thread, above what was read
//!   2  store what changed, commit
//!   3  read the page
//! ```
//!
//! Invariants:
//! 1. Whoever writes for a tenant holds the lock of its row until the commit. So commits are visible
//!    in the order of their numbers.
//! 2. What the rules read is read by a statement that begins after the lock is held.
//! 3. The last commit and the page are read by one statement, so no cursor passes a change that was
//!    not sent.
//! 4. A server keeps nothing of the store but its keys. Any number of servers may run.
//! 5. A commit without an answer is in doubt. The device sends the unit again, whose id decides.
//! 6. No type of the client of Postgres leaves this folder.

mod address;
mod comparison;
mod connections;
mod failure;
mod keys;
mod load;
mod loaded;
mod migrations;
mod opening;
mod overlay;
mod page;
mod rows;
mod statements;
#[cfg(test)]
mod tests;
mod writing;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fieldbook_core::authority::{self, Accepted, ExchangeError};
use fieldbook_core::protocol::{Change, ExchangeAnswer, ExchangeRequest};
use fieldbook_core::{ServerEpoch, ServerId};
use tokio::runtime::Handle;
use tokio_postgres::Row;

pub use address::{PostgresUrl, PostgresUrlError};
use connections::{Connections, For, Lent, Values};
use failure::Failure;
use load::Wanted;
use loaded::{Loaded, LoadedError};
pub use opening::{DatabaseFault, OpenDatabaseError};
use overlay::{Changes, Overlay};
use page::Window;

use super::signing::Signers;
use super::{Incoming, StateError, StoreExchangeError, Tenant};
use crate::door::Turn;

/// How often the database is asked whether it answers.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A store in a database.
pub(crate) struct Postgres {
    connections: Connections,
    runtime: Handle,
    identity: (ServerId, ServerEpoch),
    signers: Signers,
    answers: AtomicBool,
    amounts: Amounts,
}

/// How much is read at first. Tests make it small, so that the rules need more.
#[derive(Debug, Clone, Copy)]
struct Amounts {
    content_bytes: i64,
    #[cfg(test)]
    page: i64,
}

impl Default for Amounts {
    fn default() -> Self {
        Self {
            content_bytes: load::CONTENT_BYTES,
            #[cfg(test)]
            page: i64::MAX,
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Opens a database as a store, and makes its tables if it has none.
    pub(crate) async fn open(url: &PostgresUrl) -> Result<Self, OpenDatabaseError> {
        let unreachable = |failure| OpenDatabaseError::unreachable(url, failure);
        let connections = Connections::new(url).map_err(unreachable)?;
        let mut lent = connections.lend().await.map_err(unreachable)?;
        let opened = migrations::open(&mut lent).await;
        let opened = opened.map_err(|cause| OpenDatabaseError::new(url, cause))?;
        drop(lent);
        Ok(Self {
            connections,
            runtime: Handle::current(),
            identity: opened.identity,
            signers: Signers::of(opened.keys),
            answers: AtomicBool::new(true),
            amounts: Amounts::default(),
        })
    }

    /// Returns the server's id and epoch, as they were when the server started.
    pub(crate) const fn identity(&self) -> (ServerId, ServerEpoch) {
        self.identity
    }

    /// Returns the public keys that sign receipts.
    pub(crate) fn verifiers(&self) -> Vec<String> {
        self.signers.verifiers()
    }

    /// Returns whether the database answered when it was last asked.
    pub(crate) fn is_ready(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// Asks the database now and then whether it answers. Ends when dropped.
    pub(crate) async fn keep(&self) {
        loop {
            let answered =
                async { self.connections.lend().await?.ask("select 1", &Vec::new()).await };
            let answers = answered.await.is_ok();
            if self.answers.swap(answers, Ordering::Relaxed) != answers {
                if answers {
                    tracing::warn!("the database answers again");
                } else {
                    tracing::error!("the database does not answer");
                }
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Gives a restored database a new epoch: all anchors end, and commits are numbered above every
    /// number that the former epoch can have used. Of each tenant, the next exchange does it.
    pub(crate) async fn start_epoch(url: &PostgresUrl) -> Result<ServerEpoch, OpenDatabaseError> {
        let unreachable = |failure| OpenDatabaseError::unreachable(url, failure);
        let connections = Connections::new(url).map_err(unreachable)?;
        let mut lent = connections.lend().await.map_err(unreachable)?;
        let begun = migrations::start_epoch(&mut lent).await;
        begun.map_err(|cause| OpenDatabaseError::new(url, cause))
    }

    /// Closes the connections.
    pub(crate) fn close(self) {
        self.connections.close();
    }

    /// Anchors a request's head and applies its units, durably. Blocks. A request lends its turn, if
    /// it has one, while it waits for the database.
    pub(crate) fn accept(
        &self,
        incoming: Incoming<'_>,
        turn: Option<&Turn>,
    ) -> Result<Accepted, StoreExchangeError> {
        let Incoming { tenant, request, caller, quota, .. } = incoming;
        if request.units.is_empty() {
            let wanted = Wanted::by(request, quota);
            let (sql, values) = wanted.statement(tenant, self.amounts.content_bytes);
            let loaded = wanted.loaded(&self.ask(tenant, sql, &values)?, tenant)?;
            let accepted = authority::accept_without_writing(&loaded, request, caller, quota)?;
            if let Some(accepted) = accepted {
                return Ok(accepted);
            }
        }
        self.accept_writing(incoming, turn)
    }

    fn accept_writing(
        &self,
        incoming: Incoming<'_>,
        turn: Option<&Turn>,
    ) -> Result<Accepted, StoreExchangeError> {
        let Incoming { tenant, request, now, caller, quota } = incoming;
        let wanted = Wanted::by(request, quota);
        let (sql, values) = wanted.statement(tenant, self.amounts.content_bytes);
        let (mut lent, row) = self.wait(turn, self.begin(tenant, sql, &values))?;
        let mut loaded = wanted.loaded(&row, tenant)?;
        loop {
            let mut overlay = Overlay::new(&loaded);
            let key = match authority::accept(&mut overlay, request, now, caller, quota) {
                Ok(accepted) => {
                    let changes = overlay.into_changes();
                    self.wait(turn, store(&mut lent, tenant, request, (&loaded, &changes)))?;
                    return Ok(accepted);
                }
                Err(ExchangeError::State(LoadedError::ContentNeeded(key))) => key,
                Err(error) => {
                    // Nothing was written. A connection that does not take this is closed.
                    drop(self.wait(turn, async { Ok(lent.roll_back().await?) }));
                    return Err(error.into());
                }
            };
            let rest = load::from_key(&wanted.records, &key).map_err(StateError::from)?;
            let values = load::record_values(tenant, rest, self.amounts.content_bytes);
            let row =
                self.wait(turn, async { Ok(lent.read(statements::RECORDS, &values).await?) })?;
            load::add_contents(&mut loaded, &row, rest)?;
        }
    }

    /// Answers a request with the present store; it passes each change of the page on. The returned
    /// answer does not contain the changes. Blocks.
    pub(crate) fn answer(
        &self,
        incoming: Incoming<'_>,
        accepted: Accepted,
        take: impl FnMut(Change),
    ) -> Result<ExchangeAnswer, StoreExchangeError> {
        let Incoming { tenant, request, now, quota, .. } = incoming;
        let mut window = Window::of(request, quota, &accepted);
        #[cfg(test)]
        {
            window = window.at_most(self.amounts.page);
        }
        loop {
            let row = self.ask(tenant, statements::PAGE, &window.values(tenant, request))?;
            let (loaded, is_cut) = page::loaded(&row, tenant)?;
            let (mut changes, accepted) = (Vec::new(), accepted.clone());
            let answer =
                authority::answer_by_change(&loaded, request, now, quota, accepted, |change| {
                    changes.push(change);
                })?;
            // A page that is not full by the end of what was read needs more of it.
            if is_cut && !answer.more {
                window = window.larger();
                continue;
            }
            changes.into_iter().for_each(take);
            let signed = self.signers.sign(request, &answer);
            return Ok(ExchangeAnswer { signed, ..answer });
        }
    }

    /// Runs a statement that changes nothing, on another connection if the first one was lost.
    /// Blocks.
    fn ask(&self, tenant: &Tenant, sql: &str, values: &Values) -> Result<Row, StoreExchangeError> {
        self.wait(None, async {
            let first = async {
                self.connections.lend_to(tenant, For::Reading).await?.ask(sql, values).await
            };
            match first.await {
                Err(failure) if failure.is_lost_connection() => Ok(self
                    .connections
                    .lend_to(tenant, For::Reading)
                    .await?
                    .ask(sql, values)
                    .await?),
                other => Ok(other?),
            }
        })
    }

    /// Begins a transaction that holds the lock of a tenant, and reads. A connection that was lost
    /// before anything was written is replaced once.
    async fn begin(
        &self,
        tenant: &Tenant,
        sql: &str,
        values: &Values,
    ) -> Result<(Lent, Row), StateError> {
        let mut lent = self.connections.lend_to(tenant, For::Writing).await?;
        let mut begun = lent.begin(tenant, sql, values).await;
        if begun.as_ref().is_err_and(Failure::is_lost_connection) {
            drop(lent);
            lent = self.connections.lend_to(tenant, For::Writing).await?;
            begun = lent.begin(tenant, sql, values).await;
        }
        let row = match begun? {
            Some(row) => row,
            None => lent.make_tenant(tenant, sql, values).await?,
        };
        Ok((lent, row))
    }

    /// Waits for the database, and lends the turn meanwhile.
    fn wait<T>(
        &self,
        turn: Option<&Turn>,
        work: impl Future<Output = Result<T, StateError>>,
    ) -> Result<T, StoreExchangeError> {
        let done = match turn {
            Some(turn) => turn.lend(|| self.runtime.block_on(work)),
            None => self.runtime.block_on(work),
        };
        if let Err(StateError::Database(error)) = &done
            && error.downcast_ref().is_some_and(Failure::is_lost_connection)
        {
            self.answers.store(false, Ordering::Relaxed);
        }
        Ok(done?)
    }
}

/// Stores what a request changed and commits, or ends the transaction if nothing changed.
async fn store(
    lent: &mut Lent,
    tenant: &Tenant,
    request: &ExchangeRequest,
    (loaded, changes): (&Loaded, &Changes),
) -> Result<(), StateError> {
    let stored = writing::stored_by(tenant, request, loaded, changes)?;
    let (device, head, rows) = (stored.device.as_ref(), stored.head.as_ref(), stored.rows.as_ref());
    if device.is_none() && head.is_none() && rows.is_none() {
        return Ok(lent.roll_back().await?);
    }
    let statements = [
        device.map(|values| (statements::STORE_DEVICE, values)),
        head.map(|values| (statements::STORE_HEAD, values)),
        rows.map(|values| (statements::STORE, values)),
    ];
    Ok(lent.commit(statements).await?)
}

impl From<Failure> for StateError {
    fn from(failure: Failure) -> Self {
        Self::Database(Box::new(failure))
    }
}

impl From<LoadedError> for StateError {
    fn from(error: LoadedError) -> Self {
        match error {
            LoadedError::Damaged(damaged) => Self::Damaged(damaged),
            LoadedError::NotLoaded(what) => Failure::NotLoaded(what).into(),
            LoadedError::ContentNeeded(_) => Failure::NotLoaded("the content of a record").into(),
        }
    }
}

impl From<ExchangeError<LoadedError>> for StoreExchangeError {
    fn from(error: ExchangeError<LoadedError>) -> Self {
        match error {
            ExchangeError::Refused(refusal) => Self::Refused(refusal),
            ExchangeError::State(error) => Self::State(error.into()),
            ExchangeError::Damaged(_) => Self::State(super::DAMAGED_FIELDS.into()),
        }
    }
}
