//! A full disk: what is not written is not acknowledged, and the daemon goes on by itself once there is room.

use tidegate_tests::disk::{Disk, Means};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(nothing_is_acknowledged_while_the_disk_is_full);

/// Messages after which the disk has to be full: what is free within the file is used up before.
const MOST: usize = 500;

/// Bytes of a message.
const BYTES: usize = 20_000;

fn nothing_is_acknowledged_while_the_disk_is_full(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let disk = Disk::new(Means::Limit);
    let relay = "allow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"up/{topic}\" }";
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "")
        .broker("cloud", cloud.port(), protocol, "outbox = { store = \"disk\" }")
        .handler("relay", "relay.wasm", relay)
        .subscription("plant", "in/#", 1, "relay", "")
        .state(disk.state());
    let daemon = Daemon::start(&config);
    let client = plant.client(protocol);
    disk.fill(&daemon);
    let full = (1..=MOST).find(|_| {
        client.publish(&Message::new("in/a", "x".repeat(BYTES)));
        daemon.metrics().page.lines().any(|line| line == "tidegate_store_healthy 0")
    });
    let sent = full.expect("the disk becomes full");
    let told = daemon.wait_not_ready();
    assert!(told.contains("the disk of the state directory is full since"), "{told}");
    daemon.wait_metrics("what is not safe is not acknowledged", |metrics| metrics.in_progress("plant") > 0.0);

    disk.free(Some(&daemon));
    let metrics = daemon.settle("plant", sent);
    assert_eq!(metrics.finished("plant", "handled"), sent as f64);
    daemon.wait_metrics("it is healthy again", |metrics| metrics.sum("tidegate_store_healthy", &[]) == 1.0);
}
