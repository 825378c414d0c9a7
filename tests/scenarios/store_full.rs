//! A full disk: what is not written is not acknowledged, and the daemon goes on by itself once there is room.

use std::collections::BTreeSet;

use tidegate_tests::disk::{Disk, Means};
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(nothing_is_acknowledged_while_the_disk_is_full);

/// Messages after which the disk has to be full: what is free within the file is used up before.
const MOST: usize = 500;

/// Bytes of a message.
const BYTES: usize = 20_000;

fn nothing_is_acknowledged_while_the_disk_is_full(protocol: Protocol) {
    let (plant, mut cloud) = (Mosquitto::start(), Mosquitto::persistent());
    let disk = Disk::new(Means::Limit);
    let relay = "allow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"up/{topic}\" }";
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "")
        .broker("cloud", cloud.port(), protocol, "outbox = { store = \"disk\" }")
        .handler("relay", "relay.wasm", relay)
        .subscription("plant", "in/#", 1, "relay", "")
        .state(disk.state());
    let mut daemon = Daemon::start(&config);
    let mut collector = Client::options(cloud.port(), protocol).session("collector").connect().expect("is let in");
    collector.subscribe("up/#", 1);
    let client = plant.client(protocol);
    // Numbers messages, up to the one with which the disk is full.
    let until_full = |daemon: &Daemon, from: usize| {
        disk.fill(daemon);
        let full = (from..from + MOST).find(|number| {
            client.publish(&Message::new("in/a", format!("{number:0>BYTES$}")));
            daemon.metrics().page.lines().any(|line| line == "tidegate_store_healthy 0")
        });
        // A disk that is slow to write may not have got as far.
        daemon.wait_metrics("the disk is full", |metrics| metrics.sum("tidegate_store_healthy", &[]) == 0.0);
        let last = full.unwrap_or(from + MOST - 1);
        let told = daemon.wait_not_ready();
        assert!(told.contains("the disk of the state directory is full since"), "{told}");
        daemon.wait_metrics("what is not safe is not acknowledged", |metrics| metrics.in_progress("plant") > 0.0);
        last + 1
    };
    let sent = until_full(&daemon, 0);
    disk.free(Some(&daemon));
    let metrics = daemon.settle("plant", sent);
    assert_eq!(metrics.finished("plant", "handled"), sent as f64);
    daemon.wait_metrics("it is healthy again", |metrics| metrics.sum("tidegate_store_healthy", &[]) == 1.0);

    // What it has not written when it ends comes again: it was not acknowledged. What waits takes the room that is free in the file.
    cloud.stop();
    let sent = until_full(&daemon, sent);
    daemon.kill();
    disk.free(None);
    daemon.launch_again();
    cloud.restart();
    collector.reconnect();
    let mut came = BTreeSet::new();
    collector.collect_until("what was sent when the disk was full, too", |message| {
        came.insert(message.text().parse::<usize>().expect("a number"));
        came.len() == sent
    });
}
