//! `explain`: why a record is, or is not, at the server. The sentences are the book's; what to do about it, in terms of this
//! program, is added here.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::{ExplainedOp, Explanation, Held, OpState, ParkedScope, RecordKey, Seen};

use super::Viewer;
use crate::error::Failure;
use crate::output::Output;
use crate::show::{plain, time};

/// What `explain` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fieldbook explain ann.book lead/42")]
pub(crate) struct Args {
    /// The book's file
    book: PathBuf,
    /// The record, as ENTITY/ID
    key: RecordKey,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    viewer: Viewer,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    let explanation = book.explain(&args.key)?;
    if explanation.seen == Seen::Nothing && explanation.ops.is_empty() && !explanation.kept_aside {
        return Err(Failure::new(format!("nothing is known of {} in this book", args.key))
            .hint("`fieldbook ls` shows what there is, `fieldbook history` what there was"));
    }
    if args.json {
        return output.json(&explanation);
    }
    for sentence in &explanation.sentences {
        writeln!(output, "{}", plain(&time::localised(sentence)))?;
    }
    let mut advice: Vec<String> =
        explanation.ops.iter().filter_map(|op| advise(args, &explanation, op)).collect();
    advice.dedup();
    if !advice.is_empty() {
        writeln!(output, "\nWhat to do:")?;
    }
    advice.iter().try_for_each(|line| writeln!(output, "  {line}"))?;
    Ok(())
}

/// Returns the command that helps an op on, if one does.
fn advise(args: &Args, explanation: &Explanation, op: &ExplainedOp) -> Option<String> {
    let book = args.book.display();
    Some(match &op.state {
        OpState::Pending | OpState::InFlight { .. } | OpState::Held(Held::BackingOff { .. }) => {
            format!("fieldbook sync {book}")
        }
        OpState::DeadLettered { .. } => {
            format!("fieldbook dead-letters retry|edit|discard {book} {}", op.place)
        }
        OpState::Held(Held::OtherActor { actor }) => format!("fieldbook sync {book} --actor {actor}"),
        OpState::Held(Held::WaitsFor { record }) => format!("fieldbook explain {book} {record}"),
        OpState::Parked { scope: ParkedScope::Actor, .. } => {
            let actor = op.actor.as_ref().map_or("ACTOR", |actor| actor.as_str());
            format!("fieldbook sync {book} --actor {actor} --token-file FILE")
        }
        OpState::Parked { scope: ParkedScope::Entity | ParkedScope::Protocol, .. } => {
            format!("fieldbook sync {book} --resume      once upgraded")
        }
        OpState::Parked { scope: ParkedScope::Op, .. } => {
            let open =
                explanation.conflicts.iter().find(|conflict| conflict.open && conflict.op == op.place)?;
            format!("fieldbook conflicts keep {book} {} mine|theirs|JSON", open.id)
        }
        OpState::Parked { scope: ParkedScope::Server, .. } => {
            format!("fieldbook sync {book} --accept-server      if it is meant to be that server")
        }
        _ => return None,
    })
}
