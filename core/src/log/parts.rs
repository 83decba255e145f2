//! Verifies a log in parts, on two threads. No part waits for another.
//!
//! ```text
//!   entries   1 ··· 8,192 │ 8,193 ··· 16,384 │ 16,385 ···
//!   thread        one     │      other       │    one
//!   begins at    zero     │ the hash that    │ the hash that
//!                         │ 8,192 carries    │ 16,384 carries
//! ```
//!
//! Each part begins with the hash that the entry before it carries, and the part before confirms
//! that hash. So if every part verifies, the whole log does. Otherwise the first damage of the
//! first damaged part is the first damage of the log, because every part up to there began with a
//! confirmed hash.
//!
//! The baseline of a log whose beginning was trimmed is verified first, on one thread, and the parts
//! begin behind its joint.
//!
//! What it is not: another check. It checks each entry like [`super::verify`].

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use redb::ReadableTable;

use super::entries::Head;
use super::error::{StoreError, catch_storage_panic};
use super::verify::{Damage, DamageKind, READING, Verified, Walk, verify, walk_on};
use crate::entry::frame::{Frame, Mark};
use crate::numbers::Seq;

/// The usual number of entries in a part. It is about a hundredth of a second of work, and small
/// enough that both threads end at about the same time.
pub const PART_ENTRIES: NonZeroU64 = NonZeroU64::new(8_192).unwrap();
const THREADS: u64 = 2;

/// Verifies a whole log like [`super::verify`], in parts of `part` entries, with two threads if
/// there is more than one part. `on_progress` receives the number of verified entries, part by
/// part.
///
/// # Errors
/// [`Damage`] for the first entry that was altered after it was sealed.
pub fn verify_in_parts<T>(
    table: &T,
    part: NonZeroU64,
    mut on_progress: impl FnMut(u64),
) -> Result<Verified, Damage>
where
    T: ReadableTable<u64, &'static [u8]> + Sync,
{
    let part = part.get();
    let ends = catch_storage_panic(|| {
        let last = table.last().map_err(StoreError::during(READING))?;
        let last = last.map_or(0, |(seq, _)| seq.value());
        let is_whole = table.len().map_err(StoreError::during(READING))? == last;
        Ok::<_, StoreError>((if is_whole { 0 } else { joint_in(table)? }, last))
    });
    let (baseline, parts) = match ends {
        Ok((baseline, last)) if last.saturating_sub(baseline) > part => {
            (baseline, (last - baseline).div_ceil(part))
        }
        // The log is too short to share, or too damaged to find its length.
        _ => return verify(table, on_progress),
    };
    let first = if baseline > 0 { verify_up_to(table, baseline)? } else { Walk::default() };
    let verified = thread::scope(|scope| {
        let (results, found) = channel();
        for first in 0..THREADS {
            let results = results.clone();
            let numbers = (first..parts).filter(move |number| number % THREADS == first);
            scope.spawn(move || verify_some(table, baseline, part, numbers, &results));
        }
        drop(results);
        joined(first, &found, &mut on_progress)
    });
    match verified {
        // The engine's error for a damaged page depends on how the page is reached.
        Err(Damage { kind: DamageKind::Unreadable { .. }, .. }) => verify(table, on_progress),
        verified => verified,
    }
}

/// A part's number and result.
type Results = (u64, Result<Walk, Damage>);

/// Verifies the parts of one thread, until one is damaged or the receiver is gone.
// Never inlined, so that a profiler shows the thread under this name.
#[inline(never)]
fn verify_some(
    table: &impl ReadableTable<u64, &'static [u8]>,
    baseline: u64,
    part: u64,
    numbers: impl Iterator<Item = u64>,
    results: &Sender<Results>,
) {
    for number in numbers {
        let verified = verify_part(table, baseline + number * part, part);
        let goes_on = verified.is_ok();
        if results.send((number, verified)).is_err() || !goes_on {
            return;
        }
    }
}

/// Adds the parts in their order, up to the first damage.
fn joined(
    mut done: Walk,
    found: &Receiver<Results>,
    on_progress: &mut impl FnMut(u64),
) -> Result<Verified, Damage> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (number, verified) in found {
        early.insert(number, verified);
        while let Some(verified) = early.remove(&next) {
            done.add(verified?);
            next += 1;
            on_progress(done.done.entries);
        }
    }
    done.end()
}

/// Returns the place of the joint of a log with gaps.
fn joint_in(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, StoreError> {
    for row in table.iter().map_err(StoreError::during(READING))? {
        let (key, stored) = row.map_err(StoreError::during(READING))?;
        if Mark::of(stored.value()).0 == Some(Mark::Joint) {
            return Ok(key.value());
        }
    }
    Ok(0)
}

/// Verifies the entries up to a place.
fn verify_up_to(table: &impl ReadableTable<u64, &'static [u8]>, last: u64) -> Result<Walk, Damage> {
    let mut walk = Walk::default();
    let rows = catch_storage_panic(|| table.range(..=last).map_err(StoreError::during(READING)));
    let mut rows = rows.map_err(|error: StoreError| walk.unreadable(error))?;
    while catch_storage_panic(|| Ok(walk_on(&mut rows, &mut walk)))
        .unwrap_or_else(|error: StoreError| Err(walk.unreadable(error)))?
    {}
    Ok(walk)
}

/// Verifies the given number of entries after a place.
fn verify_part(
    table: &impl ReadableTable<u64, &'static [u8]>,
    after: u64,
    most: u64,
) -> Result<Walk, Damage> {
    let mut walk = Walk::default();
    if after > 0 {
        // If this read fails, the part before has the first damage.
        let before = catch_storage_panic(|| head_at(table, Seq::new(after)))
            .map_err(|error| walk.unreadable(error))?;
        walk.done.head = Some(before);
    }
    // A row before the first entry is checked as well.
    let from = if after > 0 { after + 1 } else { 0 };
    let rows = catch_storage_panic(|| table.range(from..).map_err(StoreError::during(READING)));
    let mut rows = rows.map_err(|error: StoreError| walk.unreadable(error))?;
    // The row after the part shows a gap at its end.
    while walk.done.entries < most
        && catch_storage_panic(|| Ok(walk_on(&mut rows, &mut walk)))
            .unwrap_or_else(|error: StoreError| Err(walk.unreadable(error)))?
    {}
    Ok(walk)
}

/// Returns an entry's own description of itself, which the next entry needs.
fn head_at(table: &impl ReadableTable<u64, &'static [u8]>, seq: Seq) -> Result<Head, StoreError> {
    let stored = table.get(seq.number()).map_err(StoreError::during(READING))?;
    let stored =
        stored.ok_or_else(|| StoreError::corrupt("an entry is missing", seq, "there is none"))?;
    let Frame { header, hash, .. } =
        Frame::parse(stored.value()).map_err(|error| StoreError::corrupt_entry(seq, error))?;
    Ok(Head { seq, hash, hlc: header.hlc, epoch: header.epoch })
}
