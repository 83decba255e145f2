//! An own connection to the server. This one never uses a network: it counts, and passes each
//! request to a server within the process. An app can test itself like this. Another app would send
//! the request through its own client here.
//!
//! ```text
//! cargo run --example own_remote
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

#[path = "support/server.rs"]
mod server;

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};

use fieldbook::host::WallTime;
use fieldbook::sync::protocol::{CompareRequest, ExchangeRequest, Failure};
use fieldbook::sync::{BoxFuture, Received, ReceivedComparison, Remote, RemoteError};
use fieldbook::{Actor, Book, BookOptions, Fields, RunOptions};
use serde_json::json;
use server::LocalServer;

/// Fails the first exchange, as a network does, and passes the others on.
struct Flaky {
    server: LocalServer,
    requests: AtomicU32,
}

impl Remote for Flaky {
    // A remote that wraps another one passes this on: the inner one may have a token to renew.
    fn prepare<'a>(&'a self, actor: &'a Actor, now: WallTime) -> BoxFuture<'a, ()> {
        self.server.prepare(actor, now)
    }

    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        Box::pin(async move {
            if self.requests.fetch_add(1, Ordering::SeqCst) == 0 {
                // Return whether the request may have arrived: `Unreachable` means that it has not,
                // `Unknown` that nobody knows.
                return Err(Failure::Unknown { code: "connection_lost" }.into());
            }
            self.server.exchange(request).await
        })
    }

    /// A remote without this method works too: a check then says that the server cannot compare.
    fn compare<'a>(
        &'a self,
        request: &'a CompareRequest,
    ) -> BoxFuture<'a, Result<ReceivedComparison, RemoteError>> {
        self.server.compare(request)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("ann")?)?;
    let remote = Flaky { server: LocalServer::new(), requests: AtomicU32::new(0) };
    book.records().create("lead/42".parse()?, Fields::from_value(json!({"name": "Mueller"}))?)?;
    for _ in 0..2 {
        let report = book.sync(&remote, &RunOptions::default()).await?;
        println!(
            "{:?}: {} acked, {} wait",
            report.stopped,
            report.ops_acked,
            book.status().pending
        );
    }
    let difference = book.check(&remote).await?;
    println!("compared {} record, {} differ", difference.records_compared, difference.records());
    Ok(())
}
