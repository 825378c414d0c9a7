//! Every make of broker: what it has acknowledged and keeps is not lost, whoever of the two ends and comes back.
//!
//! A broker that keeps nothing forgets the session and what it held: then the promise is that the daemon subscribes again.

use tidegate_tests::broker::Keeps;
use tidegate_tests::client::stream::Stream;
use tidegate_tests::config::ECHO;
use tidegate_tests::numbered::{assert_order, collect_all, numbered};
use tidegate_tests::{Broker, Client, Config, Daemon, Make, Message, Protocol, on_every_broker};

on_every_broker!(
    a_stream_goes_on_over_a_restart_of_the_broker,
    what_the_broker_kept_when_it_was_killed_is_not_lost,
    what_is_published_while_the_daemon_is_away_comes,
);

const TOPICS: usize = 4;

fn config(broker: &dyn Broker, protocol: Protocol, guest: &str, keys: &str) -> Config {
    Config::new()
        .broker("plant", broker.port(), protocol, keys)
        .guest("echo", "plant", guest, "instances = 2\ncall-deadline = \"10s\"")
        .subscription("plant", "in/#", 1, "echo", "")
}

fn gateway(broker: &dyn Broker, protocol: Protocol, guest: &str) -> Daemon {
    Daemon::start(&config(broker, protocol, guest, ""))
}

fn collector(broker: &dyn Broker, protocol: Protocol) -> Client {
    let collector = Client::options(broker.port(), protocol).session("collector").connect().expect("is let in");
    collector.subscribe("out/#", 1);
    collector
}

/// Waits until the daemon has connected again and subscribed.
fn is_back(daemon: &Daemon) {
    daemon.wait_metrics("the daemon connects again", |metrics| metrics.connects("plant", "accepted") >= 2.0);
    daemon.wait_ready();
}

/// Collects what a restart in the middle of the stream must not lose, if there is such a thing: the echoes of `sent`, of
/// which `came` came before.
fn rest_comes(
    make: &Make,
    broker: &dyn Broker,
    protocol: Protocol,
    collector: &Client,
    sent: &[Message],
    came: &mut Vec<Message>,
) {
    match make.keeps {
        Keeps::Everything => collect_all(collector, sent, came),
        Keeps::Idle => {
            came.clear();
            broker.client(protocol).publish_all(sent);
            collect_all(collector, sent, came);
        }
        Keeps::Nothing => {
            // The session is gone, and what the stream had published before the daemon subscribed again.
            collector.subscribe("out/#", 1);
            broker.client(protocol).publish(&Message::new("in/last", "0"));
            collector.collect_until("what was published after it", |message| message.topic == "out/in/last");
            came.clear();
        }
    }
}

fn a_stream_goes_on_over_a_restart_of_the_broker(make: &Make, protocol: Protocol) {
    let mut broker = (make.start)();
    let daemon = gateway(&*broker, protocol, ECHO);
    let mut collector = collector(&*broker, protocol);
    let sent = numbered(600, TOPICS);
    let stream = Stream::start(broker.port(), protocol, sent.clone());
    let mut came = collector.collect(if make.keeps == Keeps::Idle { sent.len() } else { 100 });
    if make.keeps == Keeps::Idle {
        daemon.settle("plant", sent.len());
    }
    broker.stop();
    broker.restart();
    collector.reconnect();
    stream.finish();
    is_back(&daemon);
    rest_comes(make, &*broker, protocol, &collector, &sent, &mut came);
    assert_order(&came);
    let metrics = daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    assert_eq!(metrics.connects("plant", "accepted"), 2.0, "no connection is lost but by the restart");
    daemon.balance();
}

/// Without a look at the order: a broker that saves now and then has forgotten which inputs the daemon acknowledged since.
fn what_the_broker_kept_when_it_was_killed_is_not_lost(make: &Make, protocol: Protocol) {
    let mut broker = (make.start)();
    let daemon = gateway(&*broker, protocol, "mode = \"slow\", ms = 10");
    let mut collector = collector(&*broker, protocol);
    let sent = numbered(200, TOPICS);
    broker.client(protocol).publish_all(&sent);
    let mut came = collector.collect(if make.keeps == Keeps::Idle { sent.len() } else { 20 });
    if make.keeps == Keeps::Idle {
        daemon.settle("plant", sent.len());
    }
    broker.save();
    broker.kill();
    broker.restart();
    collector.reconnect();
    is_back(&daemon);
    rest_comes(make, &*broker, protocol, &collector, &sent, &mut came);
    daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    daemon.balance();
}

fn what_is_published_while_the_daemon_is_away_comes(make: &Make, protocol: Protocol) {
    const COUNT: usize = 40;
    let broker = (make.start)();
    let (will, close) = ("will = { topic = \"gone\", qos = 1 }", "close = { topic = \"gone\", qos = 1 }");
    let mut daemon = Daemon::start(&config(&*broker, protocol, ECHO, &format!("{will}\n{close}")));
    let observer = broker.client(protocol);
    observer.subscribe("gone", 1);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);
    // First the one that needs nothing on its way to the broker.
    for end in [Daemon::kill, Daemon::terminate] {
        end(&mut daemon);
        // So that the broker sends nothing to the connection that is no more.
        observer.collect(1);
        publisher.publish_all(&numbered(COUNT, TOPICS));
        daemon.restart();
        if make.keeps_sessions {
            let came = collector.collect(COUNT);
            if make.keeps != Keeps::Idle {
                assert_order(&came);
            }
            daemon.settle("plant", COUNT);
        }
        let session = if make.keeps_sessions { "resumed" } else { "new" };
        daemon.wait_event("connected", &[("broker", "plant"), ("session", session)]);
    }
    assert_eq!(collector.until_own(&Message::new("out/end", "")), [], "nothing comes twice, or of a lost session");
}
