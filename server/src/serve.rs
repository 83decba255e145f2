//! Starting and stopping the server.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fieldbook_core::Clock;
use fieldbook_core::authority::Quota;
use fieldbook_core::system::SystemClock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::door::Door;
use crate::http::{self, App};
use crate::identity::{Identity, Sources};
use crate::limits::DoorLimits;
use crate::store::{AnyStore, Keeper, OpenStoreError, SigningKeyError, StoreExchangeError};
use crate::tokens::TokensError;

/// The most connections of monitors.
const MONITORS: usize = 16;

/// How the server is to run.
pub struct ServeOptions {
    /// The address on which the server listens; port 0 for any free port.
    pub listen: SocketAddr,
    /// The path of the store. The file is made if it does not exist; its folder must exist.
    pub data: PathBuf,
    /// The database that has the store, in place of the file: then `data` and `cache_bytes` mean
    /// nothing. Any number of servers may use the same database.
    #[cfg(feature = "postgres")]
    pub database: Option<crate::PostgresUrl>,
    /// The token file. Without it, and without `jwt`, the server listens on this machine only, and
    /// all records belong to one tenant. The server reads the file again when it has changed.
    pub tokens: Option<PathBuf>,
    /// The file that says which signed tokens (JWT) are accepted. A token of the token file is
    /// looked up first.
    #[cfg(feature = "jwt")]
    pub jwt: Option<PathBuf>,
    /// The file that says who may write what; without it, whoever may exchange may write
    /// everything. The server reads the file again when it has changed.
    pub rights: Option<PathBuf>,
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
    /// The address at which `GET /metrics` shows counts of what the server does, in the format of
    /// Prometheus; port 0 for any free port. They name no tenant, actor or device. Whoever reaches
    /// this address may read them, so it belongs inside a private network.
    pub metrics: Option<SocketAddr>,
}

impl ServeOptions {
    /// Listens on an address with a store at a path, without tokens, and with the defaults for the
    /// rest.
    pub fn new(listen: SocketAddr, data: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            data: data.into(),
            #[cfg(feature = "postgres")]
            database: None,
            tokens: None,
            #[cfg(feature = "jwt")]
            jwt: None,
            rights: None,
            clock: None,
            cache_bytes: 64 * 1024 * 1024,
            limits: DoorLimits::default(),
            tenant_records: None,
            tenant_bytes: None,
            metrics: None,
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
         give a token file or the settings of signed tokens, or listen on 127.0.0.1"
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
    /// The settings of signed tokens, or their keys, cannot be used.
    #[cfg(feature = "jwt")]
    #[error(transparent)]
    Jwt(#[from] crate::JwtError),
    /// The declared rights cannot be used.
    #[error(transparent)]
    Rights(#[from] crate::RightsError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The database cannot be opened as a store.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Database(#[from] crate::OpenDatabaseError),
    /// The new epoch could not be written.
    #[error("the store cannot be given a new epoch: check the disk, then try again")]
    NotRestored {
        /// The error of the store.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The records of the store could not be compared with its digests.
    #[error("the store cannot be checked: its records cannot be read")]
    NotChecked {
        /// The error of the store.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The backup was not made; nothing new is at its path.
    #[error("the backup {path:?} was not made")]
    NotBackedUp {
        /// The path of the backup.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The keys that sign receipts did not change.
    #[error(transparent)]
    Keys(#[from] SigningKeyError),
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
    store: Option<Arc<AnyStore>>,
    keeping: Option<JoinHandle<()>>,
    watching: Option<JoinHandle<()>>,
    metrics_addr: Option<SocketAddr>,
    stop_within: Duration,
    identity: Arc<Identity>,
}

/// Starts a server in the background of the present tokio runtime.
///
/// # Errors
/// [`ServeError`] if the server cannot start.
pub async fn serve(options: ServeOptions) -> Result<Server, ServeError> {
    let ServeOptions {
        listen,
        data,
        #[cfg(feature = "postgres")]
        database,
        tokens,
        #[cfg(feature = "jwt")]
        jwt,
        rights,
        clock,
        cache_bytes,
        limits,
        tenant_records,
        tenant_bytes,
        metrics,
    } = options;
    let sources = Sources {
        tokens,
        #[cfg(feature = "jwt")]
        jwt,
        rights,
    };
    if sources.is_empty() && !listen.ip().is_loopback() {
        return Err(ServeError::OpenToAll { listen });
    }
    let identity = Arc::new(Identity::read(sources)?);
    let (listener, local_addr) = bind(listen).await?;
    let for_monitor = match metrics {
        Some(listen) => Some(bind(listen).await?),
        None => None,
    };
    let metrics_addr = for_monitor.as_ref().map(|(_, address)| *address);
    #[cfg(feature = "postgres")]
    let store = match database {
        Some(url) => AnyStore::Postgres(crate::store::Postgres::open(&url).await?),
        None => open_file(data, cache_bytes).await?,
    };
    #[cfg(not(feature = "postgres"))]
    let store = open_file(data, cache_bytes).await?;
    let store = Arc::new(store);
    let door = Door::new(limits);
    let limits = *door.limits();
    let (stop, stopped) = watch::channel(false);
    let keeping = tokio::spawn(keep(Arc::clone(&store), Arc::clone(&identity), stopped.clone()));
    let watching = for_monitor.map(|(listener, _)| {
        let watched = http::Watched { door: Arc::clone(&door), store: Arc::clone(&store) };
        let door = Door::new(DoorLimits { connections: MONITORS, ..limits });
        tokio::spawn(door.stand(listener, http::operators_router(watched), stopped.clone()))
    });
    let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
    let quota = Quota { records: tenant_records, bytes: tenant_bytes, ..Quota::default() };
    let app = App::new(Arc::clone(&store), Arc::clone(&identity), (clock, quota), &door);
    let task = tokio::spawn(door.stand(listener, http::router(app), stopped));
    let (server, epoch) = store.identity();
    tracing::info!(%local_addr, %server, %epoch, open = identity.is_open(), ?limits, "serving");
    Ok(Server {
        local_addr,
        stop,
        task: Some(task),
        store: Some(store),
        keeping: Some(keeping),
        watching,
        metrics_addr,
        stop_within: limits.stop_within,
        identity,
    })
}

async fn open_file(data: PathBuf, cache_bytes: usize) -> Result<AnyStore, ServeError> {
    let opened = tokio::task::spawn_blocking(move || Keeper::open(&data, cache_bytes)).await;
    let keeper = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    Ok(AnyStore::File(Arc::new(keeper)))
}

/// Keeps the store open and the credentials up to date until the server is stopped.
async fn keep(store: Arc<AnyStore>, identity: Arc<Identity>, mut stopped: watch::Receiver<bool>) {
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = store.keep() => {}
        () = identity.keep() => {}
    }
}

async fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

impl Server {
    /// Returns the public keys that sign receipts, each as `name+id+key`. Whoever is to check them
    /// has to get them from the server's owner.
    pub fn verifiers(&self) -> Vec<String> {
        self.store.as_ref().map(|store| store.verifiers()).unwrap_or_default()
    }

    /// Returns the address on which the server listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the address at which the counts are shown, if there is one.
    pub const fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Returns the address that devices are given.
    pub fn url(&self) -> String {
        format!("http://{}", self.local_addr)
    }

    /// Reads the token file, the settings of signed tokens and the rights again, and logs the
    /// result. From then on only these are valid. The server does the same by itself within seconds
    /// after one of the files has changed.
    ///
    /// # Errors
    /// [`ServeError::Tokens`], `ServeError::Jwt` or [`ServeError::Rights`] if a file cannot be
    /// used. The earlier credentials and rights then stay valid.
    pub fn reload_tokens(&self) -> Result<(), ServeError> {
        self.identity.read_again()
    }

    /// Copies the store, as its last commit left it, into a new file, and returns the number of
    /// rows. The server goes on meanwhile. To use the backup, put it in the place of the store of a
    /// stopped server, and call [`crate::declare_restored`].
    ///
    /// # Errors
    /// [`ServeError::NotBackedUp`]: the path exists, its folder is missing, the disk is full, the
    /// store is out of reach for the moment, or it is in a database, which has its own tools.
    pub async fn backup(&self, path: impl Into<PathBuf>) -> Result<u64, ServeError> {
        let (path, store) = (path.into(), self.store.clone());
        let to = path.clone();
        let copied = tokio::task::spawn_blocking(move || match store {
            Some(store) => store.backup(&to),
            None => Err(StoreExchangeError::OutOfReach.into()),
        });
        let copied =
            copied.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        copied.map_err(|source| ServeError::NotBackedUp { path, source })
    }

    /// Stops the server: it accepts no more requests, finishes running ones if they end within
    /// [`DoorLimits::stop_within`], and closes the store.
    ///
    /// # Errors
    /// [`ServeError::Close`] if the store did not close well.
    pub async fn shutdown(mut self) -> Result<(), ServeError> {
        self.stop.send_replace(true);
        // All tasks end within their time, whatever clients do.
        let tasks = [self.task.take(), self.keeping.take(), self.watching.take()];
        for task in tasks.into_iter().flatten() {
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
