//! The byte stream below a session: plain TCP so far.
//!
//! Owns: everything between the configured address and the first byte of CONNECT. Fed by the broker's configuration;
//! feeds the connection with a stream that it reads and writes without knowing what carries it. It knows nothing of MQTT
//! packets, and the deadline of the whole connect is its caller's.

mod tcp;

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::failure::Failure;
use crate::control::config::model::Broker;
use crate::telemetry::metrics::BrokerMeters;

/// What an MQTT connection needs of the network.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connected stream, whatever carries it.
pub(super) type Stream = Box<dyn ByteStream>;

/// How one session reaches its broker: made once, so that what connections have in common is kept between them.
pub(super) struct Transport {
    broker: Arc<Broker>,
}

impl Transport {
    /// Nothing is read or connected yet.
    pub(super) fn new(broker: &Arc<Broker>, _meters: &Arc<BrokerMeters>) -> Transport {
        Transport { broker: Arc::clone(broker) }
    }

    /// Makes a new connection, ready for CONNECT. A session has one at a time. Cancellation safe.
    ///
    /// # Errors
    /// Why there is none. A caller's deadline of 15 s never comes first: each step has its own, which says more.
    pub(super) async fn connect(&self) -> Result<Stream, Failure> {
        let stream = tcp::connect(&self.broker.address, self.broker.port.get()).await?;
        Ok(Box::new(stream))
    }

    /// What an error of a stream means that [`Transport::connect`] gave, before (`connecting`) or after the CONNACK.
    pub(super) fn failure(&self, error: &io::Error, connecting: bool) -> Failure {
        Failure::from_io(error, connecting, &self.broker.address, self.broker.protocol)
    }
}
