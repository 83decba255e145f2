//! The box: it accepts requests on loopback and makes the drawn fault of each.
//!
//! Invariant: an answer is tallied before the box changes it, so the tally has what the servers
//! really did.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Broken;
use crate::fault::{Fault, Form, Header, Weather};
use crate::tally::{Place, Tally};
use crate::wire::Message;

/// The number of pieces of a slow answer, and the time of each.
const PIECES: usize = 12;
const PIECE_TIME: Duration = Duration::from_millis(2);

/// The servers behind the box.
#[derive(Debug, Clone)]
pub(crate) struct Upstreams {
    pub(crate) right: SocketAddr,
    pub(crate) other: SocketAddr,
    /// A token of another tenant.
    pub(crate) others_token: String,
}

/// A box that is running. It ends with its runtime.
pub(crate) struct Middlebox {
    pub(crate) origin: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstreams: Upstreams,
    weather: Mutex<Weather>,
    tally: Mutex<Tally>,
}

impl Middlebox {
    pub(crate) async fn start(upstreams: Upstreams, weather: Weather) -> Result<Self, Broken> {
        let broken = |error| Broken::harness("no box", error);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(broken)?;
        let origin = format!("http://{}", listener.local_addr().map_err(broken)?);
        let shared = Shared { upstreams, weather: Mutex::new(weather), tally: Mutex::default() };
        let shared = Arc::new(shared);
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, Arc::clone(&serving)));
            }
        });
        Ok(Self { origin, shared })
    }

    pub(crate) fn weather(&self) -> MutexGuard<'_, Weather> {
        self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    // Small pieces must leave at once. A failure means that the socket is closed already.
    drop(stream.set_nodelay(true));
    while let Some(request) = Message::read(&mut stream).await {
        // With some faults the client closes the connection, so an error is expected.
        match treat(&mut stream, request, &shared).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

/// Treats one request. Returns whether the connection continues.
async fn treat(
    stream: &mut TcpStream,
    mut request: Message,
    shared: &Shared,
) -> std::io::Result<bool> {
    let drawn = shared.weather.lock().unwrap_or_else(PoisonError::into_inner).next(&request.body);
    {
        let mut tally = shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.counts.exchanges += 1;
        if let Some((fault, for_its_content)) = &drawn {
            let name = if *for_its_content { "refused by content" } else { fault.name() };
            *tally.counts.faults.entry(name).or_default() += 1;
        }
    }
    let fault = drawn.map(|(fault, _)| fault);
    if let Some(goes_on) = refuse(stream, fault).await? {
        return Ok(goes_on);
    }
    match fault {
        Some(Fault::Cached) => {
            let cached = shared.tally.lock().unwrap_or_else(PoisonError::into_inner).last.clone();
            if let Some(cached) = cached {
                stream.write_all(&cached.bytes()).await?;
                return Ok(true);
            }
        }
        Some(Fault::RequestHeader(header)) => rewrite(&mut request, header, false),
        Some(Fault::SentTwice) => drop(forward(&request, Place::Ours, shared).await),
        _ => {}
    }
    let place = match fault {
        Some(Fault::OtherServer) => Place::OtherServer,
        Some(Fault::OtherTenant) => Place::OtherTenant,
        _ => Place::Ours,
    };
    let Some(answer) = forward(&request, place, shared).await else { return Ok(false) };
    let scanned = shared
        .weather
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .refusal_of_answer(&answer.body);
    if let Some(goes_on) = refuse(stream, scanned).await? {
        let mut tally = shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
        *tally.counts.faults.entry("answer refused by content").or_default() += 1;
        return Ok(goes_on);
    }
    give(stream, answer, fault).await
}

/// Answers or closes in place of a server, if the fault is of such a kind. Returns whether the
/// connection then continues.
async fn refuse(stream: &mut TcpStream, fault: Option<Fault>) -> std::io::Result<Option<bool>> {
    match fault {
        Some(Fault::Page(status, form)) => {
            stream.write_all(&page(status, form).bytes()).await?;
            Ok(Some(true))
        }
        Some(Fault::RequestDropped) => Ok(Some(false)),
        Some(Fault::Reset) => {
            stream.set_zero_linger()?;
            Ok(Some(false))
        }
        _ => Ok(None),
    }
}

/// Sends an answer to the client, whole or with the fault. Returns whether the connection
/// continues.
async fn give(
    stream: &mut TcpStream,
    mut answer: Message,
    fault: Option<Fault>,
) -> std::io::Result<bool> {
    if let Some(Fault::AnswerHeader(header)) = fault {
        rewrite(&mut answer, header, true);
    }
    let (head, bytes) = (answer.head().len(), answer.bytes());
    let part = |length: usize| bytes.get(..length).unwrap_or(&bytes);
    match fault {
        Some(Fault::AnswerDropped) => return Ok(false),
        Some(Fault::HeadCut) => {
            stream.write_all(part(head / 2)).await?;
            return Ok(false);
        }
        Some(Fault::BodyCut) => {
            stream.write_all(part(head + (bytes.len() - head) / 2)).await?;
            return Ok(false);
        }
        Some(Fault::Stalled) => {
            stream.write_all(part(head + (bytes.len() - head) / 2)).await?;
            // The box waits until the client closes the connection.
            let _ended = stream.read(&mut [0; 1]).await?;
            return Ok(false);
        }
        Some(Fault::Trickled) => {
            for piece in bytes.chunks(bytes.len().div_ceil(PIECES).max(1)) {
                tokio::time::sleep(PIECE_TIME).await;
                stream.write_all(piece).await?;
            }
        }
        _ => stream.write_all(&bytes).await?,
    }
    Ok(!matches!(fault, Some(Fault::KeepAliveClosed | Fault::AnswerHeader(Header::Longer))))
}

/// Forwards a request and returns the answer of the server; none if the server closes without an
/// answer.
async fn forward(request: &Message, place: Place, shared: &Shared) -> Option<Message> {
    let upstreams = &shared.upstreams;
    let address = if place == Place::OtherServer { upstreams.other } else { upstreams.right };
    let mut request = request.clone();
    request.set("Host", &address.to_string());
    request.set("Connection", "close");
    if place == Place::OtherTenant {
        request.set("Authorization", &format!("Bearer {}", upstreams.others_token));
    }
    let mut upstream = TcpStream::connect(address).await.ok()?;
    upstream.write_all(&request.bytes()).await.ok()?;
    let mut answer = Message::read(&mut upstream).await?;
    answer.remove("Connection");
    shared.tally.lock().unwrap_or_else(PoisonError::into_inner).answered(place, &request, &answer);
    Some(answer)
}

fn page(status: u16, form: Form) -> Message {
    let (media_type, body) = match form {
        Form::Html => (Some("text/html"), &b"<html><body>Welcome to our network</body></html>"[..]),
        Form::Json => (Some("application/json"), &br#"{"error":"blocked","ok":false}"#[..]),
        Form::Unmarked => {
            (Some("application/json"), &br#"{"code":"bad_request","message":"no"}"#[..])
        }
        Form::Bare => (None, &b"blocked"[..]),
        Form::Empty => (None, &b""[..]),
    };
    // An answer with status 204 has no body.
    let body = if status == 204 { &b""[..] } else { body };
    let mut page = Message::response(status, media_type, body);
    match status {
        301 | 302 | 307 => page.set("Location", "http://login.example/portal?back=1"),
        401 | 407 => page.set("WWW-Authenticate", "Basic realm=\"network\""),
        429 | 503 => page.set("Retry-After", "1"),
        _ => {}
    }
    page
}

fn rewrite(message: &mut Message, header: Header, is_answer: bool) {
    match header {
        Header::NoMediaType => message.remove("Content-Type"),
        Header::Text => message.set("Content-Type", "text/plain"),
        Header::Packed => message.set("Content-Encoding", "gzip"),
        Header::Longer if is_answer => {
            message.set("Content-Length", &(message.body.len() + 7).to_string())
        }
        Header::Longer | Header::Added => {
            message.set("Via", "1.1 gateway");
            message.set("X-Forwarded-For", "192.0.2.1");
        }
    }
}
