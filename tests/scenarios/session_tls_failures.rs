//! Every way in which TLS, its certificates or its port can be wrong: one plain sentence for each, with what to do.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidegate_tests::certificates::{Authority, ExtendedKeyUsagePurpose, KeyKind, Pair, SanType, date_time_ymd};
use tidegate_tests::mosquitto::Options;
use tidegate_tests::{Config, Daemon, Mosquitto, Protocol, on_both_protocols, ports, stranger};

on_both_protocols!(
    a_missing_client_certificate_is_told,
    tls_spoken_to_a_plain_port_is_told,
    plain_spoken_to_tls_is_told,
);

/// A daemon with this broker says exactly this of it, once, and is not ready because of it.
#[track_caller]
fn refused(port: u16, protocol: Protocol, keys: &str, sentence: &str) {
    let daemon = Daemon::launch(&Config::new().broker("plant", port, protocol, keys));
    let event = daemon.wait_event("cannot connect", &[("level", "WARN"), ("broker", "plant")]);
    assert_eq!(event["reason"], sentence);
    assert!(daemon.wait_not_ready().contains(sentence));
    daemon.wait_metrics("the attempt is counted", |metrics| metrics.connects("plant", "failed") >= 1.0);
}

/// As [`refused`], of a mosquitto whose listener for TLS has this pair and these lines.
#[track_caller]
fn refused_by(authority: &Authority, server: &Pair, lines: &str, protocol: Protocol, keys: &str, sentence: &str) {
    let port = ports::free();
    let _broker = Mosquitto::with(Options::default().tls_listener(port, authority, server, lines));
    refused(port, protocol, keys, sentence);
}

#[test]
fn an_unknown_ca_is_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    refused_by(
        &stranger,
        &stranger.server(),
        "",
        Protocol::V5,
        &authority.tls(),
        "the broker's certificate is not signed by a CA in tls.ca; put the CA certificate that signed it there, and let the \
         broker send any intermediate ones",
    );
}

#[test]
fn a_ca_that_the_system_does_not_know_is_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let port = ports::free();
    let server = stranger.server();
    let _broker = Mosquitto::with(Options::default().tls_listener(port, &stranger, &server, ""));
    let config = Config::new().broker("plant", port, Protocol::V5, "tls = true");
    let daemon = Daemon::launch(&config.variable("SSL_CERT_FILE", authority.file().display()));
    let event = daemon.wait_event("cannot connect", &[("broker", "plant")]);
    assert_eq!(
        event["reason"],
        "the broker's certificate is not signed by a CA that this system trusts; set tls = { ca = \"FILE\" } to the CA \
         certificate that signed it"
    );
}

#[test]
fn a_system_without_any_ca_is_told() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let file = empty.path().join("none.pem");
    std::fs::write(&file, "").expect("is ours");
    let config = Config::new().broker("plant", ports::free(), Protocol::V5, "tls = true");
    let config = config.variable("SSL_CERT_FILE", file.display()).variable("SSL_CERT_DIR", empty.path().display());
    let daemon = Daemon::launch(&config);
    let event = daemon.wait_event("cannot connect", &[("broker", "plant")]);
    assert_eq!(
        event["reason"],
        "the system's store has no CA certificate; install the package ca-certificates, or set tls = { ca = \"FILE\" } to \
         the CA that signed the broker's certificate"
    );
}

#[test]
fn a_wrong_host_name_is_told_with_the_right_ones() {
    let authority = Authority::new();
    let server = authority.issue("server", KeyKind::P256, |parameters| {
        let name = |name: &str| SanType::DnsName(name.try_into().expect("a host name"));
        parameters.subject_alt_names = vec![name("north.example"), name("*.south.example")];
    });
    refused_by(
        &authority,
        &server,
        "",
        Protocol::V5,
        &authority.tls(),
        "the broker's certificate is for north.example or *.south.example, not for 127.0.0.1; connect to north.example or \
         *.south.example, or set server-name in tls",
    );
}

#[test]
fn an_expired_certificate_is_told_with_its_last_day() {
    let authority = Authority::new();
    let server = authority.issue("server", KeyKind::P256, |parameters| {
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 2, 3));
    });
    refused_by(
        &authority,
        &server,
        "",
        Protocol::V5,
        &authority.tls(),
        "the broker's certificate expired on 2020-02-03T00:00:00Z; renew it at the broker, or correct this machine's clock",
    );
}

#[test]
fn a_certificate_of_the_future_is_told_with_its_first_day() {
    let authority = Authority::new();
    let server =
        authority.issue("server", KeyKind::P256, |parameters| parameters.not_before = date_time_ymd(2999, 2, 3));
    refused_by(
        &authority,
        &server,
        "",
        Protocol::V5,
        &authority.tls(),
        "the broker's certificate is valid only from 2999-02-03T00:00:00Z on; correct this machine's clock, or the certificate",
    );
}

#[test]
fn a_certificate_for_clients_alone_is_told() {
    let authority = Authority::new();
    let server = authority.issue("server", KeyKind::P256, |parameters| {
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    refused_by(
        &authority,
        &server,
        "",
        Protocol::V5,
        &authority.tls(),
        "the broker's certificate cannot be accepted: it is not meant for servers; issue it anew with the extended key usage \
         serverAuth, or without any",
    );
}

fn a_missing_client_certificate_is_told(protocol: Protocol) {
    let authority = Authority::new();
    refused_by(
        &authority,
        &authority.server(),
        "require_certificate true",
        protocol,
        &authority.tls(),
        "the broker asks for a client certificate; set certificate and key in tls",
    );
}

#[test]
fn a_client_certificate_of_a_stranger_is_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let pair = stranger.client("stranger");
    refused_by(
        &authority,
        &authority.server(),
        "require_certificate true",
        Protocol::V5,
        &authority.tls_as(&pair),
        "the broker refuses the client certificate: it does not know the CA that signed it; use one that the broker's CA has \
         signed",
    );
}

#[test]
fn an_expired_client_certificate_is_told() {
    let authority = Authority::new();
    let pair = authority.issue("old", KeyKind::P256, |parameters| {
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 2, 3));
    });
    refused_by(
        &authority,
        &authority.server(),
        "require_certificate true",
        Protocol::V5,
        &authority.tls_as(&pair),
        "the broker refuses the client certificate: it has expired, or is not valid yet; renew it",
    );
}

#[test]
fn a_key_of_another_certificate_is_told_when_it_appears_at_run_time() {
    let authority = Authority::new();
    let (pair, other) = (authority.client("gw"), authority.client("other"));
    let port = ports::free();
    let options = Options::default().tls_listener(port, &authority, &authority.server(), "require_certificate true");
    let mut broker = Mosquitto::with(options);
    let daemon = Daemon::start(&Config::new().broker("plant", port, Protocol::V5, &authority.tls_as(&pair)));
    std::fs::copy(&other.key, &pair.key).expect("is ours");
    broker.kill();
    let sentence = format!(
        "the key file {} does not fit the certificate: its key is another certificate's; use the pair that was issued together",
        pair.key.display()
    );
    daemon.wait_event("cannot connect", &[("broker", "plant"), ("reason", &sentence)]);
    std::fs::copy(&other.certificate, &pair.certificate).expect("is ours");
    broker.restart();
    daemon.wait_ready();
}

fn tls_spoken_to_a_plain_port_is_told(protocol: Protocol) {
    let (authority, broker) = (Authority::new(), Mosquitto::start());
    refused(
        broker.port(),
        protocol,
        &authority.tls(),
        "the broker closed the connection in the TLS handshake; does this port speak TLS? use the broker's port with TLS, \
         usually 8883, or remove tls",
    );
}

fn plain_spoken_to_tls_is_told(protocol: Protocol) {
    let authority = Authority::new();
    let sentence = match protocol {
        Protocol::V311 => {
            "the broker closed the connection without an answer to CONNECT; if this port speaks TLS, set tls = true"
        }
        Protocol::V5 => {
            "the broker closed the connection without an answer to CONNECT; if this port speaks TLS, set tls = true; if it \
             speaks only MQTT 3.1.1, set protocol = \"3.1.1\""
        }
    };
    refused_by(&authority, &authority.server(), "", protocol, "", sentence);
}

#[test]
fn plain_spoken_to_a_server_that_answers_with_tls_is_told() {
    // What servers send that, unlike mosquitto, say why before they close.
    let port = stranger::answer_with(b"\x15\x03\x01\x00\x02\x02\x46");
    refused(
        port,
        Protocol::V5,
        "",
        "this port speaks TLS; set tls = true, or use the broker's port without TLS, usually 1883",
    );
}

#[test]
fn a_protocol_that_the_broker_does_not_take_is_told() {
    let authority = Authority::new();
    let port = one_protocol_server(&authority, b"mqtt");
    let keys = format!("tls = {{ ca = \"{}\", alpn = [\"x-amzn-mqtt-ca\"] }}", authority.file().display());
    refused(
        port,
        Protocol::V5,
        &keys,
        "the broker accepts none of the protocols of alpn in tls; remove alpn, or use the broker's own name for MQTT",
    );
}

/// A server that speaks this protocol of ALPN alone: mosquitto knows none.
fn one_protocol_server(authority: &Authority, protocol: &[u8]) -> u16 {
    let pair = authority.server();
    let chain = vec![CertificateDer::from_pem_file(pair.certificate).expect("is ours")];
    let key = PrivateKeyDer::from_pem_file(pair.key).expect("is ours");
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring has them").with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).expect("they fit");
    config.alpn_protocols = vec![protocol.to_vec()];
    let config = Arc::new(config);
    stranger::serve(move |mut stream| {
        let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("a good configuration");
        // It fails, and sends its alert before that.
        while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
        connection.write_tls(&mut stream)?;
        stream.flush()
    })
}

#[test]
fn a_port_that_is_silent_is_told_by_the_step_that_waits() {
    // Connections stay open, unread.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let config = Config::new()
        .broker("encrypted", port, Protocol::V5, "tls = { insecure-skip-verify = true }")
        .broker("web", port, Protocol::V5, "transport = \"websocket\"")
        .broker("plain", port, Protocol::V5, "");
    let daemon = Daemon::launch(&config);
    for (broker, reason) in [
        (
            "encrypted",
            "no answer in the TLS handshake within 13 s; use the broker's port with TLS, usually 8883, or remove tls",
        ),
        (
            "web",
            "no answer to the WebSocket's request within 14 s; use the broker's port for WebSocket, or remove transport",
        ),
        ("plain", "no answer to CONNECT within 15 s; is this an MQTT broker?"),
    ] {
        let event = daemon.wait_event("cannot connect", &[("broker", broker)]);
        assert_eq!(event["reason"], reason);
    }
}

#[test]
fn other_servers_are_told_apart() {
    let http = stranger::answer_with(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    refused(
        http,
        Protocol::V5,
        "",
        "this port speaks HTTP; set transport = \"websocket\" if it is the broker's, or use the broker's port for MQTT",
    );
    refused(
        http,
        Protocol::V5,
        "tls = { insecure-skip-verify = true }",
        "this port does not speak TLS; use the broker's port with TLS, usually 8883, or remove tls",
    );
}
