//! The byte stream below a session: TCP, TLS and WebSocket in all four combinations.
//!
//! Owns: everything between the configured address and the first byte of CONNECT, and the warning of certificates that
//! expire. Fed by the broker's configuration; feeds the connection with a stream that it reads and writes without knowing
//! what carries it. It knows nothing of MQTT packets, and the deadline of the whole connect is its caller's.
//!
//! `tcp` → `tls` → `first_answer` → `web_socket`; `certificate` is about expiry, `failure` has the sentences.

mod certificate;
mod failure;
mod first_answer;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;
mod web_socket;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use self::certificate::Expiry;
pub use self::certificate::Holder;
pub use self::failure::TransportFailure;
use self::first_answer::FirstAnswer;
use self::tls::TlsLayer;
use self::web_socket::Target;
use super::failure::{Failure, shortened};
use crate::control::config::model::{self, Broker};
use crate::telemetry::metrics::BrokerMeters;

/// When the TLS handshake must be over, from the beginning of the connect.
const TLS_DEADLINE: Duration = Duration::from_secs(13);

/// When the WebSocket must be open, from the beginning of the connect: a second is left for CONNECT and its answer, which
/// by then is all that can be late.
const WEB_SOCKET_DEADLINE: Duration = Duration::from_secs(14);

/// What an MQTT connection needs of the network.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connected stream, whatever carries it.
pub(super) type Stream = Box<dyn ByteStream>;

/// How one session reaches its broker: made once, so that what connections have in common is kept between them.
pub(super) struct Transport {
    broker: Arc<Broker>,
    meters: Arc<BrokerMeters>,
    tls: Option<TlsLayer>,
    /// Written after each handshake and by each tick.
    expiry: Mutex<Expiry>,
}

impl Transport {
    /// Nothing is read or connected yet. Warns if the configuration leaves the broker unverified.
    pub(super) fn new(broker: &Arc<Broker>, meters: &Arc<BrokerMeters>) -> Transport {
        if broker.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify) {
            warn!(broker = %broker.name, "insecure-skip-verify = true: nobody verifies that this is the broker");
        }
        Transport {
            tls: broker.tls.as_ref().map(|tls| TlsLayer::new(tls, &broker.address)),
            broker: Arc::clone(broker),
            meters: Arc::clone(meters),
            expiry: Mutex::default(),
        }
    }

    /// Makes a new connection, ready for CONNECT. A session has one at a time. Cancellation safe.
    ///
    /// # Errors
    /// Why there is none. A caller's deadline of 15 s never comes first: each step has its own, which says more.
    pub(super) async fn connect(&self) -> Result<Stream, Failure> {
        let begun = Instant::now();
        // First, so that nobody is connected to with files that cannot work.
        let tls = match &self.tls {
            Some(tls) => Some((tls, tls.prepare().await?)),
            None => None,
        };
        let stream = tcp::connect(&self.broker.address, self.broker.port.get()).await?;
        let Some((tls, prepared)) = tls else { return self.carry(stream, begun).await };
        let handshake = timeout_at(begun + TLS_DEADLINE, tls.connect(&prepared, stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.handshake_failure(&error)),
            Err(_) => return Err(TransportFailure::SilentInHandshake(TLS_DEADLINE.as_secs()).into()),
        };
        let (_, session) = stream.get_ref();
        debug!(
            broker = %self.broker.name,
            version = ?session.protocol_version(),
            cipher = ?session.negotiated_cipher_suite().map(|suite| suite.suite()),
            alpn = session.alpn_protocol().map(|name| shortened(&String::from_utf8_lossy(name))),
            "TLS established"
        );
        let expiry = prepared.expiry(&stream);
        Holder::ALL.iter().zip(expiry).for_each(|(holder, end)| self.meters.certificate_expires(*holder, end));
        self.expiry.lock().expect("nothing panics with the lock").seen(expiry);
        self.tick();
        self.carry(stream, begun).await
    }

    /// Says once a day which certificates of the latest connection expire soon. To be called now and then.
    pub(super) fn tick(&self) {
        let due = self.expiry.lock().expect("nothing panics with the lock").due(SystemTime::now());
        for (certificate, expires) in due {
            let expires = failure::date_of(expires);
            warn!(broker = %self.broker.name, %certificate, %expires, "a certificate expires soon");
        }
    }

    /// What an error of a stream means that [`Transport::connect`] gave, before (`connecting`) or after the CONNACK. A stream
    /// that ends without one is told as [`io::ErrorKind::UnexpectedEof`].
    pub(super) fn failure(&self, error: &io::Error, connecting: bool) -> Failure {
        let Some(failure) = self.own_failure(error, connecting) else {
            return match error.kind() {
                kind if connecting && is_end(kind) && self.lacks_certificate() => {
                    TransportFailure::ClientCertificateRequired.into()
                }
                _ => Failure::from_io(error, connecting, self.broker.protocol, self.tls.is_some()),
            };
        };
        failure.into()
    }

    /// What is put on a stream of bytes before MQTT.
    async fn carry<S: ByteStream + 'static>(&self, stream: S, begun: Instant) -> Result<Stream, Failure> {
        let model::Transport::WebSocket { path } = &self.broker.transport else {
            return Ok(Box::new(FirstAnswer::new(stream, false)));
        };
        let stream = FirstAnswer::new(stream, true);
        let target = Target {
            address: &self.broker.address,
            port: self.broker.port.get(),
            path,
            max_packet: self.broker.max_packet,
            secure: self.tls.is_some(),
        };
        match timeout_at(begun + WEB_SOCKET_DEADLINE, web_socket::connect(&target, stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(self.opening_failure(&error)),
            Err(_) => Err(TransportFailure::SilentWebSocket(WEB_SOCKET_DEADLINE.as_secs()).into()),
        }
    }

    /// Why there is no TLS.
    fn handshake_failure(&self, error: &io::Error) -> Failure {
        match self.own_failure(error, true) {
            Some(failure) => failure.into(),
            None if is_end(error.kind()) && self.lacks_certificate() => {
                TransportFailure::ClientCertificateRequired.into()
            }
            None if is_end(error.kind()) => TransportFailure::ClosedInHandshake.into(),
            None => Failure::from_io(error, true, self.broker.protocol, true),
        }
    }

    /// Why there is no WebSocket.
    fn opening_failure(&self, error: &io::Error) -> Failure {
        if self.own_failure(error, true).is_none() && is_end(error.kind()) && !self.lacks_certificate() {
            return TransportFailure::NotWebSocket("it closed the connection".to_owned()).into();
        }
        self.failure(error, true)
    }

    /// What the transport itself, or TLS, has put into an error.
    fn own_failure(&self, error: &io::Error, connecting: bool) -> Option<TransportFailure> {
        let inner = error.get_ref()?;
        if let Some(failure) = inner.downcast_ref::<TransportFailure>() {
            return Some(failure.clone());
        }
        let situation = self.tls.as_ref()?.situation(connecting);
        inner.downcast_ref().map(|error| TransportFailure::from_tls(error, &situation))
    }

    /// The broker asked for a client certificate, and none is configured.
    fn lacks_certificate(&self) -> bool {
        let situation = self.tls.as_ref().map(|tls| tls.situation(true));
        situation.is_some_and(|situation| situation.asked && !situation.identity)
    }
}

/// The other side has ended the connection.
fn is_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind;
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    )
}
