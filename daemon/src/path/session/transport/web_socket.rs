//! MQTT in a WebSocket (MQTT 5 §6): a byte stream of binary messages.
//!
//! Owns: the opening handshake with the subprotocol `mqtt`, and the translation between bytes and messages. Fed by a
//! connected stream, encrypted or not; gives a stream of MQTT's bytes. Where packets begin and end is nobody's concern here:
//! a message may hold a part of one or several (MQTT 5 §6.0 [MQTT-6.0.0-2]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Sink, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::ByteStream;
use super::failure::TransportFailure;
use crate::control::config::certificates::host_in_certificates;
use crate::path::session::failure::shortened;

/// The subprotocol's name (MQTT 5 §6.0 [MQTT-6.0.0-3]).
const SUBPROTOCOL: &str = "mqtt";

/// Bytes after which a message is sent without waiting for a flush.
const MESSAGE_SIZE: usize = 64 * 1024;

/// What a message of the broker may have beyond one largest packet: some brokers put several into one.
const MARGIN: usize = 1024 * 1024;

/// Where a WebSocket is asked for.
pub(super) struct Target<'a> {
    pub(super) address: &'a str,
    pub(super) port: u16,
    pub(super) path: &'a str,
    /// Largest packet that is taken in.
    pub(super) max_packet: u32,
    pub(super) secure: bool,
}

/// Opens a WebSocket on a stream.
///
/// # Errors
/// An error of the stream, or a [`TransportFailure`] inside one.
pub(super) async fn connect<S: ByteStream>(target: &Target<'_>, stream: S) -> io::Result<WebSocketBytes<S>> {
    let host = host_in_certificates(target.address);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let scheme = if target.secure { "wss" } else { "ws" };
    let uri: http::Uri =
        format!("{scheme}://{host}:{}{}", target.port, target.path).parse().map_err(io::Error::other)?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
    let largest = Some(target.max_packet as usize + MARGIN);
    let config = WebSocketConfig::default().max_frame_size(largest).max_message_size(largest);
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((stream, _)) => Ok(WebSocketBytes { stream, incoming: Bytes::new(), outgoing: BytesMut::new() }),
        Err(error) => Err(untold(error, target.path)),
    }
}

/// The stream's own error, or the WebSocket's.
fn untold(error: Error, path: &str) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::UnexpectedEof.into(),
        error => io::Error::other(TransportFailure::from_web_socket(&error, path)),
    }
}

/// A WebSocket as a stream of bytes. A flush sends what was written as one message.
pub(super) struct WebSocketBytes<S> {
    stream: WebSocketStream<S>,
    /// The rest of the last message.
    incoming: Bytes,
    /// Written, and in no message yet.
    outgoing: BytesMut,
}

impl<S: ByteStream> WebSocketBytes<S> {
    /// Makes a message of what was written.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.outgoing.is_empty() {
            let mut stream = Pin::new(&mut self.stream);
            ready!(stream.as_mut().poll_ready(context)).map_err(established)?;
            stream.start_send(Message::Binary(self.outgoing.split().freeze())).map_err(established)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// An error of an open WebSocket.
fn established(error: Error) -> io::Error {
    match error {
        // As a TCP connection that just ends, which brokers do too.
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            io::ErrorKind::UnexpectedEof.into()
        }
        error => untold(error, ""),
    }
}

/// The broker's reason, if it gives one other than "normal closure" or "going away".
fn closed(frame: Option<CloseFrame>) -> Option<io::Error> {
    let frame = frame.filter(|frame| !matches!(u16::from(frame.code), 1000 | 1001 | 1005))?;
    let reason = if frame.reason.is_empty() { "no reason given" } else { &*frame.reason };
    let told = format!("{} (code {})", shortened(reason), u16::from(frame.code));
    Some(io::Error::other(TransportFailure::WebSocketClosed(told)))
}

impl<S: ByteStream> AsyncRead for WebSocketBytes<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.incoming.is_empty() {
            match ready!(Pin::new(&mut this.stream).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => this.incoming = bytes,
                // Pings are answered while reading on, before this is seen.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let reason = "a text message in the WebSocket (MQTT 5 §6.0 [MQTT-6.0.0-1])".to_owned();
                    return Poll::Ready(Err(io::Error::other(TransportFailure::BrokenWebSocket(reason))));
                }
                Some(Ok(Message::Close(frame))) => return Poll::Ready(closed(frame).map_or(Ok(()), Err)),
                Some(Err(error)) => return Poll::Ready(Err(established(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = this.incoming.len().min(buffer.remaining());
        buffer.put_slice(&this.incoming[..length]);
        this.incoming.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: ByteStream> AsyncWrite for WebSocketBytes<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.outgoing.len() >= MESSAGE_SIZE {
            ready!(this.poll_send(context))?;
        }
        let length = bytes.len().min(MESSAGE_SIZE - this.outgoing.len());
        this.outgoing.extend_from_slice(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_flush(context).map_err(established)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_close(context).map_err(established)
    }
}
