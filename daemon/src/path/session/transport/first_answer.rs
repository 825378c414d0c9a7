//! A look at the first byte that comes: is it of the expected protocol at all?
//!
//! Owns: the recognition of a port that speaks TLS or HTTP in place of MQTT, whose answers a parser would only call
//! malformed. Lies on a stream that carries MQTT, or the WebSocket that will; it changes nothing that passes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ByteStream;
use super::failure::TransportFailure;

/// The type of a TLS record that holds an alert (RFC 8446 §5.1). As a packet of MQTT it would be a CONNECT with bad flags.
const TLS_ALERT: u8 = 21;

/// Of `HTTP/1.1 400`. As a packet of MQTT it would be a PUBACK with bad flags.
const HTTP: u8 = b'H';

/// A stream whose first byte is looked at.
pub(super) struct FirstAnswer<S> {
    stream: S,
    /// A WebSocket begins with HTTP.
    http_expected: bool,
    seen: bool,
}

impl<S: ByteStream> FirstAnswer<S> {
    pub(super) fn new(stream: S, http_expected: bool) -> FirstAnswer<S> {
        FirstAnswer { stream, http_expected, seen: false }
    }
}

impl<S: ByteStream> AsyncRead for FirstAnswer<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.seen {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let failure = match buffer.filled().get(before) {
            Some(&TLS_ALERT) => TransportFailure::TlsPort,
            Some(&HTTP) if !this.http_expected => TransportFailure::HttpPort,
            first => {
                this.seen = first.is_some();
                return Poll::Ready(Ok(()));
            }
        };
        Poll::Ready(Err(io::Error::other(failure)))
    }
}

impl<S: ByteStream> AsyncWrite for FirstAnswer<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
