//! Every make of broker: what it makes of the daemon's CONNECT, and of another client with its name.

use tidegate_tests::{Client, Config, Daemon, Make, Protocol, on_every_broker, wait};

on_every_broker!(
    protocol_5_is_spoken_or_refused_in_plain_words,
    another_client_of_the_same_name_takes_the_session_over
);

fn protocol_5_is_spoken_or_refused_in_plain_words(make: &Make, _protocol: Protocol) {
    let broker = (make.start)();
    let daemon = Daemon::launch(&Config::new().broker("plant", broker.port(), Protocol::V5, ""));
    if make.speaks_5 {
        daemon.wait_event("connected", &[("broker", "plant"), ("protocol", "5"), ("session", "new")]);
        daemon.wait_ready();
    } else {
        daemon.wait_event("cannot connect", &[("broker", "plant"), ("reason", "set protocol = \"3.1.1\"")]);
    }
}

fn another_client_of_the_same_name_takes_the_session_over(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let daemon = Daemon::start(&Config::new().broker("plant", broker.port(), protocol, "client-id = \"gateway\""));
    let strange = protocol == Protocol::V311 && make.disconnects_3_1_1;
    let reason = if strange { "breaks the protocol" } else { "client-id = \"gateway\"" };
    let lost = || daemon.events().into_iter().filter(|event| event["message"] == "connection lost");
    let told = || lost().any(|event| event["reason"].as_str().is_some_and(|told| told.contains(reason)));
    // Without DISCONNECT only what ends soon after it began shows another client: a loaded machine may take longer for that.
    wait::until(format!("the reason contains {reason}"), || {
        let losses = lost().count();
        let other = Client::options(broker.port(), protocol).session("gateway").connect().expect("is let in");
        wait::until_true("the daemon's connection is lost", || lost().count() > losses);
        if told() {
            return Ok(());
        }
        // The daemon takes it back.
        other.ended();
        Err(format!("{:?}", lost().collect::<Vec<_>>()))
    });
}
