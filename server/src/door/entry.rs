//! Connections: the loop that accepts them, their number, and the choice of one to close for a new
//! one.
//!
//! Invariants:
//! 1. The number of open connections is at most the limit, which is below the process's limit for
//!    open files.
//! 2. A connection with a running exchange is never closed for another connection. The limit of
//!    connections is above the limit of running exchanges, so there is always a connection to
//!    close.
//! 3. Among the others, a connection of the address with the most connections is closed: the oldest
//!    of them.
//! 4. A connection ends by itself: a head has a time, a body and an answer a pace.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_service::Service;

use super::steady::Steady;
use crate::limits::DoorLimits;
use crate::metrics::Metrics;

/// The most bytes of a connection's read buffer, and of the head of a request.
const BUFFER_BYTES: usize = 64 * 1024;
/// The most headers of a request.
const HEADERS: usize = 64;
/// How many files the process opens beside connections: the store, its folder, the log, the
/// runtime's own.
const OTHER_FILES: usize = 64;
/// How long nothing is accepted after the system refused to.
const PAUSE: Duration = Duration::from_millis(100);

/// Every open connection.
#[derive(Debug)]
pub(crate) struct Door {
    limits: DoorLimits,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The connections by number, so that the oldest is first.
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    running: usize,
    close: watch::Sender<bool>,
}

/// One connection, for its requests.
#[derive(Debug)]
pub(crate) struct Guest {
    door: Arc<Door>,
    number: u64,
    address: IpAddr,
}

/// A running exchange. Until it is dropped, its connection is not closed for another connection.
#[derive(Debug)]
pub(crate) struct Running(Arc<Guest>);

impl Door {
    pub(crate) fn new(limits: DoorLimits) -> Arc<Self> {
        let connections =
            limits.connections.min(openable_files().saturating_sub(OTHER_FILES)).max(2);
        let limits =
            DoorLimits { connections, requests: limits.requests.min(connections / 2), ..limits };
        Arc::new(Self { limits, metrics: Arc::default(), state: Mutex::default() })
    }

    /// Returns the limits of this process.
    pub(crate) const fn limits(&self) -> &DoorLimits {
        &self.limits
    }

    /// Returns the counts of the requests of all its connections.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the number of open connections, and of running exchanges.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        let running = state.connections.values().map(|connection| connection.running).sum();
        (state.connections.len(), running)
    }

    /// Accepts connections until the server is stopped, then lets running exchanges end.
    pub(crate) async fn stand(
        self: Arc<Self>,
        listener: TcpListener,
        router: Router,
        mut stop: watch::Receiver<bool>,
    ) {
        let graceful = GracefulShutdown::new();
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = tasks.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (guest, closed) = self.enter(address.ip());
                    let connection = self.connection(stream, address, guest, router.clone());
                    let connection = connection.map(|connection| graceful.watch(connection));
                    tasks.spawn(async move {
                        let Ok(connection) = connection else { return };
                        run(connection, closed, address).await;
                    });
                }
                // Most often there are no file descriptors left, so closing a connection helps.
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot accept a connection"
                    );
                    self.lock().close_one();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        self.lock().close_idle();
        if tokio::time::timeout(self.limits.stop_within, graceful.shutdown()).await.is_err() {
            tracing::warn!("connections were still busy when the time to stop was over");
        }
        tasks.shutdown().await;
    }

    /// Adds a connection. If there are too many connections, it closes another one of them.
    fn enter(self: &Arc<Self>, address: IpAddr) -> (Arc<Guest>, watch::Receiver<bool>) {
        let (close, closed) = watch::channel(false);
        let mut state = self.lock();
        if state.connections.len() >= self.limits.connections {
            state.close_one();
        }
        state.next += 1;
        let number = state.next;
        state.connections.insert(number, Connection { address, running: 0, close });
        drop(state);
        (Arc::new(Guest { door: Arc::clone(self), number, address }), closed)
    }

    /// Serves HTTP on a connection.
    fn connection(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        guest: Arc<Guest>,
        router: Router,
    ) -> io::Result<
        impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + use<>,
    > {
        // Small answers must not wait for more data.
        stream.set_nodelay(true)?;
        let steady = Steady::new(stream, self.limits.patience, self.limits.least_rate);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&guest));
            router.clone().call(request)
        });
        tracing::trace!(%address, "a connection");
        Ok(http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_within)
            .max_buf_size(BUFFER_BYTES)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(steady), service))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a connection until it ends or is closed.
async fn run(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    mut closed: watch::Receiver<bool>,
    address: SocketAddr,
) {
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%address, error = &error as &dyn std::error::Error, "a connection broke off");
        },
        Ok(_) = closed.wait_for(|closed| *closed) => {
            tracing::debug!(%address, "a connection without a request was closed for a new one");
        }
    }
}

impl State {
    /// Closes the oldest connection without a running exchange, of the address with the most
    /// connections.
    fn close_one(&mut self) {
        let mut of_address: HashMap<IpAddr, usize> = HashMap::new();
        for connection in self.connections.values() {
            *of_address.entry(connection.address).or_default() += 1;
        }
        let idle = self.connections.iter().filter(|(_, connection)| connection.running == 0);
        let chosen = idle
            .max_by_key(|(number, connection)| {
                (of_address.get(&connection.address), std::cmp::Reverse(**number))
            })
            .map(|(number, _)| *number);
        // The connection is removed at once, so that the next choice is another connection.
        if let Some(connection) = chosen.and_then(|number| self.connections.remove(&number)) {
            connection.close.send_replace(true);
        }
    }

    /// Closes every connection without a running exchange.
    fn close_idle(&mut self) {
        for connection in self.connections.values().filter(|connection| connection.running == 0) {
            connection.close.send_replace(true);
        }
    }
}

impl Guest {
    /// Returns the address of the client.
    pub(crate) const fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the counts of the requests of all connections.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.door.metrics
    }

    /// Marks an exchange of this connection as running.
    pub(crate) fn begin(self: &Arc<Self>) -> Running {
        if let Some(connection) = self.door.lock().connections.get_mut(&self.number) {
            connection.running += 1;
        }
        Running(Arc::clone(self))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.lock().connections.remove(&self.number);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(connection) = self.0.door.lock().connections.get_mut(&self.0.number) {
            connection.running = connection.running.saturating_sub(1);
        }
    }
}

/// Returns how many files the process may have open.
#[cfg(unix)]
fn openable_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Returns no limit, because other systems have no such limit to read.
#[cfg(not(unix))]
fn openable_files() -> usize {
    usize::MAX
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn door(connections: usize) -> Arc<Door> {
        Door::new(DoorLimits { connections, ..DoorLimits::default() })
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    /// 140 silent connections once used all descriptors, and no other client was let in.
    #[tokio::test]
    async fn the_oldest_silent_connection_of_the_busiest_address_makes_room() {
        let door = door(4);
        let (alone, alone_closed) = door.enter(address(1));
        let (busy, busy_closed) = door.enter(address(2));
        let running = busy.begin();
        let (_second, second_closed) = door.enter(address(2));
        let (_third, third_closed) = door.enter(address(2));
        let (_fourth, fourth_closed) = door.enter(address(3));
        assert!(
            *second_closed.borrow(),
            "the oldest of the address with the most, but for the busy one"
        );
        assert!(!*alone_closed.borrow() && !*busy_closed.borrow() && !*third_closed.borrow());
        drop(running);
        let _fifth = door.enter(address(3));
        assert!(*busy_closed.borrow() && !*fourth_closed.borrow());
        assert!(door.lock().connections.len() <= 4);
        drop(alone);
    }

    #[tokio::test]
    async fn there_are_more_connections_than_requests_under_way() {
        let door =
            Door::new(DoorLimits { connections: 10, requests: 512, ..DoorLimits::default() });
        assert!(door.limits().requests < door.limits().connections);
    }
}
