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

/// Echoes on the broker `here`; `away` has a subscription too.
fn here_and_away(here: &Mosquitto, away: u16, protocol: Protocol) -> Config {
    Config::new()
        .broker("here", here.port(), protocol, "")
        .broker("away", away, protocol, "")
        .guest("echo", "here", ECHO, "")
        .guest("echo-away", "away", ECHO, "")
        .subscription("here", "in/#", 1, "echo", "")
        .subscription("away", "in/#", 1, "echo-away", "")
}

fn wait_connected(daemon: &Daemon, broker: &str) {
    daemon.wait_metrics(&format!("{broker} is connected"), |metrics| {
        metrics.sum("tidegate_broker_connected", &[("broker", broker)]) == 1.0
    });
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
    let here = Mosquitto::start();
    let port = ports::free();
    let daemon = Daemon::launch(&here_and_away(&here, port, protocol));
    wait_connected(&daemon, "here");
    daemon.wait_metrics("attempts fail", |metrics| metrics.connects("away", "failed") >= 3.0);
    works(&here, protocol);
    let ready = daemon.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("away") && !ready.body.contains("here"), "{}", ready.body);
    assert_eq!(daemon.log_lines(&["WARN", "\"away\""]).len(), 1, "said once, not at each attempt");

    let away = Mosquitto::on(port, Options::default());
    daemon.wait_ready();
    works(&away, protocol);
    daemon.settle("here", 10);
    daemon.settle("away", 10);
}

fn a_server_that_accepts_and_never_answers_holds_up_neither_others_nor_a_stop(protocol: Protocol) {
    let here = Mosquitto::start();
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = server.local_addr().expect("is bound").port();
    let (accepted, connections) = mpsc::channel::<TcpStream>();
    thread::spawn(move || server.incoming().flatten().try_for_each(|stream| accepted.send(stream)));

    let mut daemon = Daemon::launch(&here_and_away(&here, port, protocol));
    let _held_open = connections.recv().expect("the daemon connects");
    wait_connected(&daemon, "here");
    works(&here, protocol);
    let ready = daemon.get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("away"), "{}", ready.body);
    daemon.settle("here", 10);
    daemon.terminate();
}

fn a_server_that_resets_each_connection_holds_up_no_other(protocol: Protocol) {
    let here = Mosquitto::start();
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = server.local_addr().expect("is bound").port();
    thread::spawn(move || server.incoming().flatten().for_each(drop));

    let daemon = Daemon::launch(&here_and_away(&here, port, protocol));
    wait_connected(&daemon, "here");
    daemon.wait_metrics("attempts fail", |metrics| metrics.connects("away", "failed") >= 3.0);
    works(&here, protocol);
    daemon.settle("here", 10);
}
