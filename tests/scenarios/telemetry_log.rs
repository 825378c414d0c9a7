//! The log: one JSON object a line, no payload, no secret.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

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

/// Who tries what is not permitted leaves a trace, and cannot fill the log with it.
#[test]
fn refused_requests_are_told_once_in_a_while() {
    let daemon = Daemon::start(&Config::new().broker("plant", 1883, Protocol::V5, "auto-connect = false"));
    let ask = |head: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.admin())).expect("is served");
        stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).expect("is read");
        let (from, mut answer) = (stream.local_addr().expect("is connected"), String::new());
        stream.read_to_string(&mut answer).expect("an answer");
        (from.to_string(), answer)
    };
    let change = "POST /api/v1/brokers/plant/connect?s3cret HTTP/1.1\r\nhost: localhost";
    let (from, answer) = ask(change);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let fields = [
        ("peer", from.as_str()),
        ("method", "POST"),
        ("path", "/api/v1/brokers/plant/connect"),
        ("reason", "no_token"),
    ];
    let told = daemon.wait_event("a request was refused", &fields);
    assert_eq!((&told["level"], &told["unsaid"]), (&"WARN".into(), &0.into()), "{told}");
    (0..20).for_each(|_| drop(ask(change)));
    let long = format!("GET /{} HTTP/1.1\r\nhost: gateway.example", "x".repeat(8_000));
    assert!(ask(&long).1.starts_with("HTTP/1.1 421"));
    daemon.wait_event("a request was refused", &[("reason", "host"), ("path", "/xxx")]);
    let lines = daemon.log_lines(&["a request was refused"]);
    assert!(lines.len() == 2 && lines.iter().all(|line| line.len() < 1_000 && !line.contains("s3cret")), "{lines:#?}");
    daemon.wait_metrics("all of them", |metrics| {
        metrics.sum("tidegate_admin_refused_total", &[("reason", "no_token")]) == 21.0
    });
}
