//! `share`: the broker gives each message to one member of a group, and a member dispatches it apart from all else.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(two_gateways_of_one_group_handle_each_message_once);

const MESSAGES: usize = 100;

fn numbered() -> Vec<Message> {
    (0..MESSAGES).map(|n| Message::new("a/b", format!("{n}"))).collect()
}

fn two_gateways_of_one_group_handle_each_message_once(protocol: Protocol) {
    let broker = Mosquitto::start();
    let member = |name: &str| {
        let config = Config::new()
            .broker("plant", broker.port(), protocol, &format!("client-id = \"{name}\""))
            .guest("echo", "plant", ECHO, "")
            .subscription("plant", "a/#", 1, "echo", "share = \"gateways\"");
        Daemon::start(&config)
    };
    let members = [member("one"), member("two")];
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    broker.client(protocol).publish_all(&numbered());

    let mut came: Vec<usize> =
        collector.collect(MESSAGES).iter().map(|message| message.text().parse().expect("a number")).collect();
    came.sort_unstable();
    assert_eq!(came, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(collector.rest(), [], "nothing comes twice");
    let shares = members.map(|member| member.balance().received("plant"));
    assert!(shares.iter().all(|share| *share > 0.0), "both get some: {shares:?}");
    assert_eq!(shares.iter().sum::<f64>(), MESSAGES as f64);
}

/// On 5 each copy tells what it came for, so that a share may overlap.
#[test]
fn a_share_and_an_ordinary_topic_each_run_once() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("shared", "plant", ECHO, "")
        .guest("wide", "plant", ECHO, "")
        .guest("ordinary", "plant", ECHO, "")
        .subscription("plant", "a/+", 1, "shared", "share = \"gateways\"")
        .subscription("plant", "a/#", 1, "wide", "")
        .subscription("plant", "+/b", 1, "ordinary", "");
    let daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish_all(&numbered());
    let metrics = daemon.wait_metrics("every copy reaches its end", |metrics| {
        metrics.received("plant") >= 3.0 * MESSAGES as f64 && metrics.in_progress("plant") == 0.0
    });
    // Of the ordinary ones the best-ranked runs.
    let calls = ["shared", "ordinary", "wide"].map(|handler| metrics.calls(handler, "ok"));
    assert_eq!(calls, [MESSAGES as f64, MESSAGES as f64, 0.0]);
    daemon.balance();
}
