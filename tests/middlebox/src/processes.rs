//! A run with the program: every write and every sync is a process for one command, on a book in a
//! file.
//!
//! What it is not: fast. Processes have the system's clock, so a run waits until ops may be tried
//! again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fieldbook::host::{Clock as _, SystemClock};
use fieldbook::{Book, BookOptions, RunOptions, SyncState};
use fieldbook_sim::clock::SimClock;
use fieldbook_sim::dice::Dice;
use serde_json::json;
use tokio::process::Command;

use crate::check::{check_dead_letters, differing, left, stored, unreadable};
use crate::fault::Weather;
use crate::fleet::{Image, OUR_TOKEN, Servers, shown, write_private};
use crate::middlebox::Middlebox;
use crate::script::POISON;
use crate::{Broken, Counts, ensure};

/// The most rounds in which every user syncs, and the wait in each for ops that are to be tried
/// again.
const ROUNDS: usize = 240;
const PAUSE: Duration = Duration::from_millis(250);
/// The users. Each has a book of that name.
const USERS: [&str; 2] = ["ann", "ben"];

/// Runs a seed with this program and returns the counts, and the broken promise if there is one.
pub fn run_seed(program: &Path, seed: u64) -> (Counts, Option<Broken>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return (Counts::default(), Some(Broken::harness("no runtime", error))),
    };
    runtime.block_on(async {
        let mut run = match Run::new(program, seed).await {
            Ok(run) => run,
            Err(broken) => return (Counts::default(), Some(broken)),
        };
        let broken = run.play().await.err();
        let counts = run.middlebox.tally().counts.clone();
        (Counts { ops: run.ops, reopenings: run.processes, ..counts }, broken)
    })
}

struct Run {
    program: PathBuf,
    folder: PathBuf,
    middlebox: Middlebox,
    own: BTreeMap<String, Image>,
    dice: Dice,
    ops: u64,
    processes: u64,
    /// The servers, which are dropped last.
    _servers: Servers,
}

impl Run {
    async fn new(program: &Path, seed: u64) -> Result<Self, Broken> {
        let mut dice = Dice::new(seed);
        let servers = Servers::start(Arc::new(SystemClock::new())).await?;
        let middlebox =
            Middlebox::start(servers.upstreams(), Weather::new(dice.seed(), false)).await?;
        let folder = servers.folder().to_owned();
        write_private(&folder.join("token"), OUR_TOKEN)?;
        let program =
            program.canonicalize().map_err(|error| Broken::harness("no such program", error))?;
        let mut run = Self {
            program,
            folder,
            middlebox,
            own: BTreeMap::new(),
            dice,
            ops: 0,
            processes: 0,
            _servers: servers,
        };
        for user in USERS {
            run.run(&["init", &book(user), "--actor", user]).await?;
        }
        Ok(run)
    }

    async fn play(&mut self) -> Result<(), Broken> {
        // A book knows its server once it has sent a unit to it.
        for user in USERS {
            self.put(user, 0, false).await?;
            self.sync(user).await?;
        }
        self.middlebox.weather().storm();
        let poisons = self.dice.chance(500);
        if poisons {
            self.middlebox.weather().poison(POISON);
        }
        for number in 0..self.dice.between(14, 24) {
            let user = self.dice.pick(&USERS).copied().unwrap_or("ann");
            if self.dice.chance(500) {
                let is_poisoned = poisons && self.dice.chance(200);
                self.put(user, number, is_poisoned).await?;
            } else {
                self.sync(user).await?;
            }
        }
        self.middlebox.weather().clear();
        let mut owed = None;
        for _ in 0..ROUNDS {
            for user in USERS {
                self.sync(user).await?;
            }
            owed = self.owed()?;
            if owed.is_none() {
                return self.check_end().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Broken(format!(
            "nothing is in the way any more, and after {ROUNDS} rounds {}",
            owed.unwrap_or_default()
        )))
    }

    async fn put(&mut self, user: &str, number: u64, is_poisoned: bool) -> Result<(), Broken> {
        let text = if is_poisoned { format!("{POISON} {number}") } else { number.to_string() };
        let (key, fields) = (format!("own/{user}-{}", self.dice.index(6)), json!({ "t": text }));
        let (book, text) = (book(user), fields.to_string());
        let mut arguments = vec!["put", &book, &key, &text, "--actor", user];
        if self.own.contains_key(&key) {
            arguments.push("--replace");
        }
        let code = self.run(&arguments).await?;
        ensure(code == 0, || format!("`fieldbook put` ended with {code}"))?;
        self.own.insert(key, fields.as_object().cloned().unwrap_or_default());
        self.ops += 1;
        Ok(())
    }

    async fn sync(&mut self, user: &str) -> Result<(), Broken> {
        let server = self.middlebox.origin.clone();
        let arguments =
            ["sync", &book(user), "--server", &server, "--token-file", "token", "--actor", user];
        // A failed sync is a normal exit code.
        self.run(&arguments).await?;
        let opened = self.open(user)?;
        check_dead_letters(&opened, user, &self.middlebox)
    }

    /// Runs the program and returns its exit code. It must end by itself, and without a panic.
    async fn run(&mut self, arguments: &[&str]) -> Result<i32, Broken> {
        self.processes += 1;
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.folder).env("NO_COLOR", "1").env("TZ", "UTC");
        let output =
            command.output().await.map_err(|error| Broken::harness("no process", error))?;
        let (code, error) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
        ensure(code.is_some_and(|code| code != PANICKED) && !error.contains("panicked"), || {
            format!("`fieldbook {}` ended with {code:?}: {error}", arguments.first().unwrap_or(&""))
        })?;
        Ok(code.unwrap_or(-1))
    }

    fn open(&self, user: &str) -> Result<Book, Broken> {
        let options =
            BookOptions::new(user).map_err(|error| Broken::harness("no such actor", error))?;
        Book::open(self.folder.join(book(user)), options).map_err(unreadable)
    }

    fn owed(&self) -> Result<Option<String>, Broken> {
        for user in USERS {
            let book = self.open(user)?;
            let left = left(&book)?;
            let state = book.status().state;
            if !left.is_empty() || state != SyncState::Idle {
                return Ok(Some(format!("{user} still owes {left:?} ({state:?})")));
            }
        }
        Ok(None)
    }

    async fn check_end(&mut self) -> Result<(), Broken> {
        for user in USERS {
            self.sync(user).await?;
        }
        self.middlebox.tally().check()?;
        let clock = SimClock::new(SystemClock::new().now().wall.milliseconds());
        let stored = stored(&self.middlebox, clock, &RunOptions::default()).await?;
        ensure(stored == self.own, || {
            format!("the server holds {stored:?}, and {:?} was written", self.own)
        })?;
        for user in USERS {
            let book = self.open(user)?;
            let seen: BTreeMap<_, _> = shown(&book)?.into_iter().collect();
            ensure(seen == stored, || {
                format!("{user} reads otherwise: {}", differing(&seen, &stored))
            })?;
        }
        Ok(())
    }
}

/// The exit code of a program that panicked.
const PANICKED: i32 = 101;

fn book(user: &str) -> String {
    format!("{user}.book")
}
