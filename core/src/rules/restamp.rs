//! Lowers the stamps of pending ops that turn out to be ahead of the server's time.
//!
//! A stamp that is ahead wins every conflict until real time has reached it. So whenever the server
//! sends its time, all ops that have not left for good are checked: waiting, parked and dead ops,
//! and ops of units that the server sent back.
//!
//! | the wall clock since the op was made | the op's new stamp |
//! |---|---|
//! | has advanced | the server's time, less the time that the wall clock advanced |
//! | has gone back | the earliest possible: the last time that the server sent before, or the stamp of the edit before |
//!
//! Invariants:
//! 1. A stamp is only lowered. It stays above every stamp of the record that the device received,
//!    and above the earlier ops of the record.
//! 2. The new stamp is at most the server's time, unless the record itself has a later stamp.
//! 3. All of this is one decision. Applied again, it changes nothing.
//! 4. Nothing is checked as long as no stamp of the tail was ever ahead.
//!
//! What it does not do: correct plausible stamps. A clock that was an hour ahead two hours ago
//! cannot be distinguished from a right clock.

use std::collections::{BTreeSet, HashMap};

use super::View;
use crate::entry::{PlannedOp, Restamp};
use crate::ids::UnitId;
use crate::limits;
use crate::names::RecordKey;
use crate::rows::{Confirmed, TailRow};
use crate::tail::Tail;
use crate::time::{Hlc, Now, WallTime};

/// The known times.
#[derive(Debug, Clone, Copy)]
pub struct KnownTimes {
    /// The server's clock.
    pub server: WallTime,
    /// The device's clocks.
    pub now: Now,
    /// The last time that the server sent before; without one, the time when the log began.
    pub before: Option<WallTime>,
}

impl KnownTimes {
    /// Returns the latest stamp that is not ahead.
    fn latest(&self) -> Hlc {
        Hlc::at(self.server.plus(limits::STAMP_AHEAD))
    }

    /// Returns when an op can have been made, by the clocks alone.
    fn made(&self, row: &TailRow) -> Option<WallTime> {
        let ago = self.now.wall.milliseconds().saturating_sub(row.made_at.milliseconds());
        (ago >= 0)
            .then(|| WallTime::from_milliseconds(self.server.milliseconds().saturating_sub(ago)))
    }
}

/// Returns whether any op of the tail may have a stamp that is ahead of a server's time.
pub fn may_be_ahead(tail: &Tail, server: WallTime) -> bool {
    tail.latest_stamp() > Hlc::at(server.plus(limits::STAMP_AHEAD))
}

/// Decides the new stamps of pending ops, oldest first. `sent_back` are unanswered units that the
/// server does not accept as they are. Other unanswered units wait for their own answer.
///
/// # Errors
/// The error of the view.
pub fn restamp<V: View>(
    view: &mut V,
    tail: &Tail,
    times: &KnownTimes,
    sent_back: &BTreeSet<UnitId>,
) -> Result<Vec<Restamp>, V::Error> {
    let mut restamped = Vec::new();
    let server = Hlc::at(times.server);
    // A later op was not made before an earlier op, whatever its own record shows.
    let mut reached = times.before.map_or(Hlc::ZERO, Hlc::at).min(server);
    let mut records: HashMap<&RecordKey, Hlc> = HashMap::new();
    for (place, row) in tail.ops() {
        let waits = tail.unit_of(place).is_none_or(|unit| sent_back.contains(&unit));
        if row.edited_at <= times.latest() || !waits {
            if row.edited_at <= server {
                reached = reached.max(row.edited_at);
            }
            records
                .entry(&row.key)
                .and_modify(|last| *last = row.edited_at.max(*last))
                .or_insert(row.edited_at);
            continue;
        }
        let confirmed = view.record(&row.key)?.and_then(|row| row.confirmed);
        // An edit that wins against a deletion of the server restores fields with the stamp right
        // above the deletion. The new stamp must be above that stamp too.
        let told_at =
            |known: Confirmed| if known.deleted { known.edited_at.next() } else { known.edited_at };
        let confirmed = confirmed.map_or(Hlc::ZERO, told_at);
        let last = records.entry(&row.key).or_insert(confirmed);
        *last = confirmed.max(*last);
        let made = times.made(row).map_or(reached, Hlc::at).max(reached).min(server);
        let lowered = made.max(last.next());
        *last = lowered.min(row.edited_at);
        if lowered < row.edited_at {
            reached = reached.max(lowered.min(server));
            let op = PlannedOp { id: row.op, place };
            restamped.push(Restamp { key: row.key.clone(), op, edited_at: lowered });
        }
    }
    Ok(restamped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::OpKind;
    use crate::rules::test_tail::{place, tail_row};
    use crate::rules::test_view::TestView;
    use crate::time::MonotonicTime;

    /// A refused op got the same stamp as the fields that a later edit had restored. So it had no
    /// effect when it was sent again.
    #[test]
    fn what_was_ahead_is_put_above_what_an_edit_brings_back_right_above_their_deletion() {
        let wall = WallTime::from_milliseconds;
        let now = Now { wall: wall(9_000_000), monotonic: MonotonicTime::from_milliseconds(0) };
        let times = KnownTimes { server: wall(1_000_000), now, before: None };
        let theirs = Hlc::at(times.server);
        let mut tail = Tail::default();
        tail.insert(
            place(1),
            TailRow { edited_at: Hlc::at(now.wall), ..tail_row("1", 1, OpKind::Update) },
        );
        for (deleted, lowest) in [(false, theirs.next()), (true, theirs.next().next())] {
            let mut view = TestView::default().with("1", 1, 0, 1);
            let confirmed = view.row("1").confirmed.as_mut().unwrap();
            (confirmed.edited_at, confirmed.deleted) = (theirs, deleted);
            let lowered = restamp(&mut view, &tail, &times, &BTreeSet::new()).unwrap();
            assert_eq!(lowered.iter().map(|to| to.edited_at).collect::<Vec<_>>(), [lowest]);
        }
    }
}
