//! Why a stream below MQTT cannot be had, in plain words.
//!
//! Owns: the sentences about certificates, TLS, WebSockets and ports that speak something else, and the translation of
//! the libraries' errors into them. Fed by the layers of the transport; [`Failure`] carries them to the operator. No
//! sentence holds a secret.
//!
//! [`Failure`]: crate::path::session::failure::Failure

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error as TlsError, OtherError};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{self};

use crate::control::config::certificates::CertificateFileError;
use crate::path::session::backoff::Pace;
use crate::path::session::failure::shortened;

/// Why there is no stream, or why one ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportFailure {
    /// A certificate file cannot be used.
    #[error(transparent)]
    File(#[from] CertificateFileError),
    /// The system trusts nobody.
    #[error(
        "the system's store has no CA certificate; install the package ca-certificates, or set tls = {{ ca = \"FILE\" }} to \
         the CA that signed the broker's certificate"
    )]
    NoSystemCa,
    /// The chain leads to nobody in `tls.ca`.
    #[error(
        "the broker's certificate is not signed by a CA in tls.ca; put the CA certificate that signed it there, and let the \
         broker send any intermediate ones"
    )]
    UnknownCa,
    /// The chain leads to nobody whom the system trusts.
    #[error(
        "the broker's certificate is not signed by a CA that this system trusts; set tls = {{ ca = \"FILE\" }} to the CA \
         certificate that signed it"
    )]
    UnknownSystemCa,
    /// The certificate is for other names.
    #[error(
        "the broker's certificate is for {presented}, not for {expected}; connect to {presented}, or set server-name in tls"
    )]
    WrongName {
        /// The name that was looked for.
        expected: String,
        /// Those that the certificate has.
        presented: String,
    },
    /// The certificate has no name where names are looked for.
    #[error(
        "the broker's certificate names no host, so it is not known to be {0}'s; issue it anew with that name as its \
         subjectAltName: a common name does not count"
    )]
    NoName(String),
    /// The certificate, or one that leads to its CA, was valid.
    #[error("the broker's certificate expired on {0}; renew it at the broker, or correct this machine's clock")]
    Expired(String),
    /// The certificate, or one that leads to its CA, will be valid.
    #[error("the broker's certificate is valid only from {0} on; correct this machine's clock, or the certificate")]
    NotYetValid(String),
    /// The certificate is of a kind that cannot serve.
    #[error("the broker's certificate cannot be accepted: {0}")]
    Unacceptable(String),
    /// None was given, and the broker wants one.
    #[error("the broker asks for a client certificate; set certificate and key in tls")]
    ClientCertificateRequired,
    /// The broker does not like the one that was given.
    #[error("the broker refuses the client certificate: {0}")]
    ClientCertificateRefused(&'static str),
    /// No protocol in common.
    #[error(
        "the broker accepts none of the protocols of alpn in tls; remove alpn, or use the broker's own name for MQTT"
    )]
    Alpn,
    /// No version in common.
    #[error("the broker has no version of TLS in common with this client; let it accept TLS 1.2 or 1.3")]
    NoCommonVersion,
    /// Nothing to compute with in common.
    #[error(
        "the broker has no cipher suite, key exchange or signature in common with this client; let it accept those of TLS 1.3"
    )]
    NoCommonCipher,
    /// The server has no site of this name.
    #[error("the broker does not know the name that it is called by in TLS; set server-name in tls to one of its own")]
    UnknownName,
    /// What came is no TLS.
    #[error("this port does not speak TLS; use the broker's port with TLS, usually 8883, or remove tls")]
    PlainPort,
    /// The broker closed the connection in the middle of the handshake.
    #[error(
        "the broker closed the connection in the TLS handshake; does this port speak TLS? use the broker's port with TLS, \
         usually 8883, or remove tls"
    )]
    ClosedInHandshake,
    /// Nothing came in the middle of the handshake.
    #[error("no answer in the TLS handshake within {0} s; use the broker's port with TLS, usually 8883, or remove tls")]
    SilentInHandshake(u64),
    /// Another end of TLS.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// What came is TLS.
    #[error("this port speaks TLS; set tls = true, or use the broker's port without TLS, usually 1883")]
    TlsPort,
    /// What came is HTTP.
    #[error(
        "this port speaks HTTP; set transport = \"websocket\" if it is the broker's, or use the broker's port for MQTT"
    )]
    HttpPort,
    /// HTTP, but no switch to a WebSocket.
    #[error("the server refuses a WebSocket at the path {path} (HTTP status {status}); {}", status_remedy(*.status))]
    WebSocketRefused {
        /// The status of the answer.
        status: u16,
        /// The configured path.
        path: String,
    },
    /// The WebSocket is for something else (MQTT 5 §6.0 [MQTT-6.0.0-3]).
    #[error("the WebSocket at the path {0} is not for MQTT; set path in transport to the broker's")]
    WebSocketWithoutMqtt(String),
    /// What came is no HTTP.
    #[error("this port does not speak WebSocket ({0}); use the broker's port for WebSocket, or remove transport")]
    NotWebSocket(String),
    /// Nothing came.
    #[error(
        "no answer to the WebSocket's request within {0} s; use the broker's port for WebSocket, or remove transport"
    )]
    SilentWebSocket(u64),
    /// The broker ended the WebSocket and said why (RFC 6455 §7.4).
    #[error("the broker closed the WebSocket: {0}")]
    WebSocketClosed(String),
    /// A message of the WebSocket that MQTT does not allow.
    #[error("the broker breaks the protocol: {0}")]
    BrokenWebSocket(String),
}

fn status_remedy(status: u16) -> &'static str {
    match status {
        401 | 403 => "let the server allow it",
        500..=599 => "look at the server, or at the proxy before it",
        _ => "set path in transport to the broker's",
    }
}

/// What a TLS error means depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsSituation {
    /// `tls.ca` is set.
    pub(super) own_ca: bool,
    /// A client certificate is configured.
    pub(super) identity: bool,
    /// The broker asked for a client certificate on this connection.
    pub(super) asked: bool,
    /// No CONNACK yet.
    pub(super) connecting: bool,
}

impl TransportFailure {
    /// What ended a TLS connection.
    pub(super) fn from_tls(error: &TlsError, situation: &TlsSituation) -> TransportFailure {
        match error {
            TlsError::InvalidCertificate(error) => TransportFailure::from_certificate(error, situation),
            TlsError::AlertReceived(alert) => TransportFailure::from_alert(*alert, situation),
            // A record whose type or version TLS does not have: another protocol.
            TlsError::InvalidMessage(_) if situation.connecting => TransportFailure::PlainPort,
            TlsError::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
                TransportFailure::NoCommonVersion
            }
            TlsError::PeerIncompatible(_) => TransportFailure::NoCommonCipher,
            TlsError::NoApplicationProtocol => TransportFailure::Alpn,
            error => TransportFailure::Tls(shortened(&error.to_string())),
        }
    }

    fn from_certificate(error: &CertificateError, situation: &TlsSituation) -> TransportFailure {
        let unacceptable = |reason: &str| TransportFailure::Unacceptable(reason.to_owned());
        match error {
            // A CA that was made anew under its old name signs in another way.
            CertificateError::UnknownIssuer | CertificateError::BadSignature if situation.own_ca => {
                TransportFailure::UnknownCa
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TransportFailure::UnknownSystemCa,
            CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => {
                TransportFailure::NoName(expected.to_str().into_owned())
            }
            CertificateError::NotValidForNameContext { expected, presented } => TransportFailure::WrongName {
                expected: expected.to_str().into_owned(),
                presented: shortened(&names(presented)),
            },
            CertificateError::ExpiredContext { not_after, .. } => TransportFailure::Expired(date(*not_after)),
            CertificateError::NotValidYetContext { not_before, .. } => TransportFailure::NotYetValid(date(*not_before)),
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => unacceptable(
                "it is signed in a way that is no longer safe; issue it anew with SHA-256, and a key of ECDSA P-256 or \
                 RSA with 2048 bits",
            ),
            CertificateError::InvalidPurposeContext { .. } => unacceptable(
                "it is not meant for servers; issue it anew with the extended key usage serverAuth, or without any",
            ),
            CertificateError::Revoked => unacceptable("it is revoked; issue a new one"),
            CertificateError::Other(error) => unacceptable(other_certificate_error(error)),
            error => TransportFailure::Unacceptable(shortened(&error.to_string())),
        }
    }

    fn from_alert(alert: AlertDescription, situation: &TlsSituation) -> TransportFailure {
        use AlertDescription as Alert;
        let missing = situation.asked && !situation.identity;
        match alert {
            Alert::CertificateRequired if !situation.identity => TransportFailure::ClientCertificateRequired,
            Alert::NoApplicationProtocol => TransportFailure::Alpn,
            Alert::ProtocolVersion => TransportFailure::NoCommonVersion,
            Alert::UnrecognisedName => TransportFailure::UnknownName,
            // TLS 1.2 has no alert of its own for a missing certificate (RFC 5246 §7.4.6).
            Alert::HandshakeFailure | Alert::BadCertificate | Alert::AccessDenied | Alert::CertificateUnknown
                if missing =>
            {
                TransportFailure::ClientCertificateRequired
            }
            Alert::HandshakeFailure | Alert::InsufficientSecurity if !situation.asked => {
                TransportFailure::NoCommonCipher
            }
            alert => match refusal(alert) {
                Some(reason) if situation.identity && situation.asked => {
                    TransportFailure::ClientCertificateRefused(reason)
                }
                _ => TransportFailure::Tls(format!("the broker ended it with the alert {alert:?}")),
            },
        }
    }

    /// Why there is no WebSocket, or why one ended. Errors of the stream below have been taken out before.
    pub(super) fn from_web_socket(error: &tungstenite::Error, path: &str) -> TransportFailure {
        use tungstenite::Error;
        let not_web_socket = |reason: &str| TransportFailure::NotWebSocket(reason.to_owned());
        match error {
            Error::Http(response) => {
                TransportFailure::WebSocketRefused { status: response.status().as_u16(), path: path.to_owned() }
            }
            Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
                TransportFailure::WebSocketWithoutMqtt(path.to_owned())
            }
            Error::Protocol(ProtocolError::HandshakeIncomplete) => not_web_socket("it closed the connection"),
            Error::Protocol(ProtocolError::HttparseError(_)) => not_web_socket("its answer is not HTTP"),
            Error::Protocol(
                ProtocolError::MissingConnectionUpgradeHeader
                | ProtocolError::MissingUpgradeWebSocketHeader
                | ProtocolError::SecWebSocketAcceptKeyMismatch,
            ) => not_web_socket("its answer is not a WebSocket's"),
            error => TransportFailure::BrokenWebSocket(shortened(&error.to_string())),
        }
    }

    /// How long to wait before the next attempt. Local files are only read again, and may be in the middle of a renewal;
    /// what the broker or the configuration must change, a person mends.
    pub(in crate::path::session) fn pace(&self) -> Pace {
        match self {
            TransportFailure::File(_)
            | TransportFailure::ClosedInHandshake
            | TransportFailure::SilentInHandshake(_)
            | TransportFailure::Tls(_)
            | TransportFailure::SilentWebSocket(_)
            | TransportFailure::NotWebSocket(_)
            | TransportFailure::WebSocketClosed(_)
            | TransportFailure::BrokenWebSocket(_)
            // A proxy answers so while the broker behind it starts.
            | TransportFailure::WebSocketRefused { status: 500..=599, .. } => Pace::Growing,
            _ => Pace::Slow,
        }
    }
}

/// What an alert says about the client's certificate.
fn refusal(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as Alert;
    Some(match alert {
        Alert::UnknownCA => "it does not know the CA that signed it; use one that the broker's CA has signed",
        Alert::CertificateExpired => "it has expired, or is not valid yet; renew it",
        Alert::CertificateRevoked => "it is revoked; use another",
        Alert::UnsupportedCertificate => "it is of a kind that the broker does not take; use ECDSA P-256 or RSA",
        Alert::AccessDenied => "it gives no access; register it at the broker",
        Alert::DecryptError => {
            "its signature, or that of its CA, does not fit; use one that the broker's CA has signed"
        }
        Alert::BadCertificate | Alert::CertificateUnknown | Alert::CertificateRequired | Alert::HandshakeFailure => {
            "the broker does not say why; use one that the broker's CA has signed for clients"
        }
        _ => return None,
    })
}

/// Names as a certificate has them, out of the library's form `DnsName("a.example")`.
fn names(presented: &[String]) -> String {
    let inner = |name: &String| {
        let name = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest.strip_suffix(')').unwrap_or(rest));
        name.trim_matches('"').to_owned()
    };
    presented.iter().map(inner).collect::<Vec<_>>().join(" or ")
}

/// What the library tells only by a text of its own.
fn other_certificate_error(error: &OtherError) -> &'static str {
    match error.to_string().as_str() {
        "CaUsedAsEndEntity" => {
            "it is a CA's own (CA:TRUE), which must not be a server's; let the CA sign another for the broker"
        }
        "UnsupportedCertVersion" => {
            "it is of X.509 version 1; issue it anew with a subjectAltName, which makes it version 3"
        }
        _ => "it is not as X.509 wants it; issue it anew",
    }
}

/// A point in time for people, in UTC.
pub(super) fn date(time: UnixTime) -> String {
    date_of(UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

/// A point in time for people, in UTC.
pub(super) fn date_of(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
