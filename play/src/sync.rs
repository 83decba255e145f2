//! Syncing a device with patience: a server that is away is waited for, a backoff is slept through in virtual time.
//!
//! ```text
//!   Book::sync ─► Link (the virtual world's time) ─► [Faulty, with `--faults`] ─► HttpRemote
//! ```
//!
//! Invariants:
//! 1. A server that cannot be reached is waited for, for [`PATIENCE`] at most, and the user is told.
//! 2. What a person would have to settle (credentials, an upgrade, another server) ends the play.
//! 3. Every loop has a bound.
//! 4. What was made to go wrong on purpose is not waited for in real time, and expired credentials are renewed at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldbook::sync::protocol::{ExchangeRequest, Failure as SyncFailure};
use fieldbook::sync::{Received, RemoteError, Stopped};
use fieldbook::{Book, Remote, RunOptions, SyncReport, SyncState};
use serde::Serialize;

use crate::clock::VirtualClock;
use crate::failure::Failure;
use crate::faults::{FaultCounts, Faulty};
use crate::progress::Progress;

/// How long a server may be away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The waits between two attempts to reach it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How many runs one sync may take.
const RUNS: u32 = 1_000;

/// The way to the server. It answers with the virtual world's time, so that a history of years ago is judged by the clock
/// of that time, and the same in every play.
///
/// In a play every device's clock is right. A device may have written what comes later in the world, while something older of
/// it is pushed: its clock then is ahead of the world, and the answer tells that time, or the device would correct its stamps.
pub(crate) struct Link {
    remote: Arc<dyn Remote>,
    faulty: Option<Arc<Faulty>>,
    world: Arc<VirtualClock>,
    /// The clock of the device that exchanges now.
    device: Arc<VirtualClock>,
}

impl Link {
    /// With `faults`, what goes wrong is drawn from that seed.
    pub(crate) fn new(remote: Arc<dyn Remote>, faults: Option<u64>, world: Arc<VirtualClock>) -> Self {
        let faulty = faults.map(|seed| Arc::new(Faulty::new(Arc::clone(&remote), seed)));
        Self { remote, faulty, world, device: Arc::default() }
    }

    /// Ends all trouble, or lets it go on.
    pub(crate) fn heal(&self, healed: bool) {
        self.faulty.iter().for_each(|faulty| faulty.heal(healed));
    }

    /// Returns what went wrong, if anything was to.
    pub(crate) fn faults(&self) -> Option<FaultCounts> {
        self.faulty.as_ref().map(|faulty| faulty.counts())
    }

    /// Returns whether the last exchange was made to go wrong.
    fn went_wrong(&self) -> bool {
        self.faulty.as_ref().is_some_and(|faulty| faulty.went_wrong())
    }

    /// Asks the server itself, whatever goes wrong on the way of others.
    async fn ask(&self, request: &ExchangeRequest) -> Result<Received, RemoteError> {
        self.remote.exchange(request).await.map(|received| self.in_its_time(received))
    }

    /// Puts the virtual time in the place of the server's.
    fn in_its_time(&self, mut received: Received) -> Received {
        received.answer.server_time = self.world.wall().max(self.device.wall());
        received
    }
}

impl Remote for Link {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Received, RemoteError>> + Send + 'a>> {
        Box::pin(async move {
            let received = match &self.faulty {
                Some(faulty) => faulty.exchange(request).await?,
                None => self.remote.exchange(request).await?,
            };
            Ok(self.in_its_time(received))
        })
    }
}

/// What all exchanges came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Traffic {
    /// Requests and their answers.
    pub exchanges: u64,
    /// The bytes of the requests.
    pub bytes_sent: u64,
    /// The bytes of the answers.
    pub bytes_received: u64,
    /// Units sent; one that is sent twice counts twice.
    pub units_sent: u64,
    /// Units that the server did not take, since their record had changed there.
    pub stale_units: u64,
    /// Units that the server took later.
    pub units_tried_again: u64,
    /// Changes of the server that came to a device.
    pub changes_received: u64,
    /// Exchanges that failed as a whole and were made again.
    pub failed_exchanges: u64,
}

impl Traffic {
    fn add(&mut self, report: &SyncReport) {
        self.exchanges += u64::from(report.exchanges);
        self.bytes_sent += report.bytes_sent;
        self.bytes_received += report.bytes_received;
        self.units_sent += report.units_sent;
        self.stale_units += report.units_stale;
        self.units_tried_again += report.units_tried_again;
        self.changes_received += report.changes;
        self.failed_exchanges += u64::from(matches!(report.stopped, Stopped::Failed(_)));
    }
}

/// What one device's sync came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Synced {
    /// Whether anything went either way.
    pub(crate) moved: bool,
    /// Whether the server took something.
    pub(crate) pushed: bool,
    /// Whether it ended with nothing left to do, as far as it was asked to do it.
    pub(crate) idle: bool,
}

/// Syncs devices.
pub(crate) struct Syncer {
    pub(crate) link: Link,
    pub(crate) traffic: Traffic,
    pub(crate) progress: Arc<dyn Progress>,
}

impl Syncer {
    /// Syncs until the book is idle or gets no further. The clock is that of the book's device.
    pub(crate) async fn sync(
        &mut self,
        book: &Book,
        clock: Arc<VirtualClock>,
        options: &RunOptions,
    ) -> Result<Synced, Failure> {
        self.link.device = clock;
        let mut synced = Synced::default();
        let mut away = Away::default();
        for _ in 0..RUNS {
            let report = book
                .sync(&self.link, options)
                .await
                .map_err(|error| Failure::new("a book cannot go on syncing").because(error))?;
            self.traffic.add(&report);
            synced.moved |= report.units_sent > 0 || report.changes > 0;
            synced.pushed |= report.units_acked > 0;
            if report.units_acked > 0 || report.changes > 0 {
                away.is_back();
            }
            let went_wrong = self.link.went_wrong();
            if went_wrong && matches!(book.status().state, SyncState::NeedsAuth { .. }) {
                book.servers()
                    .credentials_renewed()
                    .map_err(|error| Failure::new("a book cannot go on syncing").because(error))?;
                continue;
            }
            match report.stopped {
                Stopped::Failed(_) | Stopped::PageRefused(_) | Stopped::NoProgress if went_wrong => {}
                Stopped::Idle => {
                    synced.idle = true;
                    break;
                }
                Stopped::Failed(failure) | Stopped::PageRefused(failure) => {
                    away.wait(failure, &*self.progress).await?;
                }
                Stopped::NoProgress => break,
                _ => {}
            }
        }
        away.came_back(&*self.progress);
        self.needs_nobody(book)?;
        Ok(synced)
    }

    /// Asks a remote directly, with the same patience.
    pub(crate) async fn ask(&self, request: &ExchangeRequest) -> Result<Received, Failure> {
        let mut away = Away::default();
        loop {
            match self.link.ask(request).await {
                Ok(received) => {
                    away.came_back(&*self.progress);
                    return Ok(received);
                }
                Err(error) => away.wait(error.into_failure(), &*self.progress).await?,
            }
        }
    }

    fn needs_nobody(&self, book: &Book) -> Result<(), Failure> {
        match book.status().state {
            SyncState::NeedsAuth { code } => {
                Err(Failure::new(format!("the server wants other credentials ({code})")))
            }
            SyncState::NeedsUpgrade { code } => {
                Err(Failure::new(format!("the server needs another version of this program ({code})")))
            }
            SyncState::NeedsServerConfirmed => {
                Err(Failure::new("another server answers than at the beginning")
                    .hint("start the same store again, or play anew"))
            }
            _ => Ok(()),
        }
    }
}

/// A server that is away, and since when.
#[derive(Default)]
struct Away {
    since: Option<Instant>,
    wait: Duration,
    told: bool,
}

impl Away {
    #[expect(clippy::disallowed_methods, reason = "how long a user has been waiting is real time")]
    async fn wait(&mut self, failure: SyncFailure, progress: &dyn Progress) -> Result<(), Failure> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let error = RemoteError::new(failure);
        if !may_pass(error.failure()) {
            return Err(Failure::new("the server does not take part").because(error));
        }
        if since.elapsed() >= PATIENCE {
            let what = format!("the server was away for {} seconds", PATIENCE.as_secs());
            return Err(Failure::new(what).because(error).hint("start it again, then play anew"));
        }
        if !self.told && since.elapsed() >= FIRST_WAIT {
            self.told = true;
            progress.tell(&format!("{error}; waiting up to {} seconds for it", PATIENCE.as_secs()));
        }
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        tokio::time::sleep(self.wait).await;
        Ok(())
    }

    fn is_back(&mut self) {
        self.since = None;
        self.wait = Duration::ZERO;
    }

    fn came_back(&mut self, progress: &dyn Progress) {
        if std::mem::take(&mut self.told) {
            progress.tell("the server is back");
        }
    }
}

/// Returns whether waiting may help.
const fn may_pass(failure: &SyncFailure) -> bool {
    match failure {
        SyncFailure::Unreachable { .. }
        | SyncFailure::Unknown { .. }
        | SyncFailure::Transient { .. }
        | SyncFailure::Misbehaved { .. } => true,
        SyncFailure::Unauthorized { .. }
        | SyncFailure::TooLarge
        | SyncFailure::UpgradeRequired { .. }
        | SyncFailure::Refused { .. } => false,
    }
}
