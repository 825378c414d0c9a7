//! A handler counts in its kv and publishes each count: the daemon is killed again and again, and in the end the count is that of the
//! outputs; and two instances count in one key, and no count is missing or given twice.
//!
//! The count is what the handler itself reads in the end, to count one more, in a daemon that has nothing but its disk to know it from.

use tidegate_tests::fault::{Bench, Ledger, On, PATIENT, Row, Setup};
use tidegate_tests::{Config, Message, on_both_stores};

on_both_stores!(the_count_is_that_of_the_outputs_after_kills);

/// In each test, whatever its size.
const KILLS: usize = 30;

/// So that the instances meet over the key.
const AT_ONCE: &str = "parallel-limit = \"off\"";

/// Messages that two instances count, in the smallest size and in the long set.
const COUNTED: usize = 5_000;
const COUNTED_LONG: usize = 100_000;

fn the_count_is_that_of_the_outputs_after_kills(on: On) {
    let row = Row::begin("fault_kv_counter", on);
    let kills = row.scaled(KILLS).max(KILLS);
    let mut bench = Setup::new(&row).counted().plant(AT_ONCE).tables(counter).start();
    let messages = bench.ledger.flow().count();
    for kill in 1..=kills {
        bench.wait_distinct(kill * messages / (kills + 1));
        bench.daemon.kill();
        bench.daemon.restart();
    }
    bench.wait_distinct(messages);
    let count = remembered(&mut bench, on);
    let interrupted = bench.to_plant.counts().interrupted + bench.to_cloud.counts().interrupted;
    assert!(
        interrupted >= kills / 2,
        "{interrupted} connections of {kills} kills met messages: between two a kill shows nothing"
    );
    let ledger = bench.ledger.clone();
    bench.finish(&row, &format!("{kills} kills, counted {count}"));
    let outputs = hold_counts(&ledger, count);
    assert!(count >= messages as u64, "{count} of {messages} acknowledged messages are counted");
    // In one transaction with its count, an output is not without it. In memory it may leave, and the count be taken back by a kill:
    // then another input gets it.
    assert!(outputs == count || !on.on_disk(), "{outputs} distinct outputs, counted {count}");
}

mod two_instances_count_each_message_once {
    use super::{COUNTED, COUNTED_LONG, counted_by_two};
    use tidegate_tests::Protocol::{V5, V311};
    use tidegate_tests::fault::On;

    #[test]
    fn on_5() {
        counted_by_two(On::memory(V5), COUNTED);
    }

    #[test]
    fn on_disk_3_1_1() {
        counted_by_two(On::disk_in_full(V311), COUNTED);
    }

    #[test]
    #[ignore = "long: 100,000 messages"]
    fn on_disk_5() {
        counted_by_two(On::disk_in_full(V5), COUNTED_LONG);
    }
}

fn counted_by_two(on: On, messages: usize) {
    let row = Row::begin("fault_kv_counter", on);
    let mut bench = Setup::new(&row).messages(row.scaled(messages)).counted().plant(AT_ONCE).tables(counter).start();
    let messages = bench.ledger.flow().count() as u64;
    bench.wait_distinct(bench.ledger.flow().count());
    let conflicts = bench.daemon.metrics().sum("tidegate_handler_conflicts_total", &[("handler", "counter")]);
    let count = remembered(&mut bench, on);
    let ledger = bench.ledger.clone();
    bench.finish(&row, &format!("two instances, {conflicts} conflicts, counted {count}"));
    assert_eq!(count, messages, "each message is counted once");
    assert_eq!(hold_counts(&ledger, count), count, "no count is given twice");
    assert!(conflicts > 0.0, "the instances never met");
}

/// A handler that counts what comes in one key, in two instances.
fn counter(config: Config) -> Config {
    let keys = format!(
        "allow = {{ publish = [\"cloud:out/#\"], kv = \"64KiB\" }}\nconfig = {{ mode = \"count\", broker = \"cloud\" }}\n\
         instances = 2\n{PATIENT}"
    );
    config
        .handler("counter", "misbehave.wasm", &keys)
        .subscription("plant", "in/#", 1, "counter", "")
        .subscription("plant", "ask", 1, "counter", "")
}

/// What the handler has counted, after a daemon that has forgotten everything but what is on its disk has been asked for it.
#[track_caller]
fn remembered(bench: &mut Bench, on: On) -> u64 {
    bench.daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    bench.daemon.kill();
    bench.daemon.restart();
    let answers = bench.cloud.client(on.protocol);
    answers.subscribe("out/ask", 1);
    bench.plant.client(on.protocol).publish(&Message::new("ask", "?"));
    let answer = answers.collect(1).remove(0);
    let next: Option<u64> = answer.text().strip_suffix(" ?").and_then(|count| count.parse().ok());
    next.unwrap_or_else(|| panic!("no count: {answer:?}")) - 1
}

/// Holds that outputs came with every count up to this one and with no other; gives how many inputs came with one, a time for each of
/// their counts.
#[track_caller]
fn hold_counts(ledger: &Ledger, count: u64) -> u64 {
    let counts = ledger.counts();
    let came: Vec<u64> = counts.iter().map(|(count, _)| *count).collect();
    let missing: Vec<u64> = (1..=count).filter(|wanted| came.binary_search(wanted).is_err()).collect();
    let beyond: Vec<u64> = came.into_iter().filter(|came| !(1..=count).contains(came)).collect();
    let first = &missing[..missing.len().min(10)];
    assert!(missing.is_empty(), "counted {count}: {} counts without an output, such as {first:?}", missing.len());
    assert!(beyond.is_empty(), "counted {count}: outputs with the counts {beyond:?}");
    counts.iter().map(|(_, inputs)| *inputs as u64).sum()
}
