//! `hand-over`: lets another user send the ops that a user left behind.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::audit::entry::{Control, Decision, Meta};
use fieldbook::record::{OpId, OpPlace};
use fieldbook::{Actor, Book};
use serde_json::json;

use super::explain::{sync, write_advice};
use super::{AppRules, OpName, look};
use crate::error::Failure;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::{count, count_of, name, some};

/// The arguments of `hand-over`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook hand-over ann.book --of ann --to ben        all that ann left: fieldbook failed ann.book --of ann
  fieldbook hand-over ann.book 41 47+1 --to ben         these ops, and what belongs to them
  fieldbook sync ann.book --actor ben --server \"$FIELDBOOK_SERVER\"

The ops keep their ids, their times and their fields. Only the credentials that send them are others. The other ops of
the same user on these records and in these transactions go with them, and what goes with those, so that no transaction
is divided. The log keeps who decided.")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The ops, by their places (41 or 41+3) or their ids
    #[arg(required_unless_present = "of", conflicts_with = "of", value_name = "OP")]
    ops: Vec<OpName>,
    /// All pending ops of this user
    #[arg(long, value_name = "ACTOR")]
    of: Option<Actor>,
    /// The user whose credentials send them from now on
    #[arg(long, value_name = "ACTOR")]
    to: Actor,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Who decides it [default: the user of --to; the user who is gone decides nothing]
    #[arg(long, value_name = "ACTOR", env = "FIELDBOOK_ACTOR", hide_env_values = true)]
    actor: Option<Actor>,
    #[command(flatten)]
    rules: AppRules,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    if args.of.as_ref() == Some(&args.to) {
        return Err(Failure::usage("--of and --to name the same user"));
    }
    // What is refused here changes no byte of the file.
    let looked_at = look(&args.book)?;
    let named = match &args.of {
        Some(of) => all_of(&looked_at, of)?,
        None => named(&looked_at, args)?,
    };
    looked_at.close()?;
    let book = args.rules.open(&args.book)?;
    book.act_as(args.actor.as_ref().unwrap_or(&args.to).clone());
    book.failed().hand_over(named, &args.to)?;
    let ops = handed_over(&book)?;
    book.close()?;
    if args.json {
        return output.json(&json!({ "handed_over": ops.len(), "to": args.to, "ops": ops }));
    }
    let places = some(ops.iter().map(ToString::to_string));
    writeln!(output, "handed {} over to {}: {places}", count_of(&ops, "op"), name(&args.to))?;
    if args.of.is_none() && ops.len() > args.ops.len() {
        let more = count((ops.len() - args.ops.len()) as u64, "op");
        writeln!(output, "{more} went with them, of the same records or transactions")?;
    }
    let advice = Advice::default().run(sync(Some(&args.to), &[]));
    write_advice("This sends them:", &advice, &args.book, output)
}

/// Returns the pending ops that a user sends.
fn all_of(book: &Book, of: &Actor) -> Result<Vec<OpId>, Failure> {
    let pending = book.queue().list()?.into_iter().filter(|op| op.op.actor == *of);
    let ops: Vec<_> = pending.map(|op| op.op.op).collect();
    if ops.is_empty() {
        return Err(Failure::new(format!("no pending op is of {}", name(of)))
            .hint("this lists the pending ops, and whose they are:")
            .advise(Advice::default().run(["queue", BOOK])));
    }
    Ok(ops)
}

/// Returns the ids of the named ops, which have to be pending ones of somebody else.
fn named(book: &Book, args: &Args) -> Result<Vec<OpId>, Failure> {
    let pending = book.queue().list()?;
    let find = |op: &OpName| match pending.iter().find(|found| op.is(found.op.place, found.op.op)) {
        Some(found) if found.op.actor == args.to => {
            Err(format!("{} sends op {op} already", name(&args.to)))
        }
        Some(found) => Ok(found.op.op),
        None => Err(format!("op {op} is not pending")),
    };
    let found: Result<_, String> = args.ops.iter().map(find).collect();
    found.map_err(|refused| {
        Failure::new(refused)
            .hint("this lists the pending ops, and whose they are:")
            .advise(Advice::default().run(["queue", BOOK]))
    })
}

/// Returns the ops that the last entry of the log hands over.
fn handed_over(book: &Book) -> Result<Vec<OpPlace>, Failure> {
    let Some(head) = book.audit().head()? else { return Ok(Vec::new()) };
    let entry = book.audit().entries(head.seq, 1)?.pop();
    let Some(Meta::Control(Control::PersonActed(_, decisions))) = entry.map(|entry| entry.meta)
    else {
        return Ok(Vec::new());
    };
    let places = decisions.iter().filter_map(|decision| match decision {
        Decision::HandedOver { op, .. } => Some(op.place),
        _ => None,
    });
    Ok(places.collect())
}
