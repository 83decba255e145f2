//! What the tests share: running the program, a running server, a clock that stands still.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fieldbook::host::{Clock, MonotonicTime, Now, SeededRandomness, WallTime};
use fieldbook::{
    Book, BookOptions, EntityRules, Fields, RecordKey, Remote, RunOptions, Schema, SyncReport,
};
use serde_json::Value;
use tempfile::TempDir;

/// A folder to run the program in.
pub(crate) struct Folder(TempDir);

/// The result of one run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a token file that only its owner may read.
    pub(crate) fn write_tokens(&self, text: &str) {
        let path = self.path("tokens.json");
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldbook"));
        command.args(args).current_dir(self.0.path()).env("TZ", "UTC").env("NO_COLOR", "1");
        for name in [
            "FIELDBOOK_ACTOR",
            "FIELDBOOK_SERVER",
            "FIELDBOOK_LOG",
            "RUST_BACKTRACE",
            "CLICOLOR_FORCE",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the program and returns the result.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).stdin(Stdio::null()).output().unwrap().into()
    }

    /// Runs the program with text on its standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Runs the program, which has to succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out
    }

    /// Runs the program, which has to print one JSON value a line.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        self.ok(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs the program, which has to print one JSON value.
    #[track_caller]
    pub(crate) fn one_json(&self, args: &[&str]) -> Value {
        let mut values = self.json(args);
        assert_eq!(values.len(), 1, "{args:?}");
        values.remove(0)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// `fieldbook serve`, running.
pub(crate) struct Serving {
    child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) url: String,
    /// The keys with which it signs receipts.
    pub(crate) keys: Vec<String>,
    said: Option<JoinHandle<String>>,
}

impl Serving {
    pub(crate) fn start(folder: &Folder, args: &[&str]) -> Self {
        let all = [&["serve", "--listen", "127.0.0.1:0", "--data", "server.store"], args].concat();
        let mut command = folder.command(&all);
        let command =
            command.env("FIELDBOOK_LOG", "info").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let url = next_line(&mut out).strip_prefix("listening on ").unwrap().to_owned();
        let keys = next_line(&mut out).strip_prefix("signs receipts with ").unwrap().to_owned();
        let keys = keys.split(", ").map(str::to_owned).collect();
        Self { child, out, url, keys, said: Some(said) }
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let asked =
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
    }

    /// Waits for the next line that the server prints, and returns it.
    pub(crate) fn next_line(&mut self) -> String {
        next_line(&mut self.out)
    }

    /// Ends the server normally, and returns its log.
    pub(crate) fn log(mut self) -> String {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
        self.said.take().unwrap().join().unwrap()
    }

    /// Asks the server to end, as a terminal or a service manager does, and waits.
    pub(crate) fn stop(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }
}

fn next_line(out: &mut impl BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

impl Drop for Serving {
    fn drop(&mut self) {
        // A process that has ended cannot be killed, which is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A clock that moves only when a test moves it, so the program prints the same times each time.
#[derive(Debug)]
pub(crate) struct StillClock(AtomicI64);

impl StillClock {
    /// 2026-03-01 09:00:00 UTC.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_772_355_600_000)))
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

impl Clock for StillClock {
    fn now(&self) -> Now {
        let milliseconds = self.0.load(Ordering::SeqCst);
        Now {
            wall: WallTime::from_milliseconds(milliseconds),
            monotonic: MonotonicTime::from_milliseconds(milliseconds.unsigned_abs()),
        }
    }
}

/// Makes the books of two users in a folder: `ann.book` and `ben.book`.
pub(crate) fn ann_and_ben(folder: &Folder, clock: &Arc<StillClock>) -> (Book, Book) {
    let of = |user: &str| book(&folder.path(&format!("{user}.book")), user, clock);
    (of("ann"), of("ben"))
}

/// A new book whose entries are the same each time.
pub(crate) fn book(path: &Path, actor: &str, clock: &Arc<StillClock>) -> Book {
    let rules = EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() };
    book_with(path, actor, clock, Schema::open(rules))
}

/// A new book of an app with a schema.
pub(crate) fn book_with(path: &Path, actor: &str, clock: &Arc<StillClock>, schema: Schema) -> Book {
    let seed =
        actor.bytes().fold(1u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let options = BookOptions::new(actor)
        .unwrap()
        .schema(schema)
        .app("CRM", "7.1")
        .system("android 14")
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
        .randomness(Box::new(SeededRandomness::from_number(seed)));
    Book::create_new(path, options).unwrap()
}

pub(crate) fn key(text: &str) -> RecordKey {
    text.parse().unwrap()
}

pub(crate) fn fields(text: &str) -> Fields {
    Fields::parse(text).unwrap()
}

/// Syncs a book until nothing is left.
pub(crate) fn sync(book: &Book, remote: &dyn Remote) -> SyncReport {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(book.sync(remote, &RunOptions::default())).unwrap()
}
