//! `salvage`: a new book of what can still be found in a damaged file.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::audit::{Salvage, Seq, salvage_book};
use serde_json::{Value, json};

use super::options;
use crate::error::Failure;
use crate::files;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::{count, plain, progress, time};

/// The most records that are listed.
const LISTED: usize = 20;

/// The arguments of `salvage`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook salvage damaged.book new.book
  fieldbook queue new.book                       then: what waits for a decision
  fieldbook dead-letters retry new.book OP...    sends it

Try `fieldbook verify` first: if only tables are damaged, `fieldbook rebuild` loses nothing. The damaged file is only
read. What the server has comes back with the next sync. A change that may not have reached the server waits in the new
book until a person decides: nothing of it is sent by itself.")]
pub(crate) struct Args {
    /// The damaged file
    damaged: PathBuf,
    /// The new book
    new: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    files::is_file(&args.damaged)?;
    if files::is_part(&args.damaged)? {
        let what = format!("{} is a bundle with values left out", files::shown(&args.damaged));
        return Err(Failure::new(what).hint("a new book is made of the damaged book itself"));
    }
    let bar = progress::bytes(0, "searching");
    let found = salvage_book(
        &args.damaged,
        &args.new,
        options("local")?.without_app_rules(),
        |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        },
    )?;
    bar.finish_and_clear();
    if args.json {
        output.json(&as_json(&found))?;
        return output.finish();
    }
    tell(args, &found, output)
}

fn tell(args: &Args, found: &Salvage, output: &mut Output) -> Result<(), Failure> {
    writeln!(
        output,
        "{}: {}",
        files::shown(&args.new),
        if found.same_device {
            "the same device, with the log as far as it goes without a gap"
        } else {
            "a new device, since the key of the old one cannot be read"
        }
    )?;
    let inside: u64 =
        found.islands.iter().map(|(first, last)| last.number() - first.number() + 1).sum();
    writeln!(output, "found      {}", count(found.linked + inside, "entry"))?;
    let first = (found.linked > 0).then(|| (Seq::new(1), Seq::new(found.linked)));
    let parts = first.iter().chain(&found.islands).map(range).collect::<Vec<_>>();
    writeln!(output, "           {}", parts.join(", "))?;
    let missing =
        found.missing.iter().map(range).chain(["what came after the last one".to_owned()]);
    writeln!(output, "missing    {}", missing.collect::<Vec<_>>().join(", "))?;
    if let Some(at) = found.last_written_at {
        writeln!(output, "last one   {}", time::local(at))?;
    }
    let changes: u64 = found.waiting.values().sum();
    writeln!(
        output,
        "waiting    {} of {}",
        count(changes, "change"),
        count(found.waiting.len() as u64, "record")
    )?;
    for (key, changes) in found.waiting.iter().take(LISTED) {
        writeln!(output, "           {} ({})", plain(&key.to_string()), count(*changes, "change"))?;
    }
    if found.waiting.len() > LISTED {
        writeln!(output, "           and {} more", found.waiting.len() - LISTED)?;
    }
    if changes > 0 {
        writeln!(
            output,
            "\nNobody knows whether these changes reached the server, so none is sent by itself. Look at them, then send\n\
             or discard each (`fieldbook dead-letters --help`):\n"
        )?;
        for line in Advice::default().run(["queue", BOOK]).lines(Some(&args.new)) {
            writeln!(output, "  {line}")?;
        }
    }
    Ok(())
}

fn range((first, last): &(Seq, Seq)) -> String {
    if first == last { first.to_string() } else { format!("{first}\u{2013}{last}") }
}

fn as_json(found: &Salvage) -> Value {
    let ranges = |all: &[(Seq, Seq)]| {
        all.iter().map(|(first, last)| json!([first, last])).collect::<Vec<_>>()
    };
    let waiting =
        found.waiting.iter().map(|(key, changes)| json!({ "key": key, "changes": changes }));
    json!({
        "same_device": found.same_device,
        "linked": found.linked,
        "islands": ranges(&found.islands),
        "missing": ranges(&found.missing),
        "last_written_at": found.last_written_at.map(time::utc),
        "waiting": waiting.collect::<Vec<_>>(),
    })
}
