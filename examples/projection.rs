//! A sum that is always right: the value of all leads, by stage.
//!
//! ```text
//! cargo run --example projection
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::error::Error;

use fieldbook::projection::{Projection, ProjectionError, ProjectionTable, RecordChange};
use fieldbook::{Book, BookOptions, Fields};
use serde_json::json;

struct Pipeline;

impl Projection for Pipeline {
    fn name(&self) -> &str {
        "pipeline"
    }

    fn version(&self) -> u32 {
        1
    }

    fn fold(
        &self,
        change: &RecordChange<'_>,
        table: &mut ProjectionTable<'_>,
    ) -> Result<(), ProjectionError> {
        if change.key.entity.as_str() != "lead" {
            return Ok(());
        }
        // Subtract the record before the change, add the record after it.
        for (fields, sign) in [(change.before, -1), (change.after, 1)] {
            let Some(fields) = fields else { continue };
            let stage = fields.get("stage").and_then(|stage| stage.as_str()).unwrap_or("none");
            let value = fields.get("value").and_then(|value| value.as_i64()).unwrap_or(0);
            let before = table.get(stage.as_bytes())?.and_then(|sum| sum.try_into().ok());
            match before.map_or(0, i64::from_be_bytes) + sign * value {
                0 => table.remove(stage.as_bytes())?,
                sum => table.put(stage.as_bytes(), &sum.to_be_bytes())?,
            }
        }
        Ok(())
    }
}

fn print(book: &Book) -> Result<(), Box<dyn Error>> {
    for (stage, sum) in book.projection("pipeline").range(.., 100)? {
        let sum = i64::from_be_bytes(sum.as_slice().try_into()?);
        println!("  {:<6}{sum:>6}", String::from_utf8_lossy(&stage));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let options = BookOptions::new("ann")?.projection(Pipeline)?;
    let book = Book::create_new(folder.path().join("crm.book"), options)?;
    for (id, value) in [("lead/1", 900), ("lead/2", 100), ("lead/3", 250)] {
        book.records()
            .create(id.parse()?, Fields::from_value(json!({"stage": "new", "value": value}))?)?;
    }
    println!("three new leads:");
    print(&book)?;
    book.records().update("lead/1".parse()?, Fields::from_value(json!({"stage": "won"}))?)?;
    book.records().delete("lead/3".parse()?)?;
    println!("one of them won, one deleted:");
    print(&book)
}
