//! What came of a look at a plugin's file, for one handler: the answer to who asked for it.
//!
//! Pure: words and kinds of refusal. Fed by the reload task (`plugins.rs`), which has looked; read by the admin plane.

use super::install::Installed;
use super::{Refusal, RefusalKind};
use crate::control::admin::resource::Reloaded;
use crate::path::handler::plugin::PluginHash;

/// What came of a look, for one handler.
pub(super) enum Looked {
    /// It ran this already.
    Runs,
    /// It runs this now.
    Now { before: PluginHash, version: PluginHash },
    /// It has this on trial.
    OnTrial { version: PluginHash },
    /// It keeps what runs: this kind of refusal, and the sentence after "the handler keeps running".
    Keeps(RefusalKind, String),
}

/// What came of a version that the change task was given.
pub(super) fn looked(installed: Installed, version: PluginHash) -> Looked {
    match installed {
        Installed::Now { before } => Looked::Now { before, version },
        Installed::Already => Looked::Runs,
        Installed::OnTrial => Looked::OnTrial { version },
        Installed::Refused(reason) => {
            Looked::Keeps(RefusalKind::Plugin, format!("version {version} is refused: {reason}"))
        }
        Installed::NotKept(reason) => {
            Looked::Keeps(RefusalKind::Storage, format!("version {version} cannot be kept for a restart: {reason}"))
        }
    }
}

/// The answer to a command.
pub(super) fn told(handler: &str, running: PluginHash, looked: Option<Looked>) -> Result<Reloaded, Refusal> {
    let reloaded = |before: PluginHash, version: PluginHash, trial: Option<PluginHash>| Reloaded {
        name: handler.to_owned(),
        before: before.to_string(),
        version: version.to_string(),
        on_trial: trial.map(|trial| trial.to_string()),
    };
    match looked {
        Some(Looked::Runs) => Ok(reloaded(running, running, None)),
        Some(Looked::OnTrial { version }) => Ok(reloaded(running, running, Some(version))),
        Some(Looked::Now { before, version }) => Ok(reloaded(before, version, None)),
        Some(Looked::Keeps(kind, why)) => {
            let remedy = match kind {
                RefusalKind::Storage => "make room, or let the daemon write there",
                _ => "",
            };
            Err(Refusal::new(kind, format!("handler {handler} keeps running version {running}: {why}"), remedy))
        }
        None => Err(Refusal::new(
            RefusalKind::Changed,
            format!("handler {handler} was changed or removed meanwhile"),
            "look at it, and try again",
        )),
    }
}
