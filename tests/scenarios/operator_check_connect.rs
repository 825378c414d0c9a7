//! `tidegate check --connect`: one real connection to each broker, which leaves no trace and takes over no session.

use tidegate_tests::certificates::Authority;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::script::{Limits, Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Home, Message, Mosquitto, Protocol, on_both_protocols, ports, wait};

on_both_protocols!(
    a_running_daemon_keeps_its_session_and_nothing_stays_behind,
    each_broker_is_told_at_its_line_whatever_the_others_do,
);

const CONNECT: [&str; 2] = ["check", "--connect"];

/// A folder with a configuration whose admin server is never started.
fn home(config: &Config) -> Home {
    Home::new(config, ports::free())
}

fn a_running_daemon_keeps_its_session_and_nothing_stays_behind(protocol: Protocol) {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("state/#", 1);
    let keys = "client-id = \"gw\"\nwill = { topic = \"state/will\", message = \"lost\" }\n\
                birth = { topic = \"state/birth\", message = \"up\" }";
    let log =
        "[[subscriptions]]\nbroker = \"plant\"\ntopic = \"in/#\"\nqos = 1\non-message = { log = \"{payload}\" }\n";
    let daemon = Daemon::start(&Config::new().broker("plant", broker.port(), protocol, keys).table(log));
    assert_eq!(collector.collect(1)[0].text(), "up");

    let ran = daemon.home().run(&CONNECT);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "tidegate.toml: ok\n"), "{ran:?}");
    let said = ran.stderr.strip_prefix("broker plant: connected in ").expect(&ran.stderr);
    assert!(said.contains(&format!(" ms, protocol {protocol}")), "{ran:?}");

    let level = if protocol == Protocol::V5 { "p5" } else { "p2" };
    let its = wait::until("the broker has let it go", || {
        let its: Vec<String> = broker.log().into_iter().filter(|line| line.contains("gw-check-")).collect();
        if its.iter().any(|line| line.ends_with(" disconnected.")) { Ok(its) } else { Err(format!("{its:?}")) }
    });
    assert_eq!(its.len(), 2, "it connects, it disconnects, and that is all: {its:?}");
    assert!(its[0].contains(&format!("({level}, c1, k60)")), "a session that the broker forgets: {its:?}");
    broker.client(Protocol::V5).publish(&Message::new("state/end", "end").qos(1));
    assert_eq!(collector.collect(1)[0].text(), "end", "nothing was published for it");
    assert_eq!(daemon.metrics().connects("plant", "accepted"), 1.0);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "still here").qos(1));
    daemon.wait_log(&["still here"]);
}

fn each_broker_is_told_at_its_line_whatever_the_others_do(protocol: Protocol) {
    let up = Mosquitto::start();
    let login = Some(("gateway".to_owned(), "correct horse".to_owned()));
    let guarded = Mosquitto::with(Options { login, ..Options::default() });
    let wrong = "auto-connect = false\nusername = \"gateway\"\npassword = \"tr0ub4dor\"";
    let config = Config::new()
        .broker("down", ports::free(), protocol, "")
        .broker("guarded", guarded.port(), protocol, wrong)
        .broker("up", up.port(), protocol, "auto-connect = false");
    let home = home(&config);
    let ran = home.run(&CONNECT);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "tidegate.toml: 2 problems\n"), "{ran:?}");
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(said.len(), 3, "{ran:?}");
    assert!(said[0].starts_with("broker up: connected in "), "{ran:?}");
    let text = std::fs::read_to_string(home.path().join("tidegate.toml")).expect("it is ours");
    let lines: Vec<usize> =
        (1..).zip(text.lines()).filter(|(_, line)| line.starts_with("address")).map(|(number, _)| number).collect();
    let begins = |line: usize, broker: &str, words: &str| {
        format!("tidegate.toml:{line}:11: brokers.{broker}.address = \"127.0.0.1\": {words}")
    };
    assert_eq!(said[1], begins(lines[0], "down", "nothing listens at this address and port (connection refused)"));
    assert!(said[2].starts_with(&begins(lines[1], "guarded", "the broker ")), "{ran:?}");
    assert!(said[2].contains("correct username and password"), "{ran:?}");
    assert!(!ran.text().contains("tr0ub4dor"), "{ran:?}");

    let ran = home.run(&["check", "--connect", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let connections = report["connections"].as_array().expect("a list");
    let found: Vec<_> = connections.iter().map(|made| (made["broker"].as_str(), made["connected"].as_bool())).collect();
    assert_eq!(found, [(Some("down"), Some(false)), (Some("guarded"), Some(false)), (Some("up"), Some(true))]);
    assert_eq!((&report["errors"][1]["line"], ran.code), (&lines[1].into(), Some(1)));
}

#[test]
fn tls_is_part_of_it() {
    let (authority, stranger, port) = (Authority::new(), Authority::new(), ports::free());
    let _broker = Mosquitto::with(Options::default().tls_listener(port, &authority, &authority.server(), ""));
    let trusting = |authority: &Authority| home(&Config::new().broker("plant", port, Protocol::V5, &authority.tls()));
    let ran = trusting(&authority).run(&CONNECT);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = trusting(&stranger).run(&CONNECT);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("brokers.plant.address") && ran.stderr.contains("ca"),
        "{ran:?}"
    );
}

#[test]
fn what_the_broker_does_not_take_is_a_warning() {
    let broker = ScriptedBroker::listen(Protocol::V5);
    let keys = "will = { topic = \"w\", qos = 1, retain = true }\nbirth = { topic = \"b\", message = \"0123456789\" }";
    let log = "[[subscriptions]]\nbroker = \"plant\"\ntopic = \"in/#\"\nqos = 1\non-message = { log = \"x\" }\n";
    let home = home(&Config::new().broker("plant", broker.port(), Protocol::V5, keys).table(log));
    let mut check = home.start(&CONNECT);
    let limits =
        Limits { keep_alive: Some(45), max_qos: Some(0), no_retain: true, max_packet: Some(10), ..Limits::default() };
    let mut peer = broker.accept_with(false, &limits);
    assert_eq!(peer.request(), Request::Disconnect);
    peer.hang_up();
    assert_eq!(check.wait(wait::PATIENCE).code(), Some(0));
    let words = [
        "broker plant: connected in ",
        "; it takes QoS 0 at most, no retained messages, packets of 10 bytes at most",
        "brokers.plant: will.qos is 1, but the broker takes 0 at most, and refuses the connection; set it to 0",
        "brokers.plant: will.retain is true, but the broker keeps no messages, and refuses the connection; remove it",
        "brokers.plant: birth has 11 bytes, but the broker takes packets of 10 at most; shorten it",
        "brokers.plant: keep-alive is 60, but the broker imposes 45; set it to 45",
        "subscriptions[0]: qos is 1, but the broker knows QoS 0 alone, and its messages may be lost; set it to 0",
    ];
    wait::until("each is told", || {
        let said = check.lines().join("\n");
        words
            .iter()
            .find(|words| !said.contains(**words))
            .map_or(Ok(()), |words| Err(format!("no {words:?} in {said}")))
    });
}

#[test]
fn a_broker_that_permits_only_listed_identifiers_is_told_as_such() {
    let broker = ScriptedBroker::listen(Protocol::V5);
    let home = home(&Config::new().broker("plant", broker.port(), Protocol::V5, "client-id = \"gw\""));
    let mut check = home.start(&CONNECT);
    let mut peer = broker.meet();
    // CONNACK: client identifier not valid (MQTT 5 §3.2.2.2).
    peer.send_raw(&[0x20, 0x03, 0x00, 0x85, 0x00]);
    assert_eq!(check.wait(wait::PATIENCE).code(), Some(1));
    let words = "the broker refuses the client identifier of this check; if it permits only listed client identifiers, it \
                 refuses \"gw-check-";
    wait::until_true("it is told", || check.lines().iter().any(|line| line.contains(words)));
}

#[test]
fn a_configuration_with_errors_is_not_connected_with() {
    let broker = ScriptedBroker::listen(Protocol::V5);
    let home = home(&Config::new().broker("plant", broker.port(), Protocol::V5, "keep-alive = 5"));
    let ran = home.run(&CONNECT);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.ends_with("no connection was tried, since the configuration cannot be used\n"), "{ran:?}");
}
