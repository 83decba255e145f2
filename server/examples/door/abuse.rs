//! The ways in which a tenant can disturb others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Failed;
use crate::requests::{HOG, change, head, id, joined, request, unit, whole};

/// How long an abuse runs before the good device is measured.
const BEFORE: Duration = Duration::from_millis(200);
/// How often something trickles.
const TRICKLE: Duration = Duration::from_millis(400);
/// How many large records the hog has, and how large each is.
const LARGE: (usize, usize) = (12, 700_000);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Abuse {
    TricklingHeads,
    TricklingBodies,
    SilentConnections,
    UnreadAnswers,
    Readers,
    HugeLists,
    ExpensiveUnits,
    ManyTypes,
    WrongTokens,
}

impl Abuse {
    pub(crate) const ALL: [Self; 9] = [
        Self::TricklingHeads,
        Self::TricklingBodies,
        Self::SilentConnections,
        Self::UnreadAnswers,
        Self::HugeLists,
        Self::ExpensiveUnits,
        Self::ManyTypes,
        Self::WrongTokens,
        // Last, because the store has most records to read then.
        Self::Readers,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TricklingHeads => "200 heads that trickle",
            Self::TricklingBodies => "200 bodies that trickle",
            Self::SilentConnections => "300 silent connections",
            Self::UnreadAnswers => "40 answers nobody reads",
            Self::Readers => "4 readers of everything",
            Self::HugeLists => "4 senders of huge lists",
            Self::ExpensiveUnits => "2 writers of large records",
            Self::ManyTypes => "22 requests of many types",
            Self::WrongTokens => "4 senders with no token",
        }
    }

    /// Returns whether the abuse sends requests again and again, so that some are answered during
    /// the measurement.
    pub(crate) const fn repeats(self) -> bool {
        matches!(self, Self::Readers | Self::HugeLists | Self::ExpensiveUnits | Self::ManyTypes)
    }

    /// Begins the abuse. It runs until the returned value is dropped.
    pub(crate) async fn begin(self, server: SocketAddr) -> Result<RunningAbuse, Failed> {
        let mut tasks = JoinSet::new();
        let answered = Arc::new(AtomicUsize::new(0));
        let count = match self {
            Self::TricklingHeads | Self::TricklingBodies => 200,
            Self::SilentConnections => 300,
            Self::UnreadAnswers => 40,
            Self::Readers | Self::HugeLists | Self::WrongTokens => 4,
            Self::ExpensiveUnits => 2,
            Self::ManyTypes => 22,
        };
        let shared = Arc::new(match self {
            Self::HugeLists => huge_list(),
            Self::WrongTokens => whole("nobody-0123456789abcdef", &" ".repeat(4 * 1024 * 1024)),
            Self::UnreadAnswers | Self::Readers => whole(HOG, &request(0, r#""page_limit":10000"#)),
            _ => Vec::new(),
        });
        for number in 0..count {
            let stream = TcpStream::connect(server).await?;
            let (shared, answered) = (Arc::clone(&shared), Arc::clone(&answered));
            // A failure ends the task: the server has refused to continue.
            tasks.spawn(async move {
                drop(match self {
                    Self::TricklingHeads => trickle(stream, head(HOG, "X-Slow: ")).await,
                    Self::TricklingBodies => {
                        trickle(stream, head(HOG, "Content-Length: 9000\r\n\r\n{")).await
                    }
                    Self::SilentConnections => stay(stream).await,
                    Self::UnreadAnswers => ask_and_stay(stream, &shared).await,
                    Self::Readers | Self::HugeLists | Self::WrongTokens => {
                        send_for_ever(server, &shared, &answered).await
                    }
                    Self::ExpensiveUnits => write_large(server, number, &answered).await,
                    Self::ManyTypes => send_for_ever(server, &many_types(number), &answered).await,
                });
            });
        }
        // An abuse that repeats its requests is measured from its first request on. The others are
        // measured once all their parts are in place.
        if !self.repeats() {
            tokio::time::sleep(BEFORE).await;
        }
        Ok(RunningAbuse { _tasks: tasks, answered })
    }
}

/// A running abuse.
pub(crate) struct RunningAbuse {
    _tasks: JoinSet<()>,
    answered: Arc<AtomicUsize>,
}

impl RunningAbuse {
    /// Returns how many of its requests have been answered.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

async fn trickle(mut stream: TcpStream, start: String) -> std::io::Result<()> {
    stream.write_all(start.as_bytes()).await?;
    loop {
        tokio::time::sleep(TRICKLE).await;
        stream.write_all(b" ").await?;
    }
}

async fn stay(_stream: TcpStream) -> std::io::Result<()> {
    std::future::pending().await
}

async fn ask_and_stay(mut stream: TcpStream, request: &[u8]) -> std::io::Result<()> {
    stream.write_all(request).await?;
    stay(stream).await
}

/// Sends the same again and again, each time after the answer.
async fn send_for_ever(
    server: SocketAddr,
    request: &[u8],
    answered: &AtomicUsize,
) -> std::io::Result<()> {
    loop {
        let mut stream = TcpStream::connect(server).await?;
        // The server may answer, and close, before it has everything.
        drop(stream.write_all(request).await);
        if answer(&mut stream).await.is_ok() {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads an answer's head and body, and returns the body.
async fn answer(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut needed: Option<(usize, usize)> = None;
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if needed.is_none()
            && let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head =
                String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            needed = Some((end + 4, end + 4 + length.unwrap_or_default()));
        }
        if let Some((start, end)) = needed
            && bytes.len() >= end
        {
            return Ok(bytes.split_off(start));
        }
    }
}

/// Gives the hog some large records.
pub(crate) async fn prepare(server: SocketAddr) -> Result<(), Failed> {
    let fields = format!(r#"{{"text":"{}"}}"#, "x".repeat(LARGE.1));
    let mut stream = TcpStream::connect(server).await?;
    for number in 0..LARGE.0 {
        let units = unit(number, &change(&format!("large/{number}"), number, 0, &fields));
        let body = request(number, &format!(r#""units":[{units}],"page_limit":0"#));
        stream.write_all(&whole(HOG, &body)).await?;
        let answer = answer(&mut stream).await?;
        if !String::from_utf8_lossy(&answer).contains("applied") {
            return Err("the hog's records were not taken".into());
        }
    }
    Ok(())
}

/// Updates each large record in one small unit, as often as it can.
async fn write_large(
    server: SocketAddr,
    writer: usize,
    answered: &AtomicUsize,
) -> std::io::Result<()> {
    static NEXT: AtomicUsize = AtomicUsize::new(1_000_000);
    let mut stream = TcpStream::connect(server).await?;
    let mut versions: Vec<u64> = (1..=LARGE.0 as u64).collect();
    loop {
        let first = NEXT.fetch_add(LARGE.0, Ordering::Relaxed);
        let changes = joined(LARGE.0, |number| {
            let fields = format!(r#"{{"stage":"{first}"}}"#);
            let base = versions.get(number).copied().unwrap_or(1);
            change(&format!("large/{number}"), first + number, base, &fields)
        });
        let body =
            request(writer, &format!(r#""units":[{}],"page_limit":0"#, unit(first, &changes)));
        stream.write_all(&whole(HOG, &body)).await?;
        let bytes = answer(&mut stream).await?;
        answered.fetch_add(1, Ordering::Relaxed);
        let Ok(answer) = serde_json::from_slice::<serde_json::Value>(&bytes) else { continue };
        // After a stale outcome the answer has the present records.
        for (number, version) in versions.iter_mut().enumerate() {
            let key = format!("large/{number}");
            let applied =
                answer.pointer("/outcomes/0/versions").and_then(|all| all.get(&key)?.as_u64());
            let current = answer.pointer("/outcomes/0/current").and_then(|all| {
                all.as_array()?
                    .iter()
                    .find(|row| row["key"] == key.as_str())?
                    .get("version")?
                    .as_u64()
            });
            *version = applied.or(current).unwrap_or(*version);
        }
    }
}

/// As many ids as a request can carry.
fn huge_list() -> Vec<u8> {
    let ids = joined(300_000, |number| format!("\"{}\"", id(4, number)));
    let unit = format!(r#"{{"id":"{}","changes":[],"earlier_units":[{ids}]}}"#, id(2, 0));
    whole(HOG, &request(0, &format!(r#""units":[{unit}],"page_limit":0"#)))
}

/// As many new entity types as a request can name.
fn many_types(number: usize) -> Vec<u8> {
    let units = joined(10, |part| {
        let unit_number = 5_000_000 + number * 10 + part;
        let changes = joined(960, |one| {
            let place = (number * 10 + part) * 960 + one;
            change(&format!("type{place}/1"), 6_000_000 + place, 0, "{}")
        });
        unit(unit_number, &changes)
    });
    whole(HOG, &request(number, &format!(r#""units":[{units}],"page_limit":0"#)))
}
