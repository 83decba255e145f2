//! The conditions that a run must keep: while bodies are refused by content, and at its end.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook::record::OpId;
use fieldbook::sync::{RecordState, Stopped};
use fieldbook::{Book, RunOptions, SyncState};
use fieldbook_sim::clock::SimClock;

use crate::fleet::{Device, Image, Remotes, shown};
use crate::middlebox::Middlebox;
use crate::script::{Run, key};
use crate::{Broken, ensure};

/// The most entries of a book beyond those for its ops and for answers.
const ENTRIES: u64 = 120;

/// Returns whether a record seems to wait only for the next sync.
const fn is_silent(state: RecordState) -> bool {
    matches!(state, RecordState::Pending | RecordState::WaitingForNetwork | RecordState::InFlight)
}

impl Run {
    pub(crate) fn check_dead_letters(&self, number: usize) -> Result<(), Broken> {
        let Some(device) = self.devices.get(number) else { return Ok(()) };
        check_dead_letters(device.book()?, device.actor, &self.middlebox)
    }

    /// Returns a record without poison that has not arrived, in words, if there is one.
    pub(crate) fn not_arrived(&self) -> Result<Option<String>, Broken> {
        for device in &self.devices {
            let seen: BTreeMap<_, _> = shown(device.book()?)?.into_iter().collect();
            for (key, image) in self.own.iter().filter(|(key, _)| !self.tainted.contains(key)) {
                if seen.get(&key.to_string()) != image.as_ref() {
                    return Ok(Some(format!(
                        "{} does not read {key} as it was written",
                        device.actor
                    )));
                }
                let state = device.book()?.explain(key).map_err(unreadable)?.state;
                if !matches!(state, RecordState::Synced | RecordState::Unknown) {
                    return Ok(Some(format!("{key} of {} is {state:?}", device.actor)));
                }
            }
        }
        Ok(None)
    }

    /// Returns a record that is refused by content and whose explanation does not show this, in
    /// words, if there is one.
    pub(crate) fn not_shown(&self) -> Result<Option<String>, Broken> {
        for device in &self.devices {
            for key in &self.tainted {
                let explained = device.book()?.explain(key).map_err(unreadable)?;
                let (actor, words) = (device.actor, explained.sentences.join(" "));
                // The explanation of an op behind a refused op names that op. The explanation of
                // the refused op names the cause.
                let waits = words.contains("waits behind");
                if is_silent(explained.state) && !waits {
                    return Ok(Some(format!("{key} of {actor} is explained as: {words}")));
                }
            }
        }
        Ok(None)
    }

    /// Checks that every sent op has arrived, that the records before the refused record were read,
    /// and that each book that cannot read on shows it.
    pub(crate) async fn check_scanned(&self, author: usize) -> Result<(), Broken> {
        let before = key("own", &format!("{author}-before"))?;
        for (number, (device, remotes)) in self.devices.iter().zip(&self.remotes).enumerate() {
            let (book, actor) = (device.book()?, device.actor);
            let sent = key("own", &format!("{number}-meanwhile"))?;
            let state = book.explain(&sent).map_err(unreadable)?.state;
            ensure(state == RecordState::Synced, || format!("{sent} of {actor} is {state:?}"))?;
            ensure(book.records().get(&before).map_err(unreadable)?.is_some(), || {
                format!("{actor} has not read {before}, which stands before what is refused")
            })?;
            if number == author {
                continue;
            }
            let stopped = device.sync(&remotes.patient, &self.options).await?.stopped;
            ensure(matches!(stopped, Stopped::PageRefused(_)), || {
                format!("{actor}, who cannot read on, ends with {stopped:?}")
            })?;
            // If an op waits for a person, the state shows that first.
            let state = book.status().state;
            let says_so = matches!(&state, SyncState::Failed { code } if code == "page_refused");
            let is_asked = matches!(&state, SyncState::NeedsAttention { .. });
            ensure(says_so || is_asked, || format!("{actor}, who cannot read on, is {state:?}"))?;
        }
        Ok(())
    }

    /// Returns the ops that still wait, in words, if there are any.
    pub(crate) fn not_settled(&self) -> Result<Option<String>, Broken> {
        for device in &self.devices {
            let book = device.book()?;
            let left = left(book)?;
            if !left.is_empty() {
                let holds: Vec<_> = book.queue().plan().holds.into_values().collect();
                let state = book.status().state;
                return Ok(Some(format!(
                    "{} still owes {left:?} ({state:?}): {holds:?}",
                    device.actor
                )));
            }
            if !matches!(book.status().state, SyncState::Idle | SyncState::NeedsAttention { .. }) {
                return Ok(Some(format!("{} is {:?}", device.actor, book.status().state)));
            }
        }
        Ok(None)
    }

    /// Checks that every op took effect once, that all books read the server's records, that
    /// nothing is parked, and that the logs are no longer than the ops and answers explain.
    pub(crate) async fn check_end(&mut self) -> Result<(), Broken> {
        self.middlebox.tally().check()?;
        let clock = SimClock::new(self.devices.first().map_or(0, |device| device.clock.wall()));
        let stored = stored(&self.middlebox, clock, &self.options).await?;
        for (key, image) in &self.own {
            let there = stored.get(&key.to_string());
            ensure(there == image.as_ref(), || {
                format!("{key} was written as {image:?} and is {there:?} at the server")
            })?;
        }
        let answered = self.middlebox.tally().counts.answered;
        for device in &self.devices {
            let book = device.book()?;
            // One half of the record that is too large as a whole stays with its author, whose book
            // shows it.
            let mut seen: BTreeMap<_, _> = shown(book)?.into_iter().collect();
            let mut there = stored.clone();
            if book.status().pending > 0 {
                seen.remove("big/1");
                there.remove("big/1");
            }
            ensure(seen == there, || {
                format!(
                    "{} reads otherwise than the server: {}",
                    device.actor,
                    differing(&seen, &there)
                )
            })?;
            let entries =
                book.audit().head().map_err(unreadable)?.map_or(0, |head| head.seq.number());
            let most = ENTRIES + 4 * self.ops + 3 * answered;
            ensure(entries <= most, || {
                format!(
                    "{} wrote {entries} entries, of which {most} are accounted for",
                    device.actor
                )
            })?;
            let verified = book.audit().verify(|_| {}).map_err(unreadable)?;
            ensure(verified.is_sound(), || format!("the log of {} does not verify", device.actor))?;
        }
        Ok(())
    }
}

/// Returns the records of the right tenant of the right server, as a new book reads them.
pub(crate) async fn stored(
    middlebox: &Middlebox,
    clock: SimClock,
    options: &RunOptions,
) -> Result<BTreeMap<String, Image>, Broken> {
    let witness = Device::new("witness", clock, 1)?;
    let remotes = Remotes::to(&middlebox.origin, "witness")?;
    witness.sync(&remotes.patient, options).await?;
    Ok(shown(witness.book()?)?.into_iter().collect())
}

/// Checks that each dead letter is an op that the right server refused.
pub(crate) fn check_dead_letters(
    book: &Book,
    actor: &str,
    middlebox: &Middlebox,
) -> Result<(), Broken> {
    let tally = middlebox.tally();
    for letter in book.dead_letters().all().map_err(unreadable)? {
        ensure(tally.refused.contains(&letter.op), || {
            format!(
                "{actor}: {} is a dead letter ({}), and the server refused nothing of it",
                letter.key, letter.code
            )
        })?;
    }
    Ok(())
}

/// Returns the records of the ops that have not ended, except ops that wait for a person because
/// the right server refuses them.
pub(crate) fn left(book: &Book) -> Result<Vec<String>, Broken> {
    let snapshot = book.snapshot().map_err(unreadable)?;
    let tail = snapshot.tail(book.schema()).map_err(|error| unreadable(error.into()))?;
    let dead: BTreeSet<OpId> = book
        .dead_letters()
        .all()
        .map_err(unreadable)?
        .into_iter()
        .map(|letter| letter.op)
        .collect();
    let holds = book.queue().plan().holds;
    let is_refused = |place, op: &OpId| {
        dead.contains(op)
            || holds.get(&place).is_some_and(fieldbook::sync::Hold::waits_for_correction)
    };
    let left = tail
        .ops()
        .filter(|(place, row)| !(row.key.entity.as_str() == "big" && is_refused(*place, &row.op)));
    Ok(left.map(|(_, row)| row.key.to_string()).collect())
}

pub(crate) fn differing(seen: &BTreeMap<String, Image>, there: &BTreeMap<String, Image>) -> String {
    let keys: BTreeSet<_> = seen.keys().chain(there.keys()).collect();
    let mut differing = keys.into_iter().filter(|key| seen.get(*key) != there.get(*key));
    differing.next().map_or_else(String::new, |key| {
        let words = |image: Option<&Image>| {
            let text = image.map_or_else(
                || "nothing".to_owned(),
                |image| serde_json::to_string(image).unwrap_or_default(),
            );
            text.chars().take(200).collect::<String>()
        };
        format!("{key} is {} and {}", words(seen.get(key)), words(there.get(key)))
    })
}

pub(crate) fn unreadable(error: fieldbook::Error) -> Broken {
    Broken(format!("the book does not read: {error:?}"))
}
