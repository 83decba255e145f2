//! A connection that fails once its client stops reading the answer. Otherwise the answer would
//! stay in the server's memory for ever.
//!
//! The time of an answer begins when the connection accepts no more bytes, and ends when the next
//! request arrives.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::pace::Pace;

/// A connection with a minimum rate for writing.
#[derive(Debug)]
pub(super) struct Steady {
    stream: TcpStream,
    patience: Duration,
    least_rate: u32,
    pace: Option<Pace>,
    blocked: bool,
    alarm: Pin<Box<Sleep>>,
}

impl Steady {
    pub(super) fn new(stream: TcpStream, patience: Duration, least_rate: u32) -> Self {
        let alarm = Box::pin(sleep_until(Instant::now()));
        Self { stream, patience, least_rate, pace: None, blocked: false, alarm }
    }

    /// Records the result of a write, and fails a write that has waited too long.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.blocked = false;
                if let Some(pace) = &mut self.pace {
                    pace.moved(bytes, now);
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => {
                self.blocked = true;
                let pace = self
                    .pace
                    .get_or_insert_with(|| Pace::begin(self.patience, self.least_rate, now));
                self.alarm.as_mut().reset(pace.deadline());
                ready!(self.alarm.as_mut().poll(context));
                let message = "the answer was not read at the least rate";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
            }
        }
    }
}

impl AsyncRead for Steady {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if !self.blocked {
            self.pace = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Steady {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
