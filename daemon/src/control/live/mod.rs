//! The gateway as an operator sees and changes it while it runs.
//!
//! Owns: the running configuration, and the one task that changes it, a change at a time (`change.rs`); what is done with what
//! runs, without changing the configuration, is in `operate.rs`, and the task that has handlers run what their plugins' files hold in `plugins.rs`. Fed by the admin plane; feeds the gateway's stages. A change is
//! made whole or not at all: it is validated as part of the whole configuration (`edit.rs`), prepared, written to
//! STATE-DIR/runtime.toml, and only then made. A reload (`reload.rs`) is made likewise, of what the files say.

mod change;
mod difference;
mod edit;
mod health;
mod install;
mod kept;
mod letters;
mod looked;
mod operate;
mod outbox;
mod park;
mod plugin_status;
mod plugins;
mod refusal;
mod reload;
mod retry;
mod schedules;
mod state;
mod trials;
mod unread;
mod verdicts;
mod view;
mod warnings;
mod watching;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::change::{Changed, Request, run};
pub use self::edit::{Edit, named, refused, unknown};
pub use self::health::Obstacle;
pub use self::kept::{LetterPage, Letters};
pub use self::operate::outgoing;
pub use self::plugins::{Plugins, Reload};
pub use self::refusal::{Refusal, RefusalKind};
pub use self::reload::{Reloads, Trigger};
pub use self::retry::{Batch, Retries};
pub use self::state::{KvPage, KvSet};
pub use self::watching::watch_configuration;
use crate::control::config::Loaded;
use crate::control::config::model::Broker;
use crate::control::config::runtime::Section;
use crate::path::dispatch::ParallelLimit;
use crate::path::handler::HandlerView;
use crate::path::handler::archive::Archive;
use crate::path::kept::Kept;
use crate::path::kv::Kvs;
use crate::path::outbox::Outboxes;
use crate::path::park::Parks;
use crate::path::schedule::Schedules;
use crate::path::session::Session;
use crate::store::Store;
use crate::telemetry::metrics::BrokerMeters;

/// Changes that wait for the one under way; beyond, one by command is refused as [`RefusalKind::Busy`], and what nobody has commanded
/// waits for room: a reload for each of its triggers, and what the reload task has done.
pub const WAITING_CHANGES: usize = 16;

/// Requests to have dead letters handled again that wait for the one under way; beyond, one is refused as [`RefusalKind::Busy`].
pub const WAITING_RETRIES: usize = 16;

/// Commands to reload a handler that wait for the one under way; beyond, one is refused as [`RefusalKind::Busy`].
pub const WAITING_RELOADS: usize = 16;

/// What runs at one moment. A change makes another one.
pub struct Running {
    /// The configuration file.
    pub file: PathBuf,
    /// The configuration, where its objects stand, and its texts.
    pub loaded: Arc<Loaded>,
    /// In the order of the configuration.
    pub brokers: Vec<RunningBroker>,
    /// In the order of the configuration.
    pub handlers: Vec<HandlerView>,
    /// What handlers remember.
    pub kvs: Arc<Kvs>,
    /// What is parked for handlers.
    pub parks: Arc<Parks>,
    /// The versions of their plugins.
    pub archive: Archive,
}

/// A broker with its session.
#[derive(Clone)]
pub struct RunningBroker {
    /// Its configuration.
    pub config: Arc<Broker>,
    /// Its session.
    pub session: Arc<Session>,
    /// Its meters.
    pub meters: Arc<BrokerMeters>,
    /// How many calls may run for its messages.
    pub limit: Arc<ParallelLimit>,
}

impl Running {
    /// The broker of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn broker(&self, name: &str) -> Result<&RunningBroker, Refusal> {
        let found = self.brokers.iter().find(|broker| *broker.config.name == *name);
        found.ok_or_else(|| unknown(&self.loaded, Section::Brokers, name))
    }
}

/// The running gateway, for those who look at it and steer it. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    running: watch::Receiver<Arc<Running>>,
    changes: mpsc::Sender<Request>,
    reloads: mpsc::Sender<Reload>,
    outboxes: Arc<Outboxes>,
    kept: Kept,
    retries: mpsc::Sender<Batch>,
    schedules: Arc<Schedules>,
    store: Store,
    configuration: Arc<Reloads>,
    /// When the daemon started, for people and for durations.
    started: (SystemTime, Instant),
    /// Cancelled when a stop begins.
    stopping: CancellationToken,
}

impl Live {
    /// A handle on what runs, until `stopping`. `changes` leads to [`run`], `reloads` to [`Plugins`], and what is beside the kept
    /// messages to [`Retries`].
    pub fn new(
        running: watch::Receiver<Arc<Running>>,
        (changes, reloads): (mpsc::Sender<Request>, mpsc::Sender<Reload>),
        outboxes: Arc<Outboxes>,
        (kept, retries): (Kept, mpsc::Sender<Batch>),
        (schedules, store, configuration): (Arc<Schedules>, Store, Arc<Reloads>),
        stopping: CancellationToken,
    ) -> Live {
        let started = (SystemTime::now(), Instant::now());
        Live { running, changes, reloads, outboxes, kept, retries, schedules, store, configuration, started, stopping }
    }

    /// What runs now.
    pub fn running(&self) -> Arc<Running> {
        Arc::clone(&self.running.borrow())
    }

    /// What runs, as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Running>> {
        self.running.clone()
    }

    /// What waits to be published to a broker: messages, bytes.
    pub fn outbox(&self, broker: &Broker) -> (usize, usize) {
        self.outboxes.usage(broker.id)
    }

    /// Calls and commands that wait for room in its outbox.
    pub fn waiting_calls(&self, broker: &Broker) -> usize {
        self.outboxes.waiting(broker.id)
    }
}
