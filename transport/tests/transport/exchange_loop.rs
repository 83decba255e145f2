//! The exchange loop: it sends and reads everything, it ends, and it may be dropped at any await.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fieldbook_core::Clock;
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Failure, UNMARKED};
use fieldbook_transport::{
    Activity, BatchSizer, BoxFuture, Budget, FnRemote, Limit, Received, Remote, RemoteError,
    RunError, RunOptions, Stopped, Unanswered, run,
};

use crate::runs::{always_failing, options, remote_of, run_with, transient, try_run};
use crate::scripted_host::{ScriptedHost, ScriptedServer};
use crate::support::{TestClock, unit};

/// A server that accepts only requests that pass a check.
fn narrow<F>(server: &Arc<ScriptedServer>, fits: F) -> impl Remote + use<F>
where
    F: Fn(&ExchangeRequest) -> bool + Send + Sync,
{
    let server = Arc::clone(server);
    FnRemote::new(move |request| {
        if fits(request) { Ok(server.answer(request)) } else { Err(Failure::TooLarge.into()) }
    })
}

#[tokio::test]
async fn a_run_drains_the_tail_in_batches_and_ends_idle() {
    let (host, server) =
        (Arc::new(ScriptedHost::with_units(120)), Arc::new(ScriptedServer::with_pages(0)));
    let report = run_with(&host, &remote_of(&server), &options()).await;
    assert_eq!((report.exchanges, report.units_acked, report.ops_sent), (3, 120, 120));
    assert_eq!(report.stopped, Stopped::Idle);
    assert!(report.bytes_sent > 0 && report.bytes_received > 0);
    assert!(host.state().tail.is_empty());
    assert_eq!(server.seen().applied.len(), 120);
}

#[tokio::test]
async fn a_run_with_nothing_new_is_one_exchange() {
    let (host, server) =
        (Arc::new(ScriptedHost::with_units(0)), Arc::new(ScriptedServer::with_pages(0)));
    let report = run_with(&host, &remote_of(&server), &options()).await;
    assert_eq!((report.exchanges, report.stopped), (1, Stopped::Idle));
    let state = host.state();
    let asked: Vec<_> = state.asks.iter().map(|ask| (ask.first, ask.push, ask.pull)).collect();
    assert_eq!(asked, [(true, true, true), (false, true, false)]);
}

#[tokio::test]
async fn an_idle_run_says_when_something_is_due() {
    let (host, server) =
        (Arc::new(ScriptedHost::with_units(0)), Arc::new(ScriptedServer::with_pages(0)));
    let due = Some(fieldbook_core::WallTime::from_milliseconds(5));
    host.state().next_wake = due;
    assert_eq!(run_with(&host, &remote_of(&server), &options()).await.next_run, due);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_until_it_fits_and_stays_so() {
    let (host, server) =
        (Arc::new(ScriptedHost::with_units(200)), Arc::new(ScriptedServer::with_pages(0)));
    let report =
        run_with(&host, &narrow(&server, |request| request.units.len() <= 10), &options()).await;
    assert_eq!((report.stopped, report.units_acked, report.ops_dead), (Stopped::Idle, 200, 0));
    let refused = host.state().failures.len();
    assert!(refused <= 8, "{refused} refused");
    assert!(report.exchanges <= 45, "{} exchanges", report.exchanges);
}

#[tokio::test]
async fn a_unit_that_is_too_large_alone_does_not_keep_the_others() {
    let (host, server) =
        (Arc::new(ScriptedHost::with_units(200)), Arc::new(ScriptedServer::with_pages(0)));
    let culprits = [unit(3).id, unit(77).id, unit(78).id];
    let fits = move |request: &ExchangeRequest| {
        request.units.iter().all(|unit| !culprits.contains(&unit.id))
    };
    let report = run_with(&host, &narrow(&server, fits), &options()).await;
    assert_eq!((report.stopped, report.units_acked, report.ops_dead), (Stopped::Idle, 197, 3));
    assert_eq!(host.state().dead, culprits);
    assert!(report.exchanges <= 40, "{} exchanges", report.exchanges);
}

#[tokio::test]
async fn a_book_that_keeps_offering_what_is_too_large_alone_ends_the_run() {
    let host = Arc::new(ScriptedHost { buries: false, ..ScriptedHost::with_units(1) });
    let server = Arc::new(ScriptedServer::with_pages(0));
    let report =
        run_with(&host, &narrow(&server, |request| request.units.is_empty()), &options()).await;
    assert_eq!((report.stopped, report.exchanges), (Stopped::Failed(Failure::TooLarge), 3));
}

/// A request without units was too large as well, because of its cursors. The small unit that was
/// sent with them became a dead letter.
#[tokio::test]
async fn a_lone_unit_is_not_what_is_too_large_if_the_request_without_it_is_as_well() {
    let host = Arc::new(ScriptedHost::with_units(1));
    let report = run_with(&host, &always_failing(Failure::TooLarge), &options()).await;
    assert_eq!((report.stopped, report.exchanges), (Stopped::Failed(Failure::TooLarge), 2));
    assert!(host.state().dead.is_empty());
}

#[tokio::test]
async fn what_had_no_answer_is_sent_again_after_the_way_was_found_open_and_before_pages_are_read() {
    let server = Arc::new(ScriptedServer::with_pages(1));
    let host =
        Arc::new(ScriptedHost { unanswered: Unanswered::Sent, ..ScriptedHost::with_units(5) });
    let report = run_with(&host, &remote_of(&server), &options()).await;
    assert_eq!((report.stopped, report.units_acked, report.changes), (Stopped::Idle, 5, 1));
    let asked: Vec<_> = server
        .seen()
        .requests
        .iter()
        .map(|request| (request.units.len(), request.page_limit > 0))
        .collect();
    // The page, which may have caused the missing answer, is asked for alone.
    assert_eq!(asked, [(0, false), (5, false), (0, true)]);
}

#[tokio::test]
async fn a_pull_that_is_too_large_ends_the_run() {
    let host = Arc::new(ScriptedHost::with_units(0));
    let report = run_with(&host, &always_failing(Failure::TooLarge), &options()).await;
    assert_eq!((report.stopped, report.exchanges), (Stopped::Failed(Failure::TooLarge), 1));
}

#[tokio::test]
async fn a_server_that_answers_for_no_unit_ends_the_run() {
    let host = Arc::new(ScriptedHost::with_units(5));
    let server = ScriptedServer::with_pages(0);
    let remote = FnRemote::new(|request| {
        Ok(ExchangeAnswer { outcomes: Vec::new(), ..server.answer(request) })
    });
    let report = run_with(&host, &remote, &options()).await;
    assert_eq!((report.stopped, report.exchanges), (Stopped::NoProgress, 2));
    assert_eq!(host.state().tail.len(), 5);
}

#[tokio::test]
async fn a_failure_ends_the_run_and_the_next_one_sends_half_until_all_is_well() {
    let mut sizer = BatchSizer::default();
    let misbehaved = Failure::Misbehaved { code: "marker" };
    for failure in [transient(), Failure::Unknown { code: "timeout" }, misbehaved] {
        let host = Arc::new(ScriptedHost::with_units(50));
        let remote = always_failing(failure.clone());
        let report = try_run(&host, &remote, &mut sizer).await.unwrap();
        assert_eq!((report.exchanges, report.stopped), (1, Stopped::Failed(failure.clone())));
        assert_eq!(host.state().failures, [failure]);
    }
    let (host, server) =
        (Arc::new(ScriptedHost::with_units(100)), Arc::new(ScriptedServer::with_pages(0)));
    try_run(&host, &remote_of(&server), &mut sizer).await.unwrap();
    let sent: Vec<_> = server.seen().requests.iter().map(|request| request.units.len()).collect();
    assert_eq!(sent, [6, 12, 24, 48, 10]);
}

#[tokio::test]
async fn a_failure_that_has_nothing_to_do_with_size_does_not_halve() {
    let mut sizer = BatchSizer::default();
    for failure in [
        Failure::Unreachable { code: "dns" },
        Failure::Unauthorized { code: "expired".to_owned() },
        Failure::UpgradeRequired { code: "old".to_owned() },
        Failure::Refused { code: "bad".to_owned() },
    ] {
        let host = Arc::new(ScriptedHost::with_units(50));
        let report = try_run(&host, &always_failing(failure.clone()), &mut sizer).await.unwrap();
        assert_eq!(report.stopped, Stopped::Failed(failure));
    }
    assert_eq!(sizer, BatchSizer::default());
}

#[tokio::test]
async fn pull_only_sends_no_unit_and_push_only_asks_for_no_change() {
    let (host, server) =
        (Arc::new(ScriptedHost::with_units(5)), Arc::new(ScriptedServer::with_pages(3)));
    let pull = RunOptions { pull_only: true, ..options() };
    let report = run_with(&host, &remote_of(&server), &pull).await;
    assert_eq!((report.units_sent, report.changes), (0, 3));
    let server = Arc::new(ScriptedServer::with_pages(3));
    let push = RunOptions { push_only: true, ..options() };
    let report = run_with(&host, &remote_of(&server), &push).await;
    assert_eq!((report.units_acked, report.changes), (5, 0));
    assert_eq!(run_with(&host, &remote_of(&server), &push).await.exchanges, 0);
}

#[tokio::test]
async fn a_budget_ends_the_run_between_exchanges() {
    let server = Arc::new(ScriptedServer::with_pages(0));
    for (budget, exchanges, acked, limit) in [
        (Budget { ops: Some(70), ..Budget::default() }, 2, 70, Limit::Ops),
        (Budget { bytes: Some(1), ..Budget::default() }, 1, 50, Limit::Bytes),
        (Budget { time: Some(Duration::ZERO), ..Budget::default() }, 0, 0, Limit::Time),
    ] {
        let host = Arc::new(ScriptedHost::with_units(200));
        let report =
            run_with(&host, &remote_of(&server), &RunOptions { budget, ..options() }).await;
        assert_eq!(report.stopped, Stopped::BudgetSpent(limit));
        assert_eq!((report.exchanges, report.units_acked), (exchanges, acked));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_cut_short_in_time_while_the_server_says_nothing() {
    let remote = crate::worker::Silent::default();
    let host = Arc::new(ScriptedHost::with_units(5));
    let budget = Budget { time: Some(Duration::from_secs(25)), ..Budget::default() };
    let clock = TestClock::new();
    let options = RunOptions { budget, ..options() };
    let report = run(&host, &remote, &clock, &options, &mut BatchSizer::default()).await.unwrap();
    assert_eq!(clock.now().monotonic.milliseconds(), 25_000);
    assert_eq!(report.stopped, Stopped::BudgetSpent(Limit::Time));
    assert_eq!((report.units_sent, report.left.ops, report.left.pages), (5, 5, true));
    assert_eq!(report.next_run, Some(clock.now().wall));
    assert_eq!(host.state().failures, [], "a run that has no time is no failure of the server");
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_says_when_the_next_one_is_worth_it() {
    let asked = |seconds| Some(Duration::from_secs(seconds));
    let busy =
        |retry_after| Failure::Transient { code: "busy".to_owned(), retry_after, marked: true };
    let seconds = [
        (busy(asked(90)), 90),
        (busy(asked(1_000_000)), 3_600),
        (busy(None), 1),
        (Failure::Unreachable { code: "connect" }, 1),
        (Failure::Unauthorized { code: "expired".to_owned() }, 3_600),
        // The login page of a network, not our server.
        (Failure::Unauthorized { code: format!("{UNMARKED}401") }, 1),
    ];
    for (failure, seconds) in seconds {
        let host = Arc::new(ScriptedHost::with_units(1));
        let clock = TestClock::new();
        let (remote, mut sizer) = (always_failing(failure), BatchSizer::default());
        let report = run(&host, &remote, &clock, &options(), &mut sizer).await.unwrap();
        let due = clock.now().wall.plus(Duration::from_secs(seconds));
        assert_eq!(report.next_run, Some(due), "{:?}", report.stopped);
    }
}

#[tokio::test]
async fn the_number_of_exchanges_is_bounded() {
    for reads_ahead in [true, false] {
        let host = Arc::new(ScriptedHost { reads_ahead, ..ScriptedHost::with_units(0) });
        let server = Arc::new(ScriptedServer::with_pages(200));
        let few = RunOptions { max_exchanges: 7, ..options() };
        let report = run_with(&host, &remote_of(&server), &few).await;
        assert_eq!(
            (report.stopped, report.exchanges, report.changes),
            (Stopped::ExchangesSpent, 7, 7)
        );
    }
}

#[tokio::test]
async fn a_book_that_fails_or_panics_ends_the_run_with_an_error() {
    let server = Arc::new(ScriptedServer::with_pages(3));
    let host = Arc::new(ScriptedHost::with_units(1));
    host.state().disk_fails = true;
    let error = try_run(&host, &remote_of(&server), &mut BatchSizer::default()).await;
    assert!(matches!(error, Err(RunError::Host { .. })), "{error:?}");
    let mut host = ScriptedHost::with_units(1);
    host.on_accept = Box::new(|_| panic!("planned by the test"));
    let error = try_run(&Arc::new(host), &remote_of(&server), &mut BatchSizer::default()).await;
    assert!(matches!(error, Err(RunError::Interrupted)), "{error:?}");
}

#[tokio::test]
async fn the_app_hears_what_happens() {
    let (host, server) =
        (Arc::new(ScriptedHost::with_units(3)), Arc::new(ScriptedServer::with_pages(0)));
    let report = run_with(&host, &remote_of(&server), &options()).await;
    let state = host.state();
    let [
        Activity::Started,
        Activity::Exchanging { units: 3, ops: 3 },
        Activity::Progress(so_far),
        Activity::Ended(end),
    ] = &state.activities[..]
    else {
        panic!("{:?}", state.activities)
    };
    assert_eq!((so_far.units_acked, end), (3, &report));
}

/// Answers after a few polls, so that the future can be dropped at awaits in between.
struct Hesitant(Arc<ScriptedServer>);

impl Remote for Hesitant {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let answer = self.0.answer(request);
            tokio::task::yield_now().await;
            Ok(Received { answer, bytes_sent: 1, bytes_received: 1 })
        })
    }
}

/// Polls a future at most this many times, then drops it. Returns whether the future ended before.
async fn polled<F: Future>(future: F, times: u32) -> bool {
    let (mut future, mut left) = (pin!(future), times);
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        future.as_mut().poll(context).map(|_| true)
    })
    .await
}

#[tokio::test]
async fn a_run_dropped_at_any_await_is_made_up_for_by_the_next() {
    for times in 0.. {
        let (host, server) =
            (Arc::new(ScriptedHost::with_units(6)), Arc::new(ScriptedServer::with_pages(4)));
        let small = RunOptions { batch_ops: 2, ..options() };
        let remote = Hesitant(Arc::clone(&server));
        let (clock, mut sizer) = (TestClock::new(), BatchSizer::default());
        let ended = polled(run(&host, &remote, &clock, &small, &mut sizer), times).await;
        // A call into the book that has begun runs to its end by itself.
        while Arc::strong_count(&host) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let report = run(&host, &remote, &clock, &small, &mut sizer).await.unwrap();
        assert_eq!(report.stopped, Stopped::Idle, "dropped after {times} polls");
        assert!(host.state().tail.is_empty());
        assert_eq!(host.state().cursor, Some(crate::support::cursor(4)));
        assert_eq!(server.seen().applied.len(), 6);
        if ended {
            // Each exchange of the first run waits twice. How often the run waits for the book
            // depends on the machine.
            let exchanges = server.seen().requests.len() - 1;
            assert!(
                exchanges >= 4 && times as usize >= 2 * exchanges,
                "{times} polls, {exchanges} exchanges"
            );
            return;
        }
    }
}
