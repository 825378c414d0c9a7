//! Messages that go in a circle: counted and stopped where protocol 5 carries the count, told by `check` everywhere.

use tidegate_tests::{Client, Config, Daemon, Home, Message, Mosquitto, Properties, Protocol, ports};

const HOPS: &str = "tidegate-hops";

/// Handlers that copy each message of `round/#` to the other broker, under the same topic.
fn circle(plant: u16, cloud: u16, protocol: Protocol) -> Config {
    let mut config = Config::new().broker("plant", plant, protocol, "").broker("cloud", cloud, protocol, "");
    for (from, to) in [("plant", "cloud"), ("cloud", "plant")] {
        let keys = format!(
            "allow = {{ publish = [\"{to}:round/#\"] }}\nconfig = {{ broker = \"{to}\", topic = \"{{topic}}\" }}\n\
             dead-letter = {{ broker = \"plant\", topic = \"dead\" }}"
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
    let daemon = Daemon::start(&circle(plant.port(), cloud.port(), Protocol::V5));
    plant.client(Protocol::V5).publish(&Message::new("round/a", "x"));
    // With 0, 2, … 16 hops on plant, and with 1, 3, … 15 on cloud.
    let metrics = daemon.settle("plant", 9);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dropped_loop")), (8.0, 1.0));
    assert_eq!(daemon.settle("cloud", 8).finished("cloud", "handled"), 8.0);
    assert_eq!((metrics.calls("plant", "ok"), metrics.calls("cloud", "ok")), (8.0, 8.0));
    let said = daemon.wait_event("message dropped: it goes in a circle", &[("level", "ERROR"), ("topic", "round/a")]);
    assert_eq!((&said["broker"], &said["hops"]), (&"plant".into(), &16.into()), "{said}");
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
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dropped_loop")), (4.0, 4.0));
    assert_eq!(collector.waiting(), 0);
}

#[test]
fn check_tells_what_can_go_in_a_circle_and_what_stops_it() {
    let told = |protocol| {
        let home = Home::new(&circle(1883, 1884, protocol), ports::free());
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
    assert!(counted.contains(&format!("{way}it is dropped after 16 calls; narrow allow.publish of ")), "{counted}");
    let end = "nothing stops it, since plant speaks 3.1.1, which carries no count of calls; narrow allow.publish of ";
    assert!(uncounted.contains(&format!("{way}{end}")), "{uncounted}");
}
