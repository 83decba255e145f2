//! Two people change the same field while both are offline. Both values are recorded, and a person
//! can change the outcome.
//!
//! ```text
//! cargo run --example conflicts
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

#[path = "support/server.rs"]
mod server;

use std::error::Error;

use fieldbook::conflict::Choice;
use fieldbook::schema::Policy;
use fieldbook::{Book, BookOptions, EntityRules, Fields, RecordKey, RunOptions, Schema};
use serde_json::json;
use server::LocalServer;

/// A person resolves conflicts in the stage of a lead. In all other fields the later edit wins.
fn schema() -> Result<Schema, Box<dyn Error>> {
    let rules = EntityRules {
        field_policies: [("stage".to_owned(), Policy::Manual)].into(),
        ..EntityRules::default()
    };
    Ok(Schema::closed().declare("lead".parse()?, rules))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (folder, server) = (tempfile::tempdir()?, LocalServer::new());
    let open = |name: &str| -> Result<Book, Box<dyn Error>> {
        let options = BookOptions::new(name)?.schema(schema()?);
        Ok(Book::create_new(folder.path().join(name), options)?)
    };
    let (ann, bob) = (open("ann")?, open("bob")?);
    let lead: RecordKey = "lead/42".parse()?;
    let edit = |book: &Book, fields| {
        book.records()
            .update(lead.clone(), Fields::from_value(fields)?)
            .map_err(Box::<dyn Error>::from)
    };

    ann.records()
        .create(lead.clone(), Fields::from_value(json!({"name": "Mueller", "stage": "new"}))?)?;
    ann.sync(&server, &RunOptions::default()).await?;
    bob.sync(&server, &RunOptions::default()).await?;

    // Both are offline now.
    edit(&ann, json!({"stage": "hot", "phone": "040 1"}))?;
    edit(&bob, json!({"stage": "lost"}))?;

    ann.sync(&server, &RunOptions::default()).await?;
    let report = bob.sync(&server, &RunOptions::default()).await?;
    println!(
        "bob's sync found {} conflict; his op waits for him: {:?}",
        report.conflicts,
        bob.record_status(&lead)?
    );

    for conflict in bob.conflicts().list_open(None, 10)?.items {
        println!("{} was {}", conflict.key, conflict.base.as_str());
        println!("  local  {}", conflict.local.as_str());
        println!("  remote {}", conflict.remote.as_str());
        bob.conflicts()
            .resolve(conflict.id, Choice::Merged(Fields::from_value(json!({"stage": "warm"}))?))?;
    }
    bob.sync(&server, &RunOptions::default()).await?;
    ann.sync(&server, &RunOptions::default()).await?;

    for (name, book) in [("ann", &ann), ("bob", &bob)] {
        let record = book.records().get(&lead)?.ok_or("the lead is gone")?;
        println!("{name} reads {}", record.json.as_str());
    }
    Ok(())
}
