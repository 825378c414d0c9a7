//! A broker that refuses the user name or password: said once in plain words, and no other broker is disturbed.

use tidegate_tests::config::ECHO;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(a_wrong_password_is_said_once_and_the_other_broker_works, the_right_password_from_a_file_is_let_in,);

const WRONG: &str = "tr0ub4dor";

fn guarded() -> Mosquitto {
    let login = Some(("gateway".to_owned(), "correct horse".to_owned()));
    Mosquitto::with(Options { login, ..Options::default() })
}

fn a_wrong_password_is_said_once_and_the_other_broker_works(protocol: Protocol) {
    let (open, guarded) = (Mosquitto::start(), guarded());
    let config = Config::new()
        .broker("open", open.port(), protocol, "")
        .broker("guarded", guarded.port(), protocol, &format!("username = \"gateway\"\npassword = \"{WRONG}\""))
        .guest("echo", "open", ECHO, "")
        .subscription("open", "in/#", 1, "echo", "")
        .subscription("guarded", "in/#", 1, "echo", "");
    let daemon = Daemon::launch(&config);
    daemon.wait_broker("open");
    let collector = open.client(protocol);
    collector.subscribe("out/#", 1);

    let metrics = daemon.wait_metrics("an attempt is refused", |metrics| {
        metrics.connects("guarded", "refused") >= 1.0 && metrics.connects("open", "accepted") == 1.0
    });
    assert_eq!(metrics.connects("guarded", "accepted"), 0.0);
    open.client(protocol).publish(&Message::new("in/a", "x"));
    assert_eq!(collector.collect(1)[0].text(), "x");

    daemon.wait_event("cannot connect", &[("level", "WARN"), ("broker", "guarded"), ("reason", "password")]);
    let warnings = daemon.warnings("guarded");
    assert_eq!(warnings.len(), 1, "said once: {warnings:?}");
    let said = daemon.wait_not_ready();
    assert!(said.contains("guarded") && !said.contains("open"), "{said}");
    for text in daemon.log().iter().chain([&said]) {
        assert!(!text.contains(WRONG), "a secret: {text}");
    }
    daemon.balance();
}

fn the_right_password_from_a_file_is_let_in(protocol: Protocol) {
    let broker = guarded();
    let secret = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(secret.path(), "correct horse\n").expect("is ours");
    let keys = format!("username = \"gateway\"\npassword-file = \"{}\"", secret.path().display());
    let daemon = Daemon::start(&Config::new().broker("guarded", broker.port(), protocol, &keys));
    assert_eq!(daemon.metrics().connects("guarded", "accepted"), 1.0);
    assert!(daemon.log_lines(&["correct horse"]).is_empty(), "a secret in the log");
}
