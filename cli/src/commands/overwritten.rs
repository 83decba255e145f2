//! `overwritten`: the values of this device that somebody else replaced at the server.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::audit::Seq;
use fieldbook::audit::entry::Meta;
use fieldbook::conflict::Overwritten;
use fieldbook::{Actor, Book};
use serde_json::{Value, json};

use super::look;
use crate::error::Failure;
use crate::output::Output;
use crate::show::table::{Listing, Text, row};
use crate::show::{json, time, value_or_dash};

/// The arguments of `overwritten`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook overwritten ann.book
  fieldbook overwritten ann.book --after 47             only what the entries after 47 brought
  fieldbook overwritten ann.book --json | jq -r '.key + \" \" + (.field // \"deleted\")'

The server had these values when others replaced them, so this device has no conflict about them: the device of the
other author may have one. A value that still waited is a conflict: see `fieldbook conflicts list`.")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// Only what was replaced in the entries after this one
    #[arg(long, value_name = "ENTRY", default_value_t = 0)]
    after: u64,
    /// Show long values whole
    #[arg(long)]
    full: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// The number of notices that are read together.
const PAGE: usize = 200;

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let mut listing = Listing::new(&[
        ">entry",
        "replaced",
        "record",
        "field",
        "author",
        "value",
        "by",
        "new value",
    ]);
    let mut seen = Seq::new(args.after);
    loop {
        let part = book.conflicts().overwritten(seen, PAGE)?;
        for notice in &part.items {
            let by = author(&book, notice)?;
            if args.json {
                output.json(&as_json(notice, by.as_ref()))?;
            } else {
                add(&mut listing, notice, by.as_ref(), args.full);
            }
        }
        seen = part.upto;
        if !part.more {
            break;
        }
    }
    if !args.json && listing.len() == 0 {
        return Ok(writeln!(output, "nobody replaced a value of this device at the server")?);
    }
    listing.full(args.full).write(output)
}

fn add(listing: &mut Listing, notice: &Overwritten, by: Option<&Actor>, full: bool) {
    let of_record = notice.field.is_none();
    let field = notice.field.as_deref().map_or_else(|| Text::from("(deleted)"), Text::name);
    let local = (!of_record).then_some(&notice.local);
    let remote = Some(&notice.remote).filter(|value| !value.is_null());
    let by = by.map_or_else(|| Text::from("another device"), Text::name);
    row!(
        listing,
        notice.entry,
        time::local(notice.at),
        Text::name(&notice.key),
        field,
        Text::name(&notice.actor),
        value_or_dash(local, full),
        by,
        value_or_dash(remote, full)
    );
}

fn as_json(notice: &Overwritten, by: Option<&Actor>) -> Value {
    json!({
        "key": notice.key,
        "field": notice.field,
        "local": notice.local,
        "op": notice.op,
        "actor": notice.actor,
        "edited_at": json::moment(Some(notice.edited_at)),
        "remote": notice.remote,
        "remote_op": notice.remote_op,
        "remote_by": by,
        "remote_edited_at": json::moment(Some(notice.remote_edited_at)),
        "version": notice.version,
        "entry": notice.entry,
        "at": json::moment(Some(notice.at)),
    })
}

/// Returns who replaced a value, if the server said so.
fn author(book: &Book, notice: &Overwritten) -> Result<Option<Actor>, Failure> {
    let Some(entry) = book.audit().entries(notice.entry, 1)?.pop() else { return Ok(None) };
    let Meta::Upstream(upstream) = &entry.meta else { return Ok(None) };
    let authors = book.audit().authors_of(&entry)?;
    let is_it = |(number, _): &(usize, Option<Actor>)| {
        upstream.changes.get(*number).is_some_and(|change| change.key == notice.key)
    };
    Ok(authors.into_iter().enumerate().find(is_it).and_then(|(_, author)| author))
}
