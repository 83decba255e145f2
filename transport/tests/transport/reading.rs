//! Reading in the exchange loop: it reads pages ahead, it ends, and it finds pages that do not get
//! through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fieldbook_core::limits;
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Failure};
use fieldbook_transport::{BatchSizer, FnRemote, Remote, RunOptions, Stopped, Unanswered};

use crate::runs::{always_failing, options, remote_of, run_with, transient, try_run};
use crate::scripted_host::{ScriptedHost, ScriptedServer};

/// Pages travelled together with units. So a unit that something in the network refused stopped
/// reading, too.
#[tokio::test]
async fn pages_are_read_though_what_is_sent_fails_every_time() {
    let server = Arc::new(ScriptedServer::with_pages(3));
    let host =
        Arc::new(ScriptedHost { unanswered: Unanswered::Suspected, ..ScriptedHost::with_units(5) });
    let there = Arc::clone(&server);
    let remote = FnRemote::new(move |request: &ExchangeRequest| match request.units.is_empty() {
        true => Ok(there.answer(request)),
        false => Err(Failure::Unreachable { code: "not_our_server" }.into()),
    });
    let report = run_with(&host, &remote, &options()).await;
    assert_eq!((report.changes, report.units_acked), (3, 0));
    assert_eq!(report.stopped, Stopped::Failed(Failure::Unreachable { code: "not_our_server" }));
    assert!(report.exchanges <= 5, "{} exchanges", report.exchanges);
}

#[tokio::test]
async fn a_server_that_promises_more_and_sends_nothing_ends_the_run() {
    let host = Arc::new(ScriptedHost::with_units(0));
    let server = ScriptedServer::with_pages(0);
    let remote =
        FnRemote::new(|request| Ok(ExchangeAnswer { more: true, ..server.answer(request) }));
    let report = run_with(&host, &remote, &options()).await;
    assert_eq!((report.stopped, report.exchanges), (Stopped::NoProgress, 2));
}

/// Each page moved a cursor to a new place. So the run counted as making progress for as long as
/// the server liked.
#[tokio::test]
async fn pages_that_move_on_for_ever_and_bring_nothing_end_the_run() {
    for reads_ahead in [true, false] {
        let host = Arc::new(ScriptedHost { reads_ahead, ..ScriptedHost::with_units(0) });
        let server = ScriptedServer::with_pages(250);
        let empty = |answer| ExchangeAnswer { changes: Vec::new(), more: true, ..answer };
        let remote = FnRemote::new(|request| Ok(empty(server.answer(request))));
        let report = run_with(&host, &remote, &options()).await;
        assert_eq!(report.stopped, Stopped::NoProgress);
        assert!(report.exchanges <= limits::EMPTY_PAGES + 1, "{}", report.exchanges);
    }
}

#[tokio::test]
async fn the_next_page_travels_while_the_present_one_is_applied() {
    let server = Arc::new(ScriptedServer::with_pages(6));
    let mut host = ScriptedHost::with_units(0);
    let overlapped = Arc::new(AtomicU32::new(0));
    let (watched, count) = (Arc::clone(&server), Arc::clone(&overlapped));
    host.on_accept = Box::new(move |request| {
        let accepted = request.request.as_bytes()[0];
        if accepted == 6 {
            return;
        }
        // A commit that lasts until the server has received the next request. Without reading ahead
        // it would last for ever.
        for _ in 0..2_000 {
            if watched.seen().requests.len() > usize::from(accepted) {
                count.fetch_add(1, Ordering::SeqCst);
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(
            watched.seen().requests.len(),
            usize::from(accepted) + 1,
            "only one page is on its way"
        );
    });
    let report = run_with(&Arc::new(host), &remote_of(&server), &options()).await;
    assert_eq!((report.stopped, report.exchanges, report.changes), (Stopped::Idle, 6, 6));
    assert_eq!(overlapped.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn pages_are_asked_for_one_by_one_if_the_book_wants_that() {
    let server = Arc::new(ScriptedServer::with_pages(4));
    let host = Arc::new(ScriptedHost { reads_ahead: false, ..ScriptedHost::with_units(0) });
    let report = run_with(&host, &remote_of(&server), &options()).await;
    assert_eq!((report.stopped, report.exchanges, report.changes), (Stopped::Idle, 4, 4));
    let state = host.state();
    let pulls: Vec<_> = state.asks.iter().map(|ask| ask.pull).collect();
    assert_eq!(pulls, [true, true, true, true, false]);
}

#[tokio::test]
async fn a_page_on_its_way_is_put_aside_when_the_present_one_parks_something() {
    let server = Arc::new(ScriptedServer::with_pages(4));
    let host = Arc::new(ScriptedHost::with_units(0));
    host.state().parks = true;
    let report = run_with(&host, &remote_of(&server), &options()).await;
    assert_eq!((report.stopped, report.changes, report.parked), (Stopped::Idle, 4, true));
    assert_eq!(report.exchanges, 7, "each page but the last was followed by one in vain");
}

#[tokio::test]
async fn a_failure_on_a_page_read_ahead_keeps_the_page_in_hand() {
    let (host, server) = (Arc::new(ScriptedHost::with_units(0)), ScriptedServer::with_pages(4));
    let unreachable = Failure::Unreachable { code: "connection_refused" };
    let remote = FnRemote::new(|request: &ExchangeRequest| match request.request.as_bytes()[0] {
        3 => Err(Failure::Unreachable { code: "connection_refused" }.into()),
        _ => Ok(server.answer(request)),
    });
    let report = run_with(&host, &remote, &options()).await;
    assert_eq!((report.stopped, report.changes), (Stopped::Failed(unreachable), 2));
    assert_eq!(host.state().cursor, Some(crate::support::cursor(2)));
}

/// A server with this many pages of one change each. Something in the network refuses every answer
/// that holds one of them.
fn scanned(server: &Arc<ScriptedServer>, refused: u8, failure: Failure) -> impl Remote + use<> {
    let server = Arc::clone(server);
    FnRemote::new(move |request: &ExchangeRequest| {
        let answer = server.answer(request);
        let named = refused.to_string();
        let is_held_back = answer.changes.iter().any(|change| change.key.id.as_str() == named);
        if is_held_back { Err(failure.clone().into()) } else { Ok(answer) }
    })
}

/// A row that a filter in the network refused stopped reading for good. It stopped sending too:
/// pages travelled with units, no answer came, and the units were blamed.
#[tokio::test]
async fn a_page_that_does_not_get_through_keeps_neither_what_stands_before_it_nor_what_is_sent() {
    let (foreign, broken) = (
        Failure::Unreachable { code: "not_our_server" },
        Failure::Unknown { code: "connection_broke" },
    );
    for failure in [transient(), foreign, broken, Failure::Misbehaved { code: "not_an_answer" }] {
        let server = Arc::new(ScriptedServer::with_pages(5));
        let remote = scanned(&server, 3, failure.clone());
        let (host, mut sizer) = (Arc::new(ScriptedHost::with_units(0)), BatchSizer::default());
        let report = try_run(&host, &remote, &mut sizer).await.unwrap();
        assert_eq!((report.stopped, report.changes), (Stopped::PageRefused(failure.clone()), 3));
        assert!(host.state().failures.is_empty());
        assert!(report.exchanges <= 14, "{} exchanges", report.exchanges);
        // The same device sends new units without a page. Another process does not know yet and
        // finds out again.
        host.state().tail = (0..5).map(crate::support::unit).collect();
        let report = try_run(&host, &remote, &mut sizer).await.unwrap();
        assert_eq!(
            (report.stopped, report.units_acked),
            (Stopped::PageRefused(failure.clone()), 5)
        );
        assert!(report.exchanges <= 5, "{} exchanges", report.exchanges);
        let sent =
            Arc::new(ScriptedHost { unanswered: Unanswered::Sent, ..ScriptedHost::with_units(5) });
        sent.state().cursor = host.state().cursor.clone();
        let report = try_run(&sent, &remote, &mut BatchSizer::default()).await.unwrap();
        assert_eq!((report.stopped, report.units_acked), (Stopped::PageRefused(failure), 5));
        assert!(report.exchanges <= 14, "{} exchanges", report.exchanges);
        // Once the row gets through, everything is read.
        let report = try_run(&sent, &remote_of(&server), &mut sizer).await.unwrap();
        assert_eq!((report.stopped, report.changes), (Stopped::Idle, 2));
    }
}

#[tokio::test]
async fn an_outage_is_no_refused_page_and_costs_one_small_request_more() {
    for failure in [transient(), Failure::Unknown { code: "timeout" }] {
        let (host, mut sizer) = (Arc::new(ScriptedHost::with_units(0)), BatchSizer::default());
        for _ in 0..3 {
            let report =
                try_run(&host, &always_failing(failure.clone()), &mut sizer).await.unwrap();
            assert_eq!((report.exchanges, report.stopped), (2, Stopped::Failed(failure.clone())));
        }
        let server = Arc::new(ScriptedServer::with_pages(1));
        try_run(&host, &remote_of(&server), &mut sizer).await.unwrap();
        assert_eq!(
            server.seen().requests[0].page_limit,
            options().page_limit,
            "the page was not blamed"
        );
    }
}

#[tokio::test]
async fn whoever_is_not_reached_is_asked_once() {
    let host = Arc::new(ScriptedHost::with_units(0));
    let report =
        run_with(&host, &always_failing(Failure::Unreachable { code: "dns" }), &options()).await;
    assert_eq!(report.exchanges, 1);
    let one = RunOptions { max_exchanges: 1, ..options() };
    let report = run_with(&host, &always_failing(transient()), &one).await;
    assert_eq!((report.exchanges, report.stopped), (1, Stopped::Failed(transient())));
}
