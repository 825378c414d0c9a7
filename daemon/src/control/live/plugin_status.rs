//! How the plugins' files stand to what handlers run, a sentence each: what `/readyz` and `tidegate status` tell.
//!
//! Reads what the archive knows of each file, and how each trial stands; decides nothing.

use std::path::PathBuf;

use super::Running;
use super::view::time;
use crate::path::handler::archive::FileState;
use crate::path::handler::plugin::PluginHash;
use crate::path::handler::{HandlerView, TrialStanding};

impl Running {
    /// What an operator should know of the plugins, a sentence each.
    pub(super) fn of_plugins(&self) -> Vec<String> {
        self.handlers.iter().filter_map(|view| of_plugin(view, &self.archive.file_of(&view.handler().name))).collect()
    }
}

fn of_plugin(view: &HandlerView, file: &FileState) -> Option<String> {
    let (name, plugin): (_, &PathBuf) = (&view.handler().name, &view.handler().plugin);
    let (plugin, running) = (plugin.display(), view.version());
    let of = |version: Option<PluginHash>| version.map(|version| format!("version {version} of ")).unwrap_or_default();
    let what = match file {
        FileState::Runs => return None,
        FileState::Missing { since } => format!("{plugin} is gone, since {}", time(*since)),
        FileState::OnTrial { .. } => match view.trial() {
            Some(TrialStanding { version, calls, of: all, failures, .. }) => {
                format!("on trial: version {version} of {plugin}, {calls} of {all} calls, {failures} failed")
            }
            None => return None,
        },
        FileState::Refused { version, reason, since } => {
            format!("{}{plugin} was refused at {}: {reason}", of(*version), time(*since))
        }
        FileState::NotKept { version, reason, since } => format!(
            "{}{plugin} could not be kept at {}: {reason}; `tidegate handlers reload {name}` tries it again",
            of(Some(*version)),
            time(*since)
        ),
    };
    Some(format!("handler {name} runs version {running}: {what}"))
}
