//! `/healthz` and `/readyz`.

use serde_json::json;
use tidegate_tests::config::ECHO;
use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol};

#[test]
fn healthy_from_the_start_and_ready_only_while_every_broker_is_connected() {
    let mut broker = Mosquitto::start();
    let daemon = Daemon::start(&Config::new().broker("plant", broker.port(), Protocol::V5, ""));
    assert_eq!(daemon.get("/healthz").status, 200);
    assert_eq!(daemon.get("/readyz").status, 200);

    broker.kill();
    let said = daemon.wait_not_ready();
    assert!(said.contains("plant"), "{said}");
    assert_eq!(daemon.get("/healthz").status, 200, "the daemon itself is well");

    broker.restart();
    daemon.wait_ready();
}

#[test]
fn a_broker_that_connects_on_demand_is_no_obstacle() {
    let broker = Mosquitto::start();
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "auto-connect = false");
    let daemon = Daemon::start(&config);
    assert_eq!(daemon.metrics().connects("plant", "accepted"), 0.0);
}

/// Its source would stand still behind it, and everything would be said to be well.
#[test]
fn a_broker_that_is_not_connected_is_an_obstacle_while_something_waits_for_it() {
    let (plant, mut cloud) = (Mosquitto::start(), Mosquitto::start());
    let keys = "allow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"{topic}\" }";
    let config = Config::new()
        .broker("plant", plant.port(), Protocol::V5, "")
        .broker("cloud", cloud.port(), Protocol::V5, "auto-connect = false\noutbox = { max-messages = 1 }")
        .handler("relay", "relay.wasm", &format!("instances = 1\nmax-publishes = 1\n{keys}"))
        .subscription("plant", "up/#", 1, "relay", "");
    let daemon = Daemon::start(&config);
    cloud.stop();
    plant.client(Protocol::V5).publish_all(&[Message::new("up/a", "1"), Message::new("up/a", "2")]);
    daemon.wait_shown("cloud", "a call waits", |shown| shown["outbox"]["waiting"] == 1);
    let waits = "1 message waits for it and 1 call waits for room in its outbox";
    let on_demand = daemon.wait_not_ready();
    assert!(on_demand.starts_with(&format!("broker cloud is not connected, and {waits}: ")), "{on_demand}");

    let told = daemon.done(&["brokers", "disconnect", "cloud"]);
    let end = "until it is connected or something new is published to it";
    assert_eq!(told.trim_end(), format!("broker cloud is disconnected, and {waits}, {end}"));
    let why = "disconnected by command; connect it with `tidegate brokers connect cloud`";
    let by_hand = format!("broker cloud is not connected, and {waits}: {why}");
    assert_eq!(daemon.wait_not_ready(), format!("{by_hand}\n"));
    let status = daemon.json(&["status"]);
    assert_eq!((&status["ready"], &status["obstacles"]), (&json!(false), &json!([by_hand])));

    // The operator's word counts, also once there would be somebody.
    cloud.restart();
    assert_eq!(daemon.broker("cloud")["state"], "disconnected");
    daemon.done(&["brokers", "connect", "cloud"]);
    daemon.settle("plant", 2);
    assert_eq!(daemon.done(&["brokers", "disconnect", "cloud"]).trim_end(), "broker cloud is disconnected");
    daemon.wait_ready();
}

#[test]
fn an_unknown_page_is_not_found() {
    let broker = Config::new().broker("plant", 1883, Protocol::V5, "auto-connect = false");
    let daemon = Daemon::start(&broker);
    assert_eq!(daemon.get("/nothing").status, 404);
}

#[test]
fn no_longer_ready_as_soon_as_a_stop_begins() {
    let broker = ScriptedBroker::listen(Protocol::V5);
    let config = Config::new()
        .top("shutdown-grace = \"1m\"")
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "in/#", 1, "echo", "");
    let mut daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    daemon.wait_ready();
    peer.publish(1, &Message::new("in/a", "x"));
    // Until that has its acknowledgement, its message is in progress.
    let Request::Publish(_, output) = peer.request() else { panic!("the output comes first") };

    daemon.signal("TERM");
    assert_eq!(daemon.wait_not_ready(), "the daemon is stopping\n");
    peer.acknowledge(output);
    assert_eq!([peer.request(), peer.request()], [Request::PubAck(1), Request::Disconnect]);
    drop(peer);
    assert_eq!(daemon.ended().code(), Some(0));
}
