//! The first program: write a record, sync it.
//!
//! Start a server in another terminal, then this:
//!
//! ```text
//! cargo run --release -p fieldbook-cli -- serve --data crm.store
//! cargo run --example start
//! ```
//!
//! Without a server the edit stays in `crm.book`, and the next run sends it.

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::error::Error;

use fieldbook::{Book, BookOptions, Entity, HttpOptions, HttpRemote, RunOptions};

#[derive(serde::Serialize, serde::Deserialize)]
struct Lead {
    name: String,
    stage: String,
}

impl Entity for Lead {
    const ENTITY: &'static str = "lead";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:7070".into());
    let book = Book::open_or_create("crm.book", BookOptions::new("ann")?)?;
    let id = book.new_id();
    book.save(&id, &Lead { name: "Mueller".into(), stage: "new".into() })?;
    println!("{} ops wait for the server", book.status().pending);

    let remote = HttpRemote::new(&server, HttpOptions::default())?;
    let report = book.sync(&remote, &RunOptions::default()).await?;
    println!("{} ops acked, stopped: {:?}", report.ops_acked, report.stopped);
    Ok(())
}
