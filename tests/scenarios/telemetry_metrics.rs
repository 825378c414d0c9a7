//! `/metrics`: well formed, complete, and no message unaccounted for.

use std::process::{Command, Stdio};
use std::thread;

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(received_is_finished_plus_in_progress_under_mixed_load);

/// Handled, failed, filtered, unmatched and logged messages of each QoS, on two brokers at once, scraped meanwhile.
fn received_is_finished_plus_in_progress_under_mixed_load(protocol: Protocol) {
    const EACH: usize = 300;
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let mut config = Config::new();
    for (name, broker) in [("plant", &plant), ("cloud", &cloud)] {
        config = config
            .broker(name, broker.port(), protocol, "")
            .guest(&format!("{name}-echo"), name, ECHO, "instances = 2")
            .guest(&format!("{name}-reject"), name, "mode = \"reject\"", "")
            .subscription(name, "good/#", 2, &format!("{name}-echo"), "")
            .subscription(name, "bad/#", 1, &format!("{name}-reject"), "")
            .subscription(name, "picky/#", 1, &format!("{name}-echo"), "when = { min-bytes = 100 }")
            .table(format!("[[subscriptions]]\nbroker = \"{name}\"\ntopic = \"quiet/#\"\nqos = 1"))
            .table(format!(
                "[[subscriptions]]\nbroker = \"{name}\"\ntopic = \"note/#\"\nqos = 1\non-message = {{ log = \"noted\" }}"
            ));
    }
    let daemon = Daemon::start(&config);
    let kinds = ["good/a", "bad/a", "picky/a", "quiet/a", "note/a"];
    // QoS 0 only where the queue surely has room: a message dropped by the broker itself would be missing in the count.
    let message = |n: usize| Message::new(kinds[n % kinds.len()], format!("{n}")).qos([1, 2, 1][n % 3]);
    let messages: Vec<_> = (0..EACH * kinds.len()).map(message).collect();

    thread::scope(|scope| {
        let publishing: Vec<_> = [&plant, &cloud]
            .map(|broker| scope.spawn(|| broker.client(protocol).publish_all(&messages)))
            .into_iter()
            .collect();
        while !publishing.iter().all(|thread| thread.is_finished()) {
            let metrics = daemon.metrics();
            for broker in ["plant", "cloud"] {
                let (received, open) = (metrics.received(broker), metrics.in_progress(broker));
                assert!((0.0..=messages.len() as f64).contains(&open), "{broker}: {open} of {received} in progress");
            }
        }
    });

    for broker in ["plant", "cloud"] {
        let metrics = daemon.settle(broker, messages.len());
        for (outcome, count) in [("handled", EACH), ("dead_letter", EACH), ("filtered", EACH), ("unmatched", EACH)] {
            assert_eq!(metrics.finished(broker, outcome), count as f64, "{broker}: {outcome}");
        }
        assert_eq!(metrics.finished(broker, "logged"), EACH as f64, "{broker}: logged");
        assert_eq!(metrics.published(broker), EACH as f64, "{broker}: published");
    }
}

#[test]
fn the_page_has_every_family_and_pleases_promtool() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("echo", "plant", ECHO, "instances = 2")
        .subscription("plant", "in/#", 1, "echo", "name = \"inputs\"");
    let daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    let metrics = daemon.settle("plant", 1);

    let families = [
        "tidegate_build_info",
        "tidegate_dead_letter_store_messages",
        "tidegate_dead_letter_store_bytes",
        "tidegate_broker_connected",
        "tidegate_broker_connects_total",
        "tidegate_broker_disconnects_total",
        "tidegate_broker_ack_stalled_seconds",
        "tidegate_broker_sessions_lost_total",
        "tidegate_broker_session_write_errors_total",
        "tidegate_messages_received_total",
        "tidegate_messages_finished_total",
        "tidegate_messages_in_progress",
        "tidegate_messages_published_total",
        "tidegate_subscription_last_message_timestamp_seconds",
        "tidegate_handler_calls_total",
        "tidegate_handler_duration_seconds_count",
        "tidegate_end_to_end_seconds_count",
        "tidegate_handler_queue_messages",
        "tidegate_handler_instances",
        "tidegate_outbox_messages",
        "tidegate_outbox_bytes",
        "tidegate_admin_refused_total",
        "process_resident_memory_bytes",
    ];
    for family in families {
        assert!(metrics.samples().iter().any(|sample| sample.name == family), "{family} is missing:\n{}", metrics.page);
    }
    let allowed = [
        "broker",
        "handler",
        "subscription",
        "schedule",
        "qos",
        "result",
        "reason",
        "kind",
        "outcome",
        "version",
        "le",
    ];
    for sample in metrics.samples() {
        assert!(sample.labels.keys().all(|label| allowed.contains(&label.as_str())), "{sample:?}");
    }
    assert_eq!(metrics.sum("tidegate_handler_instances", &[("handler", "echo")]), 2.0);
    assert_eq!(metrics.sum("tidegate_end_to_end_seconds_count", &[("handler", "echo")]), 1.0);
    let labels = [("broker", "plant"), ("subscription", "inputs")];
    assert!(metrics.sum("tidegate_subscription_last_message_timestamp_seconds", &labels) > 1.6e9, "Unix time");
    please_promtool(&metrics.page);
}

/// `promtool check metrics`, where it is installed; [`tidegate_tests::metrics::Metrics::parse`] was strict in any case.
fn please_promtool(page: &str) {
    use std::io::Write;
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else { return };
    promtool.stdin.take().expect("is piped").write_all(page.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("tidegate_")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}
