//! A NATS server of a scenario's own, with JetStream, which its MQTT sessions and retained messages need.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::broker::{self, Broker};
use crate::client::{Client, Protocol};
use crate::process::Process;
use crate::{ports, wait};

/// How often another port is tried when something else took the first.
const ATTEMPTS: u32 = 5;

/// A running server. Dropping it ends it.
pub struct Nats {
    process: Process,
    port: u16,
    folder: TempDir,
}

impl Nats {
    /// Starts a server that lets everybody in.
    ///
    /// # Panics
    /// nats-server is not installed, or it does not come up.
    pub fn start() -> Nats {
        let mut attempts = (0..ATTEMPTS).filter_map(|_| Nats::try_on(ports::free()));
        attempts.next().expect("nats-server stays up on one of the ports that were free")
    }

    fn try_on(port: u16) -> Option<Nats> {
        let folder = tempfile::Builder::new().prefix("tidegate-nats-").tempdir().expect("a temporary folder");
        // -1: NATS' own clients get any free port.
        let text = format!(
            "server_name: tidegate\nlisten: \"127.0.0.1:-1\"\njetstream {{ store_dir: \"{}\" }}\n\
             mqtt {{ listen: \"127.0.0.1:{port}\" }}\n",
            folder.path().join("store").display()
        );
        broker::write(folder.path().join("nats.conf"), &text);
        let mut server = Nats { process: launch(folder.path()), port, folder };
        server.comes_up().then_some(server)
    }

    fn comes_up(&mut self) -> bool {
        let port = self.port;
        broker::comes_up("nats-server", wait::PATIENCE, &mut self.process, || {
            Client::options(port, Protocol::V311).connect()
        })
    }
}

impl Broker for Nats {
    fn port(&self) -> u16 {
        self.port
    }

    fn stop(&mut self) {
        self.process.signal("TERM");
        self.process.wait(wait::PATIENCE);
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn restart(&mut self) {
        assert!(self.process.ended().is_some(), "the server still runs");
        self.process = launch(self.folder.path());
        assert!(self.comes_up(), "nats-server ended at once when it was started again on port {}", self.port);
    }
}

fn launch(folder: &Path) -> Process {
    Process::start("nats-server", Command::new(broker::program("nats-server")).arg("-c").arg(folder.join("nats.conf")))
}
