//! Connections to the database, and flights of statements.
//!
//! ```text
//!   ready to use ──lent──► in use ──the flight ended well──► ready to use
//!                            └──anything else──► closed
//! ```
//!
//! Invariants:
//! 1. A connection is used again only if nothing is left of its last use: no open transaction, no
//!    statement without an answer.
//! 2. The statements of a flight are sent together, and cost one round trip.
//! 3. No parameter is in a log, also if the program that has this server within it logs everything.
//! 4. A tenant has a few of the connections while other tenants are present. Its readers never wait
//!    for its writers, which wait for each other at the lock of the tenant.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::time::timeout;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{NoTls, Row};

use super::PostgresUrl;
use super::failure::Failure;
use super::statements;
use crate::door::{Turn, Turns};
use crate::store::Tenant;

/// The most connections of one server that write.
const WRITING: usize = 10;
/// The most connections of one server that only read.
const READING: usize = 6;
/// The most connections of each kind for one tenant while others are present. Of those that write
/// one works, and the next one waits for the lock.
const BESIDE_OTHERS: usize = 2;
/// How long a server waits for a connection, new or free.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a server waits for the answers of a flight. Longer than the limits that the database
/// itself keeps, so that those come first.
const ANSWER_WITHIN: Duration = Duration::from_secs(45);

/// The connections of one server.
pub(super) struct Connections {
    pool: Pool,
    writing: Arc<Turns>,
    reading: Arc<Turns>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Reading,
    Writing,
}

impl Connections {
    pub(super) fn new(url: &PostgresUrl) -> Result<Self, Failure> {
        let mut config = url.config();
        config.application_name("fieldbook").connect_timeout(CONNECT_WITHIN);
        config.tcp_user_timeout(ANSWER_WITHIN);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config, NoTls, recycling))
            .max_size(WRITING + READING)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_WITHIN))
            .create_timeout(Some(CONNECT_WITHIN))
            .build()
            .map_err(|error| Failure::Connection(error.to_string()))?;
        let places = |most| Turns::with_most(most, BESIDE_OTHERS);
        Ok(Self { pool, writing: places(WRITING), reading: places(READING) })
    }

    /// Returns a connection for a tenant, once it is the tenant's turn.
    pub(super) async fn lend_to(&self, tenant: &Tenant, what: For) -> Result<Lent, Failure> {
        let places = if what == For::Writing { &self.writing } else { &self.reading };
        let place = timeout(CONNECT_WITHIN, places.take(tenant)).await;
        let place = place.map_err(|_| Failure::NoneFree)?;
        let mut lent = self.lend().await?;
        lent.place = Some(place);
        Ok(lent)
    }

    /// Returns a connection that is of no tenant.
    pub(super) async fn lend(&self) -> Result<Lent, Failure> {
        Ok(Lent { object: Some(self.pool.get().await?), is_clean: true, place: None })
    }

    /// Closes every connection.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

#[cfg(test)]
thread_local! {
    /// The flights that this thread has waited for.
    pub(super) static FLIGHTS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A connection in use.
pub(super) struct Lent {
    object: Option<Object>,
    /// Whether nothing is under way, so that the connection may be used again.
    is_clean: bool,
    place: Option<Turn>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let object = self.object.take();
        if !self.is_clean {
            // Taken out of the pool, it is closed when dropped.
            drop(object.map(Object::take));
        }
        drop(self.place.take());
    }
}

/// A value of a statement that no log shows.
pub(super) struct Hidden<T>(pub(super) T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

impl<T: ToSql> ToSql for Hidden<T> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        T::accepts(kind)
    }

    to_sql_checked!();
}

/// The values of a statement, with their types. The database is told the types, so that it need not
/// be asked for them first.
pub(super) type Values = Vec<(Box<dyn ToSql + Sync + Send>, Type)>;

/// Up to three statements with their values.
pub(super) type Three<'s> = [Option<(&'s str, &'s Values)>; 3];

/// Makes one value of a statement.
pub(super) fn value<T: ToSql + Sync + Send + 'static>(
    value: T,
    kind: Type,
) -> (Box<dyn ToSql + Sync + Send>, Type) {
    (Box::new(Hidden(value)), kind)
}

impl Lent {
    fn client(&self) -> Result<&Object, Failure> {
        self.object.as_ref().ok_or_else(|| Failure::Connection("it is closed".to_owned()))
    }

    /// Runs a flight. The connection is given up if it fails.
    async fn flight<T>(
        &mut self,
        run: impl AsyncFnOnce(&Object) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.is_clean = false;
        #[cfg(test)]
        FLIGHTS.set(FLIGHTS.get() + 1);
        let answered = timeout(ANSWER_WITHIN, run(self.client()?)).await;
        answered.map_err(|_| Failure::TooSlow)?
    }

    /// Runs one statement outside a transaction, in one round trip.
    pub(super) async fn ask(&mut self, sql: &str, values: &Values) -> Result<Row, Failure> {
        let row = self.flight(async |client| one(query(client, sql, values).await?)).await?;
        self.is_clean = true;
        Ok(row)
    }

    /// Begins a transaction, waits for the lock of a tenant, and reads: one round trip. Returns none
    /// if the tenant has no row to lock, with the transaction open.
    pub(super) async fn begin(
        &mut self,
        tenant: &Tenant,
        sql: &str,
        values: &Values,
    ) -> Result<Option<Row>, Failure> {
        let key = tenant_value(tenant);
        self.flight(async |client| {
            // The statements are sent in this order, before any answer.
            let (begun, locked, read) = tokio::join!(
                biased;
                client.batch_execute(statements::BEGIN),
                query(client, statements::LOCK, &key),
                query(client, sql, values),
            );
            begun?;
            let (locked, read) = (locked?, read?);
            if locked.is_empty() { Ok(None) } else { one(read).map(Some) }
        })
        .await
    }

    /// Makes the row of a tenant, locks it, and reads, within a transaction.
    pub(super) async fn make_tenant(
        &mut self,
        tenant: &Tenant,
        sql: &str,
        values: &Values,
    ) -> Result<Row, Failure> {
        let key = tenant_value(tenant);
        self.flight(async |client| {
            let (made, locked, read) = tokio::join!(
                biased;
                query(client, statements::MAKE_TENANT, &key),
                query(client, statements::LOCK, &key),
                query(client, sql, values),
            );
            made?;
            locked?;
            one(read?)
        })
        .await
    }

    /// Reads within a transaction.
    pub(super) async fn read(&mut self, sql: &str, values: &Values) -> Result<Row, Failure> {
        self.flight(async |client| one(query(client, sql, values).await?)).await
    }

    /// Runs up to three statements and commits, in one round trip.
    pub(super) async fn commit(
        &mut self,
        [first, second, third]: Three<'_>,
    ) -> Result<(), Failure> {
        self.flight(async |client| {
            let (first, second, third, committed) = tokio::join!(
                biased;
                query_if(client, first),
                query_if(client, second),
                query_if(client, third),
                client.batch_execute(statements::COMMIT),
            );
            // After a fault the database answers the commit with a rollback. The first fault is the
            // cause of the others.
            first.and(second).and(third)?;
            Ok(committed?)
        })
        .await?;
        self.is_clean = true;
        Ok(())
    }

    /// Gives the transaction up.
    pub(super) async fn roll_back(&mut self) -> Result<(), Failure> {
        self.flight(async |client| Ok(client.batch_execute(statements::ROLLBACK).await?)).await?;
        self.is_clean = true;
        Ok(())
    }

    /// Runs text without values within a transaction of its own; for migrations.
    pub(super) async fn run(&mut self, text: &str) -> Result<(), Failure> {
        self.flight(async |client| Ok(client.batch_execute(text).await?)).await
    }

    /// Says that the transaction of the last statements has ended.
    pub(super) const fn ended(&mut self) {
        self.is_clean = true;
    }

    /// Runs a statement that may have any number of rows.
    pub(super) async fn rows(&mut self, sql: &str, values: &Values) -> Result<Vec<Row>, Failure> {
        self.flight(async |client| query(client, sql, values).await).await
    }
}

fn tenant_value(tenant: &Tenant) -> Values {
    vec![value(tenant.as_str().to_owned(), Type::TEXT)]
}

async fn query(client: &Object, sql: &str, values: &Values) -> Result<Vec<Row>, Failure> {
    let values: Vec<(&(dyn ToSql + Sync), Type)> = values
        .iter()
        .map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()))
        .collect();
    Ok(client.query_typed(sql, &values).await?)
}

async fn query_if(client: &Object, statement: Option<(&str, &Values)>) -> Result<(), Failure> {
    match statement {
        Some((sql, values)) => query(client, sql, values).await.map(drop),
        None => Ok(()),
    }
}

fn one(rows: Vec<Row>) -> Result<Row, Failure> {
    rows.into_iter().next().ok_or_else(|| Failure::Unreadable("it has no row".to_owned()))
}
