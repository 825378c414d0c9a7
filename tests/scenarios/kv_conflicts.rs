//! Calls that meet over what they remember: none of them is lost, whichever instance they run on.

use std::collections::BTreeSet;

use tidegate_tests::gate::{ECHO, Gate, REJECT};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol};

/// Two instances that count, with so many milliseconds between reading and writing.
fn counting(broker: &Mosquitto, ms: u32) -> Config {
    Config::new()
        .broker("plant", broker.port(), Protocol::V5, "client-id = \"gateway\"\nparallel-limit = \"off\"")
        .remembering("counter", "plant", &format!("mode = \"count\", ms = {ms}"), "64KiB", "instances = 2")
        .subscription("plant", "in/#", 1, "counter", "")
}

/// Every sum from 1 to `count` is published once, by so many messages on several topics.
#[track_caller]
fn counts_to(count: usize, ms: u32) {
    const TOPICS: usize = 16;
    const PART: usize = 5_000;
    let broker = Mosquitto::telling();
    let mut daemon = Daemon::start(&counting(&broker, ms));
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    let messages: Vec<_> = (0..count).map(|n| Message::new(format!("in/{}", n % TOPICS), n.to_string())).collect();
    broker.client(Protocol::V5).publish_all(&messages);

    // In parts, each of which has its time.
    let parts = (0..count).step_by(PART).map(|from| collector.collect(PART.min(count - from)));
    let came: Vec<Message> = parts.flatten().collect();
    let number = |message: &Message, place: usize| -> usize {
        message.text().split(' ').nth(place).and_then(|word| word.parse().ok()).expect("a number")
    };
    let sums: BTreeSet<usize> = came.iter().map(|message| number(message, 0)).collect();
    assert_eq!((sums.len(), sums.first(), sums.last()), (count, Some(&1), Some(&count)), "each sum comes once");
    let inputs: BTreeSet<usize> = came.iter().map(|message| number(message, 1)).collect();
    assert_eq!(inputs.len(), count, "each message was counted");
    let metrics = daemon.settle("plant", count);
    assert_eq!(metrics.calls("counter", "ok"), count as f64, "a call that runs again counts once");
    assert_eq!(metrics.sum("tidegate_kv_keys", &[("handler", "counter")]), 1.0);
    let conflicts = metrics.sum("tidegate_handler_conflicts_total", &[("handler", "counter")]);
    assert!(conflicts > 0.0, "two instances met over one key");
    assert_eq!(collector.rest(), []);

    // It is on the disk as well.
    broker.wait_acknowledged();
    daemon.kill();
    daemon.restart();
    broker.client(Protocol::V5).publish(&Message::new("in/0", count.to_string()));
    assert_eq!(number(&collector.collect(1)[0], 0), count + 1);
}

#[test]
fn two_instances_lose_no_increment_of_one_key() {
    counts_to(2_000, 0);
}

/// Each call is overtaken many times: in the end it runs alone.
#[test]
fn a_call_that_is_overtaken_again_and_again_ends() {
    counts_to(200, 5);
}

#[test]
#[ignore = "long: 100,000 messages"]
fn two_instances_lose_none_of_100_000_increments() {
    counts_to(100_000, 0);
}

/// One that only sees what another has written in between fails on something that never was: it is run again.
#[test]
fn a_call_that_fails_on_what_is_not_so_any_more_is_run_again() {
    let (broker, gate) = (Mosquitto::start(), Gate::new());
    // Reads and rejects, or writes and publishes.
    let handle = format!(
        "tg_bytes value;
         if (message->payload.ptr[0] == 'w') {{
             host->log(call, TG_INFO, tg_text(\"it runs\"), NULL, 0);
             tg_status read = host->kv_get(call, tg_text(\"a\"), &value);
             if (read != TG_OK && read != TG_NOT_FOUND) return tg_check(host, call, read);
             stand();
             {REJECT}
         }}
         tg_status written = host->kv_set(call, tg_text(\"a\"), message->payload, TG_FOREVER);
         if (written != TG_OK) return tg_check(host, call, written);
         {ECHO}"
    );
    let keys = "instances = 2\ncall-deadline = \"1m\"\nallow = { publish = [\"plant:out/#\"], kv = \"64KiB\" }";
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "parallel-limit = \"off\"")
        .native("memory", gate.plugin("", &handle), keys)
        .subscription("plant", "in/#", 1, "memory", "");
    let daemon = Daemon::start(&config);
    let client = broker.client(Protocol::V5);
    client.subscribe("out/#", 1);
    client.publish(&Message::new("in/slow", "w"));
    gate.wait_reached();
    // Topics are spread over the instances by chance: one of these is on the other one.
    let quick: Vec<_> = (0..8).map(|n| Message::new(format!("in/{n}"), format!("{n}"))).collect();
    client.publish_all(&quick);
    client.collect(1);
    gate.open();
    client.collect(quick.len() - 1);
    let metrics = daemon.settle("plant", 1 + quick.len());
    let conflicts = metrics.sum("tidegate_handler_conflicts_total", &[("handler", "memory")]);
    assert!(conflicts >= 1.0, "what it read was written in between");
    assert_eq!((metrics.calls("memory", "reject"), metrics.calls("memory", "ok")), (1.0, 8.0));
    assert_eq!(daemon.log_lines(&["it runs"]).len() as f64, 1.0 + conflicts, "it ran once more each time");
}
