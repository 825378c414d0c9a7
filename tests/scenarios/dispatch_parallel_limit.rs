//! `parallel-limit`: never more calls for one broker's messages at the same time.

use std::time::{Duration, Instant};

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(never_more_calls_at_the_same_time_than_the_limit);

const LIMIT: usize = 3;
const CALLS: usize = 24;
const EACH: Duration = Duration::from_millis(100);

fn never_more_calls_at_the_same_time_than_the_limit(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, &format!("parallel-limit = {LIMIT}"))
        .guest("slow", "plant", &format!("mode = \"slow\", ms = {}", EACH.as_millis()), "instances = 12")
        .subscription("plant", "in/+", 1, "slow", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);

    let messages: Vec<_> = (0..CALLS).map(|n| Message::new(format!("in/{n}"), "x")).collect();
    let begin = Instant::now();
    broker.client(protocol).publish_all(&messages);
    collector.collect(CALLS);

    // So many calls cannot be over sooner; without the limit they would be, by far.
    let least = EACH * u32::try_from(CALLS / LIMIT).expect("small");
    assert!(begin.elapsed() >= least, "{CALLS} calls of {EACH:?}, {LIMIT} at a time, took {:?}", begin.elapsed());
    daemon.settle("plant", CALLS);
}
