//! Runs of the exchange loop over a scripted book and server.

use std::sync::Arc;

use fieldbook_core::protocol::Failure;
use fieldbook_transport::{FnRemote, Remote, RunError, RunOptions, SyncReport, Throttle, run};

use crate::scripted_desk::{DiskFailed, ScriptedDesk, ScriptedServer};
use crate::support::TestClock;

pub fn options() -> RunOptions {
    RunOptions { batch_ops: 50, ..RunOptions::default() }
}

pub fn remote_of(server: &Arc<ScriptedServer>) -> impl Remote + use<> {
    let server = Arc::clone(server);
    FnRemote::new(move |request| Ok(server.answer(request)))
}

pub async fn try_run(
    desk: &Arc<ScriptedDesk>,
    remote: &dyn Remote,
    throttle: &mut Throttle,
) -> Result<SyncReport, RunError<DiskFailed>> {
    run(desk, remote, &TestClock::new(), &options(), throttle).await
}

pub async fn run_with(desk: &Arc<ScriptedDesk>, remote: &dyn Remote, options: &RunOptions) -> SyncReport {
    run(desk, remote, &TestClock::new(), options, &mut Throttle::default()).await.unwrap()
}

pub fn always_failing(failure: Failure) -> impl Remote {
    FnRemote::new(move |_| Err(failure.clone().into()))
}

pub fn transient() -> Failure {
    Failure::Transient { code: "busy".to_owned(), retry_after: None, marked: true }
}
