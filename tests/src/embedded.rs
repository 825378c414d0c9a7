//! The broker of the demo, mqtt5, as a scenario's own: in this process, on a runtime of its own, everything in memory.

use std::net::Ipv4Addr;

use mqtt5::broker::config::{AuthConfig, BrokerConfig, StorageConfig};
use mqtt5::broker::{BrokerShutdownHandle, MqttBroker};
use mqtt5::error::MqttError;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::wait;

/// A running broker. Dropping it ends it.
pub struct Embedded {
    port: u16,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    shutdown: BrokerShutdownHandle,
    serving: JoinHandle<Result<(), MqttError>>,
}

impl Embedded {
    /// Starts a broker that lets everybody in.
    ///
    /// # Panics
    /// It does not start.
    pub fn start() -> Embedded {
        let (port, running) = serve(0);
        Embedded { port, running: Some(running) }
    }
}

impl Broker for Embedded {
    fn port(&self) -> u16 {
        self.port
    }

    fn stop(&mut self) {
        let running = self.running.take().expect("the broker runs");
        running.shutdown.shutdown();
        let ended = running.runtime.block_on(async { timeout(wait::PATIENCE, running.serving).await });
        ended.expect("the broker ends").expect("it does not panic").expect("it ends without an error");
        running.runtime.shutdown_background();
    }

    /// Drops every task where it is; their sockets are closed.
    fn kill(&mut self) {
        self.running.take().expect("the broker runs").runtime.shutdown_timeout(wait::PATIENCE);
    }

    fn restart(&mut self) {
        assert!(self.running.is_none(), "the broker still runs");
        self.running = Some(serve(self.port).1);
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.runtime.shutdown_background();
        }
    }
}

/// Serves on this port, or with 0 on any free one, which is returned.
fn serve(port: u16) -> (u16, Running) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread can be started");
    let config = BrokerConfig::new()
        .with_bind_address((Ipv4Addr::LOCALHOST, port))
        .with_auth(AuthConfig::new().with_allow_anonymous(true))
        .with_storage(StorageConfig::new().with_persistence(false))
        .with_sys_topics_enabled(false);
    let (port, shutdown, serving) = runtime.block_on(async {
        let mut broker = MqttBroker::with_config(config).await.expect("the port is free");
        let port = broker.local_addr().expect("it listens").port();
        let (shutdown, mut ready) = (broker.shutdown_handle(), broker.ready_receiver());
        let serving = tokio::spawn(async move { broker.run().await });
        ready.wait_for(|ready| *ready).await.expect("it runs");
        (port, shutdown, serving)
    });
    (port, Running { runtime, shutdown, serving })
}
