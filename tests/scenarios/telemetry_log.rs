//! The log: one JSON object a line, no payload, no secret.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol};

#[test]
fn each_line_is_an_object_with_a_constant_message_and_no_payload() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "username = \"gw\"\npassword = \"s3cret-word\"")
        .guest("echo", "plant", ECHO, "")
        .guest("reject", "plant", "mode = \"reject\"", "")
        .subscription("plant", "in/+", 1, "echo", "")
        .subscription("plant", "bad/+", 1, "reject", "");
    let mut daemon = Daemon::start(&config);
    let publisher = broker.client(Protocol::V5);
    publisher.publish(&Message::new("in/a", "pay1oad"));
    publisher.publish(&Message::new("bad/a", "pay1oad"));
    daemon.settle("plant", 2);
    daemon.terminate();

    let (lines, events) = (daemon.log(), daemon.events());
    assert_eq!(lines.len(), events.len(), "every line is an object: {lines:#?}");
    for event in &events {
        assert!(
            event["timestamp"].is_string() && event["level"].is_string() && event["message"].is_string(),
            "{event}"
        );
    }
    for line in &lines {
        assert!(!line.contains("pay1oad") && !line.contains("s3cret-word"), "{line}");
    }
}
