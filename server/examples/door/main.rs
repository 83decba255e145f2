//! The door test: one tenant does what it can to be in the way while a device of another tenant goes on with its exchanges.
//!
//! ```text
//!   door            for each abuse: a good device alone, then during the abuse; prints a table, fails over a bound
//!   door --serve F  the server, in a process of its own, so that its memory can be read
//! ```
//!
//! What is compared is measured one right after the other, so that a busy machine slows both. A pair that is over the bound is
//! measured again, at most [`TRIES`] times in all: no time is asserted, only a relation, and only if it holds each time.

mod abuse;
mod good;
mod requests;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use fieldbook_server::{ServeOptions, serve};

use abuse::Abuse;
use good::Good;

/// The good device's slowest exchanges may take so many times as long as alone.
const FACTOR: u32 = 2;
/// What is within the noise of two cores that clients and server share, whatever it is a multiple of.
const FLOOR: Duration = Duration::from_millis(10);
// Where the abuse writes, the time that its own slowest write took is added: see docs/promises.md.
/// How often a pair is measured before it counts as too slow.
const TRIES: u32 = 3;
/// How many exchanges are measured alone, and during an abuse.
const EXCHANGES: usize = 100;
/// The most memory that the server may ever have had, in MiB: its cache, its two budgets of 128 MiB each, and its work.
const MEMORY: u64 = 512;

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
    // Whoever started it may have stopped reading.
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
        let command = command.arg("--serve").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self(child, line.trim().parse()?))
    }

    /// Returns the most memory it ever had, in MiB, where the system tells.
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(&server))
}

async fn measure(server: &Server) -> Result<bool, Failed> {
    let mut good = Good::new(server.1)?;
    abuse::prepare(server.1).await?;
    good.exchanges(EXCHANGES / 2).await?;
    say("abuse                          alone p50   p99   abused p50   p99   tries   server's peak");
    let mut well = true;
    for abuse in Abuse::ALL {
        let mut tries = 0;
        let (alone, abused, one_write, held) = loop {
            tries += 1;
            let alone = good.exchanges(EXCHANGES).await?;
            let under_way = abuse.begin(server.1).await?;
            let abused = good.exchanges(EXCHANGES).await?;
            // A write of another tenant waits for the one that is under way, and for no second one.
            let one_write = under_way.slowest_write();
            drop(under_way);
            let held = abused.p99 <= (alone.p99 * FACTOR).max(alone.p99 + FLOOR) + one_write;
            if held || tries == TRIES {
                break (alone, abused, one_write, held);
            }
        };
        let peak = server.peak();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        say(&format!(
            "{:<28} {:>9.1} ms {:>5.1} {:>9.1} ms {:>5.1} {:>7} {:>11} MiB{}{}",
            abuse.name(),
            milliseconds(alone.p50),
            milliseconds(alone.p99),
            milliseconds(abused.p50),
            milliseconds(abused.p99),
            tries,
            peak.map_or("?".to_owned(), |peak| peak.to_string()),
            if one_write.is_zero() {
                String::new()
            } else {
                format!("   its own slowest write {:.1} ms", milliseconds(one_write))
            },
            if held { "" } else { "   TOO SLOW" },
        ));
        well &= held;
        if peak.is_some_and(|peak| peak > MEMORY) {
            say(&format!("the server had more than {MEMORY} MiB"));
            well = false;
        }
    }
    say(&format!("door         {}", if well { "every abuse was kept within its bounds" } else { "FAILED" }));
    Ok(well)
}
