//! `find`: the records that hold a text, now or at a moment of the past.
//!
//! 1. The text is found in values of fields and in ids of records, in upper or lower case.
//! 2. Every record is read, since no index has all values.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::audit::entry::NOT_IN_BUNDLE;
use fieldbook::record::RecordRef;
use fieldbook::{Fields, Record};
use serde_json::{Value, json};

use super::look;
use crate::error::Failure;
use crate::files::is_part;
use crate::output::Output;
use crate::show::table::{Listing, Text, row};
use crate::show::{count, plain};
use crate::view::{Then, View};

/// The arguments of `find`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook find ann.book mueller
  fieldbook find ann.book mueller --at -2h        which held it two hours before the end of the log
  fieldbook find ann.book 555-0101 --json | jq -r .key")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The text, in upper or lower case
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Show long values whole
    #[arg(long)]
    full: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    if args.text.is_empty() {
        return Err(Failure::usage("the text to find is empty"));
    }
    let book = look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let wanted = args.text.to_lowercase();
    let mut listing = Listing::new(&["record", "field", "value"]).full(args.full);
    let mut found = 0u64;
    each_record(&view, |record| {
        let fields = record.fields()?;
        let holds = holding(&record, &fields, &wanted);
        found += u64::from(!holds.is_empty());
        if args.json {
            if !holds.is_empty() {
                let names: Vec<_> = holds.iter().filter_map(|(name, _)| name.as_ref()).collect();
                output.json(&json!({
                    "key": record.key, "version": record.version, "pending": record.pending,
                    "found_in": names,
                }))?;
            }
            return Ok(());
        }
        for (field, value) in holds {
            let field = field.as_ref().map_or_else(|| Text::from("(id)"), Text::name);
            row!(listing, Text::name(&record.key), field, around(&value, &wanted, args.full));
        }
        Ok(())
    })?;
    if args.json {
        return Ok(());
    }
    listing.write(output)?;
    if is_part(&args.book)? {
        writeln!(output, "what is not in this bundle was not searched")?;
    }
    if found == 0 {
        return Ok(writeln!(output, "no record holds {}", plain(&args.text))?);
    }
    Ok(writeln!(output, "{}", count(found, "record"))?)
}

/// Passes every record to `read`.
fn each_record(
    view: &View<'_>,
    mut read: impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for entity in view.entity_types()? {
        let mut after = None;
        loop {
            let page = view.list(&entity, after.as_ref(), PAGE)?;
            page.iter().map(RecordRef::to_record).try_for_each(&mut read)?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// Returns the fields that hold a text in lower case, each with its value as text. No name stands
/// for the id.
fn holding(record: &Record, fields: &Fields, wanted: &str) -> Vec<(Option<String>, String)> {
    let id = record.key.id.as_str();
    let id = id.to_lowercase().contains(wanted).then(|| (None, id.to_owned()));
    let there = fields.iter().filter(|(name, _)| *name != NOT_IN_BUNDLE);
    let fields = there.filter_map(|(name, value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.to_lowercase().contains(wanted).then(|| (Some(name.to_owned()), text))
    });
    id.into_iter().chain(fields).collect()
}

/// Returns the part of a long value around the first place of a text.
fn around(value: &str, wanted: &str, full: bool) -> String {
    let length = value.chars().count();
    if full || length <= SHOWN {
        return value.to_owned();
    }
    let lower = value.to_lowercase();
    let at =
        lower.find(wanted).map_or(0, |at| lower.get(..at).map_or(0, |text| text.chars().count()));
    let from = at.saturating_sub(SHOWN / 4).min(length.saturating_sub(SHOWN));
    let part: String = value.chars().skip(from).take(SHOWN).collect();
    let before = if from > 0 { "…" } else { "" };
    let after = if from + SHOWN < length { "…" } else { "" };
    format!("{before}{part}{after} ({length} characters)")
}

/// The most characters of a value that are shown.
const SHOWN: usize = 80;
/// How many records are read at a time.
const PAGE: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_shown_around_the_text_with_its_length() {
        let value = format!("{}Mueller{}", "a".repeat(100), "b".repeat(100));
        let shown = around(&value, "mueller", false);
        assert!(shown.starts_with("…aaaa") && shown.contains("Mueller"), "{shown}");
        assert!(shown.ends_with("b… (207 characters)"), "{shown}");
        assert_eq!(around(&value, "mueller", true), value);
        assert_eq!(around("Mueller", "m", false), "Mueller");
        let end = around(&value.replace('b', ""), "mueller", false);
        assert!(end.ends_with("Mueller (107 characters)"), "{end}");
    }
}
