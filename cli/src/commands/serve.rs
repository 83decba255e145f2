//! `serve`: a sync server on one file, until it is told to stop; `restored`: that file came from a backup.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use fieldbook_server::{ServeOptions, declare_restored, serve};
use tracing_subscriber::EnvFilter;

use crate::error::Failure;
use crate::output::Output;

/// What `serve` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook serve --data crm.store
  fieldbook serve --data crm.store --listen 127.0.0.1:0              any free port; the address is printed
  fieldbook serve --data crm.store --listen 0.0.0.0:7070 --tokens tokens.json

The token file: {\"a-long-random-token\": {\"tenant\": \"acme\", \"actor\": \"ann\"}}
Without one the server takes everyone on this machine, and nobody else. It speaks plain HTTP: put a proxy that ends TLS
in front. FIELDBOOK_LOG=debug says more (the filter language of tracing-subscriber).")]
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
}

/// What `restored` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook restored crm.store                  once, before the restored store is served
  fieldbook sync ann.book --accept-server       then, on each device

Devices say that the server was set back until they are told to accept it. What the backup lacks and a device still has is
then sent again.")]
pub(crate) struct RestoredArgs {
    /// The store's file, while no server has it open
    data: PathBuf,
}

/// Declares a store restored from a backup.
pub(crate) fn restored(args: &RestoredArgs, output: &mut Output) -> Result<(), Failure> {
    let epoch = declare_restored(&args.data).map_err(Failure::caused_by)?;
    writeln!(output, "{} begins a new epoch, {epoch}", crate::files::shown(&args.data))?;
    writeln!(output, "each device says so at its next sync, and goes on once it is told to accept that")?;
    Ok(())
}

/// Runs the command.
pub(crate) fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    start_logging()?;
    let options = ServeOptions { tokens: args.tokens, ..ServeOptions::new(args.listen, args.data) };
    super::runtime()?.block_on(async {
        let server = serve(options).await.map_err(Failure::caused_by)?;
        writeln!(output, "listening on {}", server.url())?;
        // Whoever started it waits for this line.
        output.finish()?;
        stop_signal().await?;
        writeln!(output, "stopping")?;
        output.finish()?;
        server.shutdown().await.map_err(Failure::caused_by)
    })
}

fn start_logging() -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::WARN.into())
        .with_env_var("FIELDBOOK_LOG")
        .from_env()
        .map_err(|error| Failure::usage("FIELDBOOK_LOG is not a filter such as `info`").because(error))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(console::colors_enabled_stderr())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Waits until someone presses ctrl-c or the system asks the program to end.
async fn stop_signal() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new("cannot wait for signals").because(error);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed.map_err(failed),
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(failed)
}
