//! `doctor`: looks at everything in a book that can be wrong, and says what it means and what to
//! do.
//!
//! Invariants:
//! 1. No byte of the file changes.
//! 2. A damaged part does not hide the others: what could not be looked at is named.
//! 3. The exit code is 0 only if there is no problem. A remark is no problem.
//!
//! An exported log and a bundle are looked at too. They have no pages and no tables, which is said.
//!
//! It has no rules: the states and their words are the book's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use fieldbook::Book;
use fieldbook::audit::entry::{Entry, Meta};
use fieldbook::audit::{Examination, Finding, Seq, examine_book};
use fieldbook::host::WallTime;
use fieldbook::sync::{Awaited, QueuedOp};
use serde_json::{Value, json};

use super::evidence::add_contradictions;
use super::explain::advise;
use super::upkeep::{examine_export, words_of};
use super::{Viewer, options};
use crate::error::{Failure, export_again};
use crate::files::begins_like_an_exported_log;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::table::wrap;
use crate::show::{count, name, plain, progress, time, words};

/// The arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook doctor ann.book
  fieldbook doctor ann.book --json | jq .problems
  fieldbook doctor ann.bundle                    a bundle or an exported log: what it has is looked at

Looks at the file, its pages, every hash, the tables, what waits and for whom, dead letters, conflicts, the clock, and ids
that can never be erased. Nothing changes. The exit code is 1 if there is a problem.")]
pub(crate) struct Args {
    /// The book's file, an exported log or a bundle
    pub(crate) book: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    viewer: Viewer,
}

/// What was found: one problem or remark.
struct Found {
    what: String,
    means: &'static str,
    advice: Advice,
}

/// The result of looking at a book.
#[derive(Default)]
struct Health {
    problems: Vec<Found>,
    remarks: Vec<Found>,
    entries: u64,
    looked_at: Vec<&'static str>,
    not_looked_at: Vec<&'static str>,
    /// What the file does not have.
    lacks: Vec<&'static str>,
    /// The file is not the book itself, so nothing can be done with it.
    exported: bool,
}

impl Health {
    fn problem(&mut self, what: impl Into<String>, means: &'static str, advice: Advice) {
        self.problems.push(Found { what: what.into(), means, advice });
    }

    fn remark(&mut self, what: impl Into<String>, means: &'static str) {
        self.remarks.push(Found { what: what.into(), means, advice: Advice::default() });
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let exported = begins_like_an_exported_log(&args.book);
    let mut health = Health { exported, ..Health::default() };
    let mut examined = examine(args, exported)?;
    health.entries = examined.log.entries;
    if exported {
        health.looked_at.extend(["the file", "every hash"]);
        health.lacks.extend(["pages", "tables"]);
    } else {
        health.looked_at.extend(["the file", "its pages", "every hash", "the tables"]);
    }
    if examined.log_is_sound() {
        add_contradictions(&args.book, exported, &mut examined)?;
        health.looked_at.push("signed notes");
    }
    look_at_file(&args.book, &examined, &mut health);
    let is_harmless =
        |found: &Finding| matches!(found, Finding::Differs { .. }) || found.is_of_a_note();
    let is_readable = examined.findings.iter().all(is_harmless);
    if is_readable {
        let book = args.viewer.look(&args.book)?;
        look_at_ops(&book, &mut health)?;
        look_at_decisions(&book, &mut health)?;
        look_at_server(&book, &mut health)?;
        look_at_entries(&book, &mut health)?;
    } else {
        health.not_looked_at.extend(["what waits", "the server", "the clock", "ids"]);
    }
    if args.json {
        output.json(&as_json(&health))?;
    } else {
        tell(args, &health, output)?;
    }
    output.finish()?;
    match health.problems.len() {
        0 => Ok(()),
        problems => Err(Failure::new(format!("{} found", count(problems as u64, "problem")))),
    }
}

fn examine(args: &Args, exported: bool) -> Result<Examination, Failure> {
    if exported {
        return examine_export(&args.book);
    }
    let bar = progress::bar(0, "looking");
    let examined = examine_book(&args.book, options("local")?, true, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(examined)
}

fn look_at_file(file: &Path, examined: &Examination, health: &mut Health) {
    let Some(first) = examined.findings.first() else { return };
    let faults = count(examined.findings.len() as u64 + examined.unlisted, "fault");
    let (what, why) = words_of(first);
    let first = why.map_or_else(|| what.clone(), |why| format!("{what}: {why}"));
    if let Some(note) = examined.findings.iter().find(|found| found.is_of_a_note()) {
        health.problem(
            note.to_string(),
            "Every hash matches, so nothing changed by accident: somebody wrote the log or its notes anew.",
            Advice::default().run(["keys", "list", BOOK]),
        );
    }
    if examined.findings.iter().all(Finding::is_of_a_note) {
        return;
    }
    if health.exported {
        let what = format!("the log in this file is damaged ({faults}; {first})");
        health.problem(what, export_again(file), Advice::default());
    } else if examined.log_is_sound() {
        health.problem(
            format!("the tables are damaged ({faults}; {first}); the log is whole"),
            "Lists may be wrong or stop. No change is lost.",
            Advice::default().run(["backup", BOOK, "copy.book"]).choose(["rebuild", BOOK]),
        );
    } else {
        health.problem(
            format!("the log is damaged ({faults}; {first})"),
            "Changes may be lost. What is left can be found, and nothing of it is sent unasked.",
            Advice::default().choose(["salvage", BOOK, "new.book"]),
        );
    }
}

/// Ops that wait for something that does not come by itself.
fn look_at_ops(book: &Book, health: &mut Health) -> Result<(), Failure> {
    health.looked_at.push("what waits");
    let mut groups: BTreeMap<&'static str, Vec<QueuedOp>> = BTreeMap::new();
    for queued in book.queue().list()? {
        let whom = match queued.op.awaits {
            Awaited::Person => "a person",
            Awaited::Actor { .. } => "its user to sign in",
            Awaited::Server => "the server to be accepted",
            Awaited::Upgrade => "an upgrade",
            _ => continue,
        };
        groups.entry(whom).or_default().push(queued);
    }
    for (whom, ops) in groups {
        let Some(first) = ops.first() else { continue };
        // What helps is done with the book itself, and `explain` says so.
        let to_do = if health.exported { None } else { advise(&first.op, &book.actor()) };
        let to_do = to_do.unwrap_or_default();
        let (state, _) = words::op(&first.op);
        let also = match ops.len() {
            1 => String::new(),
            all => format!(" ({} more wait for {whom})", all - 1),
        };
        health.problem(
            format!("change {} of {} {state}{also}", first.op.place, name(&first.key)),
            "It stays on this device until then.",
            Advice::default().run(["explain", BOOK, &first.key.to_string()]).and(to_do),
        );
    }
    Ok(())
}

/// Refused ops and open conflicts.
fn look_at_decisions(book: &Book, health: &mut Health) -> Result<(), Failure> {
    health.looked_at.extend(["dead letters", "conflicts"]);
    let mut codes: BTreeMap<String, (u64, WallTime)> = BTreeMap::new();
    for row in book.dead_letters().all()? {
        let (all, since) = codes.entry(row.code).or_insert((0, row.first_at));
        (*all, *since) = (*all + 1, (*since).min(row.first_at));
    }
    for (code, (all, since)) in codes {
        health.problem(
            format!(
                "the server refused {} for good ({}), the first at {}",
                count(all, "change"),
                plain(&code),
                time::local(since)
            ),
            "They stay on the screen, marked as failed, until a person decides.",
            Advice::default().run(["dead-letters", "list", BOOK]),
        );
    }
    let open = book.conflicts().count()?.open;
    if open > 0 {
        health.problem(
            format!("{} for a person to decide", count(open, "conflict")),
            "The changes in them are not sent until then.",
            Advice::default().run(["conflicts", "list", BOOK]),
        );
    }
    Ok(())
}

fn look_at_server(book: &Book, health: &mut Health) -> Result<(), Failure> {
    health.looked_at.push("the server");
    let status = book.status();
    match status.synced_at {
        None if status.pending > 0 => health.remark(
            format!("{} waiting, and no server has ever answered", count(status.pending, "change")),
            "The device has not been connected yet.",
        ),
        Some(at) if status.pending > 0 => health.remark(
            format!(
                "{} waiting; the server answered last at {}",
                count(status.pending, "change"),
                time::local(at)
            ),
            "What was written since is on this device only.",
        ),
        _ => {}
    }
    let set_aside = book.servers().state().set_aside;
    if set_aside > 0 {
        health.remark(
            format!(
                "{} of the server set aside, since this program cannot hold it",
                count(set_aside, "row")
            ),
            "They are kept in the log as they came.",
        );
    }
    Ok(())
}

/// The clock and the ids, from every entry.
fn look_at_entries(book: &Book, health: &mut Health) -> Result<(), Failure> {
    const READ_AT_ONCE: usize = 1_000;
    health.looked_at.extend(["the clock", "ids"]);
    let mut seen = FromEntries::default();
    let mut from = Seq::ZERO;
    loop {
        let entries = book.audit().entries(from, READ_AT_ONCE)?;
        let Some(last) = entries.last() else { break };
        from = last.header.seq.next();
        entries.iter().for_each(|entry| seen.follow(entry));
    }
    if let Some((seq, back)) = seen.set_back {
        health.remark(
            format!(
                "the device's clock was set back {}, most at entry {seq} (by {} s)",
                count(seen.times_set_back, "time"),
                back / 1_000
            ),
            "Times in lists may run backwards. The order of changes does not depend on it.",
        );
    }
    if seen.capped > 0 {
        health.remark(
            format!("{} made while the clock was far ahead", count(seen.capped, "change")),
            "Their times were lowered, so they win no conflict by it.",
        );
    }
    if let Some(first) = seen.personal.first() {
        health.remark(
            format!(
                "{} with a person's address in it, such as {}",
                count(seen.personal.len() as u64, "id"),
                plain(first)
            ),
            "Ids of records and users can never be erased from a log. Use opaque ids.",
        );
    }
    Ok(())
}

/// What the entries of a log show.
#[derive(Default)]
struct FromEntries {
    before: Option<WallTime>,
    times_set_back: u64,
    /// The entry with the greatest step back, in milliseconds.
    set_back: Option<(Seq, i64)>,
    capped: u64,
    personal: BTreeSet<String>,
}

impl FromEntries {
    fn follow(&mut self, entry: &Entry) {
        /// A smaller step is an adjustment of the clock.
        const STEP_MILLISECONDS: i64 = 1_000;
        let wall = entry.header.wall;
        let back = self.before.map_or(0, |before| before.milliseconds() - wall.milliseconds());
        if back > STEP_MILLISECONDS {
            self.times_set_back += 1;
            if self.set_back.is_none_or(|(_, most)| back > most) {
                self.set_back = Some((entry.header.seq, back));
            }
        }
        self.before = Some(wall);
        self.note_id(entry.header.actor.as_str(), || entry.header.actor.to_string());
        if let Meta::Intent(intent) = &entry.meta {
            for op in &intent.ops {
                self.capped += u64::from(op.clock_capped);
                self.note_id(op.key.id.as_str(), || op.key.to_string());
            }
        }
    }

    fn note_id(&mut self, id: &str, shown: impl Fn() -> String) {
        if id.contains('@') {
            self.personal.insert(shown());
        }
    }
}

fn tell(args: &Args, health: &Health, output: &mut Output) -> Result<(), Failure> {
    writeln!(
        output,
        "{}, {} \u{b7} {} \u{b7} read only, nothing was changed",
        count(health.problems.len() as u64, "problem"),
        count(health.remarks.len() as u64, "remark"),
        count(health.entries, "entry")
    )?;
    let marked = health.problems.iter().map(|found| ("\u{2717}", found));
    for (mark, found) in marked.chain(health.remarks.iter().map(|found| ("\u{b7}", found))) {
        let width = output.width().map_or(usize::MAX, |width| usize::from(width).max(40) - 4);
        let mut lines = wrap(&found.what, width).into_iter();
        writeln!(output, "\n{mark} {}", lines.next().unwrap_or_default())?;
        for line in lines.chain(wrap(found.means, width)) {
            writeln!(output, "  {line}")?;
        }
        for line in found.advice.lines(Some(&args.book)) {
            writeln!(output, "    {line}")?;
        }
    }
    writeln!(output, "\nlooked at: {}", health.looked_at.join(", "))?;
    if !health.lacks.is_empty() {
        let lacks = health.lacks.join(", ");
        writeln!(output, "not in an exported log or a bundle: {lacks}; they are in the book only")?;
    }
    if !health.not_looked_at.is_empty() {
        writeln!(
            output,
            "not looked at, because of the damage: {}",
            health.not_looked_at.join(", ")
        )?;
    }
    Ok(())
}

fn as_json(health: &Health) -> Value {
    let all = |found: &[Found]| {
        found
            .iter()
            .map(|found| json!({ "what": found.what, "means": found.means }))
            .collect::<Vec<_>>()
    };
    json!({
        "ok": health.problems.is_empty(),
        "entries": health.entries,
        "problems": all(&health.problems),
        "remarks": all(&health.remarks),
        "looked_at": health.looked_at,
        "not_looked_at": health.not_looked_at,
        "not_in_the_file": health.lacks,
    })
}
