//! What clients of the admin plane may take: every number in one place.
//!
//! The daemon's work is messages; whoever asks about it, however many and however slowly, gets these shares and no more.

use std::time::Duration;

/// Connections at the same time over TCP. The next ones wait, unanswered, in the system's queue until one ends.
pub const TCP_CONNECTIONS: usize = 256;

/// Connections at the same time on the Unix socket, which TCP clients cannot use up.
pub const SOCKET_CONNECTIONS: usize = 64;

/// Streams (`received/stream`, `trace`) at the same time on the Unix socket, of both together, and as many over TCP; further
/// ones are refused with status 503.
pub const STREAMS: usize = 32;

/// Lists of received messages that are read at the same time on the Unix socket, and as many over TCP; the next ones wait. Each
/// holds what it tells for as long as its client takes: up to `recv-bytes`.
pub const LISTS: usize = 8;

/// For a list to be taken, from its first piece: shorter than [`REQUEST_TIME`], so that whoever waits for its end gets a turn.
pub const LIST_TIME: Duration = Duration::from_secs(45);

/// Bytes of a list that are made at once, or one message: a long one neither keeps a thread from the messages nor waits in
/// memory for a slow client as a whole.
pub const PIECE_BYTES: usize = 32 * 1024;

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

/// Bytes of the body of `PUT kv/HANDLER/KEY`.
pub const KV_BYTES: usize = PUBLISH_BYTES;

/// Dead letters or keys that are told at once, where nothing else is asked for.
pub const PAGE: usize = 100;

/// Dead letters or keys that are told at once, at most.
pub const MOST_PAGE: usize = 1000;

/// Bytes of dead letters that are told at once, or one: topics may be long.
pub const PAGE_BYTES: usize = 1024 * 1024;

/// Dead letters that one request names.
pub const IDS: usize = 500;
