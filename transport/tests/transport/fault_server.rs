//! A server on loopback that answers with any bytes, and with any fault, that a test wants.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with one request.
pub enum Act {
    /// Sends these bytes and closes.
    Send(Vec<u8>),
    /// Sends these bytes one by one, with a pause before each.
    Drip(Vec<u8>, Duration),
    /// Sends these bytes, then as many zeros, and closes.
    Flood(Vec<u8>, usize),
    /// Sends these bytes and then nothing more, without closing.
    Stall(Vec<u8>),
    /// Resets the connection.
    Reset,
}

/// A request as the server received it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub struct FaultServer {
    pub origin: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl FaultServer {
    /// Starts a server that handles each request, counted from 0, as the function returns.
    pub async fn start(act: impl Fn(usize, &Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (act, all) = (Arc::new(act), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&act), Arc::clone(&all)));
            }
        });
        Self { origin, seen }
    }

    /// Starts a server that answers every request with the same bytes.
    pub async fn sending(response: Vec<u8>) -> Self {
        Self::start(move |_, _| Act::Send(response.clone())).await
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Builds a response with a correct `Content-Length`.
pub fn response(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

pub fn json(status: &str, body: &[u8]) -> Vec<u8> {
    response(status, &[("Content-Type", "application/json")], body)
}

async fn serve(
    mut stream: TcpStream,
    act: Arc<impl Fn(usize, &Seen) -> Act + Send + Sync + 'static>,
    all: Arc<Mutex<Vec<Seen>>>,
) {
    let Some(request) = read_request(&mut stream).await else { return };
    let number = {
        let mut all = all.lock().unwrap();
        all.push(request.clone());
        all.len() - 1
    };
    // A client that has read enough closes the connection. The failed write is then what the test
    // wants.
    let _closed_early = match act(number, &request) {
        Act::Send(bytes) => stream.write_all(&bytes).await,
        Act::Drip(bytes, pause) => drip(&mut stream, &bytes, pause).await,
        Act::Flood(bytes, zeros) => flood(&mut stream, &bytes, zeros).await,
        Act::Stall(bytes) => stall(&mut stream, &bytes).await,
        Act::Reset => stream.set_zero_linger(),
    };
}

async fn drip(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
    for byte in bytes {
        tokio::time::sleep(pause).await;
        stream.write_all(&[*byte]).await?;
    }
    Ok(())
}

async fn flood(stream: &mut TcpStream, bytes: &[u8], zeros: usize) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    let block = vec![b'0'; 1 << 20];
    for _ in 0..zeros.div_ceil(block.len()) {
        stream.write_all(&block).await?;
    }
    Ok(())
}

async fn stall(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    std::future::pending().await
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let mut body = bytes.split_off(end);
    let seen = Seen { head: String::from_utf8(bytes).ok()?, body: Vec::new() };
    let length: usize = seen.header("content-length")?.parse().ok()?;
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen { body, ..seen })
}
