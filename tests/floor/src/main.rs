//! The floor of the benchmark: what the sample handler `celsius` does, as a minimal program on rumqttc alone.
//!
//! Takes readings from `bench/in/+` and publishes them converted to `TOPIC/fahrenheit` with the same QoS. It is written as
//! one would write it for this purpose and no other: one connection, one thread, no sandbox, no queue that is bounded by
//! bytes, no acknowledgement held back until the publish is safe, no way on after an error. Used by `cargo xtask bench`.

use std::time::Duration;

use anyhow::{Context, Result};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, Publish, QoS};
use serde::{Deserialize, Serialize};

/// Requests that wait for the event loop. It is the loop itself that puts them there, so it must not wait for room: a
/// broker that takes nothing for so many messages ends the program.
const REQUESTS: usize = 1_000_000;

#[derive(Deserialize)]
struct Reading {
    c: f64,
}

#[derive(Serialize)]
struct Converted {
    f: f64,
}

/// Runs until the connection ends, with the broker's port on 127.0.0.1 as its argument.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).context("usage: tidegate-floor PORT")?;
    let mut options = MqttOptions::new("floor", "127.0.0.1", port.parse().context("PORT is a number up to 65535")?);
    options.set_keep_alive(Duration::from_secs(60));
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    without_delay(&mut events);
    client.subscribe("bench/in/+", QoS::AtLeastOnce).await?;
    loop {
        if let Event::Incoming(Packet::Publish(message)) = events.poll().await? {
            convert(&client, &message)?;
        }
    }
}

/// Sends small packets at once: without this, the system's delay is all that would be measured.
fn without_delay(events: &mut EventLoop) {
    let mut options = NetworkOptions::new();
    options.set_tcp_nodelay(true);
    events.set_network_options(options);
}

fn convert(client: &AsyncClient, message: &Publish) -> Result<()> {
    let Reading { c } = serde_json::from_slice(&message.payload)?;
    let payload = serde_json::to_vec(&Converted { f: fahrenheit(c) })?;
    client.try_publish(format!("{}/fahrenheit", message.topic), message.qos, false, payload)?;
    Ok(())
}

/// As `celsius` does it.
fn fahrenheit(celsius: f64) -> f64 {
    ((celsius * 1.8 + 32.0) * 100.0).round() / 100.0
}
