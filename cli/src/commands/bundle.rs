//! `bundle`: a file for support. It has the whole log, with its values left out.
//!
//! 1. What leaves is decided in `fieldbook-core`; `--dry-run` counts it by making the same bundle.
//! 2. The pseudonyms of `--ids hide` go to a file beside the bundle, for its maker alone.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use fieldbook::audit::{Seq, When};
use fieldbook::host::system_randomness;
use fieldbook::{Error, RecordKey};
use fieldbook_core::log::bundle as write_bundle;
use fieldbook_core::redaction::{Redactor, Shown, Wanted};
use serde_json::{Value, json};

use super::look;
use crate::error::Failure;
use crate::files::{begins_like_an_exported_log, may_be_written, open_log, redaction_of, shown};
use crate::output::{Output, write_whole};
use crate::show::table::{Listing, Text, row};
use crate::show::{count, name, progress};
use crate::view::Then;

/// The arguments of `bundle`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook bundle ann.book --dry-run                   what would leave, and how much
  fieldbook bundle ann.book -o ann.bundle
  fieldbook bundle ann.book -o ann.bundle --for lead/42
  fieldbook bundle ann.book -o ann.bundle --show lead.stage
  fieldbook bundle ann.book -o ann.bundle --ids hide    no record id and no user leaves
  fieldbook explain ann.bundle lead/42                  every reading command takes a bundle

Without options no field value, no message and no reason leaves. Ids of records and users, names of entity types and of
some fields, times, codes and versions do, and what the app declares. So do references to records, because nobody could
say without them what a change waits for.

One hash covers all fields of an edit. So an edit is proven only if all its fields are shown. Otherwise the shown fields
are told beside the hash, and nothing proves them: `verify` says how many there are.

A bundle has the hash of what each unit sent. Whoever guesses all values of a unit can check the guess, so values of a
few possibilities are not safe from that. With --ids hide no such hash leaves.")]
pub(crate) struct Args {
    /// The book's file, or an exported log
    pub(crate) book: PathBuf,
    /// The bundle to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Overwrite the bundle
    #[arg(long)]
    force: bool,
    /// Only about these records, ENTITY/ID. All others get pseudonyms, except those that share an
    /// entry with one of these
    #[arg(long = "for", value_name = "KEY", num_args = 1.., conflicts_with = "ids")]
    records: Vec<RecordKey>,
    /// Only about what was recorded after this moment: other records get pseudonyms
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, conflicts_with = "ids")]
    since: Option<When>,
    /// Which values stay here
    #[arg(long, value_enum, default_value_t = Redact::All)]
    redact: Redact,
    /// Show this field, TYPE.FIELD, or all fields of a type, TYPE.*
    #[arg(long, value_name = "TYPE.FIELD", num_args = 1..)]
    show: Vec<Shown>,
    /// Whether ids of records and users leave, or pseudonyms in their place. The pseudonyms go to
    /// FILE.private, which stays here
    #[arg(long, value_enum)]
    ids: Option<Ids>,
    /// Write nothing: say what would leave, and how much
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Which values stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Redact {
    /// All, except those of --show
    All,
    /// None: everything leaves
    None,
}

/// Whether ids leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Ids {
    /// Ids leave
    Keep,
    /// Pseudonyms leave in their place
    Hide,
}

const MADE_BY: &str = concat!("fieldbook ", env!("CARGO_PKG_VERSION"));

/// Makes a bundle.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let wanted = wanted(args)?;
    let private = private_of(args);
    for path in args.output.iter().chain(&private).filter(|_| !args.dry_run) {
        may_be_written(path, args.force)?;
    }
    let log = Log::of(&args.book)?;
    let mut redactor = Redactor::new(wanted);
    let bytes = match &args.output {
        Some(path) if !args.dry_run => write_whole(path, args.force, |file| {
            make(&log, &mut redactor, &mut BufWriter::new(file))
        })?,
        _ => make(&log, &mut redactor, &mut io::sink())?,
    };
    if let Some(private) = private.filter(|_| !args.dry_run) {
        write_pseudonyms(&private, args.force, &redactor)?;
        if !args.json {
            writeln!(
                output,
                "{} has the names behind the pseudonyms: keep it, and send it to nobody",
                shown(&private)
            )?;
        }
    }
    if args.json {
        return output.json(&as_json(args, &redactor, bytes));
    }
    tell(args, &redactor, bytes, output)
}

fn wanted(args: &Args) -> Result<Wanted, Failure> {
    let whole = args.redact == Redact::None;
    let hides_ids = args.ids == Some(Ids::Hide);
    let narrows = hides_ids || !args.show.is_empty() || !args.records.is_empty();
    if whole && (narrows || args.since.is_some()) {
        return Err(Failure::usage("--redact none leaves everything in")
            .hint("leave out --for, --since, --show and --ids, or leave out --redact"));
    }
    let since = match &args.since {
        Some(when) => Then::default().begin(&look(&args.book)?, when)?,
        None => Seq::ZERO,
    };
    Ok(Wanted {
        whole,
        shown: args.show.iter().cloned().collect(),
        records: args.records.iter().cloned().collect(),
        since,
        hides_ids,
    })
}

/// Returns the file for the pseudonyms.
fn private_of(args: &Args) -> Option<PathBuf> {
    let hides = args.ids == Some(Ids::Hide);
    let mut path = args.output.clone().filter(|_| hides)?.into_os_string();
    path.push(".private");
    Some(path.into())
}

/// The log that a bundle is made of: an exported one, or that of a book in a file without a name.
struct Log(File);

impl Log {
    fn of(path: &Path) -> Result<Self, Failure> {
        if let Some(redaction) = redaction_of(path)?.filter(|redaction| redaction.rule != "none") {
            let what = format!("{} is a bundle already", shown(path));
            let left = if redaction.ids == "hide" { "values and ids" } else { "values" };
            return Err(Failure::new(what).because(format!("{left} were left out of it")));
        }
        let failed = |error: io::Error| Failure::new("cannot make a temporary file").because(error);
        if begins_like_an_exported_log(path) {
            let mut file = tempfile::tempfile().map_err(failed)?;
            let read = |error| Failure::new(format!("cannot read {}", shown(path))).because(error);
            io::copy(&mut open_log(path)?, &mut file).map_err(read)?;
            return Ok(Self(file));
        }
        let book = look(path)?;
        let file = tempfile::tempfile().map_err(failed)?;
        let mut writer = BufWriter::new(&file);
        book.audit().export(&mut writer)?;
        writer.flush().map_err(failed)?;
        drop(writer);
        Ok(Self(file))
    }
}

fn make(log: &Log, redactor: &mut Redactor, writer: &mut impl Write) -> Result<u64, Failure> {
    let spinner = progress::spinner("making the bundle");
    let mut random = system_randomness()
        .map_err(|error| Failure::new("the system has no randomness").because(error))?;
    let file = &log.0;
    let open = || {
        let mut file = file;
        file.rewind()?;
        Ok(BufReader::new(file))
    };
    let made = write_bundle(open, redactor, MADE_BY, &mut random, writer);
    spinner.finish_and_clear();
    Ok(made.map_err(Error::from)?)
}

fn write_pseudonyms(path: &Path, force: bool, redactor: &Redactor) -> Result<(), Failure> {
    let failed = |error| Failure::new(format!("cannot write {}", shown(path))).because(error);
    // Only the owner may read a file that is written in this way.
    write_whole(path, force, |file| {
        let mut writer = BufWriter::new(file);
        for (record, pseudonym) in redactor.records() {
            writeln!(writer, "{pseudonym}\t{record}").map_err(failed)?;
        }
        for (actor, pseudonym) in redactor.pseudonymous_actors() {
            writeln!(writer, "actor {pseudonym}\t{actor}").map_err(failed)?;
        }
        writer.flush().map_err(failed)
    })
}

/// The most examples of what leaves.
const EXAMPLES: usize = 3;

/// Says what leaves and what stays.
fn tell(args: &Args, redactor: &Redactor, bytes: u64, output: &mut Output) -> Result<(), Failure> {
    let (counts, size) = (redactor.counts(), indicatif::HumanBytes(bytes));
    match &args.output {
        Some(path) if !args.dry_run => writeln!(output, "{}: {size}", shown(path))?,
        _ => writeln!(output, "nothing was written; the bundle would have {size}")?,
    }
    if args.redact == Redact::None {
        let all = count(counts.entries, "entry");
        return Ok(writeln!(output, "everything leaves: {all}, as the book has them")?);
    }
    listed(redactor).write(output)?;
    if counts.told_entries > 0 {
        writeln!(
            output,
            "{} told with pseudonyms: verify proves only where they are",
            of(counts.told_entries)
        )?;
    }
    if counts.digests > 0 {
        writeln!(
            output,
            "{} of what was sent: whoever guesses all values of a change can check the guess (--ids hide has none)",
            count(counts.digests, "digest")
        )?;
    }
    Ok(())
}

/// Returns the table of what leaves and what stays, with examples.
fn listed(redactor: &Redactor) -> Listing {
    fn examples<T: ToString>(names: impl IntoIterator<Item = T>) -> Text {
        let names = names.into_iter().take(EXAMPLES).map(|name| name.to_string());
        Text::name(names.collect::<Vec<_>>().join(", "))
    }
    let counts = redactor.counts();
    let (records, types) = (redactor.named_records(), redactor.entity_types());
    let actors = redactor.named_actors();
    let (hidden_ids, hidden_actors) =
        (redactor.records().len(), redactor.pseudonymous_actors().len());
    let mut listing = Listing::new(&["", ">leaves", ">stays here", "for example"]);
    row!(listing, "entries, with their times", counts.entries, 0, "");
    row!(listing, "declarations of the app", counts.declarations, 0, "");
    row!(listing, "names of entity types", types.len(), 0, examples(&types));
    row!(listing, "record ids", records.len(), hidden_ids, examples(&records));
    row!(listing, "users", actors.len(), hidden_actors, examples(&actors));
    row!(listing, "sets of values", counts.shown_values, counts.hidden_values, "");
    row!(listing, "messages and reasons", 0, counts.hidden_texts, "");
    row!(listing, "shown fields of other sets", counts.told_fields, "", "");
    row!(listing, "references to records", counts.told_references, "", "");
    listing
}

fn of(entries: u64) -> String {
    let are = if entries == 1 { "is" } else { "are" };
    format!("{} {are}", count(entries, "entry"))
}

fn as_json(args: &Args, redactor: &Redactor, bytes: u64) -> Value {
    let counts = redactor.counts();
    let records = redactor.named_records();
    json!({
        "file": args.output.as_ref().filter(|_| !args.dry_run).map(|path| name(&path.display())),
        "bytes": bytes,
        "entries": counts.entries,
        "told_entries": counts.told_entries,
        "hidden_values": counts.hidden_values,
        "hidden_texts": counts.hidden_texts,
        "shown_values": counts.shown_values,
        "declarations": counts.declarations,
        "told_fields": counts.told_fields,
        "told_references": counts.told_references,
        "erased_items": counts.erased,
        "unit_hashes": counts.digests,
        "record_ids": records.len(),
        "hidden_record_ids": redactor.records().len(),
        "users": redactor.named_actors().len(),
        "hidden_users": redactor.pseudonymous_actors().len(),
    })
}
