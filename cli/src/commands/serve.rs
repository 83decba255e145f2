//! `serve`: a sync server on one file. `restored`: marks that file as restored from a backup.

use std::env::VarError;
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use fieldbook_server::{DoorLimits, ServeOptions, declare_restored, serve};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::error::Failure;
use crate::files;
use crate::output::Output;

/// The arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook serve --data crm.store
  fieldbook serve --data crm.store --listen 127.0.0.1:0              any free port; the address is printed
  fieldbook serve --data crm.store --listen 0.0.0.0:7070 --tokens tokens.json

The token file: {\"a-long-random-token\": {\"tenant\": \"acme\", \"actor\": \"ann\"}}
Only its owner may read it (chmod 600). After a change, kill -HUP PID makes the server read it again.
Without a token file the server accepts everyone on this machine, and nobody else. It uses plain HTTP: put a TLS proxy
in front of it. FIELDBOOK_LOG=info logs each exchange. FIELDBOOK_LOG=warn,fieldbook_server=debug logs more of the server.
GET /v1/health: the server runs. GET /v1/ready: it can read and write its store.")]
pub(crate) struct Args {
    /// The store's file; the server makes it if it is missing
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The address to listen on; port 0 takes any free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// The file of tokens, with the tenant and the actor of each
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// The most open connections
    #[arg(long, value_name = "NUMBER", default_value_t = DoorLimits::default().connections)]
    connections: usize,
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
  fieldbook sync ann.book --server https://sync.example.com --accept-server     then, on each device

A device stops syncing until it accepts the restored server. Then it sends again the records that the backup lacks.")]
pub(crate) struct RestoredArgs {
    /// The store's file, while no server has it open
    data: PathBuf,
}

/// Marks a store as restored from a backup.
pub(crate) fn restored(args: &RestoredArgs, output: &mut Output) -> Result<(), Failure> {
    files::is_file(&args.data)?;
    let epoch = declare_restored(&args.data).map_err(Failure::caused_by)?;
    writeln!(output, "{} begins a new epoch, {epoch}", files::shown(&args.data))?;
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
    // Opening a pipe would wait until somebody writes to it.
    [Some(&args.data), args.tokens.as_ref()]
        .into_iter()
        .flatten()
        .try_for_each(|path| files::is_file(path))?;
    let mut options =
        ServeOptions { tokens: args.tokens, ..ServeOptions::new(args.listen, args.data) };
    options.limits.connections = args.connections;
    (options.tenant_records, options.tenant_bytes) = (args.tenant_records, args.tenant_bytes);
    runtime.block_on(async {
        let server = tokio::select! {
            server = serve(options) => server.map_err(Failure::caused_by)?,
            // A store that is being opened is closed before the program ends.
            () = signals.stop() => return Ok(()),
        };
        writeln!(output, "listening on {}", server.url())?;
        // A program that started this one waits for this line.
        output.finish()?;
        while signals.next().await == Asked::ToReload {
            // The server logs the result. A file with a fault changes nothing.
            drop(server.reload_tokens());
        }
        writeln!(output, "stopping")?;
        output.finish()?;
        server.shutdown().await.map_err(Failure::caused_by)
    })
}

fn start_logging() -> Result<(), Failure> {
    let wrong = |error: Box<dyn Error + Send + Sync>| {
        Failure::usage("FIELDBOOK_LOG is not a filter such as `info`").because(error)
    };
    let mut filter = match std::env::var("FIELDBOOK_LOG") {
        Ok(said) if !said.is_empty() => {
            said.parse::<Targets>().map_err(|error| wrong(error.into()))?
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
    ToReload,
    ToStop,
}

/// The signals that the server handles.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
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
        })
    }

    /// Waits for the next signal.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::ToStop,
            _ = self.terminate.recv() => Asked::ToStop,
            _ = self.hangup.recv() => Asked::ToReload,
        }
    }

    /// Waits until a person presses ctrl-C or the system asks the program to end.
    async fn stop(&mut self) {
        while self.next().await != Asked::ToStop {}
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
        Asked::ToStop
    }

    async fn stop(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without signals the server runs until it is killed.
            std::future::pending().await
        }
    }
}
