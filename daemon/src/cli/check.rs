//! `tidegate check`: every problem of a configuration in one run, plugins included.
//!
//! Connects nowhere unless it is asked to, and writes nothing: plugins are compiled without a cache, and one instance of each
//! handler runs its `init`, in which it can publish nothing.

mod connect;

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use self::connect::{Connection, Findings};
use super::{NO, configuration_file, output};
use crate::brokers::BrokerNames;
use crate::causes::with_causes;
use crate::control::config::model::{Config, Handler};
use crate::control::config::{self, HandlerOrigins, Origins, Problem, Problems};
use crate::path::handler::host::{Host, KvGrant};
use crate::path::handler::native;
use crate::path::handler::needs::{Caller, NotExported, not_exported};
use crate::path::handler::plugin::{Exports, Instance, LoadError, Loader, PluginFile};
use crate::path::handler::wasm::WasmEngine;

/// The arguments of `check`.
#[derive(Args)]
pub struct Check {
    /// The configuration file [default: ./tidegate.toml, then /etc/tidegate/tidegate.toml]
    file: Option<PathBuf>,
    /// Connect to each broker once as well, with a client identifier of its own and without a trace
    #[arg(long)]
    connect: bool,
    /// Print a JSON object: ok, errors, warnings; with --connect also connections
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    errors: &'a [Problem],
    warnings: &'a [Problem],
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<&'a [Connection]>,
}

impl Check {
    /// Exits with 0 if the configuration can be used, with 1 if not.
    pub fn run(self) -> ExitCode {
        let file = configuration_file(self.file);
        let mut connections = None;
        let mut good = None;
        let (mut errors, warnings, handlers, names) = match config::inspect(&file) {
            Ok(mut loaded) => {
                let mut refused = Vec::new();
                if self.connect {
                    match connect::connect(&loaded) {
                        Ok(Findings { connections: made, errors, warnings }) => {
                            connections = Some(made);
                            refused = errors;
                            loaded.warnings.extend(warnings);
                        }
                        Err(error) => return output::failure(&*error, NO),
                    }
                }
                let handlers = loaded.config.handlers.iter().cloned().zip(loaded.origins.handlers.clone()).collect();
                good = Some((loaded.config, loaded.origins));
                (refused, loaded.warnings, handlers, loaded.names)
            }
            Err(Problems { errors, warnings, handlers, names }) => (errors, warnings, handlers, names),
        };
        match plugin_problems(handlers, &names) {
            Ok((problems, exports)) => {
                errors.extend(problems);
                if let Some((config, origins)) = &good {
                    errors.extend(unexported(config, origins, &exports));
                }
            }
            Err(error) => return output::failure(&*error, NO),
        }
        let ok = errors.is_empty();
        if self.json {
            let connections = connections.as_deref();
            let report = Report { ok, errors: &errors, warnings: &warnings, connections };
            output::data(serde_json::to_string_pretty(&report).expect("strings and numbers become JSON"));
        } else {
            // Of the others, the problems below tell.
            connections.iter().flatten().filter(|made| made.is_made()).for_each(output::notice);
            warnings.iter().for_each(|warning| output::notice(format_args!("warning: {warning}")));
            errors.iter().for_each(output::notice);
            if self.connect && connections.is_none() {
                output::notice("no connection was tried, since the configuration cannot be used");
            }
            let verdict = match errors.len() {
                0 => format!("{}: ok", file.display()),
                1 => format!("{}: 1 problem", file.display()),
                count => format!("{}: {count} problems", file.display()),
            };
            output::data(verdict);
        }
        let status = if ok { 0 } else { NO };
        native::end_if_inside(status);
        ExitCode::from(status)
    }
}

/// What subscriptions and schedules call handlers for that their plugins do not export.
fn unexported(config: &Config, origins: &Origins, exports: &HashMap<Arc<str>, Exports>) -> Vec<Problem> {
    let missing = not_exported(config, |handler| exports.get(handler).copied());
    let problem = |missing: NotExported| {
        let object = match missing.caller {
            Caller::Subscription { place, .. } | Caller::Silence { place, .. } => &origins.subscriptions[place],
            Caller::Schedule { place, .. } => &origins.schedules[place],
        };
        object.table.problem(missing.problem(), missing.remedy())
    };
    missing.into_iter().map(problem).collect()
}

/// What is wrong with plugins, and what each that loads exports, by handler.
type Looked = (Vec<Problem>, HashMap<Arc<str>, Exports>);

/// Loads every plugin and starts an instance of every handler.
fn plugin_problems(
    handlers: Vec<(Arc<Handler>, HandlerOrigins)>,
    names: &BrokerNames,
) -> Result<Looked, Box<dyn Error>> {
    let mut exports = HashMap::new();
    if handlers.is_empty() {
        return Ok((Vec::new(), exports));
    }
    let loader = Loader::passing(WasmEngine::new(None)?, handlers.iter().map(|(handler, _)| &**handler))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let problem = |(handler, origins): (Arc<Handler>, HandlerOrigins)| {
        let plugin = match PluginFile::read(&handler.plugin).and_then(|file| loader.load(&file)) {
            Ok(plugin) => plugin,
            Err(error) => {
                let remedy = match &error {
                    LoadError::Missing => format!("build it, and put it at {}", handler.plugin.display()),
                    // What can be done about the others, their sentences say.
                    _ => String::new(),
                };
                return Some(origins.plugin.problem(with_causes(&error), remedy));
            }
        };
        exports.insert(Arc::clone(&handler.name), plugin.exports());
        // Reads find nothing, as at the first start of all.
        let host = Arc::new(Host::new(&handler, names.clone(), KvGrant::detached(&handler)));
        let error = runtime.block_on(Instance::start(&plugin, host)).err()?;
        Some(origins.plugin.problem(with_causes(&error), ""))
    };
    let problems = handlers.into_iter().filter_map(problem).collect();
    // Each within its call deadline.
    runtime.block_on(loader.ended(Duration::MAX));
    Ok((problems, exports))
}
