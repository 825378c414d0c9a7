//! Every make of broker: a message that several filters match is handled once, however many copies the broker sends.

use std::collections::BTreeMap;

use tidegate_tests::config::ECHO;
use tidegate_tests::{Broker, Config, Daemon, Make, Message, Protocol, on_every_broker, with_duplicates};

on_every_broker!(covered_filters_run_one_handler_once, partly_overlapping_filters_run_one_handler_once_but_on_3_1_1);
with_duplicates!(covered_filters_run_one_handler_once, partly_overlapping_filters_run_one_handler_once_but_on_3_1_1);

const COUNT: usize = 20;

/// Runs `wins` for the first filter and `loses` for the second; publishes numbers that match both. Returns how often each
/// number was echoed.
fn echoed(broker: &dyn Broker, protocol: Protocol, filters: [&str; 2]) -> (Daemon, BTreeMap<usize, usize>) {
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("wins", "plant", ECHO, "")
        .guest("loses", "plant", ECHO, "")
        .subscription("plant", filters[1], 1, "loses", "")
        .subscription("plant", filters[0], 1, "wins", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    broker.client(protocol).publish_all(&(0..COUNT).map(|n| Message::new("a/b", format!("{n}"))).collect::<Vec<_>>());
    let mut times = BTreeMap::new();
    let mut count = |message: &Message| {
        *times.entry(message.text().parse().expect("a number")).or_default() += 1;
        times.len() == COUNT
    };
    collector.collect_until("each number", &mut count);
    let metrics = daemon.wait_metrics("every copy reaches its end", |metrics| {
        metrics.in_progress("plant") == 0.0 && metrics.received("plant") >= COUNT as f64
    });
    collector.until_own(&Message::new("out/end", "")).iter().map(count).for_each(drop);
    assert_eq!(metrics.calls("loses", "ok"), 0.0);
    (daemon, times)
}

fn once() -> BTreeMap<usize, usize> {
    (0..COUNT).map(|n| (n, 1)).collect()
}

fn covered_filters_run_one_handler_once(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let (daemon, times) = echoed(&*broker, protocol, ["a/+", "a/#"]);
    assert_eq!(times, once(), "each is handled once");
    daemon.settle("plant", COUNT);
}

/// On 3.1.1 nothing tells which filter brought a copy, so where a broker sends one for each, both may be handled.
fn partly_overlapping_filters_run_one_handler_once_but_on_3_1_1(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let (daemon, times) = echoed(&*broker, protocol, ["a/+", "+/b"]);
    let copies = make.copies(protocol);
    if protocol == Protocol::V5 || copies == 1 {
        assert_eq!(times, once(), "each is handled once");
    } else {
        assert_eq!(times.len(), COUNT);
        assert!(times.values().all(|times| (1..=copies).contains(times)), "{times:?}");
    }
    daemon.settle("plant", COUNT * copies);
}
