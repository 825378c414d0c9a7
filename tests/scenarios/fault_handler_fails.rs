//! A handler fails in one call of ten and traps in one of a hundred: each message is handled once nevertheless, and its topic
//! waits for it.

use tidegate_tests::fault::{On, PATIENT, Row, Setup};
use tidegate_tests::{Protocol, on_both_stores};

on_both_stores!(each_message_has_its_effect_once_and_in_order);

/// Filters that overlap in part: on protocol 5 the broker sends a copy for each. The first wins.
const FILTERS: [&str; 2] = ["+/+", "in/#"];

/// Shares of all calls.
const FAILS: f64 = 0.1;
const TRAPS: f64 = 0.01;

/// Never the end of a message: 1,000 calls that fail in a row do not happen.
const RETRY: &str = "retry = { max = 1000, backoff = \"1ms..20ms\", max-time = \"1h\" }\ninstances = 2";

fn each_message_has_its_effect_once_and_in_order(on: On) {
    let mut row = Row::begin("fault_handler_fails", on);
    let seed = row.random().below(0..1 << 32);
    let guest = format!("mode = \"flaky\", fails = {FAILS}, traps = {TRAPS}, seed = {seed}, broker = \"cloud\"");
    let bench = Setup::new(&row)
        .tables(move |config| {
            config
                .guest("flaky", "cloud", &guest, &format!("{RETRY}\n{PATIENT}"))
                .guest("loses", "cloud", "mode = \"echo\", broker = \"cloud\"", PATIENT)
                .subscription("plant", FILTERS[0], 1, "flaky", "")
                .subscription("plant", FILTERS[1], 1, "loses", "")
        })
        .start();
    let messages = bench.ledger.flow().count();
    bench.wait_distinct(messages);
    let count = messages as f64;
    // mosquitto sends one copy on 3.1.1.
    let copies = if on.protocol == Protocol::V5 { count } else { 0.0 };
    let metrics = bench.daemon.wait_metrics("everything reaches its end", |metrics| {
        metrics.in_progress("plant") == 0.0 && metrics.finished("plant", "copy") >= copies
    });
    let calls = ["ok", "retry", "trap"].map(|result| metrics.calls("flaky", result));
    let [ok, failed, trapped] = calls;
    let all: f64 = calls.iter().sum();
    assert_eq!(ok, count, "each message is handled to its end once");
    assert!(is_about(FAILS, failed, all), "{failed} of {all} calls failed");
    assert!(is_about(TRAPS, trapped, all), "{trapped} of {all} calls trapped");
    assert_eq!(metrics.sum("tidegate_handler_retries_total", &[("handler", "flaky")]), failed + trapped);
    assert_eq!(metrics.sum("tidegate_handler_calls_total", &[("handler", "loses")]), 0.0);
    assert_eq!(metrics.finished("plant", "handled"), count);
    assert_eq!(metrics.finished("plant", "copy"), copies, "copies that came and were not dispatched");
    let verdict = bench.finish(&row, &format!("{failed} calls failed, {trapped} trapped, {copies} copies"));
    assert_eq!(verdict.duplicates, 0, "no connection was lost");
}

/// Whether so many of all are this share of them, within five standard deviations.
fn is_about(share: f64, count: f64, all: f64) -> bool {
    (count - share * all).abs() <= 5.0 * (share * (1.0 - share) * all).sqrt()
}
