//! What clients of the admin plane may take: every number in one place.
//!
//! The daemon's work is messages; whoever asks about it, however many and however slowly, gets these shares and no more.

use std::time::Duration;

/// Connections at the same time over TCP. The next ones wait, unanswered, in the system's queue until one ends.
pub const TCP_CONNECTIONS: usize = 256;

/// Connections at the same time on the Unix socket, which TCP clients cannot use up.
pub const SOCKET_CONNECTIONS: usize = 64;

/// Streams (`received/stream`, `trace`) at the same time, of both together; further ones are refused with status 503.
pub const STREAMS: usize = 32;

/// From a connection's beginning, or the end of its last answer, until the header of the next request is complete.
pub const HEADER_TIME: Duration = Duration::from_secs(15);

/// For a request's body, from its header.
pub const BODY_TIME: Duration = Duration::from_secs(15);

/// For an answer's header, from the request's: longer than the gateway waits for a broker. Streams end later.
pub const REQUEST_TIME: Duration = Duration::from_secs(60);

/// A client that takes nothing of its answer for so long is disconnected.
pub const STALL_TIME: Duration = Duration::from_secs(30);

/// Between two signs of life on a stream on which nothing happens.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bytes of a request's header, and of what is read ahead.
pub const HEADER_BYTES: usize = 16 * 1024;

/// Bytes of a request's body.
pub const BODY_BYTES: usize = 1024 * 1024;

/// Bytes of the body of `POST publish`.
pub const PUBLISH_BYTES: usize = 16 * 1024 * 1024;
