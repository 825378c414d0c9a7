//! When certificates expire: as a metric of each connection, and as a warning in time.

use std::time::{Duration, SystemTime};

use tidegate_tests::certificates::{Authority, KeyKind};
use tidegate_tests::mosquitto::Options;
use tidegate_tests::{Config, Daemon, Mosquitto, Protocol, ports};

const FAMILY: &str = "tidegate_tls_certificate_expiry_timestamp_seconds";

fn expiry(daemon: &Daemon, broker: &str, certificate: &str) -> f64 {
    daemon.metrics().sum(FAMILY, &[("broker", broker), ("certificate", certificate)])
}

fn in_days(days: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(days * 86_400)
}

#[test]
fn the_end_of_each_certificate_is_a_metric() {
    let authority = Authority::with(|parameters| parameters.not_after = in_days(300).into());
    let (server_end, client_end) = (in_days(100), in_days(200));
    let server = authority.issue("server", KeyKind::P256, |parameters| parameters.not_after = server_end.into());
    let client = authority.issue("client", KeyKind::P256, |parameters| parameters.not_after = client_end.into());
    let (port, plain) = (ports::free(), Mosquitto::start());
    let _broker =
        Mosquitto::with(Options::default().tls_listener(port, &authority, &server, "require_certificate true"));
    let config = Config::new().broker("plant", port, Protocol::V5, &authority.tls_as(&client)).broker(
        "plain",
        plain.port(),
        Protocol::V5,
        "",
    );
    let daemon = Daemon::start(&config);
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("is later").as_secs() as f64;
    assert_eq!(expiry(&daemon, "plant", "server"), seconds(server_end));
    assert_eq!(expiry(&daemon, "plant", "client"), seconds(client_end));
    assert!(expiry(&daemon, "plant", "ca") > seconds(in_days(299)));
    assert!(!daemon.metrics().page.contains(&format!("{FAMILY}{{broker=\"plain\"")), "a broker without TLS has none");
    assert_eq!(daemon.warnings("plant"), Vec::<serde_json::Value>::new());
}

#[test]
fn a_certificate_that_expires_soon_is_warned_of_once() {
    let authority = Authority::new();
    let server = authority.issue("server", KeyKind::P256, |parameters| parameters.not_after = in_days(13).into());
    let client = authority.issue("client", KeyKind::P256, |parameters| parameters.not_after = in_days(15).into());
    let port = ports::free();
    let mut broker =
        Mosquitto::with(Options::default().tls_listener(port, &authority, &server, "require_certificate true"));
    let daemon = Daemon::start(&Config::new().broker("plant", port, Protocol::V5, &authority.tls_as(&client)));
    let warned = || daemon.log_lines(&["\"a certificate expires soon\"", "\"plant\""]);
    daemon
        .wait_event("a certificate expires soon", &[("level", "WARN"), ("broker", "plant"), ("certificate", "server")]);
    broker.kill();
    daemon.wait_not_ready();
    broker.restart();
    daemon.wait_ready();
    assert_eq!(warned().len(), 1, "not at each connection: {:?}", warned());
}

#[test]
fn a_connection_that_stands_is_warned_of_too() {
    let authority = Authority::new();
    // Its two weeks begin only after the connection was made.
    let end = in_days(14) + Duration::from_secs(15);
    let server = authority.issue("server", KeyKind::P256, |parameters| parameters.not_after = end.into());
    let port = ports::free();
    let _broker = Mosquitto::with(Options::default().tls_listener(port, &authority, &server, ""));
    let daemon = Daemon::start(&Config::new().broker("plant", port, Protocol::V5, &authority.tls()));
    assert_eq!(daemon.warnings("plant").len(), 0, "the start took too long to show anything");
    daemon.wait_event("a certificate expires soon", &[("broker", "plant"), ("certificate", "server")]);
    assert_eq!(daemon.metrics().connects("plant", "accepted"), 1.0);
}
