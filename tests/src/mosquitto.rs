//! A mosquitto of a scenario's own: a process, a port, a folder.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use tempfile::TempDir;

use crate::broker::{self, Broker};
use crate::certificates::{Authority, Pair};
use crate::client::{Client, Protocol};
use crate::process::Process;
use crate::{ports, wait};

/// How often another port is tried when something else took the first.
const ATTEMPTS: u32 = 5;

/// What a broker is started with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep sessions and messages in a file, written on SIGTERM, SIGUSR1, and by nothing else.
    pub persistent: bool,
    /// Only this user name and password are let in.
    pub login: Option<(String, String)>,
    /// Every packet is logged.
    pub tells: bool,
    /// Further lines of its configuration.
    pub extra: String,
    /// Environment variables that it gets beside its own.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// Adds a listener on 127.0.0.1, with these lines of its own.
    pub fn listener(mut self, port: u16, lines: &str) -> Options {
        writeln!(self.extra, "listener {port} 127.0.0.1\n{lines}").expect("a string takes all");
        self
    }

    /// Adds a listener on 127.0.0.1 that speaks TLS with this pair, and has these further lines.
    pub fn tls_listener(self, port: u16, authority: &Authority, server: &Pair, lines: &str) -> Options {
        let ca = authority.file();
        let (ca, certificate, key) = (ca.display(), server.certificate.display(), server.key.display());
        self.listener(port, &format!("cafile {ca}\ncertfile {certificate}\nkeyfile {key}\n{lines}"))
    }
}

/// A running broker. Dropping it ends it.
pub struct Mosquitto {
    process: Process,
    port: u16,
    options: Options,
    folder: TempDir,
}

impl Mosquitto {
    /// Starts a broker that lets everybody in and keeps nothing.
    pub fn start() -> Mosquitto {
        Mosquitto::with(Options::default())
    }

    /// Starts a broker that logs every packet, and lets everybody in and keeps nothing.
    pub fn telling() -> Mosquitto {
        Mosquitto::with(Options { tells: true, ..Options::default() })
    }

    /// Starts a broker that keeps its sessions through a restart.
    pub fn persistent() -> Mosquitto {
        Mosquitto::with(Options { persistent: true, ..Options::default() })
    }

    /// Starts a broker.
    ///
    /// # Panics
    /// mosquitto is not installed, or it does not come up.
    pub fn with(options: Options) -> Mosquitto {
        for _ in 1..ATTEMPTS {
            if let Some(broker) = Mosquitto::try_on(ports::free(), &options) {
                return broker;
            }
        }
        Mosquitto::on(ports::free(), options)
    }

    /// Starts a broker on a port that was [`ports::free`].
    ///
    /// # Panics
    /// As [`Mosquitto::with`], or something else listens on the port.
    pub fn on(port: u16, options: Options) -> Mosquitto {
        Mosquitto::try_on(port, &options).unwrap_or_else(|| panic!("mosquitto ended at once on port {port}"))
    }

    fn try_on(port: u16, options: &Options) -> Option<Mosquitto> {
        let folder = tempfile::Builder::new().prefix("tidegate-mosquitto-").tempdir().expect("a temporary folder");
        write_configuration(folder.path(), port, options);
        let process = launch(folder.path(), options);
        let mut broker = Mosquitto { process, port, options: options.clone(), folder };
        broker.comes_up().then_some(broker)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process identifier.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has logged.
    pub fn log(&self) -> Vec<String> {
        self.process.lines()
    }

    /// What it has logged, all of it up to this moment: its lines come through a pipe, a little later than what they tell.
    #[track_caller]
    pub fn log_until_now(&self) -> Vec<String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let marker = format!("log-until-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let client = Client::options(self.port, Protocol::V311).session(&marker).connect();
        client.expect("the broker lets the client in");
        let words = format!(" as {marker} ");
        wait::until_true("the broker logs the last client", || self.log().iter().any(|line| line.contains(&words)));
        self.log()
    }

    /// Waits until it has every acknowledgement of what it sent. The daemon counts a message as finished when it hands over its
    /// acknowledgement: whoever kills it before that has left gets the message again.
    ///
    /// # Panics
    /// It does not log every packet, so that nobody can know.
    #[track_caller]
    pub fn wait_acknowledged(&self) {
        assert!(self.options.tells, "start it with Mosquitto::telling");
        self.log_until_now();
        wait::until("the broker has all acknowledgements", || match unacknowledged(&self.log()) {
            open if open.is_empty() => Ok(()),
            open => Err(format!("{open:?}")),
        });
    }

    /// A new client with a session of this connection only.
    pub fn client(&self, protocol: Protocol) -> Client {
        Client::connect(self.port, protocol)
    }

    /// SIGKILL: it saves nothing and says goodbye to nobody.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for its end: a persistent one saves everything.
    pub fn stop(&mut self) {
        self.process.signal("TERM");
        self.process.wait(wait::PATIENCE);
    }

    /// Starts it again after [`Mosquitto::kill`] or [`Mosquitto::stop`], on the same port and with what it saved.
    pub fn restart(&mut self) {
        assert!(self.process.ended().is_some(), "the broker still runs");
        self.process = launch(self.folder.path(), &self.options);
        assert!(self.comes_up(), "mosquitto ended at once when it was started again on port {}", self.port);
    }

    /// Makes a persistent broker save everything now, and waits until the file is written.
    pub fn save(&self) {
        let file = self.folder.path().join("mosquitto.db");
        let written = || -> Option<(SystemTime, u64)> {
            let metadata = fs::metadata(&file).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let before = written();
        self.process.signal("USR1");
        wait::until_true("mosquitto saves its state", || written().is_some_and(|now| before != Some(now)));
    }

    /// Whether it accepts MQTT connections; not when the process has ended.
    fn comes_up(&mut self) -> bool {
        let login = self.options.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        let options = Client::options(self.port, Protocol::V5).login(login);
        broker::comes_up("mosquitto", wait::PATIENCE, &mut self.process, || options.connect())
    }
}

impl Broker for Mosquitto {
    fn port(&self) -> u16 {
        self.port
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn restart(&mut self) {
        self.restart();
    }

    fn save(&self) {
        self.save();
    }
}

fn launch(folder: &Path, options: &Options) -> Process {
    let mut command = Command::new(broker::program("mosquitto"));
    command.arg("-c").arg(folder.join("mosquitto.conf"));
    command.envs(options.environment.iter().map(|(name, value)| (name, value)));
    Process::start("mosquitto", &mut command)
}

fn write_configuration(folder: &Path, port: u16, options: &Options) {
    // Without a limit on what it queues: mosquitto drops silently past it, which is not what a scenario looks at.
    let mut text = format!("listener {port} 127.0.0.1\nuser root\nlog_dest stderr\nmax_queued_messages 0\n");
    text += "set_tcp_nodelay true\n";
    if options.persistent {
        writeln!(text, "persistence true\npersistence_location {}/\nautosave_interval 0", folder.display())
            .expect("a string takes all");
    }
    if let Some((user, password)) = &options.login {
        let passwords = folder.join("passwords");
        let status =
            Command::new("mosquitto_passwd").args(["-c", "-b"]).arg(&passwords).args([user, password]).status();
        assert!(status.is_ok_and(|status| status.success()), "mosquitto_passwd failed: run `cargo xtask test`");
        writeln!(text, "password_file {}", passwords.display()).expect("a string takes all");
    }
    if options.tells {
        text += "log_type all\n";
    }
    writeln!(text, "allow_anonymous {}\n{}", options.login.is_none(), options.extra).expect("a string takes all");
    fs::write(folder.join("mosquitto.conf"), text).expect("the folder is ours");
}

/// What connected clients have not acknowledged, by client identifier and packet identifier, as the log tells it: `Sending PUBLISH to
/// gateway (d0, q1, r0, m7, …`, and later `Received PUBACK from gateway (Mid: 7, RC:0)`, or PUBCOMP for QoS 2.
fn unacknowledged(log: &[String]) -> BTreeSet<(&str, &str)> {
    let mut open = BTreeSet::new();
    for line in log {
        let Some((_, said)) = line.split_once(": ") else { continue };
        if let Some((client, rest)) = said.strip_prefix("Sending PUBLISH to ").and_then(|said| said.split_once(" (d")) {
            let mut fields = rest.split(", ").skip(1);
            let (qos, _, id) = (fields.next(), fields.next(), fields.next());
            if let (Some("q1" | "q2"), Some(id)) = (qos, id.and_then(|id| id.strip_prefix('m'))) {
                open.insert((client, id));
            }
        } else if let Some(said) =
            said.strip_prefix("Received PUBACK from ").or_else(|| said.strip_prefix("Received PUBCOMP from "))
            && let Some((client, rest)) = said.split_once(" (Mid: ")
        {
            open.remove(&(client, rest.split([',', ')']).next().unwrap_or_default()));
        } else if said.starts_with("Client ")
            && (said.ends_with(" disconnected.") || said.contains(" closed its connection"))
        {
            let client = said.split(' ').nth(1).unwrap_or_default();
            open.retain(|(owner, _)| *owner != client);
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_acknowledged_is_read_from_the_log() {
        let log = |lines: &[&str]| lines.iter().map(|line| format!("1795413034: {line}")).collect::<Vec<_>>();
        let mut lines = vec![
            "Sending PUBLISH to gw (d0, q0, r0, m0, 'in/a', ... (1 bytes))",
            "Sending PUBLISH to gw (d0, q1, r0, m1, 'in/a', ... (1 bytes))",
            "Sending PUBLISH to gw (d0, q2, r0, m2, 'in/a', ... (1 bytes))",
            "Received PUBREC from gw (Mid: 2)",
            "Sending PUBLISH to other (d0, q1, r0, m1, 'in/a', ... (1 bytes))",
        ];
        assert_eq!(unacknowledged(&log(&lines)), BTreeSet::from([("gw", "1"), ("gw", "2"), ("other", "1")]));
        lines.extend(["Received PUBACK from gw (Mid: 1, RC:0)", "Client other closed its connection."]);
        assert_eq!(unacknowledged(&log(&lines)), BTreeSet::from([("gw", "2")]));
        lines.push("Received PUBCOMP from gw (Mid: 2, RC:0)");
        assert_eq!(unacknowledged(&log(&lines)), BTreeSet::new());
    }
}
