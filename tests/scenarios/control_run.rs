//! `tidegate run`: what keeps the daemon from starting is said, with exit code 1.

use std::net::TcpListener;

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Home, Message, Mosquitto, Protocol, ports};

#[test]
fn a_taken_admin_port_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("is bound").port();
    let config = Config::new().broker("plant", 1883, Protocol::V5, "auto-connect = false");
    let ran = Home::new(&config, port).run(&["run"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let told = ran.stderr.contains(&format!("admin.listen = 127.0.0.1:{port} ")) && ran.stderr.contains("in use");
    assert!(told, "{ran:?}");
}

#[test]
fn a_bad_configuration_is_told_as_check_tells_it() {
    let home = Home::empty();
    home.write("tidegate.toml", "[brokers.plant]\naddress = \"mqtt.example\"\nport = 0\n");
    let ran = home.run(&["run"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr, "tidegate.toml:3:8: brokers.plant.port = 0: must be 1 to 65535; use 1\n");
    assert_eq!(home.run(&["check"]).stderr, ran.stderr);
}

#[test]
fn a_state_folder_that_cannot_be_made_is_told() {
    let config = Config::new().broker("plant", 1883, Protocol::V5, "auto-connect = false");
    let home = Home::new(&config, ports::free());
    home.write("state", "a file where the folder should be");
    let ran = home.run(&["run"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("state-dir = ") && ran.stderr.contains("/state"), "{ran:?}");
}

/// Subscriptions of `conf.d` and values from files count as those of the main file.
#[test]
fn conf_d_and_interpolated_values_take_part() {
    let broker = Mosquitto::start();
    let secret = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(secret.path(), "in/#").expect("is ours");
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "").guest("echo", "plant", ECHO, "");
    let topic = format!("topic = \"${{file:{}}}\"", secret.path().display());
    let more = format!("[[subscriptions]]\nbroker = \"plant\"\n{topic}\nqos = 1\non-message = \"echo\"\n");
    let mut daemon = Daemon::start(&config);
    daemon.terminate();
    daemon.home().write("conf.d/inputs.toml", more);
    daemon.restart();

    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    assert_eq!(collector.collect(1)[0].text(), "x");
    daemon.settle("plant", 1);
}
