//! What a handler remembers, and what it published with it, are safe together: nothing is remembered for good of a message whose
//! publish may still be lost, and nothing is acknowledged that rests on what may still be lost.

use tidegate_tests::script::{Peer, Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    what_is_remembered_with_a_publish_is_written_after_the_targets_acknowledgement,
    what_rests_on_what_is_not_safe_is_not_acknowledged,
);

/// Waits for a publish of the daemon: its text and its packet identifier.
#[track_caller]
fn published(peer: &mut Peer) -> (String, u16) {
    match peer.request() {
        Request::Publish(message, id) => (message.text().to_owned(), id),
        other => panic!("expected a publish, got {other:?}"),
    }
}

/// The handler publishes to the cloud only what it does not remember: were that written before the publish is safe, a crash would
/// swallow the message for ever.
fn what_is_remembered_with_a_publish_is_written_after_the_targets_acknowledgement(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), ScriptedBroker::listen(protocol));
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "client-id = \"gateway\"")
        .broker("cloud", cloud.port(), protocol, "")
        .remembering("once", "cloud", "mode = \"once\", broker = \"cloud\"", "64KiB", "instances = 1")
        .remembering("other", "plant", "mode = \"kv\"", "64KiB", "instances = 1")
        .subscription("plant", "in/#", 1, "once", "")
        .subscription("plant", "other/#", 1, "other", "");
    let mut daemon = Daemon::launch(&config);
    let mut peer = cloud.accept(false);
    daemon.wait_ready();
    let client = plant.client(protocol);
    client.subscribe("out/#", 1);
    client.publish(&Message::new("in/a", "seven"));
    assert_eq!(published(&mut peer).0, "seven");
    // What is written later is on the disk: so would be what was written before.
    client.publish(&Message::new("other/a", "set a 1"));
    daemon.wait_metrics("the other message has ended", |metrics| metrics.finished("plant", "handled") == 1.0);
    assert_eq!(daemon.metrics().in_progress("plant"), 1.0);
    daemon.kill();

    daemon.launch_again();
    let mut peer = cloud.accept(false);
    daemon.wait_ready();
    let (text, id) = published(&mut peer);
    assert_eq!(text, "seven", "the copy that the broker sends again is published again");
    peer.acknowledge(id);
    daemon
        .wait_metrics("it is safe", |metrics| metrics.published("cloud") == 1.0 && metrics.in_progress("plant") == 0.0);
    daemon.kill();

    daemon.launch_again();
    let mut peer = cloud.accept(false);
    daemon.wait_ready();
    ["seven", "eight"].iter().for_each(|text| client.publish(&Message::new("in/a", *text)));
    let (text, id) = published(&mut peer);
    assert_eq!(text, "eight", "what is safe is remembered");
    peer.acknowledge(id);
    daemon.wait_metrics("both have ended", |metrics| metrics.in_progress("plant") == 0.0);
}

fn what_rests_on_what_is_not_safe_is_not_acknowledged(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), ScriptedBroker::listen(protocol));
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "client-id = \"gateway\"")
        .broker("cloud", cloud.port(), protocol, "")
        .handler(
            "memory",
            "misbehave.wasm",
            "instances = 1\nallow = { publish = [\"plant:out/#\", \"cloud:out/#\"], kv = \"64KiB\" }\n\
             config = { mode = \"kv\", trigger = \"set\", broker = \"cloud\" }",
        )
        .handler(
            "reader",
            "misbehave.wasm",
            "instances = 1\nallow = { publish = [\"plant:out/#\"], kv = \"64KiB\" }\nconfig = { mode = \"kv\" }",
        )
        .subscription("plant", "in/#", 1, "memory", "")
        .subscription("plant", "other/#", 1, "reader", "");
    let daemon = Daemon::launch(&config);
    let mut peer = cloud.accept(false);
    daemon.wait_ready();
    let client = plant.client(protocol);
    // Its answer waits for the cloud: what it has set is not on the disk.
    client.publish(&Message::new("in/a", "set a 1"));
    let (text, id) = published(&mut peer);
    assert_eq!(text, "ok");
    // Reads it, on another topic, and writes nothing; its answer is acknowledged at once.
    client.publish(&Message::new("in/b", "set b 1;get a"));
    let (text, later) = published(&mut peer);
    assert_eq!(text, "ok;1");
    peer.acknowledge(later);
    // Reads nothing of it: another handler's.
    client.publish(&Message::new("other/c", "get a"));
    let metrics =
        daemon.wait_metrics("what rests on nothing has ended", |metrics| metrics.finished("plant", "handled") == 1.0);
    assert_eq!(metrics.published("cloud"), 1.0);
    assert_eq!(metrics.in_progress("plant"), 2.0, "neither the write nor what has read it");
    peer.acknowledge(id);
    daemon.wait_metrics("all have ended", |metrics| metrics.finished("plant", "handled") == 3.0);
    daemon.balance();
}
