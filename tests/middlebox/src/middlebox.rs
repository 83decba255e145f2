//! The box: takes requests on loopback and does to each what is drawn for it.
//!
//! Invariant: what a server answered is tallied before the box spoils it, so that the tally is the
//! truth.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Broken;
use crate::fault::{Fault, Form, Header, Weather};
use crate::tally::{Place, Tally};
use crate::wire::Message;

/// How many pieces a slow answer comes in, and how long each takes.
const PIECES: usize = 12;
const PIECE_TIME: Duration = Duration::from_millis(2);

/// Where requests go.
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
    // Small pieces must leave at once; a socket that is gone already needs nothing.
    drop(stream.set_nodelay(true));
    while let Some(request) = Message::read(&mut stream).await {
        // That the client has gone is what some faults are about.
        match treat(&mut stream, request, &shared).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

/// Treats one request; returns whether the connection goes on.
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

/// Gives no answer of a server, if the fault is one of that kind. Returns whether the connection
/// goes on then.
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

/// Gives an answer back, whole or as the fault has it; returns whether the connection goes on.
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
            // Until the client has had enough.
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

/// Sends a request on and returns what the server there answers; none if it closes without.
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
    // These have no body, whatever stands there.
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
