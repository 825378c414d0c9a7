//! The admin plane's Unix socket: private, one daemon's, and never in the way of the next start.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use tidegate_tests::{Config, Daemon, Protocol, wait};

fn config() -> Config {
    Config::new().broker("plant", 1883, Protocol::V5, "auto-connect = false")
}

#[test]
fn only_its_owner_may_open_it_and_it_goes_with_the_daemon() {
    let mut daemon = Daemon::start(&config());
    let socket = daemon.home().path().join("state/admin.sock");
    let found = fs::symlink_metadata(&socket).expect("is there");
    assert!(found.file_type().is_socket());
    assert_eq!(found.mode() & 0o777, 0o600);
    assert_eq!(daemon.home().run(&["status"]).code, Some(0));
    daemon.terminate();
    assert!(!socket.exists());
}

#[test]
fn one_that_a_killed_daemon_left_is_replaced() {
    let mut daemon = Daemon::start(&config());
    let socket = daemon.home().path().join("state/admin.sock");
    daemon.kill();
    daemon.ended();
    assert!(socket.exists(), "nobody was left to remove it");
    assert_eq!(daemon.home().run(&["status"]).code, Some(3), "nobody answers there");
    daemon.launch_again();
    assert_eq!(daemon.home().run(&["status"]).code, Some(0));
}

/// Each with a state folder of its own: two with one are refused before.
#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let daemon = Daemon::start(&config());
    let text = fs::read_to_string(daemon.home().path().join("tidegate.toml")).expect("is there");
    let port = tidegate_tests::ports::free();
    let text = text.replace(&format!("127.0.0.1:{}", daemon.admin()), &format!("127.0.0.1:{port}"));
    let state = daemon.home().path().join("state").display().to_string();
    let text = text.replace(&format!("state-dir = \"{state}\""), &format!("state-dir = \"{state}-of-the-second\""));
    let text = text.replace("[admin]\n", &format!("[admin]\nsocket = \"{state}/admin.sock\"\n"));
    daemon.home().write("second/tidegate.toml", text);
    let mut second = daemon.home().start(&["run", "-c", "second/tidegate.toml"]);
    assert_eq!(second.wait(wait::PATIENCE).code(), Some(1), "{:?}", second.lines());
    let told = |line: &String| line.contains("admin.socket = ") && line.contains("another daemon serves it");
    assert!(second.lines().iter().any(told), "{:?}", second.lines());
    assert_eq!(daemon.home().run(&["status"]).code, Some(0));
}
