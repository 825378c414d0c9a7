//! `tidegate demo`: a whole installation in one process, so that a newcomer sees messages flow within a second.
//!
//! ```text
//! devices ──MQTT──> broker "plant" <──> gateway with the sample handlers ──MQTT──> broker "cloud"
//!                                                  │ tap
//!                                                  └──> view
//! ```
//! The gateway is the real one, wired by `gateway.rs`, started from a real configuration file. Everything else here is
//! scenery. Nothing is written outside a temporary folder, which is removed at the end.

mod broker;
mod config;
mod devices;
mod view;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use self::broker::{Broker, BrokerError};
use self::config::Values;
use self::devices::Devices;
use self::view::{Colour, Style, Totals, View};
use crate::cli::run::runtime;
use crate::cli::{NO, WRONG_USE, output};
use crate::control::config::Problems;
use crate::gateway::{Gateway, GatewayError};
use crate::telemetry::logging;
use crate::telemetry::tap::Sighting;

/// The arguments of `demo`.
#[derive(Args)]
pub struct Demo {
    /// End by itself after this time, such as 10s [default: at Ctrl-C]
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Where the sample handlers are [default: where `cargo xtask build-plugins` puts them, else ./plugins]
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
    /// Print the configuration that the demo runs, with the usual ports, and do nothing else
    #[arg(long)]
    print_config: bool,
}

impl Demo {
    /// Runs until Ctrl-C, SIGTERM, the given time, or until nobody reads the output any more.
    pub fn run(self) -> ExitCode {
        let plugins_dir = self.plugins_dir.unwrap_or_else(config::default_plugins_dir);
        if self.print_config {
            output::data(Values::usual(&plugins_dir).fill_in().trim_end());
            return ExitCode::SUCCESS;
        }
        let missing = config::missing_plugins(&plugins_dir);
        if !missing.is_empty() {
            output::notice(format_args!(
                "error: {} not found in {}; `cargo xtask build-plugins` builds the sample handlers, --plugins-dir says where they are",
                missing.join(", "),
                plugins_dir.display(),
            ));
            return ExitCode::from(WRONG_USE);
        }
        let shown = runtime()
            .map_err(DemoError::System)
            .and_then(|runtime| runtime.block_on(show(&plugins_dir, self.duration)));
        match shown {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => output::failure(&error, NO),
        }
    }
}

/// Why the demo does not run.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// Signals, threads or the temporary folder are refused.
    #[error("the demo does not start")]
    System(#[source] io::Error),
    /// No embedded broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The demo's own configuration is refused: a defect, or a strange name of a folder.
    #[error("the demo's configuration is not valid")]
    Config(#[from] Problems),
    /// The gateway does not start, for a plugin of another version perhaps.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

/// What ends the demo from outside.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn show(plugins_dir: &Path, duration: Option<Duration>) -> Result<(), DemoError> {
    let mut signals = Signals::listen().map_err(DemoError::System)?;
    let folder = tempfile::Builder::new().prefix("tidegate-demo-").tempdir().map_err(DemoError::System)?;
    let stage = tokio::select! {
        stage = Stage::set(plugins_dir, &folder) => stage?,
        () = signals.any() => return Ok(()),
    };
    let style = Style::of_stdout();
    let mut watcher = Watcher::new(&stage.gateway, style);
    let end = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    if say(stage.welcome(style, duration)).is_ok() {
        let devices = Devices::start(stage.plant.address());
        tokio::select! {
            _ = watcher.watch() => {}
            () = signals.any() => {}
            () = end => {}
        }
        devices.stop().await;
    }
    tokio::select! {
        () = stage.clear() => {}
        () = signals.any() => return Ok(()),
    }
    // An error means that nobody reads any more, which is one of the ways to end the demo.
    let _ = watcher.rest().and_then(|()| say(watcher.totals));
    folder.close().map_err(DemoError::System)
}

/// Everything but the devices and the view.
struct Stage {
    plant: Broker,
    cloud: Broker,
    gateway: Gateway,
}

impl Stage {
    async fn set(plugins_dir: &Path, folder: &TempDir) -> Result<Stage, DemoError> {
        let plant = Broker::start().await?;
        let cloud = Broker::start().await?;
        let plugins_dir = std::path::absolute(plugins_dir).map_err(DemoError::System)?;
        let values = Values {
            state_dir: &folder.path().join("state"),
            plugins_dir: &plugins_dir,
            plant_port: plant.address().port(),
            cloud_port: cloud.address().port(),
            // The system chooses a free one.
            admin_port: 0,
        };
        let file = folder.path().join("tidegate.toml");
        std::fs::write(&file, values.fill_in()).map_err(DemoError::System)?;
        let loaded = crate::control::config::load(&file)?;
        logging::start(loaded.config.log);
        let gateway = Gateway::start(file, loaded).await?;
        Ok(Stage { plant, cloud, gateway })
    }

    /// What runs where, and how to join in.
    fn welcome(&self, style: Style, duration: Option<Duration>) -> String {
        let (plant, cloud) = (self.plant.address().port(), self.cloud.address().port());
        let metrics = self.gateway.admin().map(|address| format!("http://{address}/metrics")).unwrap_or_default();
        let end = match duration {
            Some(duration) => format!("after {}", humantime::format_duration(duration)),
            None => "at Ctrl-C".to_owned(),
        };
        let heading = |text| style.paint(Colour::Bold, text);
        let title = heading("Tidegate demo: three devices, two brokers, four sandboxed handlers, all in this process");
        let join = heading("Join in from another terminal:");
        format!(
            "{title}\n\
             \x20 broker plant   127.0.0.1:{plant}   where the devices publish\n\
             \x20 broker cloud   127.0.0.1:{cloud}   gets a copy of every alarm\n\
             \x20 metrics        {metrics}\n\
             {join}\n\
             \x20 mosquitto_sub -h 127.0.0.1 -p {plant} -t '#' -v\n\
             \x20 mosquitto_sub -h 127.0.0.1 -p {cloud} -t '#' -v\n\
             \x20 mosquitto_pub -h 127.0.0.1 -p {plant} -t plant/oven/temperature -m '{{\"c\": 99.5}}'\n\
             The configuration: tidegate demo --print-config. It ends {end}.\n"
        )
    }

    /// Stops the gateway, which drains, then the brokers.
    async fn clear(self) {
        let left = self.gateway.stop().await;
        if left > 0 {
            tracing::warn!(left, "messages are unfinished at the end of the demo");
        }
        tokio::join!(self.plant.stop(), self.cloud.stop());
    }
}

/// Prints what the tap reports.
struct Watcher {
    view: View,
    sightings: Receiver<Sighting>,
    totals: Totals,
}

impl Watcher {
    fn new(gateway: &Gateway, style: Style) -> Watcher {
        let config = gateway.config();
        let brokers = config.brokers.iter().map(|broker| Arc::clone(&broker.name)).collect();
        let handlers: Vec<Arc<str>> = config.handlers.iter().map(|handler| Arc::clone(&handler.name)).collect();
        let view = View::new(style, Instant::now(), brokers, &handlers);
        Watcher { view, sightings: gateway.tap().listen(), totals: Totals::default() }
    }

    /// Ends only with the gateway, or with an error when nobody reads any more. Cancellation safe.
    async fn watch(&mut self) -> io::Result<()> {
        loop {
            match self.sightings.recv().await {
                Ok(sighting) => self.show(&sighting)?,
                Err(RecvError::Lagged(missed)) => self.miss(missed)?,
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Prints what has been reported since, without waiting for more.
    fn rest(&mut self) -> io::Result<()> {
        loop {
            match self.sightings.try_recv() {
                Ok(sighting) => self.show(&sighting)?,
                Err(TryRecvError::Lagged(missed)) => self.miss(missed)?,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(()),
            }
        }
    }

    fn show(&mut self, sighting: &Sighting) -> io::Result<()> {
        self.totals.count(sighting);
        say(self.view.line(sighting, Instant::now()))
    }

    /// More came than a terminal can show: it flows all the same.
    fn miss(&mut self, missed: u64) -> io::Result<()> {
        self.totals.missed += missed;
        say(format_args!("          … {missed} more, too fast to show"))
    }
}

/// Writes a line to standard output.
///
/// # Errors
/// Nobody reads any more.
fn say(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}
