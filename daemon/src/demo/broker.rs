//! The embedded MQTT broker of the demo: on a free loopback port, everything in memory.
//!
//! The only file that knows mqtt5. Started and stopped by the demo's wiring; the gateway and the devices reach it over
//! TCP, like any broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mqtt5::broker::config::{AuthConfig, BrokerConfig, StorageConfig};
use mqtt5::broker::{BrokerShutdownHandle, MqttBroker};
use mqtt5::error::MqttError;
use tokio::task::JoinHandle;

/// How long a stop waits for connections to end before it cuts them.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A running broker. Dropped without [`Broker::stop`], it runs until the runtime ends.
pub struct Broker {
    address: SocketAddr,
    shutdown: BrokerShutdownHandle,
    serving: JoinHandle<Result<(), MqttError>>,
}

impl Broker {
    /// Starts a broker on a free port of 127.0.0.1 that lets anybody in. It accepts connections when this returns.
    ///
    /// # Errors
    /// No port can be bound, or the broker gives up at once.
    pub async fn start() -> Result<Broker, BrokerError> {
        let config = BrokerConfig::new()
            .with_bind_address((Ipv4Addr::LOCALHOST, 0))
            .with_auth(AuthConfig::new().with_allow_anonymous(true))
            .with_storage(StorageConfig::new().with_persistence(false))
            .with_sys_topics_enabled(false);
        let mut broker = MqttBroker::with_config(config).await.map_err(BrokerError::Start)?;
        let address = broker.local_addr().ok_or(BrokerError::NoAddress)?;
        let shutdown = broker.shutdown_handle();
        let mut ready = broker.ready_receiver();
        let serving = tokio::spawn(async move { broker.run().await });
        // The sender goes unsent only when `run` has ended, whose result says why.
        if ready.wait_for(|ready| *ready).await.is_err() {
            return Err(match serving.await {
                Ok(Err(error)) => BrokerError::Start(error),
                _ => BrokerError::NoAddress,
            });
        }
        Ok(Broker { address, shutdown, serving })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections and frees the port, within two seconds.
    pub async fn stop(mut self) {
        self.shutdown.shutdown();
        if tokio::time::timeout(STOP_LIMIT, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}

/// Why the embedded broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It could not bind, or failed while starting.
    #[error("the embedded broker does not start")]
    Start(#[source] MqttError),
    /// It runs without a listener.
    #[error("the embedded broker listens nowhere")]
    NoAddress,
}

#[cfg(test)]
mod tests {
    use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, QoS};

    use super::*;

    async fn until(events: &mut EventLoop, wanted: impl Fn(&Incoming) -> bool) -> Incoming {
        loop {
            match events.poll().await.expect("connected") {
                Event::Incoming(packet) if wanted(&packet) => return packet,
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn it_serves_clients_and_frees_its_port() {
        let broker = Broker::start().await.expect("a loopback port is free");
        let address = broker.address();
        let options = MqttOptions::new("test", address.ip().to_string(), address.port());
        let (client, mut events) = AsyncClient::new(options, 10);
        client.subscribe("a/+", QoS::AtLeastOnce).await.expect("queued");
        until(&mut events, |packet| matches!(packet, Incoming::SubAck(_))).await;
        client.publish("a/b", QoS::AtLeastOnce, false, "c").await.expect("queued");
        let packet = until(&mut events, |packet| matches!(packet, Incoming::Publish(_))).await;
        let Incoming::Publish(message) = packet else { unreachable!("only a PUBLISH was waited for") };
        assert_eq!((message.topic.as_str(), &message.payload[..]), ("a/b", &b"c"[..]));

        broker.stop().await;
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the port is closed");
    }
}
