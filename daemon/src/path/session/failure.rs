//! Why a session is not connected, in plain words.
//!
//! Owns: the sentences that an operator reads, and how patient each cause asks the backoff to be. The codec, the
//! link and the transport translate their errors into these causes; the supervisor says them once per change. No sentence holds a secret.

use std::io;

use super::backoff::Pace;
use super::ring::Window;
use super::transport::TransportFailure;
use crate::control::config::model::Protocol;
use crate::printable::is_hidden;
use crate::telemetry::metrics::{ConnectResult, DisconnectReason};

/// Longest text taken over from a broker or the operating system, in characters.
const FOREIGN_TEXT: usize = 200;

/// Why an attempt to connect failed or a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The password's source cannot be read.
    #[error("the password cannot be read: {0}")]
    Password(String),
    /// CONNACK: bad user name or password.
    #[error("the broker refuses the user name or the password; correct username and password")]
    Credentials,
    /// CONNACK or DISCONNECT: not authorised. Some brokers say so of a wrong password too.
    #[error("the broker does not authorise this client; correct username and password, or the broker's access rules")]
    NotAuthorised,
    /// CONNACK: the client identifier is refused.
    #[error("the broker refuses the client identifier; set another client-id")]
    ClientIdentifier,
    /// CONNACK: the protocol version is refused.
    #[error("the broker does not speak this version of MQTT; set protocol = \"{}\"", .other)]
    Protocol {
        /// What to try.
        other: &'static str,
    },
    /// CONNACK: the broker cannot serve at the moment.
    #[error("the broker says that it is unavailable at the moment: {0}")]
    Unavailable(&'static str),
    /// CONNACK: another refusal.
    #[error("the broker refuses the connection: {0}")]
    Refused(&'static str),
    /// The name has no address.
    #[error("the host name \"{host}\" is not found ({detail})")]
    HostNotFound {
        /// The configured address.
        host: String,
        /// In the resolver's words.
        detail: String,
    },
    /// Nothing listens there.
    #[error("nothing listens at this address and port (connection refused)")]
    ConnectionRefused,
    /// The network does not reach it.
    #[error("the broker cannot be reached ({0})")]
    Unreachable(String),
    /// No CONNACK within the connect deadline.
    #[error("no answer to CONNECT within {0} s; is this an MQTT broker?")]
    NoAnswer(u64),
    /// The connection was closed instead of a CONNACK.
    #[error("the broker closed the connection without an answer to CONNECT{}{}", tls_hint(*.tls), protocol_hint(*.protocol))]
    ClosedOnConnect {
        /// That CONNECT was of.
        protocol: Protocol,
        /// It was encrypted.
        tls: bool,
    },
    /// The answer to CONNECT is not MQTT.
    #[error("the answer to CONNECT is not MQTT ({0}); is this port a broker's?")]
    NotMqtt(String),
    /// Closed by the broker without a reason.
    #[error("the broker closed the connection")]
    Closed,
    /// Closed by the broker without a reason, soon after it had accepted the client.
    #[error("the broker closed the connection soon after accepting it; does another client use client-id = \"{0}\"?")]
    ClosedSoon(String),
    /// DISCONNECT: another client with the same identifier.
    #[error("another client with client-id = \"{0}\" has taken the session over; give each its own client-id")]
    TakenOver(String),
    /// DISCONNECT with another reason, which may lie in what was sent.
    #[error("the broker ended the connection: {0}")]
    Disconnected(String),
    /// DISCONNECT with a reason that lies with the broker, whatever was sent.
    #[error("the broker ended the connection: {0}")]
    Leaving(String),
    /// The connection was reset.
    #[error("the connection was reset")]
    Reset,
    /// A packet beyond `max-packet`.
    #[error("a packet of {bytes} bytes came, more than max-packet = {limit}; set a larger max-packet")]
    PacketTooLarge {
        /// Its size without the fixed header.
        bytes: usize,
        /// `max-packet`.
        limit: u32,
    },
    /// No PINGRESP.
    #[error("the broker does not answer pings")]
    KeepAlive,
    /// A write does not end.
    #[error("the broker has taken nothing for {0} s")]
    WriteStuck(u64),
    /// No SUBACK in time.
    #[error("the broker has not answered SUBSCRIBE for {0} s")]
    SubscribeUnanswered(u64),
    /// No PUBACK in time.
    #[error("the broker has not acknowledged a message for {0} s")]
    PublishUnanswered(u64),
    /// More unacknowledged messages than the configuration has memory for.
    #[error(
        "the broker sends more than {} unacknowledged bytes (receive-maximum = {} times max-packet); raise one of them, or \
         limit the broker's in-flight messages",
        .0.bytes,
        .0.messages
    )]
    ReceiveWindow(Window),
    /// The broker breaks the protocol.
    #[error("the broker breaks the protocol: {0}")]
    BrokenProtocol(String),
    /// No stream to speak MQTT on: TLS, its certificates, the WebSocket, or a port that speaks something else.
    #[error(transparent)]
    Transport(#[from] TransportFailure),
    /// Another error of the network.
    #[error("the network failed: {0}")]
    Network(String),
    /// The session's task panicked.
    #[error("the session's task ended unexpectedly; this is a defect of the gateway")]
    Defect,
    /// This side ended it: the gateway stops, or a command.
    #[error("the gateway ended the connection")]
    Stopped,
}

fn tls_hint(tls: bool) -> &'static str {
    if tls { "" } else { "; if this port speaks TLS, set tls = true" }
}

fn protocol_hint(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::V5 => "; if it speaks only MQTT 3.1.1, set protocol = \"3.1.1\"",
        Protocol::V311 => "",
    }
}

impl Failure {
    /// What an error of the network means before (`connecting`) or after the CONNACK.
    pub(super) fn from_io(error: &io::Error, connecting: bool, protocol: Protocol, tls: bool) -> Failure {
        use io::ErrorKind;
        let closed_on_connect = Failure::ClosedOnConnect { protocol, tls };
        match error.kind() {
            ErrorKind::ConnectionRefused => Failure::ConnectionRefused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::TimedOut if connecting => {
                Failure::Unreachable(shortened(&error.to_string()))
            }
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe if connecting => closed_on_connect,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Failure::Reset,
            ErrorKind::UnexpectedEof if connecting => closed_on_connect,
            ErrorKind::UnexpectedEof => Failure::Closed,
            _ => Failure::Network(shortened(&error.to_string())),
        }
    }

    /// How long to wait before the next attempt.
    pub(super) fn pace(&self) -> Pace {
        match self {
            Failure::Transport(failure) => failure.pace(),
            Failure::Credentials
            | Failure::NotAuthorised
            | Failure::ClientIdentifier
            | Failure::Protocol { .. }
            | Failure::Refused(_)
            | Failure::TakenOver(_)
            | Failure::PacketTooLarge { .. } => Pace::Slow,
            Failure::ReceiveWindow(_) => Pace::Quick,
            _ => Pace::Growing,
        }
    }

    /// How an attempt that ended so is counted.
    pub(super) fn connect_result(&self) -> ConnectResult {
        match self {
            Failure::Credentials
            | Failure::NotAuthorised
            | Failure::ClientIdentifier
            | Failure::Protocol { .. }
            | Failure::Unavailable(_)
            | Failure::Refused(_) => ConnectResult::Refused,
            _ => ConnectResult::Failed,
        }
    }
}

impl Failure {
    /// How the end of a connection that the broker had accepted is counted.
    pub(super) fn disconnect_reason(&self) -> DisconnectReason {
        match self {
            Failure::Closed
            | Failure::ClosedSoon(_)
            | Failure::ClosedOnConnect { .. }
            | Failure::Transport(TransportFailure::WebSocketClosed(_)) => DisconnectReason::Closed,
            Failure::Reset | Failure::ConnectionRefused => DisconnectReason::Reset,
            Failure::Disconnected(_)
            | Failure::Leaving(_)
            | Failure::Credentials
            | Failure::NotAuthorised
            | Failure::ClientIdentifier
            | Failure::Protocol { .. }
            | Failure::Unavailable(_)
            | Failure::Refused(_) => DisconnectReason::Disconnected,
            Failure::TakenOver(_) => DisconnectReason::TakenOver,
            Failure::KeepAlive => DisconnectReason::KeepAlive,
            Failure::WriteStuck(_) => DisconnectReason::WriteStuck,
            Failure::SubscribeUnanswered(_) => DisconnectReason::SubscribeUnanswered,
            Failure::PublishUnanswered(_) => DisconnectReason::PublishUnanswered,
            Failure::PacketTooLarge { .. } => DisconnectReason::PacketTooLarge,
            Failure::ReceiveWindow(_) => DisconnectReason::ReceiveWindow,
            Failure::BrokenProtocol(_) | Failure::NotMqtt(_) | Failure::NoAnswer(_) => DisconnectReason::Protocol,
            Failure::Network(_) | Failure::HostNotFound { .. } | Failure::Unreachable(_) | Failure::Transport(_) => {
                DisconnectReason::Network
            }
            Failure::Defect | Failure::Password(_) => DisconnectReason::Defect,
            Failure::Stopped => DisconnectReason::Stopped,
        }
    }

    /// Whether the broker may have acted upon a CONNECT although its answer did not come.
    pub(super) fn may_have_been_heard(&self) -> bool {
        matches!(
            self,
            Failure::NoAnswer(_)
                | Failure::ClosedOnConnect { .. }
                | Failure::NotMqtt(_)
                | Failure::Network(_)
                | Failure::BrokenProtocol(_)
                | Failure::Stopped
        )
    }

    /// Whether the broker may have ended the connection because of what it was sent: it closed it by itself, and gave no
    /// reason of its own. Neither a silent network nor a deadline of this side tells anything about a publish.
    pub(super) fn may_blame_a_publish(&self) -> bool {
        matches!(
            self,
            Failure::Closed
                | Failure::Reset
                | Failure::Disconnected(_)
                | Failure::NotAuthorised
                // Its code tells more of the WebSocket than of MQTT.
                | Failure::Transport(TransportFailure::WebSocketClosed(_))
        )
    }
}

/// Text from outside, on one line and of bounded length.
pub(super) fn shortened(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { ' ' } else { c }).take(FOREIGN_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: io::Error, connecting: bool, expected: &str) {
        assert_eq!(Failure::from_io(&error, connecting, Protocol::V5, true).to_string(), expected);
    }

    #[test]
    fn errors_of_the_network_are_told_in_plain_words() {
        use io::{Error, ErrorKind};
        check(
            ErrorKind::ConnectionRefused.into(),
            true,
            "nothing listens at this address and port (connection refused)",
        );
        check(Error::from_raw_os_error(113), true, "the broker cannot be reached (No route to host (os error 113))");
        check(
            ErrorKind::ConnectionReset.into(),
            true,
            "the broker closed the connection without an answer to CONNECT; if it speaks only MQTT 3.1.1, set protocol \
             = \"3.1.1\"",
        );
        check(ErrorKind::ConnectionReset.into(), false, "the connection was reset");
        check(ErrorKind::UnexpectedEof.into(), false, "the broker closed the connection");
        check(Error::other("odd"), false, "the network failed: odd");
    }

    #[test]
    fn a_refusal_that_only_a_person_can_mend_is_retried_slowly() {
        assert_eq!(Failure::Credentials.pace(), Pace::Slow);
        assert_eq!(Failure::TakenOver("gw".to_owned()).pace(), Pace::Slow);
        assert_eq!(Failure::ConnectionRefused.pace(), Pace::Growing);
        assert_eq!(Failure::ReceiveWindow(Window { messages: 8, bytes: 1024 }).pace(), Pace::Quick);
    }

    #[test]
    fn foreign_text_stays_on_one_line() {
        assert_eq!(shortened("a\nb\x1b[31m"), "a b [31m");
        assert_eq!(shortened(&"x".repeat(500)).len(), FOREIGN_TEXT);
    }
}
