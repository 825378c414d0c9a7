//! A client's socket, which ends when the client takes nothing for too long.
//!
//! Owns: one timer, running only while something waits to be taken. Without it a client that never reads would keep its
//! connection, and the answer that waits for it, for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The socket, and how long it may stand still.
pub struct Stalling<S> {
    socket: S,
    limit: Duration,
    /// Set while a write waits for the client.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    /// Guards the socket.
    pub fn new(socket: S, limit: Duration) -> Stalling<S> {
        Stalling { socket, limit, waiting: None }
    }

    /// Passes on what became of a write, unless it waits for too long.
    fn guard<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let limit = self.limit;
        let timer = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.guard(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.guard(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let limit = Duration::from_millis(50);
        let (server, _client) = duplex(8);
        let begun = Instant::now();
        let mut socket = Stalling::new(server, limit);
        let written = tokio::time::timeout(Duration::from_secs(10), socket.write_all(&[0; 9])).await;
        let error = written.expect("ends by itself").expect_err("there is room for 8");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= limit);
    }

    #[tokio::test]
    async fn a_slow_client_is_served() {
        let limit = Duration::from_secs(1);
        let (server, mut client) = duplex(8);
        let writing = tokio::spawn(async move { Stalling::new(server, limit).write_all(&[0; 64]).await });
        let begun = Instant::now();
        for _ in 0..8 {
            sleep(limit / 6).await;
            client.read_exact(&mut [0; 8]).await.expect("the server writes");
        }
        assert!(begun.elapsed() > limit, "slower than the limit in all");
        writing.await.expect("ends").expect("writes all of it");
    }
}
