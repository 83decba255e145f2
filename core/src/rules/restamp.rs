//! Which pending ops get an earlier stamp, because theirs turn out to be ahead of the server's time.
//!
//! A stamp that is ahead wins every conflict until real time has caught up with it. So whenever the server tells its time, what
//! has yet to leave is looked at: waiting, parked and dead ops, and those of units that the server sent back.
//!
//! | what is known of an op that is ahead | its new stamp |
//! |---|---|
//! | the wall clock went on since it was made | the server's time, less what the wall clock went on |
//! | the wall clock has gone back since | the earliest that it can have been made: the time that the server had told before, or the edit before it |
//!
//! Invariants:
//! 1. A stamp is only ever lowered. It stays above every stamp of the record that was told, and above the ops of the record that
//!    were made before it.
//! 2. The new stamp is at most the server's time, unless the record itself has a later one.
//! 3. All of it is one decision. Applied again, it changes nothing.
//! 4. Nothing is looked at as long as no stamp of the tail was ever ahead.
//!
//! What it is not: a correction of stamps that are believable. A clock that was ahead by an hour two hours ago cannot be told from
//! a right one.

use std::collections::{BTreeSet, HashMap};

use super::View;
use crate::entry::{PlannedOp, Restamp};
use crate::ids::UnitId;
use crate::limits;
use crate::names::RecordKey;
use crate::rows::{Confirmed, TailRow};
use crate::tail::Tail;
use crate::time::{Hlc, Now, WallTime};

/// What is known of the time.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// What the server's clock shows.
    pub server: WallTime,
    /// What the device's clocks show.
    pub now: Now,
    /// What the server had told before, if it had, or else when the log began.
    pub before: Option<WallTime>,
}

impl Told {
    /// Returns the latest stamp that is not ahead.
    fn latest(&self) -> Hlc {
        Hlc::at(self.server.plus(limits::STAMP_AHEAD))
    }

    /// Returns when an op can have been made, by the clocks alone.
    fn made(&self, row: &TailRow) -> Option<WallTime> {
        let ago = self.now.wall.milliseconds().saturating_sub(row.made_at.milliseconds());
        (ago >= 0).then(|| WallTime::from_milliseconds(self.server.milliseconds().saturating_sub(ago)))
    }
}

/// Returns whether any op of the tail may have a stamp that is ahead of a server's time.
pub fn may_be_ahead(tail: &Tail, server: WallTime) -> bool {
    tail.latest_stamp() > Hlc::at(server.plus(limits::STAMP_AHEAD))
}

/// Decides the new stamps of pending ops, oldest first. `sent_back` are the units under way that the server does not take as
/// they are; what else is under way is left to its answer.
///
/// # Errors
/// What the view fails with.
pub fn restamp<V: View>(
    view: &mut V,
    tail: &Tail,
    told: &Told,
    sent_back: &BTreeSet<UnitId>,
) -> Result<Vec<Restamp>, V::Error> {
    let mut restamped = Vec::new();
    let server = Hlc::at(told.server);
    // What was made before an op is at most as old as it, whatever its own record says.
    let mut reached = told.before.map_or(Hlc::ZERO, Hlc::at).min(server);
    let mut records: HashMap<&RecordKey, Hlc> = HashMap::new();
    for (place, row) in tail.ops() {
        let waits = tail.unit_of(place).is_none_or(|unit| sent_back.contains(&unit));
        if row.edited_at <= told.latest() || !waits {
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
        // What an edit brings back without a dead letter stands a tick above their deletion, and must not pass for a later word.
        let told_at = |known: Confirmed| if known.deleted { known.edited_at.next() } else { known.edited_at };
        let confirmed = confirmed.map_or(Hlc::ZERO, told_at);
        let last = records.entry(&row.key).or_insert(confirmed);
        *last = confirmed.max(*last);
        let made = told.made(row).map_or(reached, Hlc::at).max(reached).min(server);
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
    use crate::rules::desk::Desk;
    use crate::rules::test_tail::{place, tail_row};
    use crate::time::MonotonicTime;

    /// Level with what a later edit had brought back, a refused word came to nothing when it was sent again.
    #[test]
    fn what_was_ahead_is_put_above_what_an_edit_brings_back_right_above_their_deletion() {
        let wall = WallTime::from_milliseconds;
        let now = Now { wall: wall(9_000_000), monotonic: MonotonicTime::from_milliseconds(0) };
        let told = Told { server: wall(1_000_000), now, before: None };
        let theirs = Hlc::at(told.server);
        let mut tail = Tail::default();
        tail.insert(place(1), TailRow { edited_at: Hlc::at(now.wall), ..tail_row("1", 1, OpKind::Update) });
        for (deleted, lowest) in [(false, theirs.next()), (true, theirs.next().next())] {
            let mut desk = Desk::default().with("1", 1, 0, 1);
            let confirmed = desk.row("1").confirmed.as_mut().unwrap();
            (confirmed.edited_at, confirmed.deleted) = (theirs, deleted);
            let lowered = restamp(&mut desk, &tail, &told, &BTreeSet::new()).unwrap();
            assert_eq!(lowered.iter().map(|to| to.edited_at).collect::<Vec<_>>(), [lowest]);
        }
    }
}
