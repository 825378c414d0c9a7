//! `on-message = { log = … }`: a line in the log instead of a handler.

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol};

#[test]
fn a_message_is_written_to_the_log_as_its_template_says() {
    let broker = Mosquitto::start();
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "").table(
        r#"
        [[subscriptions]]
        broker = "plant"
        topic = "notes/+"
        qos = 1
        on-message = { log = "Got data {payload} from topic {topic}" }
        "#,
    );
    let daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish(&Message::new("notes/today", "rain at noon"));
    daemon.wait_log(&["Got data rain at noon from topic notes/today"]);
    assert_eq!(daemon.settle("plant", 1).finished("plant", "logged"), 1.0);
}
