//! Makes a long book, to measure reads of it: `long_book FILE [--entries N] [--history yes]`.
//!
//! ```text
//!   22 edits of 20,000 leads, one every 20 s ──► a plan with a unit of each, the answer, the decisions
//! ```
//!
//! The last edits are not sent. With `--history yes` the table of the history is folded too, as an
//! app does by reading a history once.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use fieldbook::{Book, BookOptions};
use fieldbook_core::entry::{
    Control, Decision, Draft, Entry, FieldsSource, Intent, Items, Meta, OpMeta, Opened,
    OutcomeClass, OutcomeMeta, Planned, PlannedChange, PlannedOp, PlannedUnit, Receipt, Upstream,
};
use fieldbook_core::log::{Appender, Stamp, Store, StoreOptions, commit};
use fieldbook_core::{
    Actor, Cursor, DeviceId, EntityType, Epoch, Hash, Hlc, OpId, OpKind, OpPlace, RecordKey,
    RequestId, SeededRandomness, ServerEpoch, ServerId, UnitId, Version, WallTime,
};

type Failed = Box<dyn std::error::Error>;

/// How many leads there are.
const LEADS: u64 = 20_000;
/// How many edits one exchange sends.
const TOGETHER: u64 = 22;
/// How many entries one commit has.
const AT_ONCE: u64 = 25_000;
const USAGE: &str = "usage: long_book FILE [--entries N] [--history yes]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let file = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let (mut entries, mut history) = (1_000_000, false);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--entries", Some(number)) => entries = number.parse()?,
            ("--history", Some(_)) => history = true,
            _ => return Err(USAGE.into()),
        }
    }
    let store = Store::create(&file, &StoreOptions::default())?;
    let mut maker = Maker::new();
    while maker.seq < entries {
        maker.append(&store, entries.min(maker.seq + AT_ONCE))?;
    }
    store.close()?;
    // Opening the book folds its tables.
    let book = Book::open(&file, BookOptions::new("ann")?.cache_bytes(256 * 1024 * 1024))?;
    if history {
        book.audit().fold_lazy()?;
    }
    book.close()?;
    Ok(())
}

struct Maker {
    random: SeededRandomness,
    /// The last entry.
    seq: u64,
    head: Option<fieldbook_core::log::Head>,
    /// The edits that are not sent yet.
    waiting: Vec<(RecordKey, PlannedOp, Hlc, bool)>,
    edits: u64,
    version: u64,
}

impl Maker {
    fn new() -> Self {
        let random = SeededRandomness::from_number(11);
        Self { random, seq: 0, head: None, waiting: Vec::new(), edits: 0, version: 0 }
    }

    fn wall(&self) -> WallTime {
        let seconds = i64::try_from(self.seq).unwrap_or(i64::MAX).saturating_mul(20);
        WallTime::from_milliseconds(1_700_000_000_000 + seconds * 1_000)
    }

    /// Appends entries up to a place, in one commit.
    fn append(&mut self, store: &Store, upto: u64) -> Result<(), Failed> {
        let transaction = store.begin_write()?;
        let mut appender = Appender::open(&transaction, self.head)?;
        while self.seq < upto {
            if self.seq == 0 {
                let device = DeviceId::from_bytes([1; 16]);
                let opened = Opened { device, made_by: "long_book".to_owned() };
                self.hold(&mut appender, Draft::control(Control::Opened(opened)))?;
            } else if self.waiting.len() as u64 >= TOGETHER {
                self.exchange(&mut appender)?;
            } else {
                self.edit(&mut appender)?;
            }
        }
        appender.flush()?;
        self.head = appender.head();
        drop(appender);
        Ok(commit(transaction)?)
    }

    fn hold(&mut self, appender: &mut Appender<'_>, draft: Draft) -> Result<Entry, Failed> {
        self.seq += 1;
        let wall = self.wall();
        let actor = Actor::parse("ann")?;
        let stamp = Stamp { epoch: Epoch::from_bytes([2; 16]), hlc: Hlc::at(wall), wall, actor };
        Ok(appender.hold(draft, stamp)?)
    }

    fn edit(&mut self, appender: &mut Appender<'_>) -> Result<(), Failed> {
        // Neighbours in time are not neighbours in the table.
        let lead = self.edits.wrapping_mul(7_919) % LEADS;
        let is_new = self.edits < LEADS;
        let key = RecordKey::parse("lead", &format!("lead-{lead:05}"))?;
        let mut items = Items::default();
        let text = format!(
            r#"{{"name":"Lead number {lead}","note":"edit {} of a long life, with some words","stage":{}}}"#,
            self.edits,
            self.edits % 7
        );
        let fields = Some(items.add(text.into_bytes(), &mut self.random));
        let id = OpId::new(self.wall(), &mut self.random);
        let edited_at = Hlc::at(WallTime::from_milliseconds(self.wall().milliseconds() + 20_000));
        let op = OpMeta {
            id,
            key: key.clone(),
            kind: if is_new { OpKind::Create } else { OpKind::Update },
            edited_at,
            clock_capped: false,
            base: None,
            schema_version: 1,
            fields,
            cites: None,
        };
        let draft = Draft { meta: Meta::Intent(Intent { ops: vec![op] }), items };
        let seq = self.hold(appender, draft)?.header.seq;
        let op = PlannedOp { id, place: OpPlace { seq, index: 0 } };
        self.waiting.push((key, op, edited_at, is_new));
        self.edits += 1;
        Ok(())
    }

    fn exchange(&mut self, appender: &mut Appender<'_>) -> Result<(), Failed> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut units = Vec::new();
        for (key, op, edited_at, is_new) in waiting {
            let change = PlannedChange {
                key,
                kind: if is_new { OpKind::Create } else { OpKind::Update },
                ops: vec![op],
                base: None,
                edited_at,
                older: Vec::new(),
                schema_version: 1,
                fields: FieldsSource::OfOp(op.place),
            };
            units.push(PlannedUnit {
                id: UnitId::new(self.wall(), &mut self.random),
                actor: Actor::parse("ann")?,
                changes: vec![change],
                digest: Hash::ZERO,
                earlier_units: Vec::new(),
            });
        }
        let planned = Planned { units: units.clone(), cancelled: Vec::new() };
        let planned = self.hold(appender, Draft::control(Control::Planned(planned)))?;
        let (mut outcomes, mut decisions) = (Vec::new(), Vec::new());
        for unit in units {
            self.version += 1;
            let version = Version::new(self.version);
            let keys = unit.changes.into_iter().map(|change| (change.key, version));
            let versions: Vec<_> = keys.collect();
            outcomes.push(OutcomeMeta {
                unit: unit.id,
                class: OutcomeClass::Applied,
                code: String::new(),
                message: None,
                versions: versions.clone(),
            });
            let planned = planned.header.seq;
            decisions.push(Decision::Acked { unit: unit.id, planned, versions });
        }
        let upstream = Upstream {
            request: RequestId::new(self.wall(), &mut self.random),
            server: ServerId::from_bytes([3; 16]),
            epoch: ServerEpoch::from_bytes([4; 16]),
            server_time: self.wall(),
            outcomes,
            changes: Vec::new(),
            cursors: vec![(
                EntityType::parse("lead")?,
                Cursor::new(self.version.to_be_bytes().to_vec())?,
            )],
            receipt: Some(Receipt { seq: planned.header.seq, hash: planned.hash }),
        };
        self.hold(appender, Draft { meta: Meta::Upstream(upstream), items: Items::default() })?;
        self.hold(appender, Draft::control(Control::Decided(decisions)))?;
        Ok(())
    }
}
