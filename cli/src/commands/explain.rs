//! `explain`: why a record is, or is not, synced. The sentences are the book's. This module adds
//! the commands that help.

use std::io::Write;
use std::path::{Path, PathBuf};

use fieldbook::audit::{ExplainedOp, Explanation, Seen};
use fieldbook::conflict::ConflictId;
use fieldbook::sync::{Held, OpState, ParkReason, UserAction};
use fieldbook::{Actor, RecordKey};

use super::{Viewer, as_actor, as_option, lacking, said_of};
use crate::error::Failure;
use crate::files::{begins_like_an_exported_log, redaction_of};
use crate::output::Output;
use crate::show::advice::{Advice, BOOK, SERVER};
use crate::show::table::wrap;
use crate::show::{name, plain, time};
use crate::view::Then;

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook explain ann.book lead/42
  fieldbook explain ann.book lead/42 --at 14:05 --zone local")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The record, as ENTITY/ID
    key: RecordKey,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
    #[command(flatten)]
    viewer: Viewer,
}

/// An explanation, with what it leaves out.
#[derive(serde::Serialize)]
struct Explained<'e> {
    #[serde(flatten)]
    explanation: &'e Explanation,
    /// The rules of the app that this program cannot run.
    rules_not_run: &'e [String],
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let explanation = view.explain(&args.key)?;
    if explanation.seen == Seen::Nothing && explanation.ops.is_empty() && !explanation.undeclared {
        return Err(Failure::new(format!("this book has nothing about {}", name(&args.key)))
            .hint("this lists the records of its type:")
            .advise(Advice::default().run(["ls", BOOK, args.key.entity.as_str()])));
    }
    let lacking = lacking(&book, Some(&args.key.entity));
    if args.json {
        return output.json(&Explained { explanation: &explanation, rules_not_run: &lacking });
    }
    for sentence in &explanation.sentences {
        let sentence = plain(&time::localised(sentence));
        match output.width() {
            Some(width) => wrap(&sentence, usize::from(width).max(20))
                .iter()
                .try_for_each(|line| writeln!(output, "{line}"))?,
            None => writeln!(output, "{sentence}")?,
        }
    }
    if !lacking.is_empty() {
        writeln!(output, "{}", plain(&format!("Note: {}.", said_of(&lacking))))?;
    }
    // What helped then may not be possible now.
    if view.is_past() {
        return Ok(());
    }
    what_to_do(&explanation, &book.actor(), &args.book, output)
}

/// Writes the commands that help `user` with a record, if there are any.
pub(crate) fn what_to_do(
    explanation: &Explanation,
    user: &Actor,
    book: &Path,
    output: &mut Output,
) -> Result<(), Failure> {
    let each = explanation.ops.iter().filter_map(|op| advise(op, user));
    write_advice("What to do:", &each.fold(Advice::default(), Advice::and), book, output)
}

/// Writes advice about a book below a heading, if there is any. An exported log cannot be changed.
pub(crate) fn write_advice(
    heading: &str,
    advice: &Advice,
    book: &Path,
    output: &mut Output,
) -> Result<(), Failure> {
    let is_bundle = redaction_of(book)?.is_some();
    if advice.is_empty() || (begins_like_an_exported_log(book) && !is_bundle) {
        return Ok(());
    }
    // Whoever reads a bundle helps the one who has the book.
    let book = if is_bundle { Path::new("BOOK") } else { book };
    let heading = heading.trim_end_matches(':');
    let whose = if is_bundle { ", with the book of the device" } else { "" };
    writeln!(output, "\n{heading}{whose}:")?;
    let lines = advice.lines(Some(book));
    if std::env::var_os("FIELDBOOK_SERVER").is_none()
        && lines.iter().any(|line| line.contains(SERVER))
    {
        writeln!(output, "  # set FIELDBOOK_SERVER to the address of the server")?;
    }
    lines.iter().try_for_each(|line| writeln!(output, "  {line}"))?;
    Ok(())
}

/// Returns the commands that help `user` with an op, if there are any.
pub(crate) fn advise(op: &ExplainedOp, user: &Actor) -> Option<Advice> {
    let place = op.place.to_string();
    Some(match &op.state {
        OpState::Pending { .. } | OpState::WaitingForNetwork { .. } | OpState::InFlight { .. } => {
            Advice::default().run(sync(None, &[]))
        }
        OpState::DeadLettered { .. } => {
            Advice::default().run(["dead-letters", "show", BOOK, &place])
        }
        OpState::InConflict { conflict } => choose(*conflict),
        OpState::Held(held) => return held_back(held, &place, user),
        OpState::Parked { reason, .. } => match reason {
            ParkReason::Unauthorized => Advice::default()
                .words("with a fresh token on standard input:")
                .run(sync(Some(&op.actor), &["--token-file", "-"]))
                .and(take_over(&op.actor, user)),
            ParkReason::OtherTenant => Advice::default()
                .words("with a token of the book's own tenant on standard input:")
                .run(sync(Some(&op.actor), &["--token-file", "-"])),
            ParkReason::Unsupported | ParkReason::OtherProtocol => Advice::default()
                .words("once the app or the server is upgraded:")
                .run(sync(None, &["--resume"])),
            ParkReason::OtherServer | ParkReason::ServerBehind => Advice::default()
                .words("if that server is the right one:")
                .choose(sync(None, &["--accept-server"])),
            _ if op.actions.contains(&UserAction::Retry) => decide(&place),
            _ => return None,
        },
        _ => return None,
    })
}

/// Returns the commands that help with a held op.
fn held_back(held: &Held, place: &str, user: &Actor) -> Option<Advice> {
    Some(match held {
        Held::BackingOff { .. } | Held::NotLetThrough { times: 0, .. } => {
            Advice::default().run(sync(None, &[]))
        }
        Held::NotLetThrough { times: 1.., .. } => decide(place),
        Held::OtherActor { actor } => {
            Advice::default().run(sync(Some(actor), &[])).and(take_over(actor, user))
        }
        Held::WaitsFor { record } => Advice::default().run(["explain", BOOK, &record.to_string()]),
        Held::TargetDeleted { record } => {
            Advice::default().run(["explain", BOOK, &record.to_string()]).and(discard(place))
        }
        Held::Refused { .. } | Held::TooLarge { .. } => discard(place),
        Held::DeadCreate => Advice::default().run(["dead-letters", "list", BOOK]),
        Held::BehindParked { conflict: Some(conflict), .. } => choose(*conflict),
        Held::BehindParked { op, conflict: None, .. } => decide(&op.to_string()),
        Held::BehindNotLetThrough { .. } => Advice::default().run(["plan", BOOK]),
        _ => return None,
    })
}

/// Returns the command by which `user` takes over what another user left.
fn take_over(of: &Actor, user: &Actor) -> Advice {
    if of == user {
        return Advice::default();
    }
    let mut call = vec!["hand-over".to_owned(), BOOK.to_owned()];
    call.extend(as_option("--of", of).into_iter().chain(as_option("--to", user)));
    Advice::default()
        .words(format!("if {of} never comes back, {user} can send what they left:"))
        .choose(call)
}

fn choose(conflict: ConflictId) -> Advice {
    let id = conflict.to_string();
    Advice::default()
        .run(["conflicts", "show", BOOK, &id])
        .words("then decide with one of these:")
        .choose(["conflicts", "keep", BOOK, &id, "local"])
        .choose(["conflicts", "keep", BOOK, &id, "remote"])
}

fn decide(place: &str) -> Advice {
    let retry = Advice::default().words("decide with one of these:").choose([
        "dead-letters",
        "retry",
        BOOK,
        place,
    ]);
    retry.and(discard(place))
}

fn discard(place: &str) -> Advice {
    Advice::default().choose(["dead-letters", "discard", BOOK, place, "--reason", "not needed"])
}

/// Returns a `sync` command. A book does not contain the server's address, so the command uses a
/// variable of the environment.
pub(crate) fn sync(actor: Option<&Actor>, more: &[&str]) -> Vec<String> {
    let mut call = vec!["sync".to_owned(), BOOK.to_owned()];
    call.extend(actor.into_iter().flat_map(as_actor));
    call.extend(more.iter().map(|option| (*option).to_owned()));
    call.extend(["--server".to_owned(), SERVER.to_owned()]);
    call
}
