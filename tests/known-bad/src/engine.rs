//! The crash points on a plain workload of the storage engine itself, whichever version of it is
//! there as `redb`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, TableDefinition};

use super::disk::{Loss, SimDisk};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("workload");
const COMMITS: u8 = 26;
const ROWS: u64 = 4;

/// The results of an engine over all images of all points.
#[derive(Debug, Default)]
pub(crate) struct Fared {
    pub(crate) points: u64,
    pub(crate) images: u64,
    /// Images that did not open, although a commit was acknowledged.
    pub(crate) unopenable: u64,
    /// Images that opened, and lacked an acknowledged commit or had a part of a commit.
    pub(crate) lost: u64,
}

/// Lets the power go at each point of a workload.
pub(crate) fn fare() -> Fared {
    let disk = SimDisk::empty();
    disk.record();
    let acks = play(&disk).unwrap_or_default();
    let mut fared = Fared::default();
    let mut platter = SimDisk::empty().platter();
    for (point, change) in (1..).zip(&disk.recording()) {
        platter.take(change);
        let acked = acks.iter().rev().find(|(changes, _)| *changes <= point);
        // No version survives a crash while it makes the file. For that reason a book is made under
        // another name.
        let Some((_, acked)) = acked else { continue };
        fared.points += 1;
        let mut losses = vec![Loss::Nothing, Loss::Everything];
        losses.extend(
            (0..platter.unsynced()).flat_map(|number| [Loss::Only(number), Loss::AllBut(number)]),
        );
        losses.extend((0..2).map(|seed| Loss::Sectors { seed, garbage: false }));
        for loss in losses {
            fared.images += 1;
            match catch_unwind(AssertUnwindSafe(|| commits(platter.image(loss)))) {
                Ok(Ok(Some(commits))) if commits >= *acked => {}
                Ok(Ok(_)) => fared.lost += 1,
                Ok(Err(_)) | Err(_) => fared.unopenable += 1,
            }
        }
    }
    fared
}

/// Commits so often that the file grows more than once. Returns each acknowledged commit with the
/// number of changes of the disk before it.
fn play(disk: &SimDisk) -> Result<Vec<(usize, u8)>, redb::Error> {
    let database = open(disk.clone())?;
    let mut acks = Vec::new();
    for commit in 1..=COMMITS {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for row in 0..ROWS {
                table.insert(u64::from(commit) * ROWS + row, vec![commit; 12_000].as_slice())?;
            }
        }
        transaction.commit()?;
        acks.push((disk.recorded(), commit));
    }
    Ok(acks)
}

/// Returns how many whole commits an image has; none if the image has a part of a commit.
fn commits(image: Vec<u8>) -> Result<Option<u8>, redb::Error> {
    let database = open(SimDisk::holding(image))?;
    let transaction = database.begin_read()?;
    let Ok(table) = transaction.open_table(TABLE) else { return Ok(Some(0)) };
    for commit in 1..=COMMITS {
        let mut there = 0;
        for row in 0..ROWS {
            let value = table.get(u64::from(commit) * ROWS + row)?;
            there += u64::from(
                value.is_some_and(|value| value.value().iter().all(|byte| *byte == commit)),
            );
        }
        match there {
            0 => return Ok(Some(commit - 1)),
            ROWS => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(COMMITS))
}

fn open(disk: SimDisk) -> Result<Database, DatabaseError> {
    Builder::new().set_cache_size(1024 * 1024).create_with_backend(disk)
}
