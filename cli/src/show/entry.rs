//! Entries as text, one line each. An entry is written `41`, an op `41+3`, a version `r47`, a
//! conflict `47.2`.

use fieldbook::RecordKey;
use fieldbook::audit::entry::{
    Authored, Baseline, ChangeMeta, Conflicted, Control, Decision, Entry, Erased, ErasedRecords,
    Extent, Intent, Item, ItemIndex, LastStop, Meta, NOT_IN_BUNDLE, OpMeta, OutcomeClass,
    OutcomeMeta, PersonAction, PlannedOp, PlannedUnit, ResolvedBy, Restamp, Session, SignedNote,
    Silence, Upstream, Winner,
};
use fieldbook::audit::note::{Note, NoteKind};
use fieldbook::audit::{Hlc, offset_shown};
use fieldbook::host::WallTime;
use fieldbook::record::{OpPlace, Version};
use fieldbook::sync::{ServerEpoch, ServerId};

use super::{count, count_of, name, plain, some, time, words};

/// Returns what an entry contains.
pub(crate) fn summary(entry: &Entry) -> String {
    match &entry.meta {
        Meta::Intent(intent) => intent_summary(entry, intent),
        Meta::Upstream(upstream) => upstream_summary(upstream),
        Meta::Control(control) => control_summary(entry, control),
    }
}

/// Returns an item as text: the stored JSON, or a note that it was erased or left out.
pub(crate) fn item(entry: &Entry, index: ItemIndex) -> String {
    let found = usize::try_from(index).ok().and_then(|index| entry.items.get(index));
    if let Some(Item::Hidden { told, .. }) = found {
        return match told.as_slice() {
            [] => NOT_IN_BUNDLE.to_owned(),
            told => format!("{} and more {NOT_IN_BUNDLE}", String::from_utf8_lossy(told)),
        };
    }
    entry
        .item(index)
        .map_or_else(|| "(erased)".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Returns the fields of an op.
pub(crate) fn op_detail(entry: &Entry, op: &OpMeta) -> String {
    op.fields.map_or_else(String::new, |index| item(entry, index))
}

/// Returns the places of ops, `41, 42+1`.
pub(crate) fn places(ops: &[PlannedOp]) -> String {
    some(ops.iter().map(|op| op.place.to_string()))
}

/// Returns the changes of a unit.
pub(crate) fn unit(unit: &PlannedUnit) -> String {
    some(
        unit.changes.iter().map(|change| {
            format!("{} {} ({})", change.kind, name(&change.key), places(&change.ops))
        }),
    )
}

/// Returns the new versions of records.
pub(crate) fn versions(versions: &[(RecordKey, Version)]) -> String {
    some(versions.iter().map(|(key, version)| format!("{} {version}", name(key))))
}

/// Returns a change of the server.
pub(crate) fn change(change: &ChangeMeta) -> String {
    let extent = match change.extent {
        Extent::Whole => "",
        Extent::Partial => " (some fields)",
        Extent::Deleted => " deleted",
    };
    let undeclared =
        if change.undeclared { ", undeclared: kept until its entity type is declared" } else { "" };
    format!("{} {}{extent}{undeclared}", name(&change.key), change.version)
}

/// Returns the name of an outcome class.
pub(crate) const fn class(class: OutcomeClass) -> &'static str {
    match class {
        OutcomeClass::Applied => "applied",
        OutcomeClass::Duplicate => "duplicate",
        OutcomeClass::Stale => "stale",
        OutcomeClass::Transient => "transient",
        OutcomeClass::Rejected => "rejected",
        OutcomeClass::Unsupported => "unsupported",
        OutcomeClass::Unauthorized => "unauthorized",
        OutcomeClass::Ahead => "ahead",
    }
}

/// Returns the name of a person's action.
pub(crate) const fn action(action: &PersonAction) -> &'static str {
    match action {
        PersonAction::Retry => "retry",
        PersonAction::Discard { .. } => "discard",
        PersonAction::Undo => "undo",
        PersonAction::Resolve => "resolve",
        PersonAction::Resume => "resume",
        PersonAction::AcceptServer => "accept_server",
        PersonAction::HandOver => "hand_over",
    }
}

/// Returns a decision in words.
pub(crate) fn decision(entry: &Entry, decision: &Decision) -> String {
    let said = |message: &Option<ItemIndex>| {
        message.map_or_else(String::new, |index| format!(": {}", item(entry, index)))
    };
    match decision {
        Decision::Acked { versions: got, .. } => format!("acked {}", versions(got)),
        Decision::Tried { tries, code, retry_at, .. } => {
            format!("try {tries} failed ({code}), next try at {}", time::local(*retry_at))
        }
        Decision::Suspected { units, times, code, retry_at } => {
            suspected(units.len(), *times, code, *retry_at)
        }
        Decision::Requeued { .. } => "stale: its ops are planned again".to_owned(),
        Decision::Conflicted(conflict) => {
            format!("conflict on {}: {}", name(&conflict.key), resolution(conflict))
        }
        Decision::Superseded { key, op } => format!("{} ({}) superseded", name(key), op.place),
        Decision::Dropped { key, op, fields } => {
            format!("{} ({}) {}", name(key), op.place, loses(fields))
        }
        Decision::Raised { key, op, fields, edited_at, values } => {
            let raised = raised(entry, fields, *edited_at, *values);
            format!("{} ({}) {raised}", name(key), op.place)
        }
        Decision::BroughtBack { key, op, read } => {
            format!("{} ({}) {}", name(key), op.place, brings_back(entry, *read))
        }
        Decision::DeadLettered { tries, code, message, answered, .. } => {
            let unanswered = if *answered { "" } else { ", without an answer" };
            format!("dead letter after try {tries}{unanswered}: {code}{}", said(message))
        }
        Decision::Retried { key, op } => format!("{} ({}) is sent again", name(key), op.place),
        Decision::Discarded { key, op } => format!("{} ({}) discarded", name(key), op.place),
        Decision::Cancelled(cancelled) => {
            format!(
                "{} ({}) {}",
                name(&cancelled.key),
                places(&cancelled.ops),
                words::cancelled(cancelled.reason)
            )
        }
        Decision::Parked { scope, code } => format!("parked: {}", words::park(scope, code)),
        Decision::Unparked { scope } => format!("resumed: {}", words::parked(scope)),
        Decision::Resolved { key, op, winner, .. } => {
            format!("conflict on {} ({}) resolved: {}", name(key), op.place, words::winner(*winner))
        }
        Decision::ServerAccepted { server } => accepted(*server),
        Decision::ServerRead => "all records of the accepted server are read".to_owned(),
        Decision::Restamped { server_time, ops } => restamped(*server_time, ops),
        Decision::Upcast { key, op, schema_version, .. } => {
            format!("{} ({}) converted to schema version {schema_version}", name(key), op.place)
        }
        Decision::Adopted { key, seq, .. } => {
            format!("{} adopted, undeclared since {seq}", name(key))
        }
        Decision::BelongsTo { tenant } => {
            format!("the book belongs to tenant {tenant} of its server")
        }
        Decision::SetAside { fault, version, name, .. } => set_aside(entry, fault, *version, *name),
        Decision::HandedOver { key, op, to } => {
            format!("{} ({}) handed over to {}", name(key), op.place, name(to))
        }
        Decision::LetGo { key, version } => {
            format!("{} let go of at {version}: the server does not have it so", name(key))
        }
        Decision::ReadForeign { entity, .. } => {
            format!("new cursor for {entity:?}, whose records are set aside")
        }
    }
}

fn suspected(units: usize, times: u32, code: &str, retry_at: Option<WallTime>) -> String {
    if times == 0 {
        let units = count(units as u64, "unit");
        return format!(
            "did not get through together ({code}): {units}, each sent alone after all others"
        );
    }
    let again = retry_at
        .map_or_else(|| "after all others".to_owned(), |at| format!("at {}", time::local(at)));
    format!("did not get through alone ({code}, {}), next try {again}", count(times, "time"))
}

fn accepted(server: Option<(ServerId, ServerEpoch)>) -> String {
    server.map_or_else(
        || "the next server that answers is accepted".to_owned(),
        |(server, epoch)| format!("server {server} accepted, epoch {epoch}"),
    )
}

fn set_aside(entry: &Entry, fault: &str, version: Option<Version>, name: ItemIndex) -> String {
    // The name is the server's text. `{:?}` escapes it.
    let name = entry.text(name).unwrap_or_default();
    let version = version.map_or_else(String::new, |version| format!(" {version}"));
    format!("set aside {name:?}{version}: this program cannot hold its {fault}")
}

fn restamped(server_time: WallTime, ops: &[Restamp]) -> String {
    let each = ops.iter().map(|restamp| {
        let at = time::local(restamp.edited_at.wall());
        format!("{} ({}) counts as made at {at}", name(&restamp.key), restamp.op.place)
    });
    let each: Vec<_> = each.collect();
    format!(
        "the device's clock was ahead of the server's, {}: {}",
        time::local(server_time),
        each.join(", ")
    )
}

/// Returns what an op loses to a conflict.
pub(crate) fn loses(fields: &[String]) -> String {
    if fields.is_empty() {
        "loses all its fields".to_owned()
    } else {
        format!("loses {}", names(fields))
    }
}

/// Returns what is raised of an op: its new time, and its values if they changed.
pub(crate) fn raised(
    entry: &Entry,
    fields: &[String],
    edited_at: Hlc,
    values: Option<ItemIndex>,
) -> String {
    let what = if fields.is_empty() { String::new() } else { format!(" for {}", names(fields)) };
    let values = values.map_or_else(String::new, |index| {
        format!(", with {} instead of its own values", item(entry, index))
    });
    format!("counts{what} as made at {}{values}", time::local(edited_at.wall()))
}

/// Returns the record that an edit brings back after a deletion.
pub(crate) fn brings_back(entry: &Entry, read: ItemIndex) -> String {
    format!("brings the record back as {}", item(entry, read))
}

fn names(fields: &[String]) -> String {
    some(fields.iter().map(name))
}

/// Returns how a conflict was resolved, field by field if it has fields.
pub(crate) fn resolution(conflict: &Conflicted) -> String {
    if conflict.fields.is_empty() {
        let side = match (conflict.winner, conflict.extent) {
            (Winner::Remote, Extent::Deleted) => "remote wins, the record stays deleted",
            (winner, _) => words::winner(winner),
        };
        return format!(
            "{side} ({})",
            words::rule(conflict.rule, ResolvedBy::function_of(&conflict.functions, None))
        );
    }
    some(conflict.fields.iter().map(|field| {
        format!(
            "{}: {} ({})",
            name(&field.name),
            words::winner(field.winner),
            words::rule(
                field.rule,
                ResolvedBy::function_of(&conflict.functions, Some(&field.name))
            )
        )
    }))
}

/// Returns the ops of an intent with their places.
pub(crate) fn placed<'e>(
    entry: &'e Entry,
    intent: &'e Intent,
) -> impl Iterator<Item = (OpPlace, &'e OpMeta)> {
    let seq = entry.header.seq;
    (0..).zip(&intent.ops).map(move |(index, op)| (OpPlace { seq, index }, op))
}

fn intent_summary(entry: &Entry, intent: &Intent) -> String {
    match intent.ops.as_slice() {
        [op] => format!("{} {} {}", op.kind, name(&op.key), op_detail(entry, op)),
        ops => {
            let each = ops.iter().map(|op| format!("{} {}", op.kind, name(&op.key)));
            format!("{}: {}", count_of(ops, "op"), some(each))
        }
    }
}

fn upstream_summary(upstream: &Upstream) -> String {
    let mut parts: Vec<String> = Vec::new();
    if !upstream.outcomes.is_empty() {
        parts.push(some(upstream.outcomes.iter().map(outcome)));
    }
    if !upstream.changes.is_empty() {
        let changes = some(upstream.changes.iter().map(change));
        parts.push(format!("{}: {changes}", count_of(&upstream.changes, "change")));
    }
    if !upstream.cursors.is_empty() {
        let types = upstream.cursors.iter().map(|(entity, _)| entity.to_string());
        parts.push(format!("new cursor for {}", some(types)));
    }
    if let Some(receipt) = upstream.receipt {
        parts.push(format!("knows the log up to entry {}", receipt.seq));
    }
    format!("server: {}", parts.join("; "))
}

/// Returns the server's outcome of a unit.
pub(crate) fn outcome(outcome: &OutcomeMeta) -> String {
    let mut text = class(outcome.class).to_owned();
    if !outcome.code.is_empty() {
        text.push_str(&format!(" ({})", outcome.code));
    }
    if !outcome.versions.is_empty() {
        text.push_str(&format!(" {}", versions(&outcome.versions)));
    }
    text
}

fn control_summary(entry: &Entry, control: &Control) -> String {
    match control {
        Control::Opened(opened) => {
            format!("book created by {}, device {}", opened.made_by, opened.device)
        }
        Control::Planned(planned) => {
            let mut parts = Vec::new();
            if !planned.units.is_empty() {
                let units = some(planned.units.iter().map(unit));
                parts.push(format!("planned {}: {units}", count_of(&planned.units, "unit")));
            }
            parts.extend(planned.cancelled.iter().map(|cancelled| {
                format!(
                    "{} ({}) {}",
                    name(&cancelled.key),
                    places(&cancelled.ops),
                    words::cancelled(cancelled.reason)
                )
            }));
            some(parts)
        }
        Control::Decided(decisions) => some(decisions.iter().map(|one| decision(entry, one))),
        Control::PersonActed(action, decisions) => {
            let reason = match action {
                PersonAction::Discard { reason } => format!(" (because: {})", item(entry, *reason)),
                _ => String::new(),
            };
            let each = some(decisions.iter().map(|one| decision(entry, one)));
            format!("{}{reason}: {each}", self::action(action).replace('_', " "))
        }
        Control::EpochStarted { .. } => {
            "a new epoch: this file is a restored or cloned copy of the book".to_owned()
        }
        Control::Session(opened) => session(opened),
        Control::Silence(silences) => some(silences.iter().map(silence)),
        Control::Authors(authors) => {
            let before = entry.header.seq.number().saturating_sub(1);
            format!("authors of changes in entry {before}: {}", some(authors.iter().map(authored)))
        }
        Control::Note(signed) => note(signed),
        Control::Erased(what) => erased(what),
        Control::Baseline(baseline) => baseline_summary(baseline),
        Control::Trimmed(what) => format!(
            "entries up to {} trimmed, {} of them gone{}",
            what.upto.seq,
            what.entries,
            what.archive.map_or_else(String::new, |sum| format!(", archived with the sum {sum}"))
        ),
    }
}

/// Returns what a part of a baseline has.
fn baseline_summary(baseline: &Baseline) -> String {
    let records = baseline
        .records
        .iter()
        .map(|record| format!("{} {}", name(&record.change.key), record.change.version));
    match &baseline.state {
        Some(_) => "the baseline of the log ends: what came before was trimmed".to_owned(),
        None => format!("baseline: {} ({})", count_of(&baseline.records, "record"), some(records)),
    }
}

/// Returns which values were erased.
fn erased(what: &Erased) -> String {
    let items = count(what.items, "value");
    match &what.records {
        ErasedRecords::Only(keys) => {
            format!("{items} of {} erased", some(keys.iter().map(ToString::to_string)))
        }
        ErasedRecords::Except(keys) if keys.is_empty() => format!("{items} of all records erased"),
        ErasedRecords::Except(keys) => format!(
            "{items} of all records erased, except {}",
            some(keys.iter().map(ToString::to_string))
        ),
    }
}

/// Returns what is known of an opening.
fn session(opened: &Session) -> String {
    let by = opened.app.as_ref().map_or_else(
        || opened.program.clone(),
        |app| format!("{} {} ({})", app.name, app.version, opened.program),
    );
    let mut parts = vec![format!("opened by {by} on {}", opened.system)];
    parts.extend(opened.utc_offset.map(|minutes| format!("UTC{}", offset_shown(minutes))));
    parts.extend(opened.schema.map(|_| "new declarations".to_owned()));
    if opened.last_stop == LastStop::Unclean {
        parts.push("the program before did not close the book".to_owned());
    }
    // The app's words may have any character.
    plain(&parts.join(", "))
}

/// Returns an actor, with the numbers of the changes, from 0.
fn authored(authored: &Authored) -> String {
    let numbers = some(authored.changes.iter().map(ToString::to_string));
    format!("{} ({numbers})", name(&authored.actor))
}

/// Returns what somebody signed. Nobody has checked the signatures.
fn note(signed: &SignedNote) -> String {
    let Ok(note) = Note::parse(&signed.note) else { return "an unknown note".to_owned() };
    let by = some(note.signatures.iter().map(|one| name(one.name)));
    match note.statement() {
        Some(stated) => {
            let kind = match stated.kind {
                NoteKind::Receipt => "receipt",
                NoteKind::Checkpoint => "checkpoint",
            };
            format!("{kind} of entry {}, signed by {by} at {}", stated.seq, time::local(stated.at))
        }
        None => format!("an unknown note, signed by {by}"),
    }
}

/// Returns how long no server answered.
fn silence(silence: &Silence) -> String {
    let Silence { from, to, attempts, codes, answers } = silence;
    let codes = codes.iter().map(|(code, times)| match times {
        1 => name(code),
        times => format!("{} {times} times", name(code)),
    });
    let codes = codes.collect::<Vec<_>>().join(", ");
    let between = match answers {
        0 => String::new(),
        answers => format!(", with {} in between", count(u64::from(*answers), "answer")),
    };
    let failed = count(u64::from(*attempts), "failed exchange");
    if attempts == &1 {
        return format!("{failed} at {} ({codes}){between}", time::local(*from));
    }
    format!("{failed} from {} to {} ({codes}){between}", time::local(*from), time::local(*to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::history::Follower;
    use crate::show::json;

    /// The decisions about conflicts in the golden log. Each record's name says what happens to it.
    fn of_conflicts() -> Entry {
        let log = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/format-2/every-fold.log");
        let (bytes, mut at) = (std::fs::read(log).unwrap(), b"fieldbook-log 1\n".len());
        loop {
            let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let end = at + 4 + usize::try_from(length).unwrap();
            let entry = Entry::decode(&bytes[at + 4..end]).unwrap();
            if entry.header.seq.number() == 8 {
                return entry;
            }
            at = end;
        }
    }

    fn decisions(entry: &Entry) -> &[Decision] {
        let Meta::Control(Control::Decided(decisions)) = &entry.meta else { panic!("it decides") };
        decisions
    }

    #[test]
    fn what_conflicts_make_of_ops_is_told_in_words() {
        let entry = of_conflicts();
        let told: Vec<_> = decisions(&entry).iter().map(|one| decision(&entry, one)).collect();
        let says =
            |text: &str| assert!(told.iter().any(|told| told == text), "{text} in {told:#?}");
        let at = decisions(&entry).iter().find_map(|one| match one {
            Decision::Raised { edited_at, .. } => Some(time::local(edited_at.wall())),
            _ => None,
        });
        let at = at.unwrap();
        says("lead/dropped (3+10) loses name");
        says("lead/emptied (3+11) loses all its fields");
        let both = r#"{"name":"both"}"#;
        says(&format!(
            "lead/raised (3+12) counts for name as made at {at}, with {both} instead of its own values"
        ));
        says(&format!("lead/raised-whole (3+13) counts as made at {at}"));
        says(
            r#"lead/brought-back (3+14) brings the record back as {"name":"mine","phone":"2","stage":"new"}"#,
        );
    }

    #[test]
    fn a_records_history_and_json_tell_it_too() {
        let entry = of_conflicts();
        let events = |id: &str| {
            let key = RecordKey::parse("lead", id).unwrap();
            let events = Follower::new(&key).events(&entry).into_iter();
            events.map(|event| (event.what, event.detail)).collect::<Vec<_>>()
        };
        let lost = |text: &str| vec![("dropped".to_owned(), text.to_owned())];
        assert_eq!(events("emptied"), lost("3+11 loses all its fields"));
        assert_eq!(events("dropped")[1..], lost("3+10 loses name"));
        assert_eq!(events("raised")[1].0, "raised");
        assert_eq!(events("brought-back")[1].0, "brought back");
        let shown = json::entry(&entry);
        let of = |word: &str| {
            let decisions = shown["decisions"].as_array().unwrap();
            decisions.iter().find(|decision| decision["decision"] == word).unwrap()
        };
        assert_eq!(of("dropped")["fields"], serde_json::json!(["name"]));
        assert_eq!(of("raised")["values"], serde_json::json!({"name": "both"}));
        assert_eq!(of("brought_back")["read"]["stage"], "new");
        assert!(of("raised")["edited_at"].as_str().unwrap().ends_with('Z'));
    }
}
