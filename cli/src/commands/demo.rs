//! `fieldbook demo`: the shipped history, played in a temporary folder. The crate `fieldbook-play`
//! does the work.
//!
//! It prints an introduction, plays, shows the result, follows one record that two people changed
//! at the same time, and writes the page of the device that found out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fieldbook::audit::Seq;
use fieldbook::audit::entry::Winner;
use fieldbook::record::FieldsJson;
use fieldbook_play::{Demo, Meeting};

use super::play::{Bar, verdict, write_report};
use super::view;
use crate::error::Failure;
use crate::files::{is_new, shown};
use crate::output::Output;
use crate::page::{Wanted, page};
use crate::show::advice::quoted_path;
use crate::show::history::Follower;
use crate::show::table::{Listing, cut, row};
use crate::show::{name, plain, time, words};
use crate::temporary::Temporary;

/// The arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Verify every book's log and fold its tables anew at the end
    #[arg(long)]
    check: bool,
    /// Write the page of a device here [default: a new file in the folder for temporary files]
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// The longest value shown, in columns.
const SHOWN: usize = 90;

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    if let Some(path) = &args.page {
        is_new(path)?;
    }
    writeln!(output, "{}", Demo::INTRODUCTION)?;
    output.finish()?;
    let folder = Temporary::new("fieldbook-demo-")?;
    let demo = fieldbook_play::demo(folder.path(), args.check, Arc::new(Bar::new()))?;
    let report = &demo.played.report;
    write_report(report, output)?;
    verdict(report)?;
    writeln!(output, "\n{}", demo.ending())?;
    if let Some(meeting) = demo.meeting()? {
        write_meeting(&meeting, output)?;
        write_page(&meeting, args.page.as_deref(), output)?;
    }
    // The folder is removed before the program says so.
    drop(folder);
    farewell(report.devices, output)
}

/// Prints what the demo showed and what to do next, with the name by which the program was called.
fn farewell(devices: u64, output: &mut Output) -> Result<(), Failure> {
    let program = std::env::args_os().next().unwrap_or_else(|| "fieldbook".into());
    let program = quoted_path(Path::new(&program));
    writeln!(
        output,
        "\nA fleet of {devices} devices worked offline and synced through one server. All devices ended with the\n\
         same records, and each conflict is in the log. The temporary folder is removed. Next, make a book of\n\
         your own and look at its history:\n\n  \
         {program} init ann.book\n  \
         {program} put ann.book lead/42 '{{\"name\":\"Ann\"}}'\n  \
         {program} history ann.book lead/42"
    )?;
    Ok(())
}

fn write_meeting(meeting: &Meeting, output: &mut Output) -> Result<(), Failure> {
    write_conflict(meeting, output)?;
    writeln!(output, "\nIts history in the log of that device:")?;
    let mut listing = Listing::new(&[">entry", "when", "what", "detail"]);
    let mut follower = Follower::new(&meeting.key);
    for entry in meeting.book.audit().timeline(&meeting.key).map_err(unreadable)? {
        for event in follower.events(&entry) {
            row!(
                listing,
                entry.header.seq,
                time::local(entry.header.wall),
                event.what,
                cut(&event.detail, SHOWN)
            );
        }
    }
    listing.write(output)
}

/// Writes the page of the device that found the conflict, and says where it is.
fn write_page(meeting: &Meeting, path: Option<&Path>, output: &mut Output) -> Result<(), Failure> {
    let audit = meeting.book.audit();
    let until = audit.head().map_err(unreadable)?.map_or(Seq::ZERO, |head| head.seq);
    let made = page(
        &meeting.book,
        &Wanted {
            name: format!("{}.book", meeting.author),
            path: None,
            since: Seq::ZERO,
            until,
            offset: audit.offset_at(until).map_err(unreadable)?,
            full: false,
        },
        |_| {},
    )?;
    let path = match path {
        Some(path) => {
            view::write(path, false, &made)?;
            path.to_owned()
        }
        None => {
            let failed = |error| Failure::new("cannot write the page of the demo").because(error);
            let mut file = tempfile::Builder::new()
                .prefix("fieldbook-page-")
                .suffix(".html")
                .tempfile()
                .map_err(failed)?;
            file.write_all(made.html.as_bytes()).map_err(failed)?;
            file.keep().map_err(|refused| failed(refused.error))?.1
        }
    };
    writeln!(
        output,
        "\nThe whole history of that device, to look at in a browser, is in\n  {}\n\
         The conflict is at entry {}: n and p go from one conflict or failure to the next.",
        shown(&path),
        meeting.conflict.id.seq
    )?;
    Ok(())
}

fn write_conflict(meeting: &Meeting, output: &mut Output) -> Result<(), Failure> {
    let Meeting { book, author, key, conflict } = meeting;
    let fields: Vec<_> = conflict.fields.iter().map(|field| name(&field.name)).collect();
    writeln!(output, "A record that two devices changed at the same time: {}", name(key))?;
    let what = if fields.is_empty() {
        "as a whole".to_owned()
    } else {
        format!("field {}", fields.join(", "))
    };
    writeln!(output, "  found by  the device of {}, {what}", name(author))?;
    writeln!(output, "  before    {}", clip(&conflict.base))?;
    let (local_result, remote_result) = match conflict.winner {
        Winner::Remote => ("lost", "won"),
        Winner::Local => ("won", "lost"),
        Winner::Merged => ("merged", "merged"),
        Winner::Undecided => ("open", "open"),
    };
    let (local, remote) = (conflict.edited_at.wall(), conflict.remote_edited_at.wall());
    writeln!(
        output,
        "  device    {} ({}, {local_result})",
        clip(&conflict.local),
        time::local(local)
    )?;
    writeln!(
        output,
        "  server    {} ({}, {remote_result})",
        clip(&conflict.remote),
        time::local(remote)
    )?;
    writeln!(output, "  rule      {}", words::policy(conflict.rule))?;
    let explanation = book.explain(key).map_err(unreadable)?;
    writeln!(output, "  status    {}", words::record(&explanation).0)?;
    Ok(())
}

fn unreadable(error: fieldbook::Error) -> Failure {
    Failure::new("a book of the demo cannot be read").because(error)
}

fn clip(fields: &FieldsJson) -> String {
    cut(&plain(fields.as_str()), SHOWN)
}
