//! The reads of a book, now or at a moment of the past. Every reading command has `--at` and
//! `--zone`, and begins its answer with what it understood of them.
//!
//! 1. What was understood goes to standard output before the answer, or to standard error with
//!    `--json`.
//! 2. With `--at` or `--zone`, all times of the answer are shown in that zone.

use std::collections::BTreeMap;
use std::io::Write;

use chrono::{Local, NaiveDateTime, Offset, TimeZone};
use fieldbook::audit::{
    At, Explanation, Found, Head, Moment, Offsets, Seq, When, Zone, offset_shown, shown,
};
use fieldbook::conflict::{Conflict, ConflictCount, ConflictId, DeadLetter, NotPossible};
use fieldbook::host::WallTime;
use fieldbook::record::RecordList;
use fieldbook::sync::{ParkReason, Plan, QueuedOp, RecordStatus, ServerIdentity, ServerState};
use fieldbook::{Book, EntityType, Error, Record, RecordId, RecordKey, SyncStatus};

use crate::error::Failure;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::{count, time};

/// The moment of a reading command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Then {
    /// Answer as of this moment: an entry (40), a time (2026-11-28 14:05, 14:05), a span before the
    /// end of the log (-2h), steps back (@-3), or a conflict (12.2)
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub(crate) at: Option<When>,
    /// The zone of times, read and shown: utc, local, or an offset such as +01:00 [default: the
    /// device's zone with --at, else the reader's]
    #[arg(long, value_name = "ZONE", allow_hyphen_values = true)]
    pub(crate) zone: Option<Zone>,
}

/// A book, now or as it was.
pub(crate) struct View<'b> {
    pub(crate) book: &'b Book,
    at: Option<At<'b>>,
}

/// A zone for reading and showing times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// The reader's zone.
    Reader,
    /// An offset, in minutes to the east.
    Fixed(i32),
    /// The zone of a device that the book does not have on record: UTC stands for it.
    NotOnRecord,
}

impl Offsets for Clocks {
    fn at(&self, time: WallTime) -> i32 {
        match self {
            Self::Fixed(offset) => *offset,
            Self::NotOnRecord => 0,
            Self::Reader => time
                .to_utc()
                .map_or(0, |time| time.with_timezone(&Local).offset().fix().local_minus_utc() / 60),
        }
    }

    fn of_local(&self, local: NaiveDateTime) -> i32 {
        match self {
            Self::Fixed(offset) => *offset,
            Self::NotOnRecord => 0,
            Self::Reader => {
                let found = Local.offset_from_local_datetime(&local).earliest();
                found.map_or(0, |offset| offset.fix().local_minus_utc() / 60)
            }
        }
    }
}

impl Then {
    /// Returns the zone of a book's times at an entry: that of the device, unless `--zone` names
    /// another.
    pub(crate) fn clocks(&self, book: &Book, seq: Seq) -> Result<Clocks, Failure> {
        Ok(match self.zone.unwrap_or_default() {
            Zone::Local => Clocks::Reader,
            Zone::Fixed(offset) => Clocks::Fixed(offset),
            _ => book.audit().offset_at(seq)?.map_or(Clocks::NotOnRecord, Clocks::Fixed),
        })
    }

    /// Returns the moment of a text that a person wrote, in the log of this book.
    pub(crate) fn moment(&self, book: &Book, when: &When) -> Result<Moment, Failure> {
        let head = book.audit().head()?;
        let end = head.map_or_else(WallTime::default, |head| head.hlc.wall());
        let seq = head.map_or(Seq::ZERO, |head| head.seq);
        Ok(when.moment(end, &self.clocks(book, seq)?))
    }

    /// Returns the options that name the same moment again.
    pub(crate) fn again(&self) -> Vec<String> {
        let mut options = Vec::new();
        options.extend(self.at.as_ref().map(|when| format!("--at={when}")));
        options.extend(self.zone.map(|zone| format!("--zone={zone}")));
        options
    }

    /// Returns the last entry of a moment with which an answer begins. What was trimmed is left
    /// out: the answer begins with what is left.
    pub(crate) fn begin(&self, book: &Book, when: &When) -> Result<Seq, Failure> {
        let moment = self.moment(book, when)?;
        if let Err(Error::Trimmed { .. }) = book.at(moment) {
            return Ok(Seq::ZERO);
        }
        Ok(self.at(book, when)?.found().seq)
    }

    /// Opens the book at a moment.
    pub(crate) fn at<'b>(&self, book: &'b Book, when: &When) -> Result<At<'b>, Failure> {
        let at = book.at(self.moment(book, when)?).map_err(|error| match error {
            error @ Error::NoSuchEntry { .. } => Failure::new(error.to_string())
                .hint("this lists the last entries:")
                .advise(Advice::default().run(["log", BOOK])),
            error @ Error::Trimmed { .. } => {
                Failure::new(error.to_string()).hint("add --with-archive FILE for each archive")
            }
            error => error.into(),
        })?;
        Ok(at.acting_as(book.actor()))
    }

    /// Returns the reads of a book at the moment, and writes what was understood.
    pub(crate) fn of<'b>(
        &self,
        book: &'b Book,
        as_json: bool,
        output: &mut Output,
    ) -> Result<View<'b>, Failure> {
        let Some(when) = &self.at else {
            if let Some(zone) = self.zone {
                time::show_in(match zone {
                    Zone::Local => Clocks::Reader,
                    _ => self.clocks(book, Seq::ZERO)?,
                });
            }
            return Ok(View { book, at: None });
        };
        let at = self.at(book, when)?;
        let clocks = self.clocks(book, at.found().seq)?;
        time::show_in(clocks);
        let mut told = vec![understood(at.found(), clocks)];
        told.extend(doubts(at.found(), clocks));
        let is_guess = matches!(when, When::Local(_) | When::TimeOfDay(_)) && self.zone.is_none();
        if is_guess && clocks == Clocks::NotOnRecord {
            told.push(
                "read in UTC: the device's zone is not on record; --zone names one".to_owned(),
            );
        }
        told.iter().try_for_each(|line| say(line, as_json, output))?;
        Ok(View { book, at: Some(at) })
    }
}

/// Returns what was understood: `as of entry 13, 2026-11-28 16:54:47 (+00:00); 2 entries follow`.
pub(crate) fn understood(found: &Found, clocks: Clocks) -> String {
    let follow = match found.follow {
        0 => "the log ends here".to_owned(),
        1 => "1 entry follows".to_owned(),
        more => format!("{} follow", count(more, "entry")),
    };
    let offset = clocks.at(found.at);
    let (at, offset) = (shown(found.at, offset), offset_shown(offset));
    if found.seq == Seq::ZERO {
        return format!("before the first entry ({offset}); {follow}");
    }
    format!("as of entry {}, {at} ({offset}); {follow}", found.seq)
}

/// Writes a line about what was understood.
pub(crate) fn say(line: &str, as_json: bool, output: &mut Output) -> Result<(), Failure> {
    if as_json {
        // Standard error may be closed.
        drop(writeln!(std::io::stderr().lock(), "{line}"));
        return Ok(());
    }
    Ok(writeln!(output, "{line}")?)
}

/// Returns what makes the moment uncertain.
fn doubts(found: &Found, clocks: Clocks) -> Option<String> {
    let set_back = found.set_back?;
    let of = |time| shown(time, clocks.at(time));
    Some(format!(
        "the device's clock was behind its log around then: entry {} was made when it showed {}, and counts as {}",
        set_back.seq,
        of(set_back.showed),
        of(set_back.counts)
    ))
}

impl View<'_> {
    /// Returns whether it is the past.
    pub(crate) const fn is_past(&self) -> bool {
        self.at.is_some()
    }

    /// Returns the last entry of the moment.
    pub(crate) fn head(&self) -> Result<Option<Head>, Error> {
        self.at.as_ref().map_or_else(|| self.book.audit().head(), At::head)
    }

    /// Returns the number of entries.
    pub(crate) fn entries(&self) -> Result<u64, Error> {
        Ok(self.head()?.map_or(0, |head| head.seq.number()))
    }

    pub(crate) fn get_record(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        self.at.as_ref().map_or_else(|| self.book.records().get(key), |at| at.get_record(key))
    }

    pub(crate) fn list(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<RecordList, Error> {
        match &self.at {
            Some(at) => at.list(entity, after, limit),
            None => self.book.records().list(entity, after, limit),
        }
    }

    pub(crate) fn entity_types(&self) -> Result<Vec<EntityType>, Error> {
        self.at.as_ref().map_or_else(|| self.book.audit().entity_types(), At::entity_types)
    }

    pub(crate) fn explain(&self, key: &RecordKey) -> Result<Explanation, Error> {
        self.at.as_ref().map_or_else(|| self.book.explain(key), |at| at.explain(key))
    }

    pub(crate) fn record_status(&self, key: &RecordKey) -> Result<RecordStatus, Error> {
        self.at.as_ref().map_or_else(|| self.book.record_status(key), |at| at.record_status(key))
    }

    pub(crate) fn queue(&self) -> Result<Vec<QueuedOp>, Error> {
        self.at.as_ref().map_or_else(|| self.book.queue().list(), At::queue)
    }

    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        self.at.as_ref().map_or_else(|| Ok(self.book.queue().plan()), At::plan)
    }

    pub(crate) fn parked(&self) -> Result<BTreeMap<ParkReason, u64>, Error> {
        self.at.as_ref().map_or_else(|| Ok(self.book.queue().parked()), At::parked)
    }

    pub(crate) fn status(&self) -> Result<SyncStatus, Error> {
        self.at.as_ref().map_or_else(|| Ok(self.book.status()), At::status)
    }

    pub(crate) fn server_state(&self) -> Result<ServerState, Error> {
        self.at.as_ref().map_or_else(|| Ok(self.book.servers().state()), At::server_state)
    }

    pub(crate) fn candidates(&self) -> Result<Vec<ServerIdentity>, Error> {
        self.at.as_ref().map_or_else(|| Ok(self.book.servers().candidates()), At::candidates)
    }

    pub(crate) fn synced_at(&self) -> Result<BTreeMap<EntityType, WallTime>, Error> {
        self.at.as_ref().map_or_else(|| self.book.servers().synced_at(), At::synced_at)
    }

    pub(crate) fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        self.at.as_ref().map_or_else(|| self.book.dead_letters().all(), At::dead_letters)
    }

    pub(crate) fn conflicts(&self, only_open: bool) -> Result<Vec<Conflict>, Error> {
        match &self.at {
            Some(at) => {
                let all = at.conflicts()?.into_iter();
                Ok(all.filter(|conflict| conflict.open || !only_open).collect())
            }
            None if only_open => Ok(self.book.conflicts().list_open(None, usize::MAX)?.items),
            None => self.book.conflicts().all(),
        }
    }

    pub(crate) fn conflict(&self, id: ConflictId) -> Result<Option<Conflict>, Error> {
        match (&self.at, self.book.conflicts().get(id)) {
            (Some(at), _) => at.conflict(id),
            (None, Err(Error::NotPossible(NotPossible::NoSuchConflict(_)))) => Ok(None),
            (None, found) => found.map(Some),
        }
    }

    pub(crate) fn count_conflicts(&self) -> Result<ConflictCount, Error> {
        self.at.as_ref().map_or_else(|| self.book.conflicts().count(), At::count_conflicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_understood_is_one_line() {
        let text = |seq: u64, follow: u64| {
            let at = WallTime::parse("2026-11-28T16:54:47Z").unwrap();
            let found = Found::new(Seq::new(seq), at, follow);
            understood(&found, Clocks::Fixed(60))
        };
        assert_eq!(text(13, 2), "as of entry 13, 2026-11-28 17:54:47 (+01:00); 2 entries follow");
        assert_eq!(text(13, 1), "as of entry 13, 2026-11-28 17:54:47 (+01:00); 1 entry follows");
        assert_eq!(text(15, 0), "as of entry 15, 2026-11-28 17:54:47 (+01:00); the log ends here");
        assert_eq!(text(0, 3), "before the first entry (+01:00); 3 entries follow");
    }
}
