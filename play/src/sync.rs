//! The sync of a device. It waits for a server that is away, and passes a backoff in virtual time.
//!
//! ```text
//!   Book::sync ─► Link (the virtual world's time) ─► [Faulty, with `--faults`] ─► HttpRemote
//! ```
//!
//! Invariants:
//! 1. It waits for a server that cannot be reached for [`PATIENCE`] at most, and tells the user.
//! 2. Anything that a person would have to decide (credentials, an upgrade, another server) ends
//!    the play.
//! 3. Every loop has a bound.
//! 4. For faults on purpose it never waits in real time, and it renews expired credentials at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldbook::host::WallTime;
use fieldbook::sync::protocol::{ExchangeRequest, Failure as SyncFailure};
use fieldbook::sync::{BoxFuture, Received, RemoteError, Resume, Stopped};
use fieldbook::{Actor, Book, Remote, RunOptions, SyncReport, SyncState};
use serde::Serialize;

use crate::clock::VirtualClock;
use crate::failure::Failure;
use crate::faults::{FaultCounts, Faulty};
use crate::progress::Progress;

/// The longest time that a server may be away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The first wait before another attempt to reach it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The most runs of one sync.
const RUNS: u32 = 1_000;

/// The connection to the server. It replaces the server's time by the virtual time, so old
/// histories are compared with the clock of their time, in the same way in every play.
///
/// In a play every device's clock is right. A device may already have written later changes when an
/// older one is sent. Its clock is then ahead of the virtual time, and the answer has the device's
/// time: else the device would restamp its ops.
pub(crate) struct Link {
    remote: Arc<dyn Remote>,
    faulty: Option<Arc<Faulty>>,
    world: Arc<VirtualClock>,
    /// The clock of the device of the present exchange.
    device: Arc<VirtualClock>,
}

impl Link {
    /// With `faults`, the faults are drawn from that seed.
    pub(crate) fn new(
        remote: Arc<dyn Remote>,
        faults: Option<u64>,
        world: Arc<VirtualClock>,
    ) -> Self {
        let faulty = faults.map(|seed| Arc::new(Faulty::new(Arc::clone(&remote), seed)));
        Self { remote, faulty, world, device: Arc::default() }
    }

    /// Stops the faults, or lets them continue.
    pub(crate) fn heal(&self, healed: bool) {
        self.faulty.iter().for_each(|faulty| faulty.heal(healed));
    }

    /// Returns the counts of the faults, if there are faults.
    pub(crate) fn faults(&self) -> Option<FaultCounts> {
        self.faulty.as_ref().map(|faulty| faulty.counts())
    }

    /// Returns whether the last exchange had a fault on purpose.
    fn went_wrong(&self) -> bool {
        self.faulty.as_ref().is_some_and(|faulty| faulty.went_wrong())
    }

    /// Sends a request directly to the server, without faults.
    async fn ask(&self, request: &ExchangeRequest) -> Result<Received, RemoteError> {
        self.remote.exchange(request).await.map(|received| self.in_its_time(received))
    }

    /// Replaces the server's time by the virtual time.
    fn in_its_time(&self, mut received: Received) -> Received {
        received.answer.server_time = self.world.wall().max(self.device.wall());
        received
    }
}

impl Remote for Link {
    fn prepare<'a>(&'a self, actor: &'a Actor, now: WallTime) -> BoxFuture<'a, ()> {
        match &self.faulty {
            Some(faulty) => faulty.prepare(actor, now),
            None => self.remote.prepare(actor, now),
        }
    }

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

/// The totals of all exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Traffic {
    /// Requests with their answers.
    pub exchanges: u64,
    /// The bytes of the requests.
    pub bytes_sent: u64,
    /// The bytes of the answers.
    pub bytes_received: u64,
    /// Units sent. A unit that is sent twice counts twice.
    pub units_sent: u64,
    /// Units that were stale.
    pub stale_units: u64,
    /// Units that the server accepted at a later try.
    pub units_tried_again: u64,
    /// Changes of the server that reached a device.
    pub changes_received: u64,
    /// Exchanges that failed as a whole and were repeated.
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

/// The result of one device's sync.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Synced {
    /// Whether anything was sent or received.
    pub(crate) moved: bool,
    /// Whether the server accepted anything.
    pub(crate) pushed: bool,
    /// Whether it ended with nothing left of what it was asked to do.
    pub(crate) idle: bool,
}

/// Syncs devices.
pub(crate) struct Syncer {
    pub(crate) link: Link,
    pub(crate) traffic: Traffic,
    pub(crate) progress: Arc<dyn Progress>,
}

impl Syncer {
    /// Syncs until the book is idle or makes no progress. The clock is that of the book's device.
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
                    .resume(Resume::Authenticated)
                    .map_err(|error| Failure::new("a book cannot go on syncing").because(error))?;
                continue;
            }
            match report.stopped {
                Stopped::Failed(_) | Stopped::PageRefused(_) | Stopped::NoProgress
                    if went_wrong => {}
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

    /// Sends a request directly, with the same patience.
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
            SyncState::NeedsUpgrade { code } => Err(Failure::new(format!(
                "the server needs another version of this program ({code})"
            ))),
            SyncState::NeedsServerConfirmed => {
                Err(Failure::new("another server answers than at the beginning")
                    .hint("start the same store again, or play anew"))
            }
            _ => Ok(()),
        }
    }
}

/// A server that is away, and the time since then.
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

/// Returns whether the failure may end by waiting.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Counts the runs that it was prepared for.
    #[derive(Default)]
    struct Counting(AtomicU32);

    impl Remote for Counting {
        fn prepare<'a>(&'a self, _: &'a Actor, _: WallTime) -> BoxFuture<'a, ()> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::ready(()))
        }

        fn exchange<'a>(
            &'a self,
            _: &'a ExchangeRequest,
        ) -> BoxFuture<'a, Result<Received, RemoteError>> {
            Box::pin(std::future::pending())
        }
    }

    /// The link swallowed the call, so a token was renewed only after the server had refused it.
    #[test]
    fn a_remote_with_tokens_is_prepared_through_the_link_and_its_faults() {
        for faults in [None, Some(7)] {
            let remote = Arc::new(Counting::default());
            let link = Link::new(Arc::clone(&remote) as _, faults, Arc::default());
            let ann = Actor::parse("ann").unwrap();
            drop(link.prepare(&ann, WallTime::from_milliseconds(0)));
            assert_eq!(remote.0.load(Ordering::SeqCst), 1);
        }
    }
}
