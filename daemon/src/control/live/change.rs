//! The task that changes what runs: one change at a time, each whole or not at all.
//!
//! Owns: the gateway's stages while it runs. Fed through a bounded channel; a full one refuses commands ([`Live::change`]), and what
//! nobody commanded waits for room: this task waits for none of those who do. It may wait for a plugin's compilation, for the disk, and
//! for a session or a handler that drains, all of them bounded.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::edit::refused;
use super::install::{self, Install};
use super::reload::{Asked, Reloads, reload};
use super::trials::{self, TrialEnd};
use super::warnings::new_with;
use super::{Edit, Live, Refusal, RefusalKind, Running, WAITING_CHANGES};
use crate::causes::{first_of, with_causes};
use crate::control::admin::resource::ReloadReport;
use crate::control::config::Loaded;
use crate::control::config::runtime::Section;
use crate::durable;
use crate::gateway::{GatewayError, Prepared, Stages};

/// Largest text of what was added, in bytes: thousands of objects.
const LARGEST: usize = 4 << 20;

/// Where the outcome of a change is told.
type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// A change on its way to the task.
pub enum Request {
    /// By command.
    Edit(Edit, Answer<Changed>),
    /// The files of the configuration are read again.
    Reload(Asked, Answer<ReloadReport>),
    /// Of what handlers run.
    Install(Install),
    /// Of a version on trial.
    Trial(TrialEnd),
}

/// A change that was made.
#[derive(Clone)]
pub struct Changed {
    /// What runs now.
    pub running: Arc<Running>,
    /// What the configuration is warned of since then.
    pub warnings: Vec<String>,
}

impl Live {
    /// Changes the configuration: returns what runs once the change is made and safe on the disk. Cancellation safe: the change
    /// goes on.
    ///
    /// # Errors
    /// Nothing has changed; why.
    pub async fn change(&self, edit: Edit) -> Result<Changed, Refusal> {
        let (answer, told) = oneshot::channel();
        self.request(Request::Edit(edit, answer), told).await
    }

    /// Gives a request to the task, and waits for its answer.
    pub(super) async fn request<T>(
        &self,
        request: Request,
        told: oneshot::Receiver<Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        self.changes.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::new(
                RefusalKind::Busy,
                format!("{WAITING_CHANGES} changes wait already"),
                "try again when they are done",
            ),
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        told.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// There is nobody left to do it.
pub(super) fn stopping() -> Refusal {
    Refusal::new(RefusalKind::Stopping, "the daemon is stopping", "start it again")
}

/// Makes changes until `stop`, and gives the stages back. What was asked for and not begun is refused.
pub async fn run(
    mut stages: Stages,
    mut requests: mpsc::Receiver<Request>,
    running: watch::Sender<Arc<Running>>,
    reloads: Arc<Reloads>,
    stop: CancellationToken,
) -> Stages {
    loop {
        let request = tokio::select! {
            biased;
            () = stop.cancelled() => return stages,
            request = requests.recv() => request,
        };
        // Whoever asked may have gone: the change stands.
        match request {
            Some(Request::Edit(edit, answer)) => {
                let result = change(&mut stages, &edit, &stop).await;
                let result = result.map(|warnings| Changed { running: shown(&stages, &running), warnings });
                let _ = answer.send(result);
            }
            Some(Request::Reload(asked, answer)) => {
                let show = |stages: &Stages| drop(shown(stages, &running));
                let _ = answer.send(reload(&mut stages, asked, &reloads, show, &stop).await);
            }
            Some(Request::Install(install)) => {
                let results = install::install(&stages, &install, &stop).await;
                let _ = install.answer.send(results);
            }
            Some(Request::Trial(TrialEnd { handler, why, done })) => {
                trials::end(&stages, &handler, why, &stop).await;
                let _ = done.send(());
            }
            None => {
                stop.cancelled().await;
                return stages;
            }
        }
    }
}

/// Shows what runs now to those who look.
fn shown(stages: &Stages, running: &watch::Sender<Arc<Running>>) -> Arc<Running> {
    let now = Arc::new(stages.running());
    running.send_replace(Arc::clone(&now));
    now
}

/// Does everything that may fail for a configuration; a stop of the daemon does not wait for that.
pub(super) async fn prepare(
    stages: &Stages,
    candidate: Loaded,
    stop: &CancellationToken,
) -> Result<Result<Prepared, GatewayError>, Refusal> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(stopping()),
        prepared = trials::prepare(stages, Arc::new(candidate)) => Ok(prepared),
    }
}

/// Makes a change. The warnings that are new with it.
async fn change(stages: &mut Stages, edit: &Edit, stop: &CancellationToken) -> Result<Vec<String>, Refusal> {
    let loaded = Arc::clone(stages.loaded());
    let text = {
        let (loaded, edit) = (Arc::clone(&loaded), edit.clone());
        blocking(move || edit.applied(&loaded)).await??
    };
    if text.len() > LARGEST {
        let detail = format!("what was added would take more than {LARGEST} bytes");
        return Err(Refusal::new(RefusalKind::Invalid, detail, "write it in the configuration file"));
    }
    let sources = loaded.sources.clone();
    let names = stages.names().clone();
    let candidate = {
        let (sources, text) = (sources.clone(), text.clone());
        blocking(move || sources.with_runtime(text, &names)).await?
    };
    let candidate = candidate.map_err(|problems| refused(edit, &problems, &loaded))?;
    let mut warnings = new_with(edit, &loaded.warnings, &candidate.warnings);
    let mut prepared = prepare(stages, candidate, stop).await?.map_err(|error| not_prepared(&error))?;
    if let Edit::Remove { discard: true, .. } = edit {
        prepared.drop_what_waits();
    }
    // After what may take seconds, in which something may be published to it.
    if let Err(refusal) = keeps_what_waits(stages, edit) {
        stages.discard(&prepared);
        return Err(refusal);
    }
    let path = sources.runtime_path().to_owned();
    let written = {
        let path = path.clone();
        blocking(move || durable::replace(&path, text.as_bytes())).await?
    };
    if let Err(error) = written {
        stages.discard(&prepared);
        let detail = format!("{} cannot be written: {error}", path.display());
        return Err(Refusal::new(RefusalKind::Storage, detail, "make room, or let the daemon write there"));
    }
    trials::make(stages, prepared).await;
    tell(edit);
    warnings.extend(stays_on_disk(stages, edit));
    for warning in &warnings {
        tracing::warn!(%warning, "configuration");
    }
    Ok(warnings)
}

/// A broker that is removed leaves behind what waits for it on the disk.
fn stays_on_disk(stages: &Stages, edit: &Edit) -> Option<String> {
    let Edit::Remove { section: Section::Brokers, name, .. } = edit else { return None };
    let messages = stages.left_on_disk(name);
    (messages > 0).then(|| {
        format!(
            "brokers.{name}: {messages} messages to it stay on the disk until a broker of this name is added again; \
             `tidegate outbox purge {name}` drops them"
        )
    })
}

/// A broker that is removed takes along what waits for it in memory, which nobody may have meant.
fn keeps_what_waits(stages: &Stages, edit: &Edit) -> Result<(), Refusal> {
    let Edit::Remove { section: Section::Brokers, name, discard: false } = edit else { return Ok(()) };
    match stages.waiting(name) {
        0 => Ok(()),
        count => Err(Refusal::new(
            RefusalKind::InUse,
            format!("{count} messages wait in memory to be published to the broker {name}"),
            "connect it and try again, or drop them with discard=true (the command: --discard)",
        )),
    }
}

fn not_prepared(error: &GatewayError) -> Refusal {
    match error {
        GatewayError::Several(all) => Refusal {
            problems: first_of(all.iter().map(|error| with_causes(error))),
            ..Refusal::new(kind_of(error), format!("the configuration would have {} problems", all.len()), "")
        },
        one => Refusal::new(kind_of(one), with_causes(one), ""),
    }
}

/// What kind of refusal it is that a configuration cannot run.
pub(super) fn kind_of(error: &GatewayError) -> RefusalKind {
    match error {
        GatewayError::Load { .. } | GatewayError::Start { .. } | GatewayError::NotExported(_) => RefusalKind::Plugin,
        GatewayError::Several(all) => {
            all.iter().map(kind_of).find(|kind| *kind != RefusalKind::Plugin).unwrap_or(RefusalKind::Plugin)
        }
        _ => RefusalKind::Storage,
    }
}

/// Does what may wait for the disk elsewhere.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Refusal::new(RefusalKind::Stopping, "the step was cut short", "see the daemon's log"))
}

fn tell(edit: &Edit) {
    match edit {
        Edit::Add { section, keys } => {
            let name = super::edit::named(*section, keys).unwrap_or_default();
            tracing::info!(kind = section.singular(), name, "added by command");
        }
        Edit::Set { section, name, .. } => tracing::info!(kind = section.singular(), name, "changed by command"),
        Edit::Remove { section, name, .. } => tracing::info!(kind = section.singular(), name, "removed by command"),
    }
}
