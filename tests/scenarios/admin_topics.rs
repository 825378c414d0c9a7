//! What an operator may publish and subscribe to: nothing over which a broker ends the session.

use serde_json::json;
use tidegate_tests::{Config, Daemon, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(a_topic_that_brokers_refuse_costs_no_connection);

/// mosquitto ends the connection over a control character, at the SUBSCRIBE and at each attempt to take it back.
fn a_topic_that_brokers_refuse_costs_no_connection(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&Config::new().broker("plant", broker.port(), protocol, ""));
    for command in [
        ["subscribe", "--broker", "plant", "--topic", "a/\u{1a}/b"],
        ["publish", "--broker", "plant", "--topic", "a\u{9f}"],
    ] {
        let ran = daemon.home().run(&command);
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert!(ran.stderr.contains("over which brokers may end the connection"), "{ran:?}");
    }
    let status = daemon.get("/api/v1/status").body;
    let status: serde_json::Value = serde_json::from_str(&status).expect("is JSON");
    assert_eq!(status["brokers"][0]["subscriptions"], json!(0), "{status}");
    assert_eq!(daemon.metrics().connects("plant", "accepted"), 1.0, "the session was never lost");
}
