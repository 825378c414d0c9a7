//! The configuration: `tidegate.toml` and `conf.d/*.toml` beside it, from text to validated model.
//!
//! Owns: reading, interpolation, validation and the resolution of references; and the form in which mistakes are told,
//! all of them in one run. Fed by files and the environment; feeds the gateway's wiring and the commands `check` and
//! `explain`. It deliberately opens no plugin and no connection: who does tells problems at the places in [`Origins`].
//!
//! `source` (files) → `reader` (typed values with their places) → `section` (keys, defaults, rules) → `model`.

pub mod certificates;
mod interpolate;
pub mod model;
mod problem;
mod reader;
mod scalar;
pub mod secret;
mod section;
mod source;
mod suggest;
pub mod template;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use problem::{Origin, Problem};

use interpolate::Environment;
use model::{Config, Handler};
use reader::{Reading, Table};
use section::{broker, daemon, handler, subscription};
use source::SourceFile;

/// Where the configuration is looked for when no file is named, in this order.
pub const DEFAULT_FILES: [&str; 2] = ["tidegate.toml", "/etc/tidegate/tidegate.toml"];

/// The first of [`DEFAULT_FILES`] that exists; the first of all where none does, so that loading says what to write.
pub fn default_file() -> PathBuf {
    let found = DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| DEFAULT_FILES[0].into())
}

/// A configuration without errors.
#[derive(Debug)]
pub struct Loaded {
    /// What the daemon uses.
    pub config: Config,
    /// What looks wrong, in the order of the files.
    pub warnings: Vec<Problem>,
    /// Where things stand in the files.
    pub origins: Origins,
}

/// Places in the files, for problems that show only later.
#[derive(Debug)]
pub struct Origins {
    /// Places of each handler, beside [`Config::handlers`].
    pub handlers: Vec<HandlerOrigins>,
}

/// Places of one handler.
#[derive(Clone, Debug)]
pub struct HandlerOrigins {
    /// `plugin`.
    pub plugin: Origin,
}

/// Why a configuration cannot be used: all of it, in the order of the files.
#[derive(Debug)]
pub struct Problems {
    /// What must be mended. At least one.
    pub errors: Vec<Problem>,
    /// What looks wrong besides.
    pub warnings: Vec<Problem>,
    /// The handlers without errors, so that `check` can try their plugins in the same run.
    pub handlers: Vec<(Arc<Handler>, HandlerOrigins)>,
    /// The names of all brokers, by the number that these handlers' grants use.
    pub brokers: Arc<[Arc<str>]>,
}

impl fmt::Display for Problems {
    /// The errors, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.errors.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// Reads FILE and `conf.d/*.toml` beside it. Reads the files of `${file:…}` too; blocks the thread for as long.
///
/// # Errors
/// Every problem of every file, with file, line, column, field, value and remedy. Never a secret.
pub fn load(file: &Path) -> Result<Loaded, Problems> {
    match source::read(file) {
        Ok(files) => assemble(&files, &Environment::of_process()),
        Err(errors) => Err(Problems { errors, warnings: Vec::new(), handlers: Vec::new(), brokers: Arc::default() }),
    }
}

/// Makes one configuration of the texts of all files, the main one first.
fn assemble(files: &[SourceFile], environment: &Environment) -> Result<Loaded, Problems> {
    let reading = Reading::new(environment);
    let tables: Vec<_> = files.iter().enumerate().map(|(order, file)| reading.parse(order, file)).collect();
    let roots: Vec<Table<'_>> = files
        .iter()
        .zip(&tables)
        .enumerate()
        .map(|(order, (file, entries))| Table::root(&reading, order, file, entries))
        .collect();

    let settings = daemon::read(&roots, environment);
    let brokers = broker::read(&roots);
    let handlers = handler::read(&roots, &brokers, &settings.plugins_dir);
    let subscriptions = subscription::read(&roots, &brokers, &handlers);
    roots.into_iter().for_each(Table::finish);

    let names: Arc<[Arc<str>]> = brokers.iter().map(|named| Arc::clone(&named.name)).collect();
    let brokers = brokers.into_iter().filter_map(|named| named.item).collect();
    let handlers: Vec<_> = handlers.into_iter().filter_map(|named| named.item).collect();
    let (errors, warnings) = reading.into_problems();
    if !errors.is_empty() {
        return Err(Problems { errors, warnings, handlers, brokers: names });
    }
    let (handlers, handler_origins) = handlers.into_iter().unzip();
    let daemon::Daemon { state_dir, plugins_dir: _, log, shutdown_grace, received, admin } = settings;
    let config = Config { state_dir, log, shutdown_grace, received, admin, brokers, subscriptions, handlers };
    Ok(Loaded { config, warnings, origins: Origins { handlers: handler_origins } })
}

#[cfg(test)]
mod tests;
