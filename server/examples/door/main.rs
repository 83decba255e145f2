//! The door test: one tenant disturbs the server as much as it can, while a device of another
//! tenant makes its exchanges.
//!
//! ```text
//!   door            for each abuse: a good device alone, then during the abuse; prints a table, fails over a bound
//!   door --serve F  the server, in its own process, so that its memory can be measured
//! ```
//!
//! The two times are measured in turn, in short rounds: some exchanges alone, some during the
//! abuse. So a busy machine slows both. A result over the bound is measured again, at most
//! [`TRIES`] times in all.

mod abuse;
mod good;
mod requests;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use fieldbook_server::{ServeOptions, serve};

use abuse::Abuse;
use good::{Good, Times};

/// The slowest hundredth of the good device's exchanges may take this many times as long as alone.
const FACTOR: u32 = 2;
/// It may always be this much longer, because the server shares its processors with its clients
/// here.
const FLOOR: Duration = Duration::from_millis(15);
/// How often an abuse is measured before it counts as too slow.
const TRIES: u32 = 3;
/// How many rounds are measured.
const ROUNDS: usize = 4;
/// The number of further rounds, so that two requests of the abuse are answered during the
/// measurement.
const MORE_ROUNDS: usize = 6;
/// For how long at least exchanges of a round are made alone, and during the abuse.
const WHILE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(600));
/// How long the server has to be done with an abuse that has ended.
const BETWEEN: Duration = Duration::from_millis(100);
/// The most memory that the server may need, in MiB: a cache of 64, two budgets of 128 each, and 64
/// for its work.
const MEMORY: u64 = 384;

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [flag, folder] if flag == "--serve" => run_server(Path::new(folder)).map(|()| true),
        [] => test(),
        _ => Err("usage: door".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("door: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    // The process that started this one may have stopped reading.
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Serves until its standard input ends.
fn run_server(folder: &Path) -> Result<(), Failed> {
    let mut options = ServeOptions::new(([127, 0, 0, 1], 0).into(), folder.join("server.store"));
    options.tokens = Some(folder.join("tokens.json"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = serve(options).await?;
        say(&server.local_addr().to_string());
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        drop(ended.await);
        Ok(server.shutdown().await?)
    })
}

/// The server's process.
struct Server(Child, std::net::SocketAddr);

impl Server {
    fn start(folder: &Path) -> Result<Self, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        let command =
            command.arg("--serve").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self(child, line.trim().parse()?))
    }

    /// Returns the most memory that the process has needed, in MiB, if the system reports it.
    fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to save, and may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn test() -> Result<bool, Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tokens.json");
    std::fs::write(&path, requests::TOKENS)?;
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let server = Server::start(folder.path())?;
    // The abuses run on a thread of their own, so that their work does not pass for the server's.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(&server))
}

/// The measurements of one abuse.
#[derive(Default)]
struct Measured {
    alone: Times,
    abused: Times,
    /// How many of the abuse's requests were answered during it.
    answered: usize,
}

impl Measured {
    fn holds(&self) -> bool {
        let alone = self.alone.percentile(99);
        self.abused.percentile(99) <= (alone * FACTOR).max(alone + FLOOR)
    }
}

async fn measure(server: &Server) -> Result<bool, Failed> {
    let mut good = Good::new(server.1)?;
    abuse::prepare(server.1).await?;
    good.exchanges(WHILE.0, &mut Times::default()).await?;
    say(
        "                              alone (ms)    during the abuse (ms)             its       server's",
    );
    say(
        "abuse                         p50    p99    p50    p99  slowest    of  try  answers  peak",
    );
    let mut well = true;
    for abuse in Abuse::ALL {
        let mut tries = 1;
        let mut measured = rounds(server, &mut good, abuse).await?;
        while !measured.holds() && tries < TRIES {
            tries += 1;
            measured = rounds(server, &mut good, abuse).await?;
        }
        let peak = server.peak();
        tell(abuse, &measured, tries, peak);
        well &= measured.holds();
        if peak.is_some_and(|peak| peak > MEMORY) {
            say(&format!("the server had more than {MEMORY} MiB"));
            well = false;
        }
    }
    say(&format!(
        "door         {}",
        if well { "every abuse was kept within its bounds" } else { "FAILED" }
    ));
    Ok(well)
}

async fn rounds(server: &Server, good: &mut Good, abuse: Abuse) -> Result<Measured, Failed> {
    let mut measured = Measured::default();
    for round in 0..ROUNDS + MORE_ROUNDS {
        if round >= ROUNDS && (!abuse.repeats() || measured.answered >= 2) {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
        good.exchanges(WHILE.0, &mut measured.alone).await?;
        let running = abuse.begin(server.1).await?;
        good.exchanges(WHILE.1, &mut measured.abused).await?;
        measured.answered += running.answered();
    }
    Ok(measured)
}

fn tell(abuse: Abuse, measured: &Measured, tries: u32, peak: Option<u64>) {
    let of = |times: &Times, hundredths| times.percentile(hundredths).as_secs_f64() * 1000.0;
    say(&format!(
        "{:<27} {:>5.1} {:>6.1} {:>6.1} {:>6.1} {:>8.1} {:>5} {:>4} {:>8}  {} MiB{}",
        abuse.name(),
        of(&measured.alone, 50),
        of(&measured.alone, 99),
        of(&measured.abused, 50),
        of(&measured.abused, 99),
        of(&measured.abused, 100),
        measured.abused.count(),
        tries,
        if abuse.repeats() { measured.answered.to_string() } else { String::new() },
        peak.map_or("?".to_owned(), |peak| peak.to_string()),
        if measured.holds() { "" } else { "  TOO SLOW" },
    ));
}
