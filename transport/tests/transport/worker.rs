//! The worker, in tokio's paused time: waits take no time and their lengths are exact.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fieldbook_core::protocol::{ExchangeRequest, Failure};
use fieldbook_core::{Clock, SeededRandomness, WallTime, limits};
use fieldbook_transport::{
    Activity, BoxFuture, FnRemote, Handle, Received, Remote, RemoteError, Worker, WorkerError,
    WorkerOptions,
};
use tokio::time::{Instant, sleep};

use crate::scripted_host::{ScriptedHost, ScriptedServer};
use crate::support::{TestClock, unit};

const LOOK_EVERY: Duration = Duration::from_secs(100);

/// What a test changes at the server while the worker runs.
#[derive(Default)]
struct World {
    failure: Mutex<Option<Failure>>,
    at: Mutex<Vec<Instant>>,
}

impl World {
    fn fails(&self, failure: Option<Failure>) {
        *self.failure.lock().unwrap() = failure;
    }

    /// Returns how many requests the server has received.
    fn asked(&self) -> usize {
        self.at.lock().unwrap().len()
    }

    /// Returns the waits between these requests.
    fn waits(&self) -> Vec<Duration> {
        self.at.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

fn options() -> WorkerOptions {
    WorkerOptions { look_every: LOOK_EVERY, ..WorkerOptions::default() }
}

fn start_with(
    host: &Arc<ScriptedHost>,
    remote: impl Remote + 'static,
    options: WorkerOptions,
) -> Handle {
    let worker = Worker {
        host: Arc::clone(host),
        remote: Arc::new(remote),
        clock: Arc::new(TestClock::new()),
        random: Box::new(SeededRandomness::from_number(1)),
        options,
        sizer: Arc::default(),
    };
    worker.start()
}

fn start(units: u8) -> (Handle, Arc<ScriptedHost>, Arc<World>) {
    start_as(options(), units)
}

fn start_as(options: WorkerOptions, units: u8) -> (Handle, Arc<ScriptedHost>, Arc<World>) {
    let (host, world) = (Arc::new(ScriptedHost::with_units(units)), Arc::new(World::default()));
    let (server, shared) = (ScriptedServer::with_pages(0), Arc::clone(&world));
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        shared.at.lock().unwrap().push(Instant::now());
        match shared.failure.lock().unwrap().clone() {
            Some(failure) => Err(failure.into()),
            None => Ok(server.answer(request)),
        }
    });
    (start_with(&host, remote, options), host, world)
}

fn transient(retry_after: Option<Duration>) -> Failure {
    Failure::Transient { code: "busy".to_owned(), retry_after, marked: true }
}

async fn shortly() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn it_runs_at_once_and_then_looks_now_and_then() {
    let (handle, host, world) = start(3);
    sleep(LOOK_EVERY * 3 + LOOK_EVERY / 2).await;
    assert!(host.state().tail.is_empty());
    assert_eq!(world.asked(), 4);
    for wait in world.waits() {
        assert!(wait >= LOOK_EVERY * 9 / 10, "{wait:?}");
        assert!(wait < LOOK_EVERY + Duration::from_secs(1), "{wait:?}");
    }
    let [first, second, ..] = world.waits()[..] else { panic!("three waits") };
    assert_ne!(first, second, "devices that started together do not ask together");
    handle.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_writes_leaves_in_one_request_and_a_person_does_not_wait_for_it() {
    let options = WorkerOptions { gather_for: Duration::from_secs(2), ..options() };
    let (handle, host, world) = start_as(options, 0);
    shortly().await;
    for number in 0..4 {
        host.state().tail.push(unit(number));
        handle.wake();
        sleep(Duration::from_millis(400)).await;
        assert_eq!(world.asked(), 1, "the worker waits for more");
    }
    sleep(Duration::from_secs(1)).await;
    assert!(host.state().tail.is_empty());
    assert_eq!(world.asked(), 2);

    host.state().tail.push(unit(9));
    handle.wake();
    shortly().await;
    assert_eq!(world.asked(), 2);
    handle.retry_now();
    shortly().await;
    assert_eq!(world.asked(), 3);
    handle.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wake_sends_what_was_written_at_once_however_often_it_is_called() {
    let (handle, host, world) = start(0);
    shortly().await;
    host.state().tail.push(unit(9));
    for _ in 0..100 {
        handle.wake();
    }
    shortly().await;
    assert!(host.state().tail.is_empty());
    assert_eq!(world.asked(), 2);
    handle.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn something_that_is_due_earlier_is_looked_at_earlier() {
    let (handle, host, world) = start(0);
    host.state().next_wake = Some(TestClock::new().now().wall.plus(Duration::from_secs(7)));
    sleep(Duration::from_secs(20)).await;
    let waits = world.waits();
    assert!(
        waits[0] >= Duration::from_secs(6) && waits[0] < Duration::from_secs(8),
        "{:?}",
        waits[0]
    );
    assert!(
        waits.len() < 20,
        "a book that goes on saying that something is due does not make it spin"
    );
    host.state().next_wake = Some(WallTime::from_milliseconds(i64::MAX));
    let asked = world.asked();
    sleep(LOOK_EVERY * 2).await;
    assert!(world.asked() > asked, "the next look is at a finite time whatever is said to be due");
    handle.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_longer_and_longer_up_to_a_bound_and_a_success_starts_anew() {
    let (handle, _host, world) = start(1);
    world.fails(Some(transient(None)));
    sleep(Duration::from_secs(6 * 3600)).await;
    let waits = world.waits();
    assert!(waits.len() > 12 && waits.len() < 40, "{}", waits.len());
    for (failures, wait) in waits.iter().enumerate() {
        let bound =
            limits::BACKOFF_FIRST.saturating_mul(1 << failures.min(20)).min(limits::BACKOFF_MOST);
        assert!(*wait <= bound + Duration::from_secs(1), "wait {failures} is {wait:?}");
    }
    world.fails(None);
    handle.retry_now();
    shortly().await;
    let asked = world.asked();
    world.fails(Some(transient(None)));
    handle.wake();
    sleep(Duration::from_millis(1_500)).await;
    assert!(world.asked() >= asked + 2, "the first wait after a success is short again");
    handle.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_server_asks_for_is_waited_for_even_when_woken() {
    let (handle, host, world) = start(1);
    world.fails(Some(transient(Some(Duration::from_secs(300)))));
    shortly().await;
    assert_eq!(world.asked(), 1);
    handle.wake();
    sleep(Duration::from_secs(290)).await;
    assert_eq!(world.asked(), 1);
    assert!(
        host.state()
            .activities
            .iter()
            .any(|activity| matches!(activity, Activity::BackingOff { .. }))
    );
    handle.retry_now();
    shortly().await;
    assert_eq!(world.asked(), 2, "a person may insist");
    handle.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn missing_credentials_are_not_hammered_and_new_ones_are_used_at_once() {
    let (handle, host, world) = start(1);
    world.fails(Some(Failure::Unauthorized { code: "expired".to_owned() }));
    sleep(Duration::from_secs(3_500)).await;
    assert_eq!(world.asked(), 1);
    world.fails(None);
    handle.retry_now();
    shortly().await;
    assert!(host.state().tail.is_empty());
    handle.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn being_offline_for_long_is_noticed_to_end_within_minutes() {
    let (handle, host, world) = start(1);
    world.fails(Some(Failure::Unreachable { code: "dns" }));
    sleep(Duration::from_secs(24 * 3600)).await;
    world.fails(None);
    sleep(Duration::from_secs(5 * 60 + 1)).await;
    assert!(host.state().tail.is_empty());
    handle.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_worker_asks_nothing_until_it_is_resumed() {
    let (handle, host, world) = start(0);
    shortly().await;
    handle.pause();
    host.state().tail.push(unit(9));
    handle.wake();
    sleep(LOOK_EVERY * 3).await;
    assert_eq!(world.asked(), 1);
    assert_eq!(host.state().activities.last(), Some(&Activity::Paused));
    handle.resume();
    shortly().await;
    assert!(host.state().tail.is_empty());
    handle.pause();
    handle.shutdown().await.unwrap();
}

/// The spread was cut off at an hour, so devices with a long interval all asked together.
#[tokio::test(start_paused = true)]
async fn devices_that_look_once_in_two_hours_do_not_ask_together_either() {
    let options = WorkerOptions { look_every: Duration::from_secs(7_200), ..options() };
    let (handle, _host, world) = start_as(options, 0);
    sleep(limits::BACKOFF_MOST * 4).await;
    let waits = world.waits();
    assert!(waits.len() >= 3, "{waits:?}");
    for wait in &waits {
        assert!(*wait >= limits::BACKOFF_MOST * 9 / 10, "{wait:?}");
        assert!(*wait <= limits::BACKOFF_MOST + Duration::from_secs(1), "{wait:?}");
    }
    assert_ne!(waits[0], waits[1]);
    handle.shutdown().await.unwrap();
}

/// A write made what was due already wait as long as the writes after it.
#[tokio::test(start_paused = true)]
async fn gathering_writes_does_not_put_off_what_is_due_already() {
    let options = WorkerOptions { gather_for: Duration::from_secs(50), ..options() };
    let (handle, host, world) = start_as(options, 0);
    host.state().next_wake = Some(TestClock::new().now().wall.plus(Duration::from_secs(7)));
    sleep(Duration::from_secs(5)).await;
    handle.wake();
    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(world.asked(), 2);
    handle.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_waits_while_the_book_is_away_and_runs_at_once_when_it_is_back() {
    let (handle, host, world) = start(0);
    shortly().await;
    host.turns.send_modify(|turns| *turns += 1);
    host.state().tail.push(unit(9));
    handle.wake();
    handle.retry_now();
    sleep(LOOK_EVERY * 3).await;
    assert_eq!(world.asked(), 1);
    handle.pause();
    host.turns.send_modify(|turns| *turns += 1);
    sleep(LOOK_EVERY * 3).await;
    assert_eq!(world.asked(), 1, "it was paused meanwhile");
    handle.resume();
    shortly().await;
    assert!(host.state().tail.is_empty());

    // Away and back while the worker waits for its next look.
    host.state().tail.push(unit(8));
    for _ in 0..2 {
        host.turns.send_modify(|turns| *turns += 1);
    }
    shortly().await;
    assert!(host.state().tail.is_empty());
    host.turns.send_modify(|turns| *turns += 1);
    shortly().await;
    handle.shutdown().await.expect("also while the book is away");
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_when_the_book_goes_away_also_if_it_is_back_at_once() {
    let (silent, host) = (Silent::default(), Arc::new(ScriptedHost::with_units(1)));
    let handle = start_with(&host, silent.clone(), options());
    for dropped in 1..4 {
        shortly().await;
        for _ in 0..2 {
            host.turns.send_modify(|turns| *turns += 1);
        }
        shortly().await;
        assert_eq!(silent.0.load(Ordering::SeqCst), dropped);
    }
    drop(handle);
}

/// A pause returned while the run before it still wrote, and nothing told when it had ended.
#[tokio::test(start_paused = true)]
async fn after_a_pause_an_app_can_wait_for_the_run_that_is_under_way() {
    let (began, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut host = ScriptedHost::with_units(1);
    let (begins, ends) = (Arc::clone(&began), Arc::clone(&ended));
    host.on_accept = Box::new(move |_| {
        begins.store(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        ends.store(1, Ordering::SeqCst);
    });
    let (host, server) = (Arc::new(host), ScriptedServer::with_pages(0));
    let remote = FnRemote::new(move |request| Ok(server.answer(request)));
    let handle = start_with(&host, remote, options());
    while began.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    handle.pause();
    handle.rests().await;
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    handle.shutdown().await.unwrap();
}

/// Never answers, and counts the exchanges that were dropped.
#[derive(Clone, Default)]
pub(crate) struct Silent(Arc<AtomicU32>);

impl Remote for Silent {
    fn exchange<'a>(
        &'a self,
        _: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        struct Dropped<'a>(&'a AtomicU32);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        Box::pin(async move {
            let _dropped = Dropped(&self.0);
            std::future::pending().await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_server_is_cut_short_by_pause_shutdown_and_the_end_of_the_handle() {
    let (silent, host) = (Silent::default(), Arc::new(ScriptedHost::with_units(1)));
    let handle = start_with(&host, silent.clone(), options());
    shortly().await;
    handle.pause();
    shortly().await;
    assert_eq!(silent.0.load(Ordering::SeqCst), 1);
    handle.resume();
    shortly().await;
    handle.shutdown().await.unwrap();
    assert_eq!(silent.0.load(Ordering::SeqCst), 2);
    let handle = start_with(&host, silent.clone(), options());
    shortly().await;
    drop(handle);
    shortly().await;
    assert_eq!(silent.0.load(Ordering::SeqCst), 3);
    assert_eq!(host.state().activities.last(), Some(&Activity::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_run_waits_for_its_turn_and_a_shutdown_does_not() {
    let (host, silent) = (Arc::new(ScriptedHost::with_units(1)), Silent::default());
    let sizer = Arc::new(tokio::sync::Mutex::default());
    let taken = Arc::clone(&sizer).lock_owned().await;
    let start = || {
        let worker = Worker {
            host: Arc::clone(&host),
            remote: Arc::new(silent.clone()),
            clock: Arc::new(TestClock::new()),
            random: Box::new(SeededRandomness::from_number(1)),
            options: WorkerOptions::default(),
            sizer: Arc::clone(&sizer),
        };
        worker.start()
    };
    let handle = start();
    sleep(LOOK_EVERY).await;
    assert_eq!(host.state().activities, []);
    handle.shutdown().await.unwrap();
    let handle = start();
    drop(taken);
    shortly().await;
    assert!(sizer.try_lock().is_err(), "the run that waits for the server holds its turn");
    handle.shutdown().await.unwrap();
    assert!(sizer.try_lock().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_commit_that_is_under_way() {
    let (began, mut host) = (Arc::new(AtomicU32::new(0)), ScriptedHost::with_units(1));
    let begins = Arc::clone(&began);
    host.on_accept = Box::new(move |_| {
        begins.store(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(200));
    });
    let (host, server) = (Arc::new(host), ScriptedServer::with_pages(0));
    let handle =
        start_with(&host, FnRemote::new(move |request| Ok(server.answer(request))), options());
    while began.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    handle.shutdown().await.unwrap();
    assert!(host.state().tail.is_empty(), "the answer was applied before shutdown returned");
    assert_eq!(Arc::strong_count(&host), 1, "nobody else holds the book any more");
}

#[tokio::test(start_paused = true)]
async fn a_book_that_fails_ends_the_worker_and_shutdown_says_so() {
    let (handle, host, _world) = start(1);
    host.state().disk_fails = true;
    shortly().await;
    assert!(handle.is_finished());
    assert_eq!(host.state().activities.last(), Some(&Activity::Stopped));
    assert!(matches!(handle.shutdown().await, Err(WorkerError::Book { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_seen() {
    let host = Arc::new(ScriptedHost::with_units(1));
    let handle = start_with(&host, FnRemote::new(|_| panic!("planned by the test")), options());
    shortly().await;
    assert!(handle.is_finished());
    assert_eq!(host.state().activities.last(), Some(&Activity::Stopped));
    assert!(matches!(handle.shutdown().await, Err(WorkerError::Panicked)));
}
