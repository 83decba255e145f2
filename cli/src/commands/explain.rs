//! `explain`: why a record is, or is not, at the server; in sentences that can be read out, each with what to do.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::entry::ParkScope;
use fieldbook::rows::{ConflictRow, DeadLetterRow, RecordRow};
use fieldbook::{Book, ConflictId, Hold, RecordKey};
use serde_json::json;

use super::Viewer;
use super::queue::{Queued, State, queued, queued_json};
use crate::error::Failure;
use crate::output::Output;
use crate::show::{count, count_of, json, plain, time, words};

/// What `explain` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fieldbook explain ann.book lead/42")]
pub(crate) struct Args {
    /// The book's file
    book: PathBuf,
    /// The record, as ENTITY/ID
    key: RecordKey,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    viewer: Viewer,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    let snapshot = book.snapshot()?;
    let Some(row) = snapshot.record(&args.key)? else {
        return Err(Failure::new(format!("nothing is known of {} in this book", args.key))
            .hint("`fieldbook ls` shows what there is, `fieldbook history` what there was"));
    };
    let mut ops = queued(&book)?;
    ops.retain(|op| op.row.key == args.key);
    let mut letters = book.dead_letters()?;
    letters.retain(|letter| letter.key == args.key);
    let mut conflicts = book.conflicts()?;
    conflicts.retain(|(_, conflict)| conflict.key == args.key);
    let case = Case { args, row: &row, ops: &ops, letters: &letters, conflicts: &conflicts };
    let lines = case.lines(&book);
    if args.json {
        return output.json(&json!({
            "key": args.key,
            "status": json::status(&book.record_status(&args.key)?),
            "version": row.version(),
            "synced_at": json::moment(row.synced_at),
            "ops": ops.iter().map(queued_json).collect::<Vec<_>>(),
            "conflicts": conflicts.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(),
            "lines": lines,
        }));
    }
    for line in lines {
        writeln!(output, "{}", plain(&line))?;
    }
    Ok(())
}

/// All that there is to say about a record.
struct Case<'a> {
    args: &'a Args,
    row: &'a RecordRow,
    ops: &'a [Queued],
    letters: &'a [DeadLetterRow],
    conflicts: &'a [(ConflictId, ConflictRow)],
}

impl Case<'_> {
    fn lines(&self, book: &Book) -> Vec<String> {
        let mut lines = vec![self.opening(), self.server()];
        for op in self.ops {
            lines.push(self.op(op));
            lines.extend(self.advice(op).map(|advice| format!("    {advice}")));
        }
        if !self.conflicts.is_empty() {
            lines.push(self.conflicts());
        }
        if !self.ops.is_empty() {
            lines.push(match book.status().synced_at {
                Some(at) => format!("The server last answered this device at {}.", time::local(at)),
                None => "This device has never heard from a server.".to_owned(),
            });
        }
        lines
    }

    fn opening(&self) -> String {
        let key = &self.args.key;
        match (self.ops.len() as u64, self.row.image().is_some()) {
            (0, true) => format!("{key} is as the server has it."),
            (0, false) => format!("{key} is deleted, here and at the server."),
            (ops, there) => {
                let shown =
                    if there { "The app shows it with these changes" } else { "The app shows it as deleted" };
                format!("{key} has {} that the server has not taken. {shown}.", count(ops, "change"))
            }
        }
    }

    fn server(&self) -> String {
        let heard =
            self.row.synced_at.map_or_else(String::new, |at| format!(", heard of at {}", time::local(at)));
        match &self.row.confirmed {
            None => "The server has no such record, as far as this device knows.".to_owned(),
            Some(confirmed) if confirmed.deleted => {
                format!("The server has it as deleted ({}{heard}).", confirmed.version)
            }
            Some(confirmed) => format!("The server has {}{heard}.", confirmed.version),
        }
    }

    fn op(&self, op: &Queued) -> String {
        let made =
            format!("{} {} by {} at {}", op.place, op.row.kind, op.row.actor, time::local(op.row.made_at));
        let letter = self.letters.iter().find(|letter| letter.op.place == op.place);
        match letter {
            Some(letter) => {
                let message = if letter.message.is_empty() {
                    String::new()
                } else {
                    format!(", \"{}\"", letter.message)
                };
                let at = time::local(letter.last_at);
                format!(
                    "  {made}: refused for good at {at} ({}{message}), after {}.",
                    letter.code,
                    count(letter.tries, "try")
                )
            }
            None => format!("  {made}: {}.", op.state.words().0),
        }
    }

    fn advice(&self, op: &Queued) -> Option<String> {
        let book = self.args.book.display();
        Some(match &op.state {
            State::Ready | State::UnderWay { .. } => {
                format!("It goes out with the next `fieldbook sync {book}`.")
            }
            State::Dead => format!(
                "A person decides: `fieldbook dead-letters retry {book} {place}` sends it again, \
                 `fieldbook dead-letters discard {book} {place} --reason …` gives it up.",
                place = op.place
            ),
            State::Held(Hold::WaitsFor(key)) => format!("See `fieldbook explain {book} {key}`."),
            State::Held(Hold::OtherActor(actor)) => {
                format!("Sync as {actor}: `fieldbook sync {book} --actor {actor}`.")
            }
            State::Held(Hold::Parked { scope: ParkScope::Actor(actor), .. }) => {
                format!("Sync with a fresh token: `fieldbook sync {book} --actor {actor} --token-file FILE`.")
            }
            State::Held(Hold::Parked { scope: ParkScope::Entity(_) | ParkScope::Protocol, .. }) => {
                format!("Once upgraded: `fieldbook sync {book} --resume`.")
            }
            State::Held(Hold::Parked { scope: ParkScope::Op(waiting), .. }) => {
                let open =
                    self.conflicts.iter().find(|(_, conflict)| conflict.open && conflict.op.id == *waiting);
                let (id, _) = open?;
                format!(
                    "A person chooses: `fieldbook conflicts keep {book} {id} mine`, or `theirs`, or other values."
                )
            }
            State::Held(Hold::Parked { scope: ParkScope::Server(..), .. }) => {
                format!("If that server is meant: `fieldbook sync {book} --accept-server`.")
            }
            State::Held(Hold::UndoWindow { .. } | Hold::BackingOff { .. }) => {
                "A sync after that takes it along.".to_owned()
            }
            State::Held(_) => return None,
        })
    }

    fn conflicts(&self) -> String {
        let [.., (id, last)] = self.conflicts else { return String::new() };
        format!(
            "It had {}; the last was {id} at {}: {}. See `fieldbook conflicts show {} {id}`.",
            count_of(self.conflicts, "conflict"),
            time::local(last.at),
            words::outcome(last),
            self.args.book.display()
        )
    }
}
