//! Measures peers side by side: in every round each of them does the same work, and they take turns
//! to go first, so that a slow moment of the machine affects all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::peer::{CACHE, Contender, Failure, Index, Peer, Work};

/// The setup of a run.
pub(crate) struct Setting {
    /// The folder of the stores. It must be on a real disk, because durability costs nothing in
    /// memory.
    pub(crate) folder: PathBuf,
    /// The divisor of every size.
    pub(crate) divisor: usize,
    /// A part of the name of each contender that takes part.
    pub(crate) peer: String,
    /// The number of the way to rebuild; none for all ways.
    pub(crate) way: Option<usize>,
}

impl Setting {
    /// Returns a size, smaller in a quick run, at least 1.
    pub(crate) fn scaled(&self, size: usize) -> usize {
        (size / self.divisor).max(1)
    }
}

/// One contender in a race: its store, in a folder of its own, and its times.
pub(crate) struct Runner {
    pub(crate) contender: Contender,
    folder: TempDir,
    cache: usize,
    peer: Option<Box<dyn Peer>>,
    seconds: Vec<f64>,
}

impl Runner {
    fn new(contender: Contender, parent: &Path, cache: usize) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(parent)?;
        let peer = Some(contender.open(folder.path(), cache, Index::AsItIs)?);
        Ok(Self { contender, folder, cache, peer, seconds: Vec::new() })
    }

    /// Returns the open store, for work that is not measured.
    pub(crate) fn peer(&mut self) -> Result<&mut dyn Peer, Failure> {
        if self.peer.is_none() {
            self.peer = Some(self.contender.open(self.folder.path(), self.cache, Index::AsItIs)?);
        }
        match &mut self.peer {
            Some(peer) => Ok(peer.as_mut()),
            None => Err(Failure::Wrong { peer: self.contender.name(), what: "is not open" }),
        }
    }

    /// Closes the store; the next use opens it again.
    pub(crate) fn close(&mut self) {
        self.peer = None;
    }

    /// Opens the store anew with its index built or dropped. This is not measured.
    pub(crate) fn reopen(&mut self, index: Index) -> Result<(), Failure> {
        self.close();
        self.peer = Some(self.contender.open(self.folder.path(), self.cache, index)?);
        Ok(())
    }

    /// Records the time of building the index over `records`, with that of opening the store.
    pub(crate) fn time_index(&mut self, records: usize) -> Result<(), Failure> {
        self.reopen(Index::Dropped)?;
        self.close();
        let watch = Stopwatch::start();
        measured_region(records, || self.reopen(Index::Built))?;
        self.seconds.push(watch.read().as_secs_f64() / records.max(1) as f64);
        Ok(())
    }

    /// Closes the store and continues with a new, empty one.
    pub(crate) fn start_afresh(&mut self, parent: &Path) -> Result<(), Failure> {
        let seconds = std::mem::take(&mut self.seconds);
        *self = Self { seconds, ..Self::new(self.contender, parent, self.cache)? };
        Ok(())
    }

    /// Does the work and keeps the time that each of `items` took.
    pub(crate) fn time(
        &mut self,
        items: usize,
        work: impl FnOnce(&mut dyn Peer) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        // A store that is closed is opened within the measured time.
        let watch = Stopwatch::start();
        measured_region(items, || work(self.peer()?))?;
        self.seconds.push(watch.read().as_secs_f64() / items.max(1) as f64);
        Ok(())
    }

    /// Copies the files of the open store, as after a crash, and records the time of opening the
    /// copy and of the work on it.
    pub(crate) fn time_after_crash(
        &mut self,
        parent: &Path,
        work: impl FnOnce(&mut dyn Peer) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.peer()?;
        let copy = tempfile::Builder::new().prefix("bench-").tempdir_in(parent)?;
        for file in fs::read_dir(self.folder.path())? {
            let file = file?;
            let to = copy.path().join(file.file_name());
            fs::copy(file.path(), &to)?;
            // A file that still has to reach the disk would delay the first sync of the opened
            // copy.
            fs::File::open(&to)?.sync_all()?;
        }
        let watch = Stopwatch::start();
        let contender = self.contender;
        measured_region(1, || {
            work(contender.open(copy.path(), self.cache, Index::AsItIs)?.as_mut())
        })?;
        self.seconds.push(watch.read().as_secs_f64());
        Ok(())
    }

    /// Forgets the times so far: they were for warming up.
    pub(crate) fn forget(&mut self) {
        self.seconds.clear();
    }

    /// Returns the median and the mean time of an item; `None` if nothing was timed.
    pub(crate) fn result(&self) -> Option<Time> {
        Time::of(self.contender, self.seconds.clone())
    }
}

/// How many items were measured in this process so far, whether their time counts or not.
pub(crate) static MEASURED_ITEMS: AtomicU64 = AtomicU64::new(0);

/// Runs the measured work, under a name that a profiler shows.
#[inline(never)]
fn measured_region(
    items: usize,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let result = work();
    // The count comes after the work, so that this function is on the stack during all of the work.
    MEASURED_ITEMS.fetch_add(items as u64, Ordering::Relaxed);
    result
}

/// Every contender that does a kind of work.
pub(crate) struct Race {
    runners: Vec<Runner>,
}

impl Race {
    /// Opens an empty store for each contender that does the work.
    pub(crate) fn new(setting: &Setting, work: Work) -> Result<Self, Failure> {
        Self::with_cache(setting, work, CACHE)
    }

    /// Opens the stores with a cache of this many MiB each.
    pub(crate) fn with_cache(setting: &Setting, work: Work, cache: usize) -> Result<Self, Failure> {
        let runners = Contender::ALL
            .into_iter()
            .filter(|contender| contender.does(work) && contender.name().contains(&setting.peer))
            .map(|contender| Runner::new(contender, &setting.folder, cache))
            .collect::<Result<_, _>>()?;
        Ok(Self { runners })
    }

    /// Runs work once for each contender, in an order that changes from round to round.
    pub(crate) fn round(
        &mut self,
        mut each: impl FnMut(&mut Runner) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.runners.iter_mut().try_for_each(&mut each)?;
        if !self.runners.is_empty() {
            self.runners.rotate_left(1);
        }
        Ok(())
    }

    /// Ends the race and returns each contender's time for an item.
    pub(crate) fn finish(mut self) -> Vec<Time> {
        self.runners.sort_by_key(|runner| runner.contender);
        self.runners.into_iter().filter_map(|runner| runner.result()).collect()
    }
}

/// The time of one contender for one item, in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Time {
    pub(crate) contender: Contender,
    pub(crate) median: f64,
    pub(crate) mean: f64,
    pub(crate) samples: usize,
    /// The way to rebuild, if there are several.
    pub(crate) note: Option<String>,
}

impl Time {
    /// Sums up the measured times; `None` if there are none.
    pub(crate) fn of(contender: Contender, mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        let samples = seconds.len();
        let median = *seconds.get(samples / 2)?;
        let mean = seconds.iter().sum::<f64>() / samples as f64;
        Some(Self { contender, median, mean, samples, note: None })
    }
}

/// The only place here that reads a clock.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "measuring time is what a benchmark is for")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn read(&self) -> Duration {
        self.0.elapsed()
    }
}
