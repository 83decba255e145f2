//! `reset`: takes the server's state in place of every change that the server does not have.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use fieldbook::error::StoreError;
use fieldbook::sync::TakeState;

use super::explain::write_advice;
use super::{Writer, look};
use crate::error::Failure;
use crate::files::shown;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::count;
use crate::show::table::{Listing, Text, row};

/// The arguments of `reset`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook reset ann.book                                  what would be discarded; nothing changes
  fieldbook reset ann.book --yes --reason 'wrong device'    discard it
  fieldbook reset ann.book --yes --reason 'wrong device' --export ann.log
                                                            export the log, verify that, then discard

The log keeps each change with its fields. A change that may have arrived stays if the server has it.
`fieldbook queue ann.log` shows what was given up.")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// Discard every change that the server does not have
    #[arg(long, requires = "reason")]
    yes: bool,
    /// The reason; the log keeps it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Export the log to a new file before: nothing is discarded unless it is in there, verified
    #[arg(long, value_name = "FILE", requires = "yes")]
    export: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    writer: Writer,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    match &args.reason {
        Some(reason) if args.yes => reset(args, reason, output),
        _ => show(args, output),
    }
}

fn reset(args: &Args, reason: &str, output: &mut Output) -> Result<(), Failure> {
    let book = args.writer.open(&args.book)?;
    let unsent = book.queue().unsent()?;
    let how = match &args.export {
        Some(path) => TakeState::new(reason).export_to(path),
        None => TakeState::new(reason),
    };
    let discarded = book.servers().take_state(how).map_err(|error| not_reset(error, args))?;
    book.close()?;
    // Without an op to discard there is no export.
    let exported = args.export.as_deref().filter(|_| discarded > 0);
    if args.json {
        let exported = exported.map(shown);
        let told = json!({ "discarded": discarded, "of": unsent.of, "exported": exported });
        return output.json(&told);
    }
    let discarded = count(discarded, "op");
    match exported {
        Some(path) => writeln!(
            output,
            "discarded {discarded}; the log with them is in {}, verified; sync the book",
            shown(path)
        )?,
        None => {
            writeln!(output, "discarded {discarded}; the log keeps their fields; sync the book")?
        }
    }
    Ok(())
}

/// Says that nothing was discarded, if there was to be an export.
fn not_reset(error: fieldbook::Error, args: &Args) -> Failure {
    let (fieldbook::Error::Store(cause), Some(_)) = (&error, &args.export) else {
        return error.into();
    };
    let what = format!("nothing was discarded: {cause}");
    match **cause {
        // The advice about a damaged book helps.
        StoreError::Corrupt { .. } => Failure::from(error).of(what),
        _ => Failure::caused_by(error).of(what).hint("choose another file for the export"),
    }
}

/// Shows what a reset would discard.
fn show(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let unsent = book.queue().unsent()?;
    if args.json {
        return output.json(&json!({ "discarded": 0, "of": unsent.of, "exported": null }));
    }
    if unsent.ops() == 0 {
        return Ok(match unsent.unconfirmed {
            0 => writeln!(output, "the server has everything: there is nothing to discard"),
            more => writeln!(
                output,
                "there is nothing to discard: the accepted server may lack {}, and the next sync finds out",
                count(more, "record")
            ),
        }?);
    }
    let mut listing = Listing::new(&["actor", ">ops"]);
    for (actor, ops) in &unsent.of {
        row!(listing, Text::name(actor), ops);
    }
    listing.write(output)?;
    let advice = Advice::default().run(["queue", BOOK]).choose([
        "reset",
        BOOK,
        "--yes",
        "--reason",
        "not needed",
    ]);
    let heading = format!("{} would be discarded; nothing changed:", count(unsent.ops(), "op"));
    write_advice(&heading, &advice, &args.book, output)
}
