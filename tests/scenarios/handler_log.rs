//! What a handler writes goes to the daemon's log: its lines, their fields, and what it prints.

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol};

#[test]
fn lines_fields_and_standard_streams_are_logged_under_the_handlers_name() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("talks", "plant", "mode = \"log\"", "")
        .subscription("plant", "in/+", 1, "talks", "");
    let daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.settle("plant", 1);

    let check = |message: &str, level: &str, field: (&str, &str)| {
        let event = daemon.wait_event(message, &[("handler", "talks"), field]);
        assert_eq!(event["level"], level, "{event}");
    };
    check("a line with fields", "INFO", ("fields", "in/a"));
    check("a line without fields", "ERROR", ("target", "tidegate"));
    check("a line on standard output", "INFO", ("stream", "stdout"));
    check("a line on standard error", "WARN", ("stream", "stderr"));
}
