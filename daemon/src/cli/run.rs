//! `tidegate run`: the daemon.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{NO, configuration_file, output};
use crate::control::config;
use crate::control::live::{Live, Trigger};
use crate::gateway::Gateway;
use crate::path::handler::native;
use crate::telemetry::logging;

/// Threads at least: one that a defect holds up must not hold up everything.
const LEAST_THREADS: usize = 2;

/// Steps of a thread after which it looks at sockets and timers, although more tasks are ready: a step may be a guest's call,
/// of a millisecond at most.
const STEPS_BETWEEN_EVENTS: u32 = 31;

/// The arguments of `run`.
#[derive(Args)]
pub struct Run {
    /// The configuration file [default: ./tidegate.toml, then /etc/tidegate/tidegate.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Run {
    /// Runs until a signal that ends it; then drains and exits with 0.
    pub fn run(self) -> ExitCode {
        let file = configuration_file(self.config);
        let loaded = match config::load(&file) {
            Ok(loaded) => loaded,
            Err(problems) => {
                output::notice(problems);
                return ExitCode::from(NO);
            }
        };
        logging::start(loaded.config.log);
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "configuration");
        }
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return output::failure(&error, NO),
        };
        tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %file.display(), "tidegate starts");
        let code = runtime.block_on(until_signal(file, loaded));
        // A password file on a file system that hangs must not hold up the end.
        runtime.shutdown_background();
        native::end_if_inside(if code == ExitCode::SUCCESS { 0 } else { NO });
        code
    }
}

/// The runtime of sessions and guests alike: a task that one wakes runs next on the same thread, so that a message on an idle
/// daemon changes no thread from socket to socket, while under load idle threads take tasks over (docs/decisions/0007).
pub fn runtime() -> io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(LEAST_THREADS, |cores| cores.get().max(LEAST_THREADS));
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).event_interval(STEPS_BETWEEN_EVENTS).thread_name("worker").enable_all().build()
}

async fn until_signal(file: PathBuf, loaded: config::Loaded) -> ExitCode {
    // Before anything starts, so that an early signal is not lost.
    let signals = signal(SignalKind::terminate())
        .and_then(|term| Ok((term, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)));
    let (mut terminate, mut interrupt, hangup) = match signals {
        Ok(signals) => signals,
        Err(error) => return output::failure(&error, NO),
    };
    let starting = Gateway::start(file, loaded);
    let gateway = tokio::select! {
        started = starting => match started {
            Ok(gateway) => gateway,
            Err(error) => return output::failure(&error, NO),
        },
        () = either(&mut terminate, &mut interrupt) => {
            tracing::info!("stopped before it had started");
            return ExitCode::SUCCESS;
        }
    };
    tracing::info!(socket = %gateway.config().admin.socket.display(), "serving the HTTP API");
    if let Some(address) = gateway.admin() {
        tracing::info!(%address, "serving /metrics, /healthz, /readyz and the HTTP API");
    }
    tokio::select! {
        () = either(&mut terminate, &mut interrupt) => {}
        () = reload(hangup, gateway.live()) => {}
    }
    tracing::info!("stopping: finishing the messages in progress; a second signal ends at once");
    tokio::select! {
        left = gateway.stop() => {
            if left == 0 {
                tracing::info!("stopped, every message finished");
            } else {
                tracing::warn!(left, "stopped at the end of shutdown-grace with messages unfinished");
            }
            ExitCode::SUCCESS
        }
        () = either(&mut terminate, &mut interrupt) => {
            tracing::warn!("stopped at once by a second signal");
            ExitCode::from(NO)
        }
    }
}

/// Reads the configuration again at each SIGHUP. Never ends by itself; cancellation safe.
async fn reload(mut hangup: Signal, live: &Live) {
    while hangup.recv().await.is_some() {
        live.reload_unasked(Trigger::Signal).await;
    }
    std::future::pending().await
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
