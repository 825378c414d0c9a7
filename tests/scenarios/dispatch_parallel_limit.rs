//! `parallel-limit`: never more calls for one broker's messages at the same time.

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(never_more_calls_at_the_same_time_than_the_limit, one_brokers_limit_holds_up_no_other_broker,);

const LIMIT: usize = 3;
const CALLS: usize = 24;

/// Each call takes 50 ms and publishes when it began and ended.
const INTERVAL: &str = "mode = \"interval\", ms = 50";

fn never_more_calls_at_the_same_time_than_the_limit(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, &format!("parallel-limit = {LIMIT}"))
        .guest("a", "plant", INTERVAL, "instances = 6")
        .guest("b", "plant", INTERVAL, "instances = 6")
        .subscription("plant", "a/+", 1, "a", "")
        .subscription("plant", "b/+", 1, "b", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);

    let topic = |n: usize| format!("{}/{n}", ["a", "b"][n % 2]);
    let messages: Vec<_> = (0..CALLS).map(|n| Message::new(topic(n), "x")).collect();
    broker.client(protocol).publish_all(&messages);

    let most = most_at_once(&collector.collect(CALLS));
    assert!((2..=LIMIT).contains(&most), "{most} calls at the same time; the limit is {LIMIT}");
    daemon.settle("plant", CALLS);
}

fn one_brokers_limit_holds_up_no_other_broker(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "parallel-limit = 3")
        .broker("cloud", cloud.port(), protocol, "")
        .guest("stuck", "cloud", "mode = \"loop\", trigger = \"loop\"", "instances = 8\ncall-deadline = \"10m\"")
        .subscription("plant", "in/+", 1, "stuck", "")
        .subscription("cloud", "in/+", 1, "stuck", "");
    let mut daemon = Daemon::start(&config);
    // A full limit, by calls that do not end; topics are spread over the instances, so that some are free.
    plant.client(protocol).publish_all(&(0..3).map(|n| Message::new(format!("in/{n}"), "loop")).collect::<Vec<_>>());
    daemon.wait_metrics("the limit is used up", |metrics| metrics.in_progress("plant") == 3.0);

    let collector = cloud.client(protocol);
    collector.subscribe("out/#", 1);
    let messages: Vec<_> = (0..64).map(|n| Message::new(format!("in/{n}"), "x").qos(0)).collect();
    cloud.client(protocol).publish_all(&messages);
    // At most 3 of the 8 instances are taken: what the others got comes back.
    assert!(collector.collect(8).iter().all(|message| message.text() == "x"));
    assert_eq!(daemon.metrics().in_progress("plant"), 3.0);
    daemon.kill();
}

/// How many of these intervals overlap, at most.
fn most_at_once(intervals: &[Message]) -> usize {
    let mut changes: Vec<(u128, isize)> = Vec::new();
    for message in intervals {
        let (start, end) = message.text().split_once(' ').expect("start and end");
        changes.push((start.parse().expect("nanoseconds"), 1));
        changes.push((end.parse().expect("nanoseconds"), -1));
    }
    // At the same moment an end comes before a start.
    changes.sort_unstable();
    let running = changes.iter().scan(0, |running, (_, change)| {
        *running += change;
        Some(*running)
    });
    running.max().and_then(|most| usize::try_from(most).ok()).unwrap_or(0)
}
