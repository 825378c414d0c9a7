//! A broker that ends and comes back in the middle of a QoS 1 stream: nothing is lost, each topic stays in order.
//!
//! What the broker itself forgets is not the gateway's loss, so the broker is made to keep its word: it saves its sessions
//! before it ends. Everything then depends on the gateway's acknowledgements.

use tidegate_tests::client::stream::Stream;
use tidegate_tests::config::ECHO;
use tidegate_tests::numbered::{assert_order, collect_all, numbered};
use tidegate_tests::{Client, Config, Daemon, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    a_stream_goes_on_over_a_restart_without_loss_and_in_order,
    what_the_broker_saved_before_it_was_killed_is_not_lost,
    a_broker_that_forgot_everything_is_subscribed_to_again,
);

const TOPICS: usize = 8;

fn gateway(broker: &Mosquitto, protocol: Protocol, guest: &str) -> Daemon {
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("echo", "plant", guest, "instances = 2")
        .subscription("plant", "in/#", 1, "echo", "");
    Daemon::start(&config)
}

fn collector(broker: &Mosquitto, protocol: Protocol) -> Client {
    let collector = Client::options(broker.port(), protocol).session("collector").connect().expect("is let in");
    collector.subscribe("out/#", 1);
    collector
}

fn a_stream_goes_on_over_a_restart_without_loss_and_in_order(protocol: Protocol) {
    let mut broker = Mosquitto::persistent();
    let daemon = gateway(&broker, protocol, ECHO);
    let mut collector = collector(&broker, protocol);
    let sent = numbered(1800, TOPICS);
    let mut came = Vec::new();
    for (restarts, part) in (1..).zip(sent.chunks(600)) {
        let stream = Stream::start(broker.port(), protocol, part.to_vec());
        came.extend(collector.collect(100));
        if part.last() != sent.last() {
            broker.stop();
            broker.restart();
            collector.reconnect();
            let connections = f64::from(restarts + 1);
            daemon.wait_metrics("the daemon is back", |m| m.connects("plant", "accepted") == connections);
        }
        stream.finish();
    }
    collect_all(&collector, &sent, &mut came);

    assert_order(&came);
    let metrics = daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    assert_eq!(metrics.connects("plant", "accepted"), 3.0, "no connection is lost but by the restarts");
    daemon.balance();
}

/// Without a look at the order: what the broker took between its last save and its end it has acknowledged and forgotten,
/// and forgotten too that the gateway had acknowledged the inputs. They come again, after later ones.
fn what_the_broker_saved_before_it_was_killed_is_not_lost(protocol: Protocol) {
    let mut broker = Mosquitto::persistent();
    let daemon = gateway(&broker, protocol, "mode = \"slow\", ms = 20");
    let mut collector = collector(&broker, protocol);
    let sent = numbered(240, TOPICS);
    broker.client(protocol).publish_all(&sent);
    let mut came = collector.collect(20);
    broker.save();
    broker.kill();
    broker.restart();
    collector.reconnect();

    collect_all(&collector, &sent, &mut came);
    daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    daemon.balance();
}

fn a_broker_that_forgot_everything_is_subscribed_to_again(protocol: Protocol) {
    let mut broker = Mosquitto::start();
    let daemon = gateway(&broker, protocol, ECHO);
    broker.kill();
    daemon.wait_not_ready();
    broker.restart();
    daemon.wait_ready();

    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let sent = numbered(100, TOPICS);
    broker.client(protocol).publish_all(&sent);
    assert_order(&collector.collect(sent.len()));
    daemon.settle("plant", sent.len());
    assert_eq!(collector.rest(), [], "nothing comes twice");
}
