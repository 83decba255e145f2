//! Every point at which the power or the disk can fail, while a book does everything that a book
//! can do.
//!
//! ```text
//!   scenario on a recording disk ──► changes 1 … n, and the change after which each write was confirmed
//!   for each point:  image without the unsynced changes │ with all │ without each │ with only each
//!                    │ with random sectors, torn sectors, sectors of zeros, sectors of garbage
//!   for each image:  open, verify, compare with the whole log, compare the tables with the log, write
//!   for some images: the same again for each point of the opening itself
//!   for each change: it fails once or for ever, as an error, a full disk, half a write, a sync that loses
//! ```
//!
//! Invariants: S1 (confirmed entries are there), S2 (the log is a beginning of the whole log), S3
//! (it verifies), S4 (the tables are its fold), S17 (a failed disk accepts no more writes); F1 to
//! F6 and F10 of the fault model.
//!
//! What it is not: a test of [`fieldbook::Book::create_new`], which builds a file under another
//! name. Here a crash during the creation may leave a file that does not open, as long as nothing
//! was confirmed. Such images are counted separately.

mod scenarios;
mod stage;

use fieldbook::audit::{Hash, Seq};
use fieldbook::{Book, Error, Fields, Mutation, RecordKey};

pub use scenarios::{SCENARIOS, Scenario};
use stage::{Ack, Start, open, play};

use crate::broken::{Broken, ensure};
use crate::disk::{Change, Failing, Fault, Loss, Platter, SimDisk};
use crate::world::lists::check_lists;

/// One image in this many is also crashed while it is opened.
const DOUBLE_EVERY: u64 = 200;

/// The amount of work of a test.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// The distance between two tried points, from `first` on; 1 for all points.
    pub every: usize,
    /// The first point.
    pub first: usize,
    /// The number of random images at each point.
    pub random: u64,
}

/// The counts of a test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Points between two changes of the disk.
    pub points: u64,
    /// Images that were opened.
    pub images: u64,
    /// Images of a crash during an opening.
    pub double: u64,
    /// Images that did not open, all from before the first confirmed write.
    pub unborn: u64,
    /// Runs with a failing disk.
    pub failures: u64,
    /// Runs with a failing disk in which the reopened book had the last write that failed.
    pub ambiguous: u64,
}

impl Tried {
    /// Adds other counts.
    pub fn add(&mut self, other: Self) {
        self.points += other.points;
        self.images += other.images;
        self.double += other.double;
        self.unborn += other.unborn;
        self.failures += other.failures;
        self.ambiguous += other.ambiguous;
    }
}

/// A scenario that was played once on a recording disk.
pub struct Recorded {
    scenario: &'static Scenario,
    start: Start,
    changes: Vec<Change>,
    acks: Vec<Ack>,
    hashes: Vec<Hash>,
}

/// Plays a scenario on a sound disk. The variant sets how much the book has before and how large
/// the scenario is.
///
/// # Errors
/// [`Broken`] if a step fails.
pub fn record(scenario: &'static Scenario, variant: u64) -> Result<Recorded, Broken> {
    let failed = |what| {
        move |error: Error| {
            Broken::new("harness", format!("{} of {}: {error:?}", what, scenario.name))
        }
    };
    let start = Start::new(scenario, variant).map_err(failed("the beginning"))?;
    let disk = SimDisk::holding(start.image.clone());
    disk.record();
    let (stage, ended) = play(scenario, &start, &disk);
    ended.map_err(failed("a step"))?;
    let acks = stage.map(|stage| stage.acks).unwrap_or_default();
    let changes = disk.recording();
    let book =
        open(&SimDisk::holding(disk.platter().image(Loss::Everything)), 0, scenario.indexes())
            .map_err(unopened)?;
    let entries = book.audit().entries(Seq::new(1), usize::MAX).map_err(unopened)?;
    let hashes = entries.iter().map(|entry| entry.hash).collect();
    Ok(Recorded { scenario, start, changes, acks, hashes })
}

impl Recorded {
    /// Removes the syncs, as if the disk lied about them. A test of this harness must then fail.
    #[must_use]
    pub fn without_syncs(mut self) -> Self {
        let kept = |acks: usize, changes: &[Change]| {
            changes.iter().take(acks).filter(|change| !matches!(change, Change::Sync)).count()
        };
        for ack in &mut self.acks {
            ack.changes = kept(ack.changes, &self.changes);
        }
        self.changes.retain(|change| !matches!(change, Change::Sync));
        self
    }

    /// Lets the power go at each point.
    ///
    /// # Errors
    /// [`Broken`] with the first image that shows a lost or damaged book.
    pub fn power_losses(&self, effort: Effort) -> Result<Tried, Broken> {
        let mut tried = Tried::default();
        let mut platter = SimDisk::holding(self.start.image.clone()).platter();
        for point in 0..=self.changes.len() {
            if let Some(change) = point.checked_sub(1).and_then(|last| self.changes.get(last)) {
                platter.take(change);
            }
            if point % effort.every == effort.first % effort.every {
                tried.points += 1;
                self.power_loss_at(point, &platter, effort, &mut tried)?;
            }
        }
        Ok(tried)
    }

    fn power_loss_at(
        &self,
        point: usize,
        platter: &Platter,
        effort: Effort,
        tried: &mut Tried,
    ) -> Result<(), Broken> {
        let mut losses = vec![Loss::Nothing];
        if platter.unsynced() > 0 {
            losses.push(Loss::Everything);
            losses.extend(
                (0..platter.unsynced())
                    .flat_map(|number| [Loss::Only(number), Loss::AllBut(number)]),
            );
            losses.extend((0..effort.random).map(|number| random_loss(number, point)));
        }
        for loss in losses {
            tried.images += 1;
            let image = platter.image(loss);
            let at = |broken: Broken| self.at(&format!("point {point}, {loss:?}"), broken);
            if tried.images.is_multiple_of(DOUBLE_EVERY) {
                self.crash_again(point, &image, tried).map_err(at)?;
            }
            self.check(point, image, tried).map_err(at)?;
        }
        Ok(())
    }

    /// Lets the power go at each point of the opening of an image.
    fn crash_again(&self, point: usize, image: &[u8], tried: &mut Tried) -> Result<(), Broken> {
        let disk = SimDisk::holding(image.to_vec());
        disk.record();
        drop(open(&disk, 1, self.scenario.indexes()));
        let mut platter = SimDisk::holding(image.to_vec()).platter();
        for (number, change) in disk.recording().iter().enumerate() {
            platter.take(change);
            for loss in [Loss::Everything, random_loss(number as u64, number)] {
                tried.double += 1;
                self.check(point, platter.image(loss), tried)?;
            }
        }
        Ok(())
    }

    /// Checks a disk as a crash at a point left it.
    fn check(&self, point: usize, image: Vec<u8>, tried: &mut Tried) -> Result<(), Broken> {
        let acked =
            self.acks.iter().rev().find(|ack| ack.changes <= point).map_or(0, |ack| ack.entries);
        let acked = acked.max(self.start.entries);
        self.reopen(image, acked, tried)?;
        Ok(())
    }

    /// Opens the image after a crash or a failure. Returns the number of entries; none if the image
    /// does not open, which is allowed only before the first confirmed write.
    fn reopen(&self, image: Vec<u8>, acked: u64, tried: &mut Tried) -> Result<u64, Broken> {
        let disk = SimDisk::holding(image);
        match open(&disk, 2, self.scenario.indexes()) {
            Ok(book) => {
                let there = self.check_book(&book, acked)?;
                done_with(&disk);
                Ok(there)
            }
            Err(_) if acked == 0 => {
                tried.unborn += 1;
                Ok(0)
            }
            Err(error) => Err(unopened(error)),
        }
    }

    /// Makes each change of the disk fail, in each possible way.
    ///
    /// # Errors
    /// [`Broken`] with the first failure after which something acknowledged is gone or a write
    /// succeeds.
    pub fn disk_failures(&self, effort: Effort) -> Result<Tried, Broken> {
        let mut tried = Tried::default();
        if !self.scenario.repeats {
            return Ok(tried);
        }
        for point in (0..self.changes.len()).skip(effort.first % effort.every).step_by(effort.every)
        {
            let special = match self.changes.get(point) {
                Some(Change::Sync) => Failing::LostSync,
                Some(Change::Write { .. }) if point % 2 == 0 => Failing::Short,
                _ => Failing::Full,
            };
            // Each change fails as an error, once or for ever, and in its own way, for ever or
            // once.
            let forever = (point + effort.first).is_multiple_of(2);
            for (failing, forever) in [(Failing::Error, forever), (special, !forever)] {
                tried.failures += 1;
                let at = |broken: Broken| {
                    self.at(
                        &format!("change {point} fails, {failing:?}, for ever: {forever}"),
                        broken,
                    )
                };
                self.disk_failure(point, failing, forever, &mut tried).map_err(at)?;
            }
        }
        Ok(tried)
    }

    fn disk_failure(
        &self,
        point: usize,
        failing: Failing,
        forever: bool,
        tried: &mut Tried,
    ) -> Result<(), Broken> {
        let disk = SimDisk::holding(self.start.image.clone());
        disk.fail_as(Fault { after: point as u64, forever }, failing);
        let (stage, ended) = play(self.scenario, &self.start, &disk);
        let acked = stage.as_ref().and_then(|stage| stage.acks.last()).map_or(0, |ack| ack.entries);
        let acked = acked.max(self.start.entries);
        ensure(disk.has_failed(), "harness", || format!("the disk did not fail: {ended:?}"))?;
        ensure(ended.is_err(), "S17", || "all went on as if nothing had failed".to_owned())?;
        if let Some(book) = stage.as_ref().and_then(|stage| stage.book.as_ref()) {
            let more = book.write(Mutation::create(key("after")?, Fields::new()));
            ensure(more.is_err(), "S17", || {
                "a write succeeded after the disk had failed".to_owned()
            })?;
        }
        let platter = disk.platter();
        disk.fail(Fault { after: 0, forever: true });
        drop(stage);
        let loss = match point % 3 {
            0 => Loss::Nothing,
            1 => Loss::Everything,
            _ => random_loss(point as u64, point),
        };
        tried.images += 1;
        let there = self.reopen(platter.image(loss), acked, tried)?;
        tried.ambiguous += u64::from(there > acked);
        Ok(())
    }

    /// Checks S1, S2, S3, S4, and that the book can be used. Returns the number of its entries.
    fn check_book(&self, book: &Book, acked: u64) -> Result<u64, Broken> {
        let entries = book.audit().entries(Seq::new(1), usize::MAX).map_err(unopened)?;
        ensure(entries.len() as u64 >= acked, "S1", || {
            format!("{} of {acked} entries are there", entries.len())
        })?;
        let same = entries.iter().zip(&self.hashes).all(|(entry, hash)| entry.hash == *hash);
        // Before anything was acknowledged, a new log may have begun, with its first opening.
        ensure(same || (acked == 0 && entries.len() == 2), "S2", || {
            "the log is another one".to_owned()
        })?;
        if let Err(damage) = book.audit().verify(|_| {}).map_err(unopened)?.into_result() {
            return Err(Broken::new("S3", damage.to_string()));
        }
        check_lists(book)?;
        let differs = book.audit().check_tables().map_err(unopened)?;
        ensure(differs.is_sound(), "S4", || {
            format!("the tables {:?} are not what the log says", differs.differing)
        })?;
        book.write(Mutation::create(key("afterwards")?, Fields::new())).map_err(unopened)?;
        Ok(entries.len() as u64)
    }

    fn at(&self, place: &str, broken: Broken) -> Broken {
        Broken { what: format!("{}, {place}: {}", self.scenario.name, broken.what), ..broken }
    }

    /// Returns the number of changes of the disk in the scenario.
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Returns the number of entries at the end of the scenario.
    pub fn entries(&self) -> usize {
        self.hashes.len()
    }
}

/// Avoids closing a book that was only read: its disk fails at the first write.
fn done_with(disk: &SimDisk) {
    disk.fail(Fault { after: 0, forever: true });
}

/// Returns the kinds of random loss in turn.
fn random_loss(number: u64, point: usize) -> Loss {
    let seed = number + 1_000 * point as u64;
    match number % 6 {
        0 => Loss::Sectors { seed, garbage: false },
        1 => Loss::Bytes { seed },
        2 => Loss::Filled { seed, garbage: true },
        3 => Loss::Sectors { seed, garbage: true },
        4 => Loss::Filled { seed, garbage: false },
        _ => Loss::Bytes { seed },
    }
}

fn key(id: &str) -> Result<RecordKey, Broken> {
    stage::named(id).map_err(unopened)
}

fn unopened(error: Error) -> Broken {
    Broken::new("S1", format!("{error:?}"))
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorded({}, {} changes)", self.scenario.name, self.changes.len())
    }
}
