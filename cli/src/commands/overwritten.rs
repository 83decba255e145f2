//! `overwritten`: the values of this device that somebody else replaced at the server.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use fieldbook::audit::Seq;
use fieldbook::audit::entry::Meta;
use fieldbook::conflict::Overwritten;
use fieldbook::{Actor, Book, RecordKey};
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
    let (mut seen, mut authors) = (Seq::new(args.after), None);
    loop {
        let part = book.conflicts().overwritten(seen, PAGE)?;
        for notice in &part.items {
            let of_entry = match authors.take() {
                Some(known @ Authors { entry, .. }) if entry == notice.entry => known,
                _ => Authors::of(&book, notice.entry)?,
            };
            let by = of_entry.by_record.get(&notice.key);
            if args.json {
                output.json(&as_json(notice, by))?;
            } else {
                add(&mut listing, notice, by, args.full);
            }
            authors = Some(of_entry);
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

/// The authors of the changes of one entry, as far as the server said them. An entry is read once for
/// all of its notices.
struct Authors {
    entry: Seq,
    by_record: HashMap<RecordKey, Actor>,
}

impl Authors {
    fn of(book: &Book, entry: Seq) -> Result<Self, Failure> {
        let mut by_record = HashMap::new();
        if let Some(found) = book.audit().entries(entry, 1)?.pop()
            && let Meta::Upstream(upstream) = &found.meta
        {
            let authors = book.audit().authors_of(&found)?;
            let changes = upstream.changes.iter().zip(authors);
            by_record.extend(changes.filter_map(|(change, by)| Some((change.key.clone(), by?))));
        }
        Ok(Self { entry, by_record })
    }
}
