//! A generated stream of any size, with the table that it results in: to measure how a play grows.
//!
//! It resembles the shipped history: few very large transactions among many small ones, authors who
//! work from a base some positions back, concurrent edits of the same records, removed fields and
//! deleted records.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use fieldbook::host::{Randomness, SeededRandomness, WallTime};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// The number of mutations in the largest transaction.
const LARGEST: u64 = 3_400;
/// The largest distance of a base from its position.
const LONGEST_GAP: u64 = 56;
const FIELDS: [&str; 16] = [
    "name",
    "email",
    "phone",
    "party",
    "district",
    "roles",
    "links",
    "sources",
    "image",
    "office",
    "fax",
    "notes",
    "biography",
    "status",
    "owner",
    "region",
];
/// The time between two positions.
const STEP: Duration = Duration::from_secs(3_600);

/// The size of a generated stream.
#[derive(Debug, Clone, Copy)]
pub struct MadeUp {
    /// How many mutations the stream has.
    pub mutations: u64,
    /// The most authors. Without a number it follows from the mutations.
    pub devices: Option<u64>,
    /// The seed of everything.
    pub seed: u64,
}

/// Writes a generated stream and the table that it results in. A file whose name ends in `gz` is
/// gzipped.
///
/// # Errors
/// If a file exists already or cannot be written.
pub fn generate(what: MadeUp, stream: &Path, table: &Path) -> Result<(), Failure> {
    let devices = what.devices.unwrap_or((what.mutations / 330).clamp(3, 300)).max(1);
    let mut maker = Maker::new(what.mutations, devices, what.seed);
    let mut lines = create(stream)?;
    while maker.left > 0 {
        for line in maker.transaction() {
            writeln!(lines, "{line}").map_err(|error| cannot_write(stream, error))?;
        }
    }
    finish(lines, stream)?;
    let mut rows = create(table)?;
    for record in maker.records.iter().filter(|record| record.alive) {
        let row = json!({ "entity": record.entity, "id": record.id, "record": record.fields });
        writeln!(rows, "{row}").map_err(|error| cannot_write(table, error))?;
    }
    finish(rows, table)
}

struct Maker {
    random: SeededRandomness,
    all: u64,
    left: u64,
    position: u64,
    transactions: u64,
    /// The base of each author's last transaction.
    bases: Vec<u64>,
    /// The records, in the order of their creation.
    records: Vec<Made>,
}

struct Made {
    entity: &'static str,
    id: String,
    fields: Map<String, Value>,
    created: u64,
    alive: bool,
}

impl Maker {
    fn new(mutations: u64, devices: u64, seed: u64) -> Self {
        let bases = (0..devices).map(|_| 0).collect();
        let random = SeededRandomness::from_number(seed);
        Self {
            random,
            all: mutations,
            left: mutations,
            position: 1,
            transactions: 0,
            bases,
            records: Vec::new(),
        }
    }

    /// Makes the lines of the next transaction.
    fn transaction(&mut self) -> Vec<Value> {
        // Two in three transactions arrive alone at their position.
        self.position += u64::from(self.random.below(3) > 0);
        self.transactions += 1;
        let author = self.random.below(self.bases.len() as u64);
        let gap = if self.random.below(5) < 3 { 1 } else { 1 + self.random.below(LONGEST_GAP) };
        let before = self.bases.get(usize::try_from(author).unwrap_or(0)).copied().unwrap_or(0);
        let base = self.position.saturating_sub(gap).max(before).min(self.position - 1);
        if let Some(known) = self.bases.get_mut(usize::try_from(author).unwrap_or(0)) {
            *known = base;
        }
        let synced_at = at(self.position);
        let edited_after = self.random.below((self.position - base) * STEP.as_secs());
        let made_at = at(base).plus(Duration::from_secs(edited_after));
        let size = self.size();
        let mut touched = HashSet::new();
        let (seen, number, position) = (self.records_at(base), self.transactions, self.position);
        let mut lines = Vec::new();
        for _ in 0..size {
            let Some((op, entity, id, payload)) = self.mutation(seen, &mut touched) else {
                continue;
            };
            lines.push(json!({
                "ts": seconds(made_at), "author": format!("dev-{author:03}"), "op": op, "entity": entity, "id": id,
                "payload": payload, "tx": format!("t{number:06}"), "base_pos": base, "pos": position,
                "synced_at": seconds(synced_at),
            }));
        }
        self.left -= lines.len() as u64;
        lines
    }

    fn size(&mut self) -> u64 {
        // The first large transaction comes as soon as there are enough records.
        let large = self.all >= LARGEST + LARGEST / 4 && self.transactions % 400 == 40;
        let size = match self.random.below(20) {
            _ if large => LARGEST,
            0..12 => 1 + self.random.below(4),
            12..19 => 1 + self.random.below(60),
            _ => 1 + self.random.below(300),
        };
        size.min(self.left)
    }

    /// Returns the number of records at a position.
    fn records_at(&self, position: u64) -> usize {
        self.records.partition_point(|record| record.created <= position)
    }

    fn mutation(
        &mut self,
        seen: usize,
        touched: &mut HashSet<usize>,
    ) -> Option<(&'static str, &'static str, String, Value)> {
        let choice = self.random.below(100);
        let wanted = self.all / 6;
        if (self.records.len() as u64) < wanted.min(20)
            || (choice < 18 && (self.records.len() as u64) < wanted)
        {
            return Some(self.create());
        }
        let chosen = (0..20).find_map(|_| {
            let number = usize::try_from(self.random.below(seen as u64)).ok()?;
            let is_free = self.records.get(number).is_some_and(|record| record.alive)
                && !touched.contains(&number);
            is_free.then_some(number)
        });
        let Some(chosen) = chosen else { return Some(self.create()) };
        touched.insert(chosen);
        let patch = self.patch(chosen);
        let record = self.records.get_mut(chosen)?;
        if choice >= 98 {
            record.alive = false;
            return Some(("delete", record.entity, record.id.clone(), Value::Null));
        }
        for (name, value) in &patch {
            if value.is_null() {
                record.fields.remove(name);
            } else {
                record.fields.insert(name.clone(), value.clone());
            }
        }
        Some(("update", record.entity, record.id.clone(), Value::Object(patch)))
    }

    fn create(&mut self) -> (&'static str, &'static str, String, Value) {
        let entity = if self.random.below(4) == 0 { "committee" } else { "person" };
        let id = format!("{:016x}-{}", self.random.below(u64::MAX), self.records.len());
        let fields: Map<_, _> = FIELDS
            .iter()
            .take(8 + self.below(8))
            .map(|name| ((*name).to_owned(), self.value()))
            .collect();
        let payload = Value::Object(fields.clone());
        let made = Made { entity, id: id.clone(), fields, created: self.position, alive: true };
        self.records.push(made);
        ("create", entity, id, payload)
    }

    fn patch(&mut self, record: usize) -> Map<String, Value> {
        let mut patch = Map::new();
        for _ in 0..=self.below(3) {
            let name = FIELDS.get(self.below(FIELDS.len())).copied().unwrap_or("name");
            let is_there =
                self.records.get(record).is_some_and(|record| record.fields.contains_key(name));
            let value =
                if is_there && self.random.below(20) == 0 { Value::Null } else { self.value() };
            patch.insert(name.to_owned(), value);
        }
        patch
    }

    fn value(&mut self) -> Value {
        let words = 2 + self.below(12);
        let words: Vec<_> =
            (0..words).map(|_| format!("{:x}", self.random.below(1 << 24))).collect();
        Value::String(words.join(" "))
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap_or(0)
    }
}

fn at(position: u64) -> WallTime {
    const START: i64 = 1_530_000_000_000;
    WallTime::from_milliseconds(START).plus(STEP * u32::try_from(position).unwrap_or(u32::MAX))
}

fn seconds(time: WallTime) -> String {
    time.to_utc().map(|time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

type Lines = BufWriter<Box<dyn Write>>;

fn create(path: &Path) -> Result<Lines, Failure> {
    let file = File::create_new(path).map_err(|error| cannot_write(path, error))?;
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let writer: Box<dyn Write> = if packed {
        Box::new(GzEncoder::new(file, Compression::default()))
    } else {
        Box::new(file)
    };
    Ok(BufWriter::new(writer))
}

fn finish(lines: Lines, path: &Path) -> Result<(), Failure> {
    // The encoder writes its end when it is dropped, after the last bytes were written to it here.
    drop(lines.into_inner().map_err(|error| cannot_write(path, error.into_error()))?);
    Ok(())
}

fn cannot_write(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}", path.display())).because(error)
}
