//! Messages that go in a circle: counted and stopped where protocol 5 carries the count, told by `check` everywhere.

use serde_json::Value;
use tidegate_tests::{Client, Config, Daemon, Home, Message, Mosquitto, Properties, Protocol, ports};

const HOPS: &str = "tidegate-hops";

/// What stops circles where nothing else does.
const DEAD_LETTER: &str = "dead-letter = { broker = \"plant\", topic = \"dead\" }";

/// Handlers that copy each message of `round/#` to the other broker, under the same topic.
fn circle(plant: u16, cloud: u16, protocol: Protocol, keys: &str) -> Config {
    let mut config = Config::new().broker("plant", plant, protocol, "").broker("cloud", cloud, protocol, "");
    for (from, to) in [("plant", "cloud"), ("cloud", "plant")] {
        let keys = format!(
            "allow = {{ publish = [\"{to}:round/#\"] }}\nconfig = {{ broker = \"{to}\", topic = \"{{topic}}\" }}\n\
             {keys}"
        );
        config = config.handler(from, "relay.wasm", &keys).subscription(from, "round/#", 1, from, "");
    }
    config
}

fn with_hops(value: &str) -> Message {
    let user = vec![("a".to_owned(), "b".to_owned()), (HOPS.to_owned(), value.to_owned())];
    Message::new("round/a", "x").with(Properties { user, ..Properties::default() })
}

#[test]
fn a_message_that_goes_in_a_circle_is_stopped_and_acknowledged() {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let daemon = Daemon::start(&circle(plant.port(), cloud.port(), Protocol::V5, ""));
    let steps = daemon.follow("/api/v1/trace?topic=round/%23&broker=plant&count=1");
    plant.client(Protocol::V5).publish(&with_hops("16"));
    let steps: Vec<Value> = steps.map(|event| serde_json::from_str(&event).expect("is JSON")).collect();
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    assert!(names.ends_with(&["queued", "goes-in-a-circle", "kept-dead-letter", "ended"]), "{names:?}");
    assert_eq!(steps[names.len() - 3]["hops"], 16);
    plant.client(Protocol::V5).publish(&Message::new("round/a", "x"));
    // With 0, 2, … 16 hops on plant, and with 1, 3, … 15 on cloud.
    let metrics = daemon.settle("plant", 10);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dead_letter")), (8.0, 2.0));
    assert_eq!(daemon.settle("cloud", 8).finished("cloud", "handled"), 8.0);
    assert_eq!((metrics.calls("plant", "ok"), metrics.calls("cloud", "ok")), (8.0, 8.0));
    let fields = [("level", "WARN"), ("topic", "round/a")];
    let said = daemon.wait_event("the message becomes a dead letter: it goes in a circle", &fields);
    assert_eq!((&said["broker"], &said["hops"]), (&"plant".into(), &16.into()), "{said}");
}

#[test]
fn a_message_that_goes_in_a_circle_becomes_a_dead_letter() {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let daemon = Daemon::start(&circle(plant.port(), cloud.port(), Protocol::V5, DEAD_LETTER));
    let client = plant.client(Protocol::V5);
    client.subscribe("dead", 1);
    client.publish(&with_hops("16"));
    let letter = client.collect(1).remove(0);
    let told =
        |key: &str| letter.properties.user.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    let all = ["tidegate-reason", "tidegate-attempts", "tidegate-topic", HOPS].map(told);
    assert_eq!(all, [Some("loop"), Some("0"), Some("round/a"), Some("17")], "{letter:?}");
    assert_eq!(
        told("tidegate-error"),
        Some("the message goes in a circle: it came from 16 calls, one after the other")
    );
    let metrics = daemon.settle("plant", 1);
    assert_eq!((metrics.finished("plant", "dead_letter"), metrics.finished("plant", "dropped_loop")), (1.0, 0.0));
    assert_eq!(metrics.sum("tidegate_dead_letters_total", &[("handler", "plant"), ("reason", "loop")]), 1.0);
    let calls = metrics.sum("tidegate_handler_calls_total", &[]);
    assert_eq!(calls, 0.0, "it is not called");
    let fields = [("level", "WARN"), ("handler", "plant"), ("topic", "round/a")];
    daemon.wait_event("the message becomes a dead letter: it goes in a circle", &fields);
}

#[test]
fn the_count_goes_on_from_what_came_and_a_handlers_copy_of_it_does_not_count() {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    // Copies user properties too.
    let keys = "allow = { publish = [\"cloud:up\"] }\nconfig = { broker = \"cloud\", topic = \"up\" }";
    let config = Config::new()
        .broker("plant", plant.port(), Protocol::V5, "")
        .broker("cloud", cloud.port(), Protocol::V5, "")
        .handler("relay", "relay.wasm", keys)
        .subscription("plant", "round/#", 1, "relay", "");
    let daemon = Daemon::start(&config);
    let collector = Client::connect(cloud.port(), Protocol::V5);
    collector.subscribe("up", 1);
    let client = plant.client(Protocol::V5);
    for (came, leaves) in [("7", "8"), ("15", "16"), ("many", "1"), ("-1", "1")] {
        client.publish(&with_hops(came));
        let user = collector.collect(1).remove(0).properties.user;
        assert_eq!(user, [("a".to_owned(), "b".to_owned()), (HOPS.to_owned(), leaves.to_owned())], "{came}");
    }
    ["16", "17", "255", "1000"].iter().for_each(|came| client.publish(&with_hops(came)));
    let metrics = daemon.settle("plant", 8);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dead_letter")), (4.0, 4.0));
    assert_eq!(collector.waiting(), 0);
}

#[test]
fn check_tells_what_can_go_in_a_circle_and_what_stops_it() {
    let told = |protocol| {
        let home = Home::new(&circle(1883, 1884, protocol, DEAD_LETTER), ports::free());
        let ran = home.run(&["check", "tidegate.toml"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let mut warnings = ran.stderr.lines().filter(|line| line.contains(" in a circle ")).map(str::to_owned);
        let warning = warnings.next().unwrap_or_else(|| panic!("{ran:?}"));
        assert_eq!(warnings.next(), None, "told once");
        warning
    };
    let way = "a message can go in a circle by what its handlers may publish, \
               \"plant:round/#\" -> \"cloud:round/#\" -> \"plant:round/#\": ";
    let (counted, uncounted) = (told(Protocol::V5), told(Protocol::V311));
    assert!(counted.contains(&format!("{way}it is stopped after 16 calls; narrow allow.publish of ")), "{counted}");
    let end = "nothing stops it, since plant speaks 3.1.1, which carries no count of calls; narrow allow.publish of ";
    assert!(uncounted.contains(&format!("{way}{end}")), "{uncounted}");
}
