//! `failed`: the ops that no sync moves, each with its content, its reason, what waits for it and
//! what to do.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::sync::FailedOp;
use fieldbook::{Actor, Book};
use serde_json::json;

use super::explain::{advise, write_advice};
use super::{Viewer, note_lacking};
use crate::error::Failure;
use crate::output::Output;
use crate::show::advice::Advice;
use crate::show::table::{Listing, Text, row};
use crate::show::{count, name, time, words};

/// The arguments of `failed`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook failed ann.book
  fieldbook failed ann.book --of ben
  fieldbook failed ann.book --of ben --json > of-ben.jsonl
  fieldbook failed ann.book --json | jq -r '.key + \" \" + .words'

An op that waits for a time, the network or another op is not among them: see `fieldbook queue`.")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// Only the ops that this user made
    #[arg(long, value_name = "ACTOR")]
    of: Option<Actor>,
    /// Print one JSON object a line, with the fields
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    viewer: Viewer,
}

/// The number of ops that are read together.
const PAGE: usize = 200;
/// The most ops for which advice is printed.
const ADVISED: usize = 10;

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    note_lacking(&book);
    if args.json {
        return each(&book, args.of.as_ref(), |item| {
            let mut value = json!(item);
            if let Some(members) = value.as_object_mut() {
                members.insert("words".to_owned(), json!(words::op(&item.op).0));
            }
            output.json(&value)
        });
    }
    let mut listing =
        Listing::new(&[">op", "made", "actor", "what", "record", ">waiting", "state"]).wrapped();
    let (mut number, mut advice, user) = (0usize, Advice::default(), book.actor());
    each(&book, args.of.as_ref(), |item| {
        let (said, tone) = words::op(&item.op);
        let (made, state) = (time::local(item.op.made_at), Text::toned(said, tone));
        let (actor, key) = (Text::name(&item.op.actor), Text::name(&item.key));
        let more = if item.more_dependants { "+" } else { "" };
        let waiting = format!("{}{more}", item.dependants.len());
        row!(listing, item.op.place, made, actor, item.op.kind, key, waiting, state);
        if number < ADVISED {
            advice = std::mem::take(&mut advice).and(advise(&item.op, &user).unwrap_or_default());
        }
        number += 1;
        Ok(())
    })?;
    if number == 0 {
        let by = args.of.as_ref().map_or_else(String::new, |of| format!(" that {} made", name(of)));
        return Ok(writeln!(output, "nothing{by} has failed")?);
    }
    listing.write(output)?;
    let heading = if number > ADVISED {
        format!("What to do, for the first {}:", count(ADVISED as u64, "op"))
    } else {
        "What to do:".to_owned()
    };
    write_advice(&heading, &advice, &args.book, output)
}

fn each(
    book: &Book,
    of: Option<&Actor>,
    mut show: impl FnMut(&FailedOp) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = of.map_or_else(|| book.failed(), |actor| book.failed().of(actor.clone()));
    let mut after = None;
    loop {
        let page = failed.page(after, PAGE)?;
        page.items.iter().try_for_each(&mut show)?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}
