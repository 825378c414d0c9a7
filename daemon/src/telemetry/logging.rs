//! The daemon's log lines: where they go and which are written.
//!
//! Set up once by the command that runs the gateway. Lines go to standard error, so that standard output stays free for data.

use std::io::{IsTerminal, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::control::config::model::{LogFormat, LogSettings};

/// Writes lines from now on, until the process ends. A second call has no effect.
pub fn start(settings: LogSettings) {
    // The demo's devices use its client, and say themselves what matters.
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("rumqttc", LevelFilter::OFF)
        .with_target("tidegate", settings.level);
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let registry = tracing_subscriber::registry();
    // An error means that a subscriber is set already, which goes on.
    let _ = match settings.format {
        LogFormat::Text => {
            let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(lines.with_ansi(colour).with_filter(filter)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init(),
    };
}
