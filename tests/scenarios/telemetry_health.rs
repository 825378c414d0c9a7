//! `/healthz` and `/readyz`.

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

#[test]
fn an_unknown_page_is_not_found() {
    let broker = Config::new().broker("plant", 1883, Protocol::V5, "auto-connect = false");
    let daemon = Daemon::start(&broker);
    assert_eq!(daemon.get("/nothing").status, 404);
}

#[test]
fn no_longer_ready_as_soon_as_a_stop_begins() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("stuck", "plant", "mode = \"loop\"", "call-deadline = \"3s\"")
        .subscription("plant", "in/#", 1, "stuck", "");
    let mut daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.wait_metrics("it is taken in", |metrics| metrics.in_progress("plant") == 1.0);

    daemon.signal("TERM");
    assert_eq!(daemon.wait_not_ready(), "the daemon is stopping\n");
    assert_eq!(daemon.ended().code(), Some(0));
}
