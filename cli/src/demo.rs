//! `fieldbook demo`: the shipped history, played against a server of its own in a temporary folder.

use crate::error::Failure;
use crate::output::Output;

/// What `demo` is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: Args, _output: &mut Output) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
