//! Connections to servers of the tests' own: what gets through, and the sentence for everything that does not.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::*;
use crate::control::config::certificates::crypto_provider;
use crate::control::config::load;
use crate::telemetry::metrics::Metrics;

const CLOSE: &[u8] = b"close";

/// An authority, and a folder with its certificate `ca.pem`.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("signs");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("writes");
        Authority { issuer, folder }
    }

    /// A certificate for this name, with its key.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (rcgen::Certificate, KeyPair) {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).expect("a host name");
        change(&mut parameters);
        let key = KeyPair::generate().expect("a key");
        (parameters.signed_by(&key, &self.issuer).expect("signs"), key)
    }

    /// As `issue`, written to `NAME.pem` and `NAME.key`.
    fn write(&self, name: &str) {
        let (certificate, key) = self.issue(name, |_| {});
        fs::write(self.folder.path().join(format!("{name}.pem")), certificate.pem()).expect("writes");
        fs::write(self.folder.path().join(format!("{name}.key")), key.serialize_pem()).expect("writes");
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("is well-formed");
        roots
    }

    /// A server's side of TLS for the name `localhost`.
    fn server(&self, versions: &[&'static SupportedProtocolVersion], clients: bool) -> ServerConfig {
        let (certificate, key) = self.issue("localhost", |_| {});
        self.server_with(certificate.der().clone(), &key, versions, clients)
    }

    fn server_with(
        &self,
        certificate: CertificateDer<'static>,
        key: &KeyPair,
        versions: &[&'static SupportedProtocolVersion],
        clients: bool,
    ) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(crypto_provider());
        let builder = builder.with_protocol_versions(versions).expect("ring has them");
        let builder = if clients {
            let roots = Arc::new(self.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, crypto_provider()).build();
            builder.with_client_cert_verifier(verifier.expect("there is a root"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        builder.with_single_cert(vec![certificate], key).expect("they fit")
    }

    fn transport(&self, port: u16, keys: &str) -> Transport {
        transport(self.folder.path(), "localhost", port, keys)
    }
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The transport of a broker with these keys, its files in `folder`.
fn transport(folder: &Path, address: &str, port: u16, keys: &str) -> Transport {
    let file = folder.join("tidegate.toml");
    fs::write(&file, format!("[brokers.plant]\naddress = \"{address}\"\nport = {port}\n{keys}\n")).expect("writes");
    let loaded = load(&file).unwrap_or_else(|problems| panic!("{problems}"));
    let meters = Metrics::new().expect("families are well formed").broker("plant");
    Transport::new(&loaded.config.brokers[0], &meters)
}

/// A listener whose connections are each served by `serve`.
async fn listen<F, R>(serve: F) -> (u16, JoinHandle<()>)
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    (port, serving)
}

/// Sends back what comes, until it is [`CLOSE`].
async fn echo<S: ByteStream>(mut stream: S) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if &buffer[..length] == CLOSE || stream.write_all(&buffer[..length]).await.is_err() {
            break;
        }
        if stream.flush().await.is_err() {
            break;
        }
    }
    // Whether the client still listens is its own affair.
    let _ = stream.shutdown().await;
}

async fn tls_echo(config: ServerConfig) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (port, _) = listen(move |stream| {
        let accepting = acceptor.accept(stream);
        async move {
            if let Ok(stream) = accepting.await {
                echo(stream).await;
            }
        }
    })
    .await;
    port
}

/// Waits for what normally comes within milliseconds.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(40), what).await.expect("it comes in time")
}

/// What a first exchange gives: that the bytes came back, or why not.
async fn exchange(transport: &Transport) -> Result<(), Failure> {
    soon(exchange_without_limit(transport)).await
}

async fn exchange_without_limit(transport: &Transport) -> Result<(), Failure> {
    let mut stream = transport.connect().await?;
    let told = |error| transport.failure(&error, true);
    stream.write_all(b"hello").await.map_err(told)?;
    stream.flush().await.map_err(told)?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.map_err(told)?;
    assert_eq!(&answer, b"hello");
    Ok(())
}

#[track_caller]
fn sentence(result: Result<(), Failure>) -> String {
    result.expect_err("it must fail").to_string()
}

#[tokio::test]
async fn both_versions_of_tls_carry_bytes_both_ways() {
    let authority = Authority::new();
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let port = tls_echo(authority.server(versions, false)).await;
        exchange(&authority.transport(port, "tls = { ca = \"ca.pem\" }")).await.expect("it is trusted");
    }
}

#[tokio::test]
async fn the_configuration_is_kept_until_a_file_changes() {
    let authority = Authority::new();
    authority.write("gw");
    let port = tls_echo(authority.server(BOTH, true)).await;
    let keys = "tls = { ca = \"ca.pem\", certificate = \"gw.pem\", key = \"gw.key\" }";
    let transport = authority.transport(port, keys);
    let prepare = || async {
        exchange(&transport).await.expect("it is let in");
        transport.tls.as_ref().expect("is on").prepare().await.unwrap_or_else(|failure| panic!("{failure}"))
    };
    let (first, again) = (prepare().await, prepare().await);
    assert!(Arc::ptr_eq(&first, &again), "nothing has changed");
    authority.write("gw");
    let renewed = prepare().await;
    assert!(!Arc::ptr_eq(&first, &renewed), "the pair is another");

    fs::write(authority.folder.path().join("gw.key"), "").expect("writes");
    let said = sentence(exchange(&transport).await);
    assert!(said.starts_with("the key file ") && said.ends_with("gw.key is empty; write it"), "{said}");
    authority.write("gw");
    exchange(&transport).await.expect("it is whole again");
}

#[tokio::test]
async fn a_certificate_of_nobody_who_is_trusted_is_refused_unless_nothing_is_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let port = tls_echo(stranger.server(BOTH, false)).await;
    assert_eq!(
        sentence(exchange(&authority.transport(port, "tls = { ca = \"ca.pem\" }")).await),
        "the broker's certificate is not signed by a CA in tls.ca; put the CA certificate that signed it there, and let the \
         broker send any intermediate ones"
    );
    let keys = "tls = { ca = \"ca.pem\", insecure-skip-verify = true }";
    exchange(&authority.transport(port, keys)).await.expect("nothing is verified");
    let said = sentence(exchange(&authority.transport(port, "tls = true")).await);
    let expected = [
        "the broker's certificate is not signed by a CA that this system trusts; set tls = { ca = \"FILE\" } to the CA \
         certificate that signed it",
        // Of a machine without authorities.
        "the system's store has no CA certificate; install the package ca-certificates, or set tls = { ca = \"FILE\" } to \
         the CA that signed the broker's certificate",
    ];
    assert!(expected.contains(&said.as_str()), "{said}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_with_its_names() {
    let authority = Authority::new();
    let change = |parameters: &mut CertificateParams| {
        let address = rcgen::SanType::IpAddress(Ipv4Addr::new(192, 0, 2, 7).into());
        parameters.subject_alt_names.push(address);
    };
    let (certificate, key) = authority.issue("north.example", change);
    let port = tls_echo(authority.server_with(certificate.der().clone(), &key, BOTH, false)).await;
    assert_eq!(
        sentence(exchange(&authority.transport(port, "tls = { ca = \"ca.pem\" }")).await),
        "the broker's certificate is for north.example or 192.0.2.7, not for localhost; connect to north.example or \
         192.0.2.7, or set server-name in tls"
    );
    let named = authority.transport(port, "tls = { ca = \"ca.pem\", server-name = \"north.example\" }");
    exchange(&named).await.expect("this is its name");
    let numbered = authority.transport(port, "tls = { ca = \"ca.pem\", server-name = \"192.0.2.7\" }");
    exchange(&numbered).await.expect("this is its address");

    let (certificate, key) = authority.issue("x", |parameters| parameters.subject_alt_names.clear());
    let port = tls_echo(authority.server_with(certificate.der().clone(), &key, BOTH, false)).await;
    assert_eq!(
        sentence(exchange(&authority.transport(port, "tls = { ca = \"ca.pem\" }")).await),
        "the broker's certificate names no host, so it is not known to be localhost's; issue it anew with that name as its \
         subjectAltName: a common name does not count"
    );
}

#[tokio::test]
async fn an_ip_address_is_verified_as_one() {
    let authority = Authority::new();
    let change = |parameters: &mut CertificateParams| {
        let address = rcgen::SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into());
        parameters.subject_alt_names = vec![address];
    };
    let (certificate, key) = authority.issue("x", change);
    let config = authority.server_with(certificate.der().clone(), &key, BOTH, false);
    let listener = TcpListener::bind("[::1]:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client comes");
        echo(TlsAcceptor::from(Arc::new(config)).accept(stream).await.expect("the handshake")).await;
    });
    exchange(&transport(authority.folder.path(), "::1", port, "tls = { ca = \"ca.pem\" }"))
        .await
        .expect("is its address");
}

#[tokio::test]
async fn certificates_out_of_their_time_or_of_a_wrong_kind_are_refused() {
    let authority = Authority::new();
    let check = |change: fn(&mut CertificateParams), expected: &'static str| {
        let (certificate, key) = authority.issue("localhost", change);
        let config = authority.server_with(certificate.der().clone(), &key, BOTH, false);
        let authority = &authority;
        async move {
            let port = tls_echo(config).await;
            let said = sentence(exchange(&authority.transport(port, "tls = { ca = \"ca.pem\" }")).await);
            assert_eq!(said, expected);
        }
    };
    check(
        |parameters| parameters.not_after = rcgen::date_time_ymd(2020, 2, 3),
        "the broker's certificate expired on 2020-02-03T00:00:00Z; renew it at the broker, or correct this machine's clock",
    )
    .await;
    check(
        |parameters| parameters.not_before = rcgen::date_time_ymd(2999, 2, 3),
        "the broker's certificate is valid only from 2999-02-03T00:00:00Z on; correct this machine's clock, or the certificate",
    )
    .await;
    check(
        |parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        "the broker's certificate cannot be accepted: it is a CA's own (CA:TRUE), which must not be a server's; let the CA \
         sign another for the broker",
    )
    .await;
    check(
        |parameters| parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth],
        "the broker's certificate cannot be accepted: it is not meant for servers; issue it anew with the extended key usage \
         serverAuth, or without any",
    )
    .await;
}

#[tokio::test]
async fn a_missing_or_foreign_client_certificate_is_told_on_both_versions() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.write("gw");
    stranger.write("gw");
    for (name, content) in [("stranger.pem", "gw.pem"), ("stranger.key", "gw.key")] {
        fs::copy(stranger.folder.path().join(content), authority.folder.path().join(name)).expect("copies");
    }
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let port = tls_echo(authority.server(versions, true)).await;
        let said = sentence(exchange(&authority.transport(port, "tls = { ca = \"ca.pem\" }")).await);
        assert_eq!(said, "the broker asks for a client certificate; set certificate and key in tls", "{versions:?}");
        let keys = "tls = { ca = \"ca.pem\", certificate = \"gw.pem\", key = \"gw.key\" }";
        exchange(&authority.transport(port, keys)).await.expect("it is let in");
        let keys = "tls = { ca = \"ca.pem\", certificate = \"stranger.pem\", key = \"stranger.key\" }";
        let said = sentence(exchange(&authority.transport(port, keys)).await);
        assert!(said.starts_with("the broker refuses the client certificate: "), "{versions:?}: {said}");
    }
}

#[tokio::test]
async fn a_broker_that_just_closes_without_a_client_certificate_is_understood() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(&[&rustls::version::TLS13], true)));
    let (port, _) = listen(move |stream| {
        let accepting = acceptor.accept(stream).into_fallible();
        async move {
            if let Err((_, stream)) = accepting.await {
                drop(stream);
            }
        }
    })
    .await;
    let transport = authority.transport(port, "tls = { ca = \"ca.pem\" }");
    let mut stream = transport.connect().await.unwrap_or_else(|failure| panic!("{failure}"));
    drop(stream.shutdown().await);
    let said = transport.failure(&io::ErrorKind::UnexpectedEof.into(), true).to_string();
    assert_eq!(said, "the broker asks for a client certificate; set certificate and key in tls");
    let after = transport.failure(&io::ErrorKind::UnexpectedEof.into(), false);
    assert_eq!(after, Failure::Closed, "once CONNACK has come it has another reason");
}

#[tokio::test]
async fn protocols_that_the_broker_does_not_take_are_told() {
    let authority = Authority::new();
    let mut config = authority.server(BOTH, false);
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    let port = tls_echo(config).await;
    let said = sentence(exchange(&authority.transport(port, "tls = { ca = \"ca.pem\", alpn = [\"x\"] }")).await);
    assert_eq!(
        said,
        "the broker accepts none of the protocols of alpn in tls; remove alpn, or use the broker's own name for MQTT"
    );
    exchange(&authority.transport(port, "tls = { ca = \"ca.pem\", alpn = [\"x\", \"mqtt\"] }"))
        .await
        .expect("one fits");
}

/// A server that answers whatever comes with these bytes, and then closes.
async fn answering(bytes: &'static [u8]) -> u16 {
    let (port, _) = listen(move |mut stream| async move {
        let mut buffer = [0; 4096];
        if stream.read(&mut buffer).await.is_ok() && stream.write_all(bytes).await.is_ok() {
            let _ = stream.shutdown().await;
            // Until the client has gone: closing with something unread would reset the connection.
            while let Ok(1..) = stream.read(&mut buffer).await {}
        }
    })
    .await;
    port
}

#[tokio::test]
async fn other_answers_to_the_tls_handshake_are_told() {
    let authority = Authority::new();
    for (answer, expected) in [
        (
            &b""[..],
            "the broker closed the connection in the TLS handshake; does this port speak TLS? use the broker's port \
                    with TLS, usually 8883, or remove tls",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "this port does not speak TLS; use the broker's port with TLS, usually 8883, or \
                                               remove tls",
        ),
        (b" \x02\x00\x05", "this port does not speak TLS; use the broker's port with TLS, usually 8883, or remove tls"),
        (
            b"\x15\x03\x01\x00\x02\x02\x46",
            "the broker has no version of TLS in common with this client; let it accept TLS 1.2 or 1.3",
        ),
        (
            b"\x15\x03\x03\x00\x02\x02\x28",
            "the broker has no cipher suite, key exchange or signature in common with this client; let \
                    it accept those of TLS 1.3",
        ),
        (
            b"\x15\x03\x03\x00\x02\x02\x70",
            "the broker does not know the name that it is called by in TLS; set server-name in tls to \
                    one of its own",
        ),
    ] {
        let port = answering(answer).await;
        assert_eq!(
            sentence(exchange(&authority.transport(port, "tls = { ca = \"ca.pem\" }")).await),
            expected,
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_port_that_speaks_something_else_than_mqtt_is_recognised() {
    let authority = Authority::new();
    for (answer, expected) in [
        (
            &b"\x15\x03\x01\x00\x02\x02\x46"[..],
            "this port speaks TLS; set tls = true, or use the broker's port without TLS, usually 1883",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "this port speaks HTTP; set transport = \"websocket\" if it is the broker's, or use the \
                    broker's port for MQTT",
        ),
        (
            b"",
            "the broker closed the connection without an answer to CONNECT; if this port speaks TLS, set tls = true; if it speaks only MQTT 3.1.1, set protocol = \"3.1.1\"",
        ),
    ] {
        let port = answering(answer).await;
        assert_eq!(sentence(exchange(&authority.transport(port, "")).await), expected, "{answer:?}");
    }
    // A real TLS server's own words.
    let port = tls_echo(authority.server(BOTH, false)).await;
    let said = sentence(exchange(&authority.transport(port, "")).await);
    assert!(said.starts_with("this port speaks TLS; "), "{said}");
}

#[tokio::test]
async fn when_certificates_expire_is_measured() {
    let authority = Authority::new();
    let (certificate, key) =
        authority.issue("localhost", |parameters| parameters.not_after = rcgen::date_time_ymd(2040, 1, 1));
    let port = tls_echo(authority.server_with(certificate.der().clone(), &key, BOTH, false)).await;
    let file = authority.folder.path().join("tidegate.toml");
    drop(authority.transport(port, "tls = { ca = \"ca.pem\" }"));
    let loaded = load(&file).unwrap_or_else(|problems| panic!("{problems}"));
    let metrics = Metrics::new().expect("families are well formed");
    let transport = Transport::new(&loaded.config.brokers[0], &metrics.broker("plant"));
    exchange(&transport).await.expect("it is trusted");
    let page = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
    let family = "tidegate_tls_certificate_expiry_timestamp_seconds";
    assert!(page.contains(&format!("{family}{{broker=\"plant\",certificate=\"server\"}} 2208988800\n")), "{page}");
    assert!(page.contains(&format!("{family}{{broker=\"plant\",certificate=\"ca\"}} ")), "{page}");
    assert!(!page.contains("certificate=\"client\""), "{page}");
}

/// A WebSocket server that sends its binary messages back, and does as text messages in them say.
async fn web_socket(subprotocol: Option<&'static str>) -> u16 {
    let (port, _) = listen(move |stream| async move {
        #[expect(clippy::result_large_err, reason = "the library's callback")]
        let callback = move |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            if request.uri().path() != "/mqtt" {
                let mut refusal = ErrorResponse::new(None);
                *refusal.status_mut() = StatusCode::NOT_FOUND;
                return Err(refusal);
            }
            assert_eq!(request.headers()["sec-websocket-protocol"], "mqtt");
            if let Some(name) = subprotocol {
                response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(name));
            }
            Ok(response)
        };
        let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, callback).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            let answer = match message {
                Message::Binary(bytes) => match &bytes[..] {
                    b"text" => Message::text("text"),
                    b"ping" => Message::Ping(Bytes::from_static(b"!")),
                    b"close" => Message::Close(Some(CloseFrame { code: 1002.into(), reason: "no MQTT".into() })),
                    _ => Message::Binary(bytes),
                },
                Message::Pong(bytes) => Message::Binary(bytes),
                _ => continue,
            };
            if socket.send(answer).await.is_err() {
                break;
            }
        }
    })
    .await;
    port
}

const WEB_SOCKET: &str = "transport = { kind = \"websocket\" }";

#[tokio::test]
async fn a_web_socket_carries_bytes_of_any_length_both_ways() {
    let authority = Authority::new();
    let transport = authority.transport(web_socket(Some("mqtt")).await, WEB_SOCKET);
    exchange(&transport).await.expect("it is open");
    let stream = transport.connect().await.unwrap_or_else(|failure| panic!("{failure}"));
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut reading, mut writing) = tokio::io::split(stream);
    let content = sent.clone();
    let writer = tokio::spawn(async move {
        writing.write_all(&content).await.expect("it is open");
        writing.flush().await.expect("it is open");
        writing
    });
    let mut received = vec![0; sent.len()];
    soon(reading.read_exact(&mut received)).await.expect("it comes back");
    assert!(received == sent, "the bytes have changed");
    let mut writing = writer.await.expect("it does not panic");
    writing.shutdown().await.expect("it is open");
    assert_eq!(soon(reading.read(&mut received)).await.expect("it ends in order"), 0);
}

#[tokio::test]
async fn a_flush_sends_one_message() {
    let authority = Authority::new();
    let (told, mut messages) = tokio::sync::mpsc::unbounded_channel();
    let (port, _) = listen(move |stream| {
        let told = told.clone();
        async move {
            #[expect(clippy::result_large_err, reason = "the library's callback")]
            let callback = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
                Ok(response)
            };
            let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback).await.expect("a client");
            while let Some(Ok(message)) = socket.next().await {
                told.send(message).expect("the test listens");
            }
        }
    })
    .await;
    let mut stream =
        authority.transport(port, WEB_SOCKET).connect().await.unwrap_or_else(|failure| panic!("{failure}"));
    for piece in [&b"one "[..], b"two ", b"three"] {
        stream.write_all(piece).await.expect("it is open");
    }
    stream.flush().await.expect("it is open");
    stream.write_all(b"four").await.expect("it is open");
    stream.flush().await.expect("it is open");
    assert_eq!(soon(messages.recv()).await, Some(Message::binary("one two three")));
    assert_eq!(soon(messages.recv()).await, Some(Message::binary("four")));
}

#[tokio::test]
async fn a_web_socket_answers_pings_and_ends_with_a_reason() {
    let authority = Authority::new();
    let transport = authority.transport(web_socket(Some("mqtt")).await, WEB_SOCKET);
    for (said, expected) in [
        ("ping", Ok("!")),
        ("text", Err("the broker breaks the protocol: a text message in the WebSocket (MQTT 5 §6.0 [MQTT-6.0.0-1])")),
        ("close", Err("the broker closed the WebSocket: no MQTT (code 1002)")),
    ] {
        let mut stream = transport.connect().await.unwrap_or_else(|failure| panic!("{failure}"));
        stream.write_all(said.as_bytes()).await.expect("it is open");
        stream.flush().await.expect("it is open");
        let mut buffer = [0; 16];
        let answer = soon(stream.read(&mut buffer)).await;
        let answer = answer.map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
        let answer = answer.map_err(|error| transport.failure(&error, false).to_string());
        assert_eq!(answer, expected.map(str::to_owned).map_err(str::to_owned), "{said}");
    }
}

#[tokio::test]
async fn no_web_socket_is_told_with_the_reason() {
    let authority = Authority::new();
    let check = |port: u16, keys: &'static str, expected: &'static str| {
        let transport = authority.transport(port, keys);
        async move { assert_eq!(sentence(exchange(&transport).await), expected) }
    };
    check(
        web_socket(Some("mqtt")).await,
        "transport = { kind = \"websocket\", path = \"/ws\" }",
        "the server refuses a WebSocket at the path /ws (HTTP status 404); set path in transport to the broker's",
    )
    .await;
    let other = "the WebSocket at the path /mqtt is not for MQTT; set path in transport to the broker's";
    check(web_socket(None).await, WEB_SOCKET, other).await;
    check(web_socket(Some("chat")).await, WEB_SOCKET, other).await;
    check(
        answering(b"").await,
        WEB_SOCKET,
        "this port does not speak WebSocket (it closed the connection); use the broker's port for WebSocket, or remove transport",
    )
    .await;
    check(
        answering(b" \x02\x00\x05").await,
        WEB_SOCKET,
        "this port does not speak WebSocket (its answer is not HTTP); use the broker's port for WebSocket, or remove transport",
    )
    .await;
    check(
        answering(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await,
        WEB_SOCKET,
        "the server refuses a WebSocket at the path /mqtt (HTTP status 503); look at the server, or at the proxy before it",
    )
    .await;
    check(
        tls_echo(authority.server(BOTH, false)).await,
        WEB_SOCKET,
        "this port speaks TLS; set tls = true, or use the broker's port without TLS, usually 1883",
    )
    .await;
}

#[tokio::test]
async fn a_secure_web_socket_carries_bytes() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(BOTH, false)));
    let (port, _) = listen(move |stream| {
        let accepting = acceptor.accept(stream);
        async move {
            #[expect(clippy::result_large_err, reason = "the library's callback")]
            let callback = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
                Ok(response)
            };
            let stream = accepting.await.expect("a client");
            let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback).await.expect("a client");
            while let Some(Ok(message)) = socket.next().await {
                socket.send(message).await.expect("the client listens");
            }
        }
    })
    .await;
    exchange(&authority.transport(port, &format!("tls = {{ ca = \"ca.pem\" }}\n{WEB_SOCKET}")))
        .await
        .expect("it is open");
}
