//! The I/O of one connection: what the socket brings becomes packets, what the outlet holds goes to the socket.
//!
//! Owns: the stream, its buffers and the pings. Fed by the outlet and by the broker; feeds the poller. Reading and writing do
//! not wait for each other: a broker that takes nothing is still listened to, so two full sockets cannot block each other for
//! ever. It knows no meaning of any packet but CONNACK and PINGRESP.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_util::io::poll_read_buf;

use super::failure::Failure;
use super::outlet::{Outlet, Taken};
use super::packet::{Incoming, Welcome};
use super::transport::{Stream, Transport};
use crate::control::config::model::Broker;
use crate::control::config::secret::Secret;

/// Look-up, TCP, TLS and CONNACK together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// Bytes asked of the socket at once, beside what an incomplete packet still needs.
const READ: usize = 16 * 1024;

/// Where there is room for fewer, the buffer is made ready for [`READ`] again.
const LEAST_READ: usize = READ / 4;

/// Memory that the read buffer keeps after a large packet, in bytes.
const KEPT: usize = 4 * READ;

/// What became of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many bytes came: there may be packets.
    Read(usize),
    /// So many acknowledgements begin to be written.
    Acknowledging(usize),
    /// What the outlet held was written and flushed.
    Written(Taken),
}

/// Does the I/O of one connection.
pub(super) struct Link {
    stream: Stream,
    transport: Arc<Transport>,
    outlet: Arc<Outlet>,
    /// No CONNACK yet.
    connecting: bool,
    incoming: BytesMut,
    /// `incoming` has grown beyond what is kept.
    large: bool,
    outgoing: BytesMut,
    /// Bytes of `outgoing` that are written.
    written: usize,
    /// What `outgoing` is; none once it was reported as written.
    taken: Option<Taken>,
    /// The socket takes nothing at the moment.
    blocked: bool,
    pings: Interval,
    /// Something came since the last ping.
    heard: bool,
}

impl Link {
    /// Makes a connection and waits for the CONNACK.
    ///
    /// # Errors
    /// Why there is none, within [`CONNECT_DEADLINE`].
    pub(super) async fn connect(
        transport: Arc<Transport>,
        outlet: Arc<Outlet>,
        broker: &Broker,
        password: Option<&Secret>,
    ) -> Result<(Link, Welcome), Failure> {
        let keep_alive = Duration::from_secs(broker.keep_alive.into());
        let connected = async {
            let stream = transport.connect().await?;
            outlet.connect(password);
            let mut link = Link {
                stream,
                transport,
                outlet,
                connecting: true,
                incoming: BytesMut::new(),
                large: false,
                outgoing: BytesMut::new(),
                written: 0,
                taken: None,
                blocked: false,
                pings: pings(keep_alive),
                heard: true,
            };
            let welcome = link.welcome().await?;
            link.connecting = false;
            // None at all would leave a dead connection unnoticed: then the configured one stays.
            let imposed = welcome.keep_alive.filter(|imposed| !imposed.is_zero());
            link.pings = pings(imposed.unwrap_or(keep_alive));
            Ok((link, welcome))
        };
        timeout(CONNECT_DEADLINE, connected).await.unwrap_or(Err(Failure::NoAnswer(CONNECT_DEADLINE.as_secs())))
    }

    async fn welcome(&mut self) -> Result<Welcome, Failure> {
        loop {
            match self.next_packet()? {
                Some(Incoming::Connected(welcome)) => return Ok(welcome),
                Some(_) => return Err(Failure::NotMqtt("not a CONNACK".to_owned())),
                None => {
                    self.progress().await?;
                }
            }
        }
    }

    /// The next packet that has come already.
    ///
    /// # Errors
    /// The connection has ended: the broker says so, or breaks the protocol.
    pub(super) fn next_packet(&mut self) -> Result<Option<Incoming>, Failure> {
        let packet = self.outlet.codec().decode(&mut self.incoming, self.connecting)?;
        self.large |= packet.is_none() && self.incoming.capacity() > KEPT;
        Ok(packet)
    }

    /// Waits until bytes came or everything that was handed over is written. Cancellation safe.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn progress(&mut self) -> Result<Progress, Failure> {
        poll_fn(|context| self.poll_progress(context)).await
    }

    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<Result<Progress, Failure>> {
        loop {
            let unwritable = match self.poll_write(context) {
                Poll::Ready(Ok(progress)) => return Poll::Ready(Ok(progress)),
                Poll::Ready(Err(failure)) => Some(failure),
                Poll::Pending => None,
            };
            if let Poll::Ready(bytes) = self.poll_read(context)? {
                return Poll::Ready(Ok(Progress::Read(bytes)));
            }
            if let Some(failure) = unwritable {
                // Only now: the reason may have been among what was still to be read.
                return Poll::Ready(Err(failure));
            }
            // Until it is pending, so that the next tick wakes this task.
            while self.pings.poll_tick(context).is_ready() {
                if !self.heard {
                    return Poll::Ready(Err(Failure::KeepAlive));
                }
                self.heard = false;
                self.outlet.ping();
            }
            // Last of all: what is handed over before, by this very task, needs no waking.
            if self.taken.is_some() || self.outlet.wait(context) {
                return Poll::Pending;
            }
        }
    }

    /// Writes what the outlet holds, and flushes.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<Progress, Failure>> {
        let taken = match self.taken {
            Some(taken) => taken,
            None => {
                let Some(taken) = self.outlet.take(&mut self.outgoing) else { return Poll::Pending };
                (self.taken, self.written) = (Some(taken), 0);
                if taken.acknowledgements > 0 {
                    return Poll::Ready(Ok(Progress::Acknowledging(taken.acknowledgements)));
                }
                taken
            }
        };
        while self.written < self.outgoing.len() {
            let polled = Pin::new(&mut self.stream).poll_write(context, &self.outgoing[self.written..]);
            match polled {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failure::Closed)),
                Poll::Ready(Ok(bytes)) => self.written += bytes,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.failure(&error))),
                Poll::Pending => return self.block(),
            }
            self.unblock();
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.failure(&error))),
            Poll::Pending => return self.block(),
        }
        self.unblock();
        self.taken = None;
        Poll::Ready(Ok(Progress::Written(taken)))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Result<Poll<usize>, Failure> {
        if self.large && self.incoming.is_empty() {
            (self.incoming, self.large) = (BytesMut::new(), false);
        }
        if self.incoming.capacity() - self.incoming.len() < LEAST_READ {
            self.incoming.reserve(READ);
        }
        match poll_read_buf(Pin::new(&mut self.stream), context, &mut self.incoming) {
            Poll::Ready(Ok(0)) if self.connecting && !self.incoming.is_empty() => {
                Err(Failure::NotMqtt("an incomplete packet".to_owned()))
            }
            Poll::Ready(Ok(0)) => Err(self.failure(&ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(bytes)) => {
                self.heard = true;
                Ok(Poll::Ready(bytes))
            }
            Poll::Ready(Err(error)) => Err(self.failure(&error)),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn block<T>(&mut self) -> Poll<T> {
        if !self.blocked {
            self.blocked = true;
            self.outlet.blocked(Some(Instant::now().into_std()));
        }
        Poll::Pending
    }

    fn unblock(&mut self) {
        if self.blocked {
            self.blocked = false;
            self.outlet.blocked(None);
        }
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        self.transport.failure(error, self.connecting)
    }
}

/// A ping now and then, whatever else flows: a broker from which nothing came in between is gone.
fn pings(keep_alive: Duration) -> Interval {
    let mut pings = interval_at(Instant::now() + keep_alive, keep_alive);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}
