//! `fieldbook demo`: the shipped history, played in a temporary folder. The crate `fieldbook-play`
//! does the work.
//!
//! It prints an introduction, plays, shows the result, and follows one record that two people
//! changed at the same time.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use fieldbook::audit::entry::Winner;
use fieldbook::record::FieldsJson;
use fieldbook_play::{Demo, Meeting};

use super::play::{Bar, verdict, write_report};
use crate::error::Failure;
use crate::output::Output;
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
}

/// The longest value shown, in columns.
const SHOWN: usize = 90;

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
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
