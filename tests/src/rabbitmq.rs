//! A RabbitMQ of a scenario's own, with its MQTT plugin: an Erlang node with a folder, a cookie and a port mapper that
//! nobody else uses.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::broker::{self, Broker};
use crate::client::{Client, Protocol};
use crate::process::Process;
use crate::{ports, wait};

/// How often other ports are tried when something else took the first.
const ATTEMPTS: u32 = 3;

/// How long a start may take: ten seconds alone on two cores, and some times that where all scenarios start one.
const START: Duration = Duration::from_secs(180);

/// A running broker. Dropping it ends it.
pub struct RabbitMq {
    node: Process,
    port: u16,
    distribution: u16,
    /// Erlang's port mapper. A node that finds none starts one, which would outlive it.
    mapper: Process,
    mapper_port: u16,
    folder: TempDir,
}

impl RabbitMq {
    /// Starts a broker that lets everybody in.
    ///
    /// # Panics
    /// RabbitMQ is not installed, or it does not come up.
    pub fn start() -> RabbitMq {
        let mut attempts =
            (0..ATTEMPTS).filter_map(|_| RabbitMq::try_on([ports::free(), ports::free(), ports::free()]));
        attempts.next().expect("RabbitMQ stays up on one of the ports that were free")
    }

    fn try_on([port, distribution, mapper_port]: [u16; 3]) -> Option<RabbitMq> {
        let folder = tempfile::Builder::new().prefix("tidegate-rabbitmq-").tempdir().expect("a temporary folder");
        let text = format!(
            "listeners.tcp = none\nmqtt.listeners.tcp.default = 127.0.0.1:{port}\nmqtt.allow_anonymous = true\n\
             log.console = true\nlog.console.level = info\nlog.file = false\n"
        );
        broker::write(folder.path().join("rabbitmq.conf"), &text);
        broker::write(folder.path().join("enabled_plugins"), "[rabbitmq_mqtt].\n");
        let mut mapper = Command::new(broker::program("epmd"));
        mapper.args(["-address", "127.0.0.1", "-port", &mapper_port.to_string()]);
        let mapper = Process::start("epmd", &mut mapper);
        let node = launch(folder.path(), distribution, mapper_port);
        let mut broker = RabbitMq { node, port, distribution, mapper, mapper_port, folder };
        broker.comes_up().then_some(broker)
    }

    fn comes_up(&mut self) -> bool {
        assert!(self.mapper.ended().is_none(), "epmd ended: {:?}", self.mapper.lines());
        let port = self.port;
        broker::comes_up("RabbitMQ", START, &mut self.node, || Client::options(port, Protocol::V311).connect())
    }
}

impl Broker for RabbitMq {
    fn port(&self) -> u16 {
        self.port
    }

    fn stop(&mut self) {
        self.node.signal("TERM");
        self.node.wait(wait::PATIENCE);
    }

    fn kill(&mut self) {
        self.node.kill();
    }

    fn restart(&mut self) {
        assert!(self.node.ended().is_some(), "the broker still runs");
        self.node = launch(self.folder.path(), self.distribution, self.mapper_port);
        assert!(self.comes_up(), "RabbitMQ ended at once when it was started again on port {}", self.port);
    }
}

fn launch(folder: &Path, distribution: u16, mapper: u16) -> Process {
    let mut command = Command::new(broker::program("rabbitmq-server"));
    command
        .current_dir(folder)
        // Where Erlang keeps the cookie.
        .env("HOME", folder)
        // As a unit of systemd the script becomes the Erlang machine, so that its process is ours to end.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .env_remove("NOTIFY_SOCKET")
        .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"))
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_NODENAME", "rabbit@localhost")
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", mapper.to_string());
    Process::start("RabbitMQ", &mut command)
}
