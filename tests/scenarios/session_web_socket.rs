//! MQTT in a WebSocket, with and without TLS, against mosquitto's.

use tidegate_tests::certificates::Authority;
use tidegate_tests::config::ECHO;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, ports, stranger};

on_both_protocols!(messages_travel_through_a_web_socket, messages_travel_through_a_secure_web_socket,);

const WEB_SOCKET: &str = "transport = \"websocket\"";

fn echoing(port: u16, protocol: Protocol, keys: &str) -> Config {
    Config::new()
        .broker("plant", port, protocol, keys)
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "in/#", 1, "echo", "")
}

/// Sends messages through the daemon: many small ones at once, and large ones.
#[track_caller]
fn echo(broker: &Mosquitto, daemon: &Daemon) {
    let client = broker.client(Protocol::V5);
    client.subscribe("out/#", 1);
    let payloads: Vec<String> = (0..300).map(|number| format!("message {number}")).collect();
    for payload in &payloads {
        client.publish(&Message::new("in/a", payload.as_str()).qos(1));
    }
    let found: Vec<String> = client.collect(payloads.len()).iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(found, payloads);
    let large = "x".repeat(300_000);
    client.publish(&Message::new("in/a", large.as_str()).qos(1));
    assert!(client.collect(1)[0].text() == large);
    daemon.settle("plant", payloads.len() + 1);
}

fn messages_travel_through_a_web_socket(protocol: Protocol) {
    let port = ports::free();
    let mut broker = Mosquitto::with(Options::default().listener(port, "protocol websockets"));
    let daemon = Daemon::start(&echoing(port, protocol, WEB_SOCKET));
    echo(&broker, &daemon);
    broker.kill();
    daemon.wait_not_ready();
    broker.restart();
    daemon.wait_ready();
}

fn messages_travel_through_a_secure_web_socket(protocol: Protocol) {
    let (authority, port) = (Authority::new(), ports::free());
    let options = Options::default().tls_listener(
        port,
        &authority,
        &authority.server(),
        "protocol websockets\nrequire_certificate true",
    );
    let broker = Mosquitto::with(options);
    let tls = authority.tls_as(&authority.client("gw"));
    let daemon = Daemon::start(&echoing(port, protocol, &format!("{tls}\n{WEB_SOCKET}")));
    echo(&broker, &daemon);
}

/// A daemon with these keys says this of its broker.
#[track_caller]
fn refused(port: u16, keys: &str, sentence: &str) {
    let daemon = Daemon::launch(&Config::new().broker("plant", port, Protocol::V5, keys));
    let event = daemon.wait_event("cannot connect", &[("level", "WARN"), ("broker", "plant")]);
    assert_eq!(event["reason"], sentence);
}

#[test]
fn a_port_without_a_web_socket_is_told() {
    let broker = Mosquitto::start();
    refused(
        broker.port(),
        WEB_SOCKET,
        "this port does not speak WebSocket (it closed the connection); use the broker's port for WebSocket, or remove transport",
    );
}

#[test]
fn a_path_that_the_server_does_not_have_is_told() {
    let port = stranger::answer_with(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    refused(
        port,
        "transport = { kind = \"websocket\", path = \"/ws\" }",
        "the server refuses a WebSocket at the path /ws (HTTP status 404); set path in transport to the broker's",
    );
}

#[test]
fn mqtt_spoken_to_a_web_socket_is_told() {
    let port = ports::free();
    let _broker = Mosquitto::with(Options::default().listener(port, "protocol websockets"));
    refused(
        port,
        "",
        "this port speaks HTTP; set transport = \"websocket\" if it is the broker's, or use the broker's port for MQTT",
    );
}
