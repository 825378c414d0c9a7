//! Messages through TLS: both versions of it, every kind of key, certificates from both sides, and files that are renewed.

use std::fs;

use tidegate_tests::certificates::{Authority, KeyKind, SanType};
use tidegate_tests::config::ECHO;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, ports, wait};

on_both_protocols!(messages_travel_through_tls, a_connection_through_tls_is_made_anew,);

/// A daemon's broker `plant` with these keys, and a handler that echoes `in/#`.
fn echoing(port: u16, protocol: Protocol, keys: &str) -> Config {
    Config::new()
        .broker("plant", port, protocol, keys)
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "in/#", 1, "echo", "")
}

/// A broker with a listener for TLS beside its plain one, on this port.
fn broker(port: u16, authority: &Authority, lines: &str) -> Mosquitto {
    let options = Options { tells: true, ..Options::default() };
    Mosquitto::with(options.tls_listener(port, authority, &authority.server(), lines))
}

/// Waits until a broker that was restarted has granted the daemon's subscription: it had forgotten it.
#[track_caller]
fn wait_subscribed(broker: &Mosquitto) {
    wait::until_true("the daemon subscribes again", || {
        broker.log().iter().any(|line| line.contains("Sending SUBACK to tidegate-"))
    });
}

/// Sends a message through the daemon, which hears it and answers over TLS.
#[track_caller]
fn echo(broker: &Mosquitto, payload: &str) {
    let client = broker.client(Protocol::V5);
    client.subscribe("out/#", 1);
    client.publish(&Message::new("in/a", payload).qos(1));
    assert_eq!(client.collect(1)[0].text(), payload);
}

fn messages_travel_through_tls(protocol: Protocol) {
    let (authority, port) = (Authority::new(), ports::free());
    let broker = broker(port, &authority, "");
    let daemon = Daemon::start(&echoing(port, protocol, &authority.tls()));
    echo(&broker, "hello");
    // Larger than a record of TLS.
    echo(&broker, &"x".repeat(200_000));
    daemon.settle("plant", 2);
    daemon.wait_event("TLS established", &[("broker", "plant"), ("version", "TLSv1_3")]);
}

fn a_connection_through_tls_is_made_anew(protocol: Protocol) {
    let (authority, port) = (Authority::new(), ports::free());
    let mut broker = broker(port, &authority, "");
    let daemon = Daemon::start(&echoing(port, protocol, &authority.tls()));
    broker.kill();
    daemon.wait_not_ready();
    broker.restart();
    daemon.wait_ready();
    wait_subscribed(&broker);
    echo(&broker, "again");
}

#[test]
fn each_version_of_tls_is_spoken() {
    for (version, name) in [("TLSv1.2", "TLSv1_2"), ("TLSv1.3", "TLSv1_3")] {
        let (authority, port) = (Authority::new(), ports::free());
        let policy = tempfile::NamedTempFile::new().expect("a temporary file");
        let text = format!(
            "openssl_conf = start\n[start]\nssl_conf = ssl\n[ssl]\nsystem_default = only\n\
             [only]\nMinProtocol = {version}\nMaxProtocol = {version}\n"
        );
        fs::write(policy.path(), text).expect("is ours");
        let environment = vec![("OPENSSL_CONF".to_owned(), policy.path().display().to_string())];
        let options = Options { environment, ..Options::default() };
        let broker = Mosquitto::with(options.tls_listener(port, &authority, &authority.server(), ""));
        let daemon = Daemon::start(&echoing(port, Protocol::V5, &authority.tls()));
        echo(&broker, version);
        daemon.wait_event("TLS established", &[("broker", "plant"), ("version", name)]);
    }
}

#[test]
fn keys_of_each_kind_and_form_prove_who_the_client_is() {
    let (authority, port) = (Authority::new(), ports::free());
    let broker = broker(port, &authority, "require_certificate true\nuse_identity_as_username true");
    let names: Vec<String> = KeyKind::ALL.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
    let mut config = Config::new();
    for (kind, name) in KeyKind::ALL.iter().zip(&names) {
        let pair = authority.issue(name, *kind, |_| {});
        config = config.broker(name, port, Protocol::V5, &authority.tls_as(&pair));
    }
    let _daemon = Daemon::start(&config);
    for name in &names {
        let user = format!("u'{name}'");
        wait::until_true(format!("mosquitto lets {name} in"), || broker.log().iter().any(|line| line.contains(&user)));
    }
}

#[test]
fn servers_with_keys_of_each_kind_are_verified() {
    let authority = Authority::new();
    let mut options = Options::default();
    let mut config = Config::new();
    for kind in [KeyKind::P256, KeyKind::Rsa, KeyKind::Ed25519] {
        let (name, port) = (format!("{kind:?}").to_lowercase(), ports::free());
        options = options.tls_listener(port, &authority, &authority.issue(&name, kind, |_| {}), "");
        config = config.broker(&name, port, Protocol::V5, &authority.tls());
    }
    let _broker = Mosquitto::with(options);
    Daemon::start(&config);
}

#[test]
fn without_a_ca_the_systems_store_is_trusted() {
    let (authority, port) = (Authority::new(), ports::free());
    let broker = broker(port, &authority, "");
    let store = tempfile::NamedTempFile::new().expect("a temporary file");
    // One that cannot be read is passed over.
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let content = format!("{broken}{}", fs::read_to_string(authority.file()).expect("is ours"));
    fs::write(store.path(), content).expect("is ours");
    let config = echoing(port, Protocol::V5, "tls = true").variable("SSL_CERT_FILE", store.path().display());
    let daemon = Daemon::start(&config);
    echo(&broker, "trusted");
    daemon.wait_event("CA certificates that cannot be read are passed over", &[("level", "DEBUG")]);
}

#[test]
fn a_renewed_certificate_is_used_from_the_next_connection_on() {
    let (authority, port) = (Authority::new(), ports::free());
    let mut broker = broker(port, &authority, "require_certificate true\nuse_identity_as_username true");
    let (first, second) = (authority.client("first"), authority.client("second"));
    let daemon = Daemon::start(&echoing(port, Protocol::V5, &authority.tls_as(&first)));
    let seen = |broker: &Mosquitto, name: &str| {
        let user = format!("u'{name}'");
        broker.log_until_now().iter().any(|line| line.contains(&user))
    };
    assert!(seen(&broker, "first"));
    for (new, old) in [(&second.certificate, &first.certificate), (&second.key, &first.key)] {
        fs::copy(new, old).expect("is ours");
    }
    broker.kill();
    daemon.wait_not_ready();
    broker.restart();
    daemon.wait_ready();
    assert!(seen(&broker, "second") && !seen(&broker, "first"), "{:?}", broker.log());
    wait_subscribed(&broker);
    echo(&broker, "renewed");
}

#[test]
fn files_that_are_missing_at_the_start_are_read_once_they_are_there() {
    let (authority, port) = (Authority::new(), ports::free());
    let broker = broker(port, &authority, "require_certificate true");
    let pair = authority.client("late");
    let key = fs::read(&pair.key).expect("is ours");
    fs::remove_file(&pair.key).expect("is ours");
    let daemon = Daemon::launch(&echoing(port, Protocol::V5, &authority.tls_as(&pair)));
    let reason = format!("the key file {} cannot be read: it does not exist", pair.key.display());
    daemon.wait_event("cannot connect", &[("broker", "plant"), ("reason", &reason)]);
    fs::write(&pair.key, key).expect("is ours");
    daemon.wait_ready();
    echo(&broker, "late");
}

#[test]
fn a_name_of_the_certificate_may_stand_in_for_the_address() {
    let (authority, port) = (Authority::new(), ports::free());
    let named = authority.issue("named", KeyKind::P256, |parameters| {
        parameters.subject_alt_names = vec![SanType::DnsName("plant.example".try_into().expect("a host name"))];
    });
    let broker = Mosquitto::with(Options::default().tls_listener(port, &authority, &named, ""));
    let keys = format!("tls = {{ ca = \"{}\", server-name = \"plant.example\" }}", authority.file().display());
    let _daemon = Daemon::start(&echoing(port, Protocol::V5, &keys));
    echo(&broker, "named");
}

#[test]
fn a_broker_may_be_left_unverified_and_that_is_said_at_each_start() {
    let (authority, port) = (Authority::new(), ports::free());
    let broker = broker(port, &authority, "");
    let mut daemon = Daemon::start(&echoing(port, Protocol::V5, "tls = { insecure-skip-verify = true }"));
    echo(&broker, "unverified");
    let said = |daemon: &Daemon| daemon.warnings("plant").len();
    daemon.wait_event(
        "insecure-skip-verify = true: nobody verifies that this is the broker",
        &[("level", "WARN"), ("broker", "plant")],
    );
    assert_eq!(said(&daemon), 1, "{:?}", daemon.warnings("plant"));
    daemon.terminate();
    daemon.restart();
    assert_eq!(said(&daemon), 1, "{:?}", daemon.warnings("plant"));
}

#[test]
fn an_offered_protocol_does_not_disturb_a_broker_that_knows_none() {
    let (authority, port) = (Authority::new(), ports::free());
    let broker = broker(port, &authority, "");
    let keys = format!("tls = {{ ca = \"{}\", alpn = [\"mqtt\"] }}", authority.file().display());
    let _daemon = Daemon::start(&echoing(port, Protocol::V5, &keys));
    echo(&broker, "offered");
}

#[test]
fn no_line_of_the_log_holds_a_key() {
    let (authority, port) = (Authority::new(), ports::free());
    let broker = broker(port, &authority, "require_certificate true");
    let pair = authority.client("quiet");
    let daemon = Daemon::start(&echoing(port, Protocol::V5, &authority.tls_as(&pair)));
    echo(&broker, "quiet");
    let key = fs::read_to_string(&pair.key).expect("is ours");
    let secret = key.lines().nth(1).expect("PEM has several lines");
    // What comes before is the same in every key of this kind.
    assert!(secret.len() > 60 && daemon.log_lines(&[&secret[48..]]).is_empty(), "a key in the log");
}
