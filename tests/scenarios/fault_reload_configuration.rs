//! Every part of the configuration changes twice a second while messages flow: the handler, its subscription, the settings of both
//! brokers, and now and then the connections themselves.

use std::time::{Duration, Instant};

use tidegate_tests::fault::{On, Row, Setup, relay};
use tidegate_tests::{Config, on_both_stores};

on_both_stores!(nothing_is_lost_and_each_topic_stays_in_order);

/// From one reload to the next.
const PAUSE: Duration = Duration::from_millis(500);

/// Messages a second.
const RATE: u32 = 1_500;

/// Of so many reloads one makes the connections anew.
const RECONNECTS: usize = 5;

fn nothing_is_lost_and_each_topic_stays_in_order(on: On) {
    let row = Row::begin("fault_reload_configuration", on);
    let bench = Setup::new(&row).rate(RATE).until(0).start();
    let (plant, cloud) = (bench.to_plant.port(), bench.to_cloud.port());
    let config = |reload: usize| {
        let keep_alive = 60 + reload / RECONNECTS;
        let both = format!("keep-alive = {keep_alive}\nparallel-limit = {}\n", 3 + reload);
        let cloud_keys = format!("{}outbox.max-messages = {}\n{both}", on.outbox(), 10_000 + reload);
        let config = Config::new()
            .top(&format!("recv-buffer = {}", reload % 3))
            .broker("plant", plant, on.protocol, &both)
            .broker("cloud", cloud, on.protocol, &cloud_keys);
        // A filter that the other covers, so that each message matches one that stays.
        let other = ["in/+", "in/#"][reload % 2];
        let config = config.subscription("plant", other, 1, "relay", &format!("name = \"reload-{}\"", reload % 2));
        let every = format!(
            "[[schedules]]\nname = \"never-{reload}\"\ncron = \"0 0 0 29 2 *\"\npublish = {{ broker = \"plant\", topic = \"never\", message = \"\" }}\n"
        );
        without_subscription(relay(config, &format!("queue = {}", 1_024 + reload))).table(every)
    };
    let mut reloads = 0;
    let count = bench.ledger.flow().count();
    // The last of them are kept back until there were enough: a loaded machine reloads more seldom.
    bench.sender.release_until(3 * count / 4);
    while bench.ledger.distinct() < count {
        let next = Instant::now() + PAUSE;
        reloads += 1;
        bench.daemon.home().configure(&config(reloads), bench.daemon.admin());
        let answer = bench.daemon.json(&["reload"]);
        assert!(!answer["handlers"].as_array().expect("a list").is_empty(), "{answer}");
        if reloads > RECONNECTS {
            bench.sender.release();
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    assert!(reloads > RECONNECTS, "only {reloads} reloads");
    bench.finish(&row, &format!("{reloads} reloads"));
}

/// The relay's own subscription is one of those that change.
fn without_subscription(mut config: Config) -> Config {
    let place = config.tables.rfind("[[subscriptions]]").expect("has one");
    config.tables.truncate(place);
    config
}
