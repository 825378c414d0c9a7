//! The daemon's log lines: where they go and which are written.
//!
//! Set up once by the command that runs the gateway, which may change the level later. Lines go to standard error, so that standard
//! output stays free for data.

use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload;

use crate::control::config::model::{LogFormat, LogSettings};

/// Of the lines that are written: one for the process, as the lines are.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Writes lines from now on, until the process ends. A second call has no effect.
pub fn start(settings: LogSettings) {
    let (filter, handle) = reload::Layer::new(of_level(settings.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let registry = tracing_subscriber::registry();
    // An error means that a subscriber is set already, which goes on.
    let started = match settings.format {
        LogFormat::Text => {
            let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(lines.with_ansi(colour).with_filter(filter)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init(),
    };
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Lines below this level are not written from now on. Without effect where others set up the lines, as in tests.
pub fn level(level: tracing::Level) {
    if let Some(Err(error)) = FILTER.get().map(|filter| filter.reload(of_level(level))) {
        tracing::error!(%error, "the level of the log cannot be changed");
    }
}

fn of_level(level: tracing::Level) -> Targets {
    // The demo's devices use its client, and say themselves what matters.
    let targets = Targets::new().with_default(LevelFilter::WARN).with_target("rumqttc", LevelFilter::OFF);
    targets.with_target("tidegate", level)
}
