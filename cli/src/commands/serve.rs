//! `serve`: a sync server on one file, or on a database. `restored`: marks its store as restored from
//! a backup.

mod config;
mod database;

use std::env::VarError;
use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use fieldbook::host::{Clock, SystemClock};
use fieldbook_server::{ServeOptions, Server, declare_database_restored, declare_restored, serve};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::error::Failure;
use crate::files;
use crate::output::Output;
use crate::show::count;

use self::database::{Address, Database};

const NO_STORE: &str = "the store is missing: name its file, or a database with --store-file";

/// The address on which the server listens unless another is named.
const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7070));

/// The arguments of `serve`, which are also the members of the file of settings.
#[derive(Debug, Default, clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(after_help = "Examples:
  fieldbook serve --data crm.store
  fieldbook serve --data crm.store --listen 127.0.0.1:0              any free port; the address is printed
  fieldbook serve --data crm.store --listen 0.0.0.0:7070 --tokens tokens.json
  fieldbook serve --data crm.store --listen 0.0.0.0:7070 --jwt jwt.json --rights rights.json
  fieldbook serve --config /etc/fieldbook/serve.json
  fieldbook serve --data crm.store --metrics 127.0.0.1:9090          counts for a monitor
  fieldbook serve --data crm.store --backups backups                 then, for each backup: kill -USR1 PID
  fieldbook serve --store postgres://fieldbook@127.0.0.1/fieldbook   a database, for any number of servers
  fieldbook serve --store-file database.url                          the same, with a password in the address

The token file: {\"a-long-random-token\": {\"tenant\": \"acme\", \"actor\": \"ann\"}}
Only its owner may read it (chmod 600). The settings of signed tokens:
  {\"issuer\": \"https://login.example.com/\", \"audience\": \"fieldbook\", \"algorithms\": [\"RS256\"],
   \"keys_url\": \"https://login.example.com/.well-known/jwks.json\", \"tenant_claim\": \"tenant\"}
The file of settings: {\"data\": \"crm.store\", \"tokens\": \"tokens.json\", \"tenant_records\": 100000}
The rights: {\"types\": {\"lead\": {\"delete\": [\"manager\"], \"fields\": {\"score\": []}}}}
The server reads the tokens, the settings of signed tokens and the rights again within seconds after they have
changed, and at once after kill -HUP PID. It reads the file of settings only when it starts.
Without tokens the server accepts everyone on this machine, and nobody else. It uses plain HTTP: put a TLS proxy
in front of it. FIELDBOOK_LOG=info logs each exchange. FIELDBOOK_LOG=warn,fieldbook_server=debug logs more of the server.
GET /v1/health: the server runs. GET /v1/ready: it can read and write its store.")]
pub(crate) struct Args {
    /// The store's file; the server makes it if it is missing
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The Postgres database with the store, in place of a file: postgres://USER@HOST/NAME. With a
    /// password use --store-file, or the variable FIELDBOOK_STORE: others can see the arguments
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    store: Option<Address>,
    /// A file with the address of the database, which only its owner may read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "store"])]
    store_file: Option<PathBuf>,
    /// A file with the same settings in JSON, such as tenant_records; a flag goes before the file
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// The address to listen on; port 0 takes any free port [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The file of tokens, with the tenant and the actor of each
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// The settings of signed tokens (JWT): their issuer, their keys, and the claims that count
    #[arg(long, value_name = "FILE")]
    jwt: Option<PathBuf>,
    /// The rights: who may create, change and delete which records, and set which fields
    #[arg(long, value_name = "FILE")]
    rights: Option<PathBuf>,
    /// The address of GET /metrics, for a monitor (Prometheus); keep it inside a private network
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// The folder for backups. `kill -USR1 PID` makes the server write one there, while it goes on
    #[arg(long, value_name = "FOLDER")]
    backups: Option<PathBuf>,
    /// The most open connections [default: 1024]
    #[arg(long, value_name = "NUMBER")]
    connections: Option<usize>,
    /// The most records a tenant may keep, deleted ones too
    #[arg(long, value_name = "NUMBER")]
    tenant_records: Option<u64>,
    /// The most bytes a tenant's records may take
    #[arg(long, value_name = "BYTES")]
    tenant_bytes: Option<u64>,
}

/// The arguments of `restored`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook restored crm.store                  once, before the restored store is served
  fieldbook restored --store-file database.url  the same for a database that was restored by its own tools
  fieldbook sync ann.book --server https://sync.example.com --accept-server     then, on each device

A device stops syncing until it accepts the restored server. Then it sends again the records that the backup lacks.")]
pub(crate) struct RestoredArgs {
    /// The store's file, while no server has it open
    data: Option<PathBuf>,
    /// The Postgres database with the store, in place of a file: postgres://USER@HOST/NAME. With a
    /// password use --store-file, or the variable FIELDBOOK_STORE: others can see the arguments
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    store: Option<Address>,
    /// A file with the address of the database, which only its owner may read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "store"])]
    store_file: Option<PathBuf>,
}

/// Marks a store as restored from a backup.
pub(crate) fn restored(args: &RestoredArgs, output: &mut Output) -> Result<(), Failure> {
    let named = Database { store: args.store.clone(), store_file: args.store_file.clone() };
    let database = named.url(args.data.is_some())?;
    let (shown, epoch) = match (&args.data, database) {
        (_, Some(url)) => {
            let epoch = super::runtime()?.block_on(declare_database_restored(&url));
            (url.to_string(), epoch)
        }
        (Some(data), None) => {
            files::is_file(data)?;
            (files::shown(data), declare_restored(data))
        }
        (None, None) => return Err(Failure::usage(NO_STORE)),
    };
    let epoch = epoch.map_err(Failure::caused_by)?;
    writeln!(output, "{shown} begins a new epoch, {epoch}")?;
    writeln!(
        output,
        "each device reports this at its next sync, and continues when it accepts the server"
    )?;
    Ok(())
}

/// Runs the command.
pub(crate) fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    let runtime = super::runtime()?;
    // The signals are caught first, so none ends the process in the middle of a write.
    let mut signals = {
        let _within = runtime.enter();
        Signals::listen()?
    };
    start_logging()?;
    let args = config::merged(args)?;
    let named = Database { store: args.store, store_file: args.store_file };
    let database = named.url(args.data.is_some())?;
    if database.is_some() && args.backups.is_some() {
        return Err(Failure::usage(
            "a database is backed up by its own tools, such as pg_dump: leave --backups out",
        ));
    }
    if args.data.is_none() && database.is_none() {
        return Err(Failure::usage(
            "the store is missing: pass --data FILE, or --store-file for a database, or name one of \
             them in the file of settings",
        ));
    }
    // Opening a pipe would wait until somebody writes to it.
    [args.data.as_ref(), args.tokens.as_ref(), args.jwt.as_ref(), args.rights.as_ref()]
        .into_iter()
        .flatten()
        .try_for_each(|path| files::is_file(path))?;
    let mut options = ServeOptions {
        tokens: args.tokens,
        jwt: args.jwt,
        rights: args.rights,
        metrics: args.metrics,
        tenant_records: args.tenant_records,
        tenant_bytes: args.tenant_bytes,
        database,
        ..ServeOptions::new(args.listen.unwrap_or(LISTEN), args.data.unwrap_or_default())
    };
    if let Some(connections) = args.connections {
        options.limits.connections = connections;
    }
    runtime.block_on(async {
        let server = tokio::select! {
            server = serve(options) => server.map_err(Failure::caused_by)?,
            // A store that is being opened is closed before the program ends.
            () = signals.stop() => return Ok(()),
        };
        write_start(&server, output)?;
        loop {
            match signals.next().await {
                // The server logs the result. A file with a fault changes nothing.
                Asked::Reload => drop(server.reload_tokens()),
                Asked::BackUp => back_up(&server, args.backups.as_deref(), output).await,
                Asked::Stop => break,
            }
        }
        let told = say(output, "stopping");
        server.shutdown().await.map_err(Failure::caused_by)?;
        told
    })
}

/// Writes where the server listens, and its keys. A program that started this one waits for these
/// lines.
fn write_start(server: &Server, output: &mut Output) -> Result<(), Failure> {
    writeln!(output, "listening on {}", server.url())?;
    // A store that cannot be written, and never had a key, has none.
    match server.verifiers().as_slice() {
        [] => writeln!(output, "signs no receipts: the store has no key")?,
        keys => writeln!(output, "signs receipts with {}", keys.join(", "))?,
    }
    if let Some(address) = server.metrics_addr() {
        writeln!(output, "metrics on http://{address}/metrics")?;
    }
    output.finish()
}

/// Writes a line at once.
fn say(output: &mut Output, line: &str) -> Result<(), Failure> {
    writeln!(output, "{line}")?;
    output.finish()
}

/// Writes a backup whose name has the present time in UTC. Neither a backup that fails nor a reader
/// who is gone ends the server.
async fn back_up(server: &Server, folder: Option<&Path>, output: &mut Output) {
    let Some(folder) = folder else {
        return tracing::warn!("no backup was written: start the server with --backups FOLDER");
    };
    let now = SystemClock::new().now().wall.to_utc().unwrap_or_default();
    let path = folder.join(now.format("%Y%m%dT%H%M%S%3fZ.store").to_string());
    match server.backup(&path).await {
        Ok(rows) => {
            let line = format!("backup {}: {}", files::shown(&path), count(rows, "row"));
            if say(output, &line).is_err() {
                tracing::warn!("a backup was written, and nobody reads the output");
            }
        }
        Err(error) => {
            let cause: &dyn Error = &error;
            tracing::error!(error = cause, "no backup was written");
        }
    }
}

fn start_logging() -> Result<(), Failure> {
    let wrong = |error: Box<dyn Error + Send + Sync>| {
        Failure::usage("FIELDBOOK_LOG is not a filter such as `info`").because(error)
    };
    let mut filter = match std::env::var("FIELDBOOK_LOG") {
        Ok(text) if !text.is_empty() => {
            text.parse::<Targets>().map_err(|error| wrong(error.into()))?
        }
        Ok(_) | Err(VarError::NotPresent) => Targets::new(),
        Err(error @ VarError::NotUnicode(_)) => return Err(wrong(error.into())),
    };
    if filter.default_level().is_none() {
        filter = filter.with_default(LevelFilter::WARN);
    }
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(console::colors_enabled_stderr())
        .with_writer(crate::show::Log::default);
    tracing_subscriber::registry().with(lines).with(filter).init();
    Ok(())
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Reload,
    BackUp,
    Stop,
}

/// The signals that the server handles.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    user: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Takes the signals from the system, whose default is to end the process.
    fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let take = |kind| {
            signal(kind).map_err(|error| Failure::new("cannot wait for signals").because(error))
        };
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            user: take(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next signal.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.user.recv() => Asked::BackUp,
        }
    }

    /// Waits until a person presses ctrl-C or the system asks the program to end.
    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

/// On other systems there is only ctrl-C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self)
    }

    async fn next(&mut self) -> Asked {
        self.stop().await;
        Asked::Stop
    }

    async fn stop(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without signals the server runs until it is killed.
            std::future::pending().await
        }
    }
}
