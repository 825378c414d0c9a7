//! A broker that is not there, or does not answer, disturbs no other and is taken up when it comes.

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use tidegate_tests::config::ECHO;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, ports};

on_both_protocols!(
    a_broker_that_is_down_at_start_is_connected_when_it_comes,
    a_server_that_accepts_and_never_answers_holds_up_neither_others_nor_a_stop,
    a_server_that_resets_each_connection_holds_up_no_other,
);

/// Echoes on the broker `plant`; `cloud` has a subscription too.
fn plant_and_cloud(plant: &Mosquitto, cloud: u16, protocol: Protocol) -> Config {
    Config::new()
        .broker("plant", plant.port(), protocol, "")
        .broker("cloud", cloud, protocol, "")
        .guest("echo", "plant", ECHO, "")
        .guest("echo-cloud", "cloud", ECHO, "")
        .subscription("plant", "in/#", 1, "echo", "")
        .subscription("cloud", "in/#", 1, "echo-cloud", "")
}

/// Messages through `broker` come back.
fn works(broker: &Mosquitto, protocol: Protocol) {
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let messages: Vec<_> = (0..10).map(|n| Message::new("in/a", format!("{n}"))).collect();
    broker.client(protocol).publish_all(&messages);
    let came = collector.collect(messages.len());
    assert!(came.iter().zip(&messages).all(|(came, sent)| came.payload == sent.payload), "{came:?}");
}

fn a_broker_that_is_down_at_start_is_connected_when_it_comes(protocol: Protocol) {
    let plant = Mosquitto::start();
    let port = ports::free();
    let daemon = Daemon::launch(&plant_and_cloud(&plant, port, protocol));
    daemon.wait_broker("plant");
    daemon.wait_metrics("attempts fail", |metrics| metrics.connects("cloud", "failed") >= 3.0);
    works(&plant, protocol);
    let said = daemon.wait_not_ready();
    assert!(said.contains("cloud") && !said.contains("plant"), "{said}");
    let warnings = daemon.warnings("cloud");
    assert_eq!(warnings.len(), 1, "said once, not at each attempt: {warnings:?}");
    assert_eq!(warnings[0]["reason"], "nothing listens at this address and port (connection refused)");

    let cloud = Mosquitto::on(port, Options::default());
    daemon.wait_ready();
    works(&cloud, protocol);
    daemon.settle("plant", 10);
    daemon.settle("cloud", 10);
}

fn a_server_that_accepts_and_never_answers_holds_up_neither_others_nor_a_stop(protocol: Protocol) {
    let plant = Mosquitto::start();
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = server.local_addr().expect("is bound").port();
    let (accepted, connections) = mpsc::channel::<TcpStream>();
    thread::spawn(move || server.incoming().flatten().try_for_each(|stream| accepted.send(stream)));

    let mut daemon = Daemon::launch(&plant_and_cloud(&plant, port, protocol));
    let _held_open = connections.recv().expect("the daemon connects");
    daemon.wait_broker("plant");
    works(&plant, protocol);
    let said = daemon.wait_not_ready();
    assert!(said.contains("cloud"), "{said}");
    daemon.settle("plant", 10);
    daemon.terminate();
}

fn a_server_that_resets_each_connection_holds_up_no_other(protocol: Protocol) {
    let plant = Mosquitto::start();
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = server.local_addr().expect("is bound").port();
    thread::spawn(move || server.incoming().flatten().for_each(drop));

    let daemon = Daemon::launch(&plant_and_cloud(&plant, port, protocol));
    daemon.wait_broker("plant");
    daemon.wait_metrics("attempts fail", |metrics| metrics.connects("cloud", "failed") >= 3.0);
    works(&plant, protocol);
    daemon.settle("plant", 10);
}
