//! `/healthz` and `/readyz`.

use tidegate_tests::{Config, Daemon, Mosquitto, Protocol};

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
