//! The keys outside of brokers, subscriptions and handlers: folders, logging, shutdown, the messages kept, the watch of these
//! files, the admin server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{addressable, admin, path, single};
use crate::control::config::interpolate::Environment;
use crate::control::config::model::{Admin, LogFormat, LogSettings};
use crate::control::config::reader::{Table, Value};
use crate::telemetry::received::Limits;

const STATE_DIR: &str = "tidegate-state";
const PLUGINS_DIR: &str = "plugins";
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
const LONGEST_GRACE: Duration = Duration::from_secs(3_600);
const LOG: LogSettings = LogSettings { level: tracing::Level::INFO, format: LogFormat::Text };

/// What `tidegate recv` shows of: enough for a look at what comes in, and little beside what a daemon needs anyway.
const RECEIVED: Limits = Limits { messages: 1024, bytes: 8 << 20 };
const MOST_RECEIVED: u64 = 1_000_000;
const MOST_RECEIVED_BYTES: u64 = 1 << 30;

/// Words of `log.level`.
const LEVELS: [(&str, tracing::Level); 5] = [
    ("trace", tracing::Level::TRACE),
    ("debug", tracing::Level::DEBUG),
    ("info", tracing::Level::INFO),
    ("warn", tracing::Level::WARN),
    ("error", tracing::Level::ERROR),
];

/// Words of `log.format`.
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// What these keys say.
pub(in crate::control::config) struct Daemon {
    pub(in crate::control::config) state_dir: PathBuf,
    pub(in crate::control::config) plugins_dir: PathBuf,
    pub(in crate::control::config) native: bool,
    pub(in crate::control::config) log: LogSettings,
    pub(in crate::control::config) shutdown_grace: Duration,
    pub(in crate::control::config) received: Limits,
    pub(in crate::control::config) watch_config: bool,
    pub(in crate::control::config) admin: Admin,
}

/// Reads them from all files; each may stand in one of them.
pub(in crate::control::config) fn read(roots: &[Table<'_>], environment: &Environment) -> Daemon {
    let state_dir = single(roots, "state-dir").and_then(|value| path(&value));
    let state_dir = state_dir.unwrap_or_else(|| default_state_dir(environment));
    Daemon {
        plugins_dir: single(roots, "plugins-dir").and_then(|value| path(&value)).unwrap_or_else(|| PLUGINS_DIR.into()),
        native: single(roots, "native").and_then(|value| value.boolean()).unwrap_or(false),
        log: single(roots, "log").and_then(|value| log(&value)).unwrap_or(LOG),
        shutdown_grace: single(roots, "shutdown-grace")
            .and_then(|value| value.duration(Duration::ZERO..=LONGEST_GRACE))
            .unwrap_or(SHUTDOWN_GRACE),
        received: received(roots),
        watch_config: single(roots, "watch-config").and_then(|value| value.boolean()).unwrap_or(false),
        admin: admin::read(single(roots, "admin").as_ref(), &state_dir),
        state_dir,
    }
}

/// systemd names the folder that it made for the service; of several the first counts.
fn default_state_dir(environment: &Environment) -> PathBuf {
    let named = (environment.variable)("STATE_DIRECTORY").and_then(|folders| std::env::split_paths(&folders).next());
    named.filter(|folder| *folder != Path::new("")).unwrap_or_else(|| STATE_DIR.into())
}

fn log(value: &Value<'_>) -> Option<LogSettings> {
    value.table("log = { level = \"info\" }", |table| LogSettings {
        level: table.get("level").and_then(|value| value.choice(&LEVELS)).unwrap_or(LOG.level),
        format: table.get("format").and_then(|value| value.choice(&FORMATS)).unwrap_or(LOG.format),
    })
}

fn received(roots: &[Table<'_>]) -> Limits {
    let messages = single(roots, "recv-buffer").and_then(|value| value.integer(0..=MOST_RECEIVED, ""));
    let bytes = single(roots, "recv-bytes").and_then(|value| value.size(0..=MOST_RECEIVED_BYTES));
    Limits {
        messages: messages.map_or(RECEIVED.messages, addressable),
        bytes: bytes.map_or(RECEIVED.bytes, addressable),
    }
}
