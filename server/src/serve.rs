//! Starting and stopping the server.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fieldbook_core::authority::Quota;
use fieldbook_core::system::SystemClock;
use fieldbook_core::{Clock, ServerEpoch};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::door::{Door, Shares, Turns};
use crate::http::{self, App};
use crate::limits::DoorLimits;
use crate::store::{Keeper, OpenStoreError, Store};
use crate::tokens::{Credentials, TokensError};

/// How the server is to run.
pub struct ServeOptions {
    /// The address on which the server listens; port 0 for any free port.
    pub listen: SocketAddr,
    /// The path of the store. The file is made if it does not exist; its folder must exist.
    pub data: PathBuf,
    /// The token file. Without one the server listens on this machine only, and all records belong
    /// to one tenant.
    pub tokens: Option<PathBuf>,
    /// The clock; none for the system's.
    pub clock: Option<Arc<dyn Clock>>,
    /// How much of the store the server keeps in memory.
    pub cache_bytes: usize,
    /// The most that the server works on at the same time, and how slow a client may be.
    pub limits: DoorLimits,
    /// The most records that a tenant may keep, deleted ones included; none for no limit. A tenant
    /// over the limit can read, delete, and write records that do not become larger.
    pub tenant_records: Option<u64>,
    /// The most bytes of a tenant's records and of the memory of its units; none for no limit.
    pub tenant_bytes: Option<u64>,
}

impl ServeOptions {
    /// Listens on an address with a store at a path, without tokens, and with the defaults for the
    /// rest.
    pub fn new(listen: SocketAddr, data: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            data: data.into(),
            tokens: None,
            clock: None,
            cache_bytes: 64 * 1024 * 1024,
            limits: DoorLimits::default(),
            tenant_records: None,
            tenant_bytes: None,
        }
    }
}

impl std::fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeOptions")
            .field("listen", &self.listen)
            .field("data", &self.data)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

/// Why the server does not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The server has no tokens, so everybody could use it.
    #[error(
        "refusing to listen on {listen} without a token file, since everyone could read and write: \
         give a token file, or listen on 127.0.0.1"
    )]
    OpenToAll {
        /// The address on which the server was to listen.
        listen: SocketAddr,
    },
    /// The address is in use, or is not an address of this machine.
    #[error("cannot listen on {listen}: choose another address or port")]
    Listen {
        /// The address on which the server was to listen.
        listen: SocketAddr,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The token file cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The new epoch could not be written.
    #[error("the store cannot be given a new epoch: check the disk, then try again")]
    NotRestored {
        /// The error of the store.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Closing the store failed. Everything that was answered is stored all the same.
    #[error("the store did not close cleanly: the next start checks it")]
    Close {
        /// The error of the store.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
#[must_use = "dropping the server stops it"]
pub struct Server {
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
    store: Option<Arc<Keeper>>,
    keeping: Option<JoinHandle<()>>,
    stop_within: Duration,
    tokens: Option<PathBuf>,
    credentials: Arc<RwLock<Credentials>>,
}

/// Declares that a store was restored from a backup: the store begins a new epoch. Without this
/// call, devices that have read or sent more than the backup has are refused, and other devices
/// could take a new state for a state that they know.
///
/// Every device then shows that another server epoch answered, and continues once its user has
/// accepted it. Devices offer again the records that the backup lacks. Returns the new epoch.
///
/// # Errors
/// [`ServeError::Store`] if there is no such store, if a server has it open, or if it cannot be
/// written. The store then does not change.
pub fn declare_restored(data: &Path) -> Result<ServerEpoch, ServeError> {
    // Few pages are touched.
    const CACHE_BYTES: usize = 4 * 1024 * 1024;
    let mut store = Store::open_existing(data, CACHE_BYTES)?;
    let failed = |source| ServeError::NotRestored { source: Box::new(source) };
    store.start_epoch().map_err(failed)?;
    let (_, epoch) = store.identity();
    store.close().map_err(failed)?;
    Ok(epoch)
}

/// Starts a server in the background of the present tokio runtime.
///
/// # Errors
/// [`ServeError`] if the server cannot start.
pub async fn serve(options: ServeOptions) -> Result<Server, ServeError> {
    let ServeOptions {
        listen,
        data,
        tokens,
        clock,
        cache_bytes,
        limits,
        tenant_records,
        tenant_bytes,
    } = options;
    let credentials = match &tokens {
        Some(path) => Credentials::read(path)?,
        None if listen.ip().is_loopback() => Credentials::open(),
        None => return Err(ServeError::OpenToAll { listen }),
    };
    let credentials = Arc::new(RwLock::new(credentials));
    let listener =
        TcpListener::bind(listen).await.map_err(|source| ServeError::Listen { listen, source })?;
    let local_addr =
        listener.local_addr().map_err(|source| ServeError::Listen { listen, source })?;
    let opened = tokio::task::spawn_blocking(move || Keeper::open(&data, cache_bytes)).await;
    let store =
        Arc::new(opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);
    let door = Door::new(limits);
    let limits = *door.limits();
    let app = App {
        store: Arc::clone(&store),
        credentials: Arc::clone(&credentials),
        clock: clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
        quota: Quota { records: tenant_records, bytes: tenant_bytes, ..Quota::default() },
        limits,
        requests: Shares::new(limits.requests),
        request_bytes: Shares::new(limits.request_bytes),
        answer_bytes: Shares::new(limits.answer_bytes),
        turns: Turns::with_most(limits.exchanges, limits.exchanges_beside_others),
    };
    let (stop, stopped) = watch::channel(false);
    let keeping = {
        let (store, mut stopped) = (Arc::clone(&store), stopped.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = store.keep() => {}
            }
        })
    };
    let task = tokio::spawn(door.stand(listener, http::router(app), stopped));
    let (server, epoch) = store.identity();
    tracing::info!(%local_addr, %server, %epoch, tokens = tokens.is_some(), ?limits, "serving");
    Ok(Server {
        local_addr,
        stop,
        task: Some(task),
        store: Some(store),
        keeping: Some(keeping),
        stop_within: limits.stop_within,
        tokens,
        credentials,
    })
}

impl Server {
    /// Returns the address on which the server listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the address that devices are given.
    pub fn url(&self) -> String {
        format!("http://{}", self.local_addr)
    }

    /// Reads the token file again, and logs the result. From then on only its tokens are valid.
    ///
    /// # Errors
    /// [`ServeError::Tokens`] if the file cannot be used. The earlier tokens then stay valid.
    pub fn reload_tokens(&self) -> Result<(), ServeError> {
        let Some(path) = &self.tokens else {
            tracing::warn!("there is no token file to be read again");
            return Ok(());
        };
        match Credentials::read(path) {
            Ok(read) => {
                *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = read;
                tracing::warn!("the token file was read again: its tokens are valid from now on");
                Ok(())
            }
            Err(error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(
                    error = cause,
                    "the token file cannot be used: the former tokens go on to hold"
                );
                Err(error.into())
            }
        }
    }

    /// Stops the server: it accepts no more requests, finishes running ones if they end within
    /// [`DoorLimits::stop_within`], and closes the store.
    ///
    /// # Errors
    /// [`ServeError::Close`] if the store did not close well.
    pub async fn shutdown(mut self) -> Result<(), ServeError> {
        self.stop.send_replace(true);
        // Both tasks end within their time, whatever clients do.
        for task in [self.task.take(), self.keeping.take()].into_iter().flatten() {
            drop(task.await);
        }
        let Some(store) = self.store.take() else { return Ok(()) };
        // Work on an exchange ends by itself, although no client waits for the answer any more.
        let ended = async {
            while Arc::strong_count(&store) > 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        drop(tokio::time::timeout(self.stop_within, ended).await);
        let closed = tokio::task::spawn_blocking(move || match Arc::into_inner(store) {
            Some(store) => store.close(),
            // A transaction that outlived the grace closes the store when it ends.
            None => Ok(()),
        });
        match closed.await {
            Ok(closed) => closed.map_err(|source| ServeError::Close { source: Box::new(source) }),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}
