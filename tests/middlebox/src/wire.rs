//! Messages of HTTP/1.1 as bytes, read from a socket and written to one.
//!
//! What it is not: an HTTP library. It reads the messages of our own client and server: a head, and
//! a body whose length is in the head. A library would correct the faults that the box makes.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes of a head.
const HEAD_BYTES: usize = 64 * 1024;

/// A request or a response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) start: String,
    /// Names and values, as they were received.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Makes a response with the right length.
    pub(crate) fn response(status: u16, media_type: Option<&str>, body: &[u8]) -> Self {
        let mut message = Self {
            start: format!("HTTP/1.1 {status} Status"),
            headers: Vec::new(),
            body: body.to_vec(),
        };
        if let Some(media_type) = media_type {
            message.set("Content-Type", media_type);
        }
        message.set("Content-Length", &body.len().to_string());
        message
    }

    /// Reads a message; none if the other side closed before the message was whole, or the bytes
    /// are not a message.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(place) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break place + 4;
            }
            if bytes.len() > HEAD_BYTES || stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let mut body = bytes.split_off(end);
        let head = String::from_utf8(bytes).ok()?;
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let start = lines.next()?.to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers =
            headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        let mut message = Self { start, headers, body: Vec::new() };
        let length: usize =
            message.get("Content-Length").map_or(Some(0), |length| length.parse().ok())?;
        while body.len() < length {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        message.body = body;
        Some(message)
    }

    /// Returns a header's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Sets a header in place of all headers with its name.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Returns a response's status.
    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Returns the bytes of the head.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Returns the bytes of the whole message.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}
