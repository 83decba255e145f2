//! `serve`: a sync server on one file, until it is told to stop; `restored`: that file came from a backup.

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

/// What `serve` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook serve --data crm.store
  fieldbook serve --data crm.store --listen 127.0.0.1:0              any free port; the address is printed
  fieldbook serve --data crm.store --listen 0.0.0.0:7070 --tokens tokens.json

The token file: {\"a-long-random-token\": {\"tenant\": \"acme\", \"actor\": \"ann\"}}
Only its owner may read it (chmod 600). After a change, kill -HUP PID has it read again.
Without one the server takes everyone on this machine, and nobody else. It speaks plain HTTP: put a proxy that ends TLS
in front. FIELDBOOK_LOG=info writes a line for each exchange. More at once: FIELDBOOK_LOG=warn,fieldbook_server=debug.
GET /v1/health: it runs. GET /v1/ready: it can read and write its store.")]
pub(crate) struct Args {
    /// The store's file; it is made if it is not there
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// Which token speaks for whom
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

/// What `restored` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook restored crm.store                  once, before the restored store is served
  fieldbook sync ann.book --server https://sync.example.com --accept-server     then, on each device

Devices say that the server was set back until they are told to accept it. What the backup lacks and a device still has is
then sent again.")]
pub(crate) struct RestoredArgs {
    /// The store's file, while no server has it open
    data: PathBuf,
}

/// Declares a store restored from a backup.
pub(crate) fn restored(args: &RestoredArgs, output: &mut Output) -> Result<(), Failure> {
    files::is_file(&args.data)?;
    let epoch = declare_restored(&args.data).map_err(Failure::caused_by)?;
    writeln!(output, "{} begins a new epoch, {epoch}", files::shown(&args.data))?;
    writeln!(output, "each device says so at its next sync, and goes on once it is told to accept that")?;
    Ok(())
}

/// Runs the command.
pub(crate) fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    let runtime = super::runtime()?;
    // Before anything else: from here on no signal ends the process amid something.
    let mut signals = {
        let _within = runtime.enter();
        Signals::listen()?
    };
    start_logging()?;
    // Opening a pipe would wait for ever.
    [Some(&args.data), args.tokens.as_ref()]
        .into_iter()
        .flatten()
        .try_for_each(|path| files::is_file(path))?;
    let mut options = ServeOptions { tokens: args.tokens, ..ServeOptions::new(args.listen, args.data) };
    options.limits.connections = args.connections;
    (options.tenant_records, options.tenant_bytes) = (args.tenant_records, args.tenant_bytes);
    runtime.block_on(async {
        let server = tokio::select! {
            server = serve(options) => server.map_err(Failure::caused_by)?,
            // What is being opened is closed before the program ends.
            () = signals.stop() => return Ok(()),
        };
        writeln!(output, "listening on {}", server.url())?;
        // Whoever started it waits for this line.
        output.finish()?;
        while signals.next().await == Asked::ToReload {
            // Its log tells how that went; a file that cannot be used ends nothing.
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
        Ok(said) if !said.is_empty() => said.parse::<Targets>().map_err(|error| wrong(error.into()))?,
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

/// The signals that the server understands.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Takes the signals from the system, which would end the process.
    fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let take =
            |kind| signal(kind).map_err(|error| Failure::new("cannot wait for signals").because(error));
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::ToStop,
            _ = self.terminate.recv() => Asked::ToStop,
            _ = self.hangup.recv() => Asked::ToReload,
        }
    }

    /// Waits until someone presses ctrl-c or the system asks the program to end.
    async fn stop(&mut self) {
        while self.next().await != Asked::ToStop {}
    }
}

/// Elsewhere there is only ctrl-c.
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
            // Without signals it runs until it is killed.
            std::future::pending().await
        }
    }
}
