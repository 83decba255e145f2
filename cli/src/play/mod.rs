//! `fieldbook play`: a stream of mutations, played through one book per author.

use std::path::PathBuf;

use crate::error::Failure;
use crate::output::Output;

/// What `play` is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The stream, one mutation a line, gzipped if it ends in `.gz`.
    stream: PathBuf,
    /// The table that the stream comes to, one record a line, to compare the server and every device with.
    #[arg(long, value_name = "FINAL")]
    oracle: Option<PathBuf>,
    /// A server that runs already; without it one is started for this play.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Where to keep the books; without it they are thrown away at the end.
    #[arg(long, value_name = "DIR")]
    books: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args, _output: &mut Output) -> Result<(), Failure> {
    let Args { stream: _, oracle: _, server: _, books: _ } = args;
    Err(Failure::new("not built yet"))
}
