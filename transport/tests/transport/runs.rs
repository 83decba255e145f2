//! Runs of the exchange loop over a scripted book and server.

use std::sync::Arc;

use fieldbook_core::protocol::Failure;
use fieldbook_transport::{BatchSizer, FnRemote, Remote, RunError, RunOptions, SyncReport, run};

use crate::scripted_host::{DiskFailed, ScriptedHost, ScriptedServer};
use crate::support::TestClock;

pub fn options() -> RunOptions {
    RunOptions { batch_ops: 50, ..RunOptions::default() }
}

pub fn remote_of(server: &Arc<ScriptedServer>) -> impl Remote + use<> {
    let server = Arc::clone(server);
    FnRemote::new(move |request| Ok(server.answer(request)))
}

pub async fn try_run(
    host: &Arc<ScriptedHost>,
    remote: &dyn Remote,
    sizer: &mut BatchSizer,
) -> Result<SyncReport, RunError<DiskFailed>> {
    run(host, remote, &TestClock::new(), &options(), sizer).await
}

pub async fn run_with(
    host: &Arc<ScriptedHost>,
    remote: &dyn Remote,
    options: &RunOptions,
) -> SyncReport {
    run(host, remote, &TestClock::new(), options, &mut BatchSizer::default()).await.unwrap()
}

pub fn always_failing(failure: Failure) -> impl Remote {
    FnRemote::new(move |_| Err(failure.clone().into()))
}

pub fn transient() -> Failure {
    Failure::Transient { code: "busy".to_owned(), retry_after: None, marked: true }
}
