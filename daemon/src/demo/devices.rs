//! The simulated devices of the demo: each a client of its own that publishes a reading every two seconds.
//!
//! Fed by nothing: the readings are a fixed walk, so that every run shows an alarm within its first seconds. They know the
//! broker's address and nothing of the gateway.

use std::f64::consts::TAU;
use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, EventLoop, MqttOptions, QoS};
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// From one reading of a device to its next: slow enough to read along.
const PACE: Duration = Duration::from_secs(2);
/// Readings that wait for a connection; a further one is not sent.
const QUEUE: usize = 10;
/// From a lost connection to the next attempt.
const RECONNECT: Duration = Duration::from_secs(1);
/// How long a stop waits for the devices to disconnect.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// What a device measures.
struct Device {
    name: &'static str,
    topic: &'static str,
    /// The member of the JSON payload.
    unit: &'static str,
    base: f64,
    swing: f64,
    /// Readings in one swing up and down.
    period: u32,
}

/// They meet one subscription each of the demo's configuration.
const DEVICES: [Device; 3] = [
    Device { name: "line-1", topic: "plant/line-1/temperature", unit: "c", base: 21.5, swing: 2.0, period: 16 },
    Device { name: "oven", topic: "plant/oven/temperature", unit: "c", base: 74.0, swing: 12.0, period: 6 },
    Device { name: "pump", topic: "plant/pump/pressure", unit: "bar", base: 2.4, swing: 0.3, period: 10 },
];

impl Device {
    /// The reading with this number, to one decimal.
    fn reading(&self, number: u32) -> f64 {
        let phase = f64::from(number % self.period) / f64::from(self.period);
        // Sevenths wander through the digits without a random number generator.
        let noise = f64::from(number * 7 % 10) / 10.0 - 0.5;
        let value = self.base + self.swing * ((phase * TAU).sin() + noise / 10.0);
        (value * 10.0).round() / 10.0
    }

    fn payload(&self, number: u32) -> String {
        format!(r#"{{"{}":{:.1}}}"#, self.unit, self.reading(number))
    }
}

/// All devices at work.
pub struct Devices {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Devices {
    /// Switches them on, one after the other within [`PACE`].
    pub fn start(broker: SocketAddr) -> Devices {
        let devices = Devices { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let now = Instant::now();
        // Not at once: the gateway has yet to subscribe.
        for (device, place) in DEVICES.iter().zip(1_u32..) {
            let first = now + PACE * place / DEVICES.len() as u32;
            devices.tasks.spawn(live(device, broker, first, devices.stop.clone()));
        }
        devices.tasks.close();
        devices
    }

    /// Switches them off: they disconnect, or are cut off after a second.
    pub async fn stop(self) {
        self.stop.cancel();
        if timeout(STOP_LIMIT, self.tasks.wait()).await.is_err() {
            debug!("a simulated device does not disconnect");
        }
    }
}

async fn live(device: &'static Device, broker: SocketAddr, first: Instant, stop: CancellationToken) {
    let options = MqttOptions::new(format!("demo-{}", device.name), broker.ip().to_string(), broker.port());
    let (client, events) = AsyncClient::new(options, QUEUE);
    // Beside each other, never one cancelling the other: a cancelled poll may drop a packet half-written.
    tokio::join!(measure(device, client, first, &stop), converse(device, events, &stop));
}

async fn measure(device: &Device, client: AsyncClient, first: Instant, stop: &CancellationToken) {
    let mut ticks = interval_at(first, PACE);
    for number in 0.. {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if client.try_publish(device.topic, QoS::AtLeastOnce, false, device.payload(number)).is_err() {
            debug!(device = device.name, "a reading is not sent: too many wait already");
        }
    }
    if client.try_disconnect().is_err() {
        debug!(device = device.name, "a device cannot say goodbye");
    }
}

async fn converse(device: &Device, mut events: EventLoop, stop: &CancellationToken) {
    loop {
        let Err(error) = events.poll().await else { continue };
        debug!(device = device.name, %error, "a device's connection has ended");
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RECONNECT) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rumqttc::{Event, Incoming};

    use super::*;
    use crate::demo::broker::Broker;

    #[test]
    fn the_oven_crosses_its_limit_and_comes_back_within_ten_seconds() {
        let [_, oven, _] = &DEVICES;
        let in_ten_seconds = u32::try_from(Duration::from_secs(10).as_millis() / PACE.as_millis()).expect("few");
        let readings: Vec<f64> = (0..in_ten_seconds).map(|number| oven.reading(number)).collect();
        let above = readings.iter().position(|&c| c > 80.0).expect("an alarm");
        assert!(readings[..above].iter().all(|&c| c < 78.0), "{readings:?}");
        assert!(readings[above..].iter().any(|&c| c < 78.0), "{readings:?}");
    }

    #[tokio::test]
    async fn every_device_reaches_the_broker_and_leaves_it() {
        let broker = Broker::start().await.expect("a loopback port is free");
        let options = MqttOptions::new("observer", broker.address().ip().to_string(), broker.address().port());
        let (client, mut events) = AsyncClient::new(options, QUEUE);
        client.try_subscribe("plant/#", QoS::AtMostOnce).expect("room for one");
        let devices = Devices::start(broker.address());
        let mut silent: HashSet<&str> = DEVICES.iter().map(|device| device.topic).collect();
        let all_heard = async {
            while !silent.is_empty() {
                if let Event::Incoming(Incoming::Publish(message)) = events.poll().await.expect("connected") {
                    silent.remove(message.topic.as_str());
                }
            }
        };
        timeout(PACE * 5, all_heard).await.expect("each device publishes every two seconds");
        let stopping = Instant::now();
        devices.stop().await;
        assert!(stopping.elapsed() < STOP_LIMIT, "they disconnect by themselves");
        broker.stop().await;
    }

    #[test]
    fn readings_wander() {
        for device in &DEVICES {
            for number in 0..1000 {
                let reading = device.reading(number);
                assert!((reading - device.base).abs() <= device.swing * 1.05 + 0.05, "{}: {reading}", device.name);
            }
            let distinct = (0..4).map(|number| device.payload(number)).collect::<HashSet<_>>();
            assert!(distinct.len() >= 3, "{distinct:?}");
        }
        assert_eq!(DEVICES[0].payload(0), r#"{"c":21.4}"#);
    }
}
