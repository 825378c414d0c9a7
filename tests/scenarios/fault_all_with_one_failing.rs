//! `dispatch = "all"` with three handlers of which one fails: the others handle each message once and in order, and it is
//! acknowledged only when all three are done with it.

use tidegate_tests::fault::{Bench, On, PATIENT, Row, Setup};
use tidegate_tests::{Config, on_both_stores};

on_both_stores!(
    a_handler_that_fails_now_and_then_holds_back_no_other_and_repeats_none,
    a_handler_that_always_rejects_is_called_once_and_harms_no_other,
);

/// How often a row looks whether what is acknowledged is done.
const LOOKS: usize = 20;

/// Every message matches all three, and the last covers the others: one copy comes, with one acknowledgement.
const FILTERS: [&str; 3] = ["in/+", "in/#", "#"];

const ALL: &str = "dispatch = \"all\"";

/// Dead letters that the store keeps.
const MOST_KEPT: f64 = 10_000.0;

fn a_handler_that_fails_now_and_then_holds_back_no_other_and_repeats_none(on: On) {
    let mut row = Row::begin("fault_all_with_one_failing", on);
    let seed = row.random().below(0..1 << 32);
    let guest = format!("mode = \"flaky\", fails = 0.1, seed = {seed}, broker = \"cloud\"");
    let retry = "retry = { max = 1000, backoff = \"5ms..20ms\", max-time = \"1h\" }\ninstances = 2";
    let keys = format!("{retry}\n{PATIENT}");
    let bench = Setup::new(&row)
        .plant(ALL)
        .also("one/")
        .also("two/")
        .tables(move |config| {
            let config = copies(copies(config, "one", FILTERS[0]), "two", FILTERS[2]);
            config.guest("flaky", "cloud", &guest, &keys).subscription("plant", FILTERS[1], 1, "flaky", "")
        })
        .start();
    watch_acknowledgements(&bench, on);
    let metrics =
        bench.daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    let count = bench.ledger.flow().count() as f64;
    let failed = metrics.calls("flaky", "retry");
    assert!((0.09..0.13).contains(&(failed / count)), "{failed} calls failed");
    assert_eq!(["one", "two", "flaky"].map(|handler| metrics.calls(handler, "ok")), [count; 3]);
    assert_eq!(metrics.finished("plant", "handled"), count);
    let verdict = bench.finish(&row, &format!("{failed} calls of one of three handlers failed"));
    assert_eq!(verdict.duplicates, 0, "no connection was lost");
}

fn a_handler_that_always_rejects_is_called_once_and_harms_no_other(on: On) {
    let row = Row::begin("fault_all_with_one_failing", on);
    let bench = Setup::new(&row)
        .plant(ALL)
        .also("two/")
        .tables(|config| {
            let config = copies(copies(config, "out", FILTERS[0]), "two", FILTERS[2]);
            config
                .guest("rejects", "cloud", "mode = \"reject\", broker = \"cloud\"", PATIENT)
                .subscription("plant", FILTERS[1], 1, "rejects", "")
        })
        .start();
    watch_acknowledgements(&bench, on);
    let metrics =
        bench.daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    let count = bench.ledger.flow().count() as f64;
    assert_eq!(["out", "two"].map(|handler| metrics.calls(handler, "ok")), [count; 2]);
    assert_eq!(metrics.calls("rejects", "reject"), count);
    let kept = count.min(MOST_KEPT);
    let ended = ["dead_letter", "dropped_failed"].map(|outcome| metrics.finished("plant", outcome));
    assert_eq!(ended, [kept, count - kept], "the worst end counts");
    assert_eq!(metrics.sum("tidegate_dead_letter_store_messages", &[]), kept);
    let verdict = bench.finish(&row, "every call of one of three handlers rejected");
    assert_eq!(verdict.duplicates, 0, "no connection was lost");
}

/// Adds a handler that copies everything to `NAME/` of `cloud`.
fn copies(config: Config, name: &str, filter: &str) -> Config {
    let keys = format!(
        "allow = {{ publish = [\"cloud:{name}/#\"] }}\nconfig = {{ broker = \"cloud\", topic = \"{name}/{{topic}}\" }}\n\
         instances = 2\n{PATIENT}"
    );
    config.handler(name, "relay.wasm", &keys).subscription("plant", filter, 1, name, "")
}

/// Looks again and again, until everything has come out, whether what is acknowledged has all its outputs. Those that wait on the
/// disk need not have come.
#[track_caller]
fn watch_acknowledgements(bench: &Bench, on: On) {
    if on.on_disk() {
        return bench.wait_distinct(bench.ledger.flow().count());
    }
    let count = bench.ledger.flow().count();
    for look in 1..=LOOKS {
        bench.ledger.wait_distinct(look * count / LOOKS);
        let acknowledged = bench.to_plant.acknowledged();
        let further = bench.others.iter().map(|(collector, ledger)| (collector, ledger));
        for (collector, ledger) in further.chain([(&bench.collector, &bench.ledger)]) {
            // What the target broker has acknowledged came before.
            collector.drain();
            let (lacking, filter) = (ledger.lacking(&acknowledged), ledger.filter());
            assert!(lacking.is_empty(), "acknowledged before their outputs came to {filter}: {lacking:?}");
        }
    }
}
