//! The configuration: `tidegate.toml` and `conf.d/*.toml` beside it, from text to validated model.
//!
//! Owns: reading, interpolation, validation and the resolution of references; and the form in which mistakes are told,
//! all of them in one run. Fed by files and the environment; feeds the gateway's wiring and the commands `check` and
//! `explain`. It deliberately opens no plugin and no connection: who does tells problems at the places in [`Origins`].
//!
//! `source` (files) → `reader` (typed values with their places) → `section` (keys, defaults, rules) → `model`.

pub mod certificates;
pub mod diff;
mod interpolate;
pub mod model;
mod problem;
mod raw;
mod reader;
pub mod runtime;
mod scalar;
pub mod secret;
mod section;
pub mod settings;
mod show;
mod source;
mod suggest;
pub mod template;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use problem::{Origin, Problem};
pub use raw::Definition;
pub(in crate::control) use scalar::parse_duration;
pub use scalar::{format_duration, format_durations, format_size};
pub use section::subscription::UNUSED;
pub use show::{Setting, Shown};
pub(in crate::control) use suggest::nearest;

use toml::de::DeTable;

use interpolate::{Environment, Interpolated};
use model::{Config, Handler};
use reader::{Reading, Table};
use section::{broker, daemon, handler, schedule, subscription};
use source::SourceFile;

use crate::brokers::BrokerNames;

/// Where the configuration is looked for when no file is named, in this order.
pub const DEFAULT_FILES: [&str; 2] = ["tidegate.toml", "/etc/tidegate/tidegate.toml"];

/// The first of [`DEFAULT_FILES`] that exists; the first of all where none does, so that loading says what to write.
pub fn default_file() -> PathBuf {
    let found = DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| DEFAULT_FILES[0].into())
}

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the daemon uses.
    pub config: Config,
    /// What looks wrong, in the order of the files.
    pub warnings: Vec<Problem>,
    /// Where things stand in the files.
    pub origins: Origins,
    /// The numbers of the brokers' names, those of an earlier configuration included.
    pub names: BrokerNames,
    /// It as people read it.
    pub shown: Shown,
    /// The texts that it was made of.
    pub sources: Sources,
}

/// The texts that a configuration is made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The operator's, the main one first.
    files: Vec<SourceFile>,
    /// Written by the daemon.
    runtime: SourceFile,
    /// What the operator's stood for when they were read.
    interpolated: Interpolated,
}

impl Sources {
    /// The text of STATE-DIR/runtime.toml.
    pub fn runtime(&self) -> &str {
        self.runtime.text()
    }

    /// The path of STATE-DIR/runtime.toml.
    pub fn runtime_path(&self) -> &Path {
        self.runtime.path()
    }

    /// Whether the operator's files, of which this is the main one, hold what was read of them. Blocks the thread for as long as
    /// reading them takes.
    pub fn are_as_read(&self, file: &Path) -> bool {
        let same = |(one, other): (&SourceFile, &SourceFile)| one.path() == other.path() && one.text() == other.text();
        source::read(file).is_ok_and(|files| files.len() == self.files.len() && files.iter().zip(&self.files).all(same))
    }

    /// The configuration with another text in place of STATE-DIR/runtime.toml, which is not written. The other files count as
    /// they were read, and so does what they interpolate: a change by command touches nothing else. It may block the thread:
    /// certificates are looked at. `names` keeps the numbers of the brokers that run.
    ///
    /// # Errors
    /// Every problem of the whole.
    pub fn with_runtime(&self, text: String, names: &BrokerNames) -> Result<Loaded, Problems> {
        let runtime = SourceFile::runtime(self.runtime.path(), text);
        let known = self.interpolated.clone();
        assemble_knowing(known, &self.files, |_| Ok(runtime), &Environment::of_process(), names)
    }
}

/// Places in the files, for problems that show only later and for those who ask where something stands.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Beside [`Config::brokers`].
    pub brokers: Vec<BrokerOrigins>,
    /// Beside [`Config::subscriptions`].
    pub subscriptions: Vec<ObjectOrigin>,
    /// Beside [`Config::handlers`].
    pub handlers: Vec<HandlerOrigins>,
    /// Beside [`Config::schedules`].
    pub schedules: Vec<ObjectOrigin>,
}

/// Where an object of the configuration stands.
#[derive(Clone, Debug)]
pub struct ObjectOrigin {
    /// Its table.
    pub table: Origin,
    /// It was added while the daemon ran.
    pub runtime: bool,
    /// What it is made of.
    pub definition: Definition,
}

/// Places of one broker.
#[derive(Clone, Debug)]
pub struct BrokerOrigins {
    /// The broker itself.
    pub object: ObjectOrigin,
    /// `address`.
    pub address: Origin,
}

/// Places of one handler.
#[derive(Clone, Debug)]
pub struct HandlerOrigins {
    /// The handler itself.
    pub object: ObjectOrigin,
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
    pub names: BrokerNames,
}

impl From<Vec<Problem>> for Problems {
    fn from(errors: Vec<Problem>) -> Problems {
        Problems { errors, warnings: Vec::new(), handlers: Vec::new(), names: BrokerNames::default() }
    }
}

impl fmt::Display for Problems {
    /// The errors, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.errors.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// Reads FILE, `conf.d/*.toml` beside it, and what was added at run time. Reads the files of `${file:…}` too; blocks the
/// thread for as long.
///
/// # Errors
/// Every problem of every file, with file, line, column, field, value and remedy. Never a secret.
pub fn load(file: &Path) -> Result<Loaded, Problems> {
    load_again(file, &BrokerNames::default())
}

/// As [`load`], while a configuration runs whose brokers have the numbers of `names`.
///
/// # Errors
/// As [`load`].
pub fn load_again(file: &Path, names: &BrokerNames) -> Result<Loaded, Problems> {
    let files = source::read(file)?;
    assemble(&files, source::read_runtime, &Environment::of_process(), names)
}

/// As [`load`], for those who only look: where what was added at run time may be read by the daemon's user alone, a warning says
/// that it is missing.
///
/// # Errors
/// As for [`load`].
pub fn inspect(file: &Path) -> Result<Loaded, Problems> {
    let files = source::read(file)?;
    let mut unseen = None;
    let read_runtime = |state_dir: &Path| {
        source::read_runtime(state_dir).or_else(|problem| {
            if !source::is_forbidden(state_dir) {
                return Err(problem);
            }
            unseen = Some(problem.origin.problem(
                "what was added while the daemon ran is not seen: permission denied",
                "run this as the daemon's user",
            ));
            Ok(source::nothing_added(state_dir))
        })
    };
    let mut loaded = assemble(&files, read_runtime, &Environment::of_process(), &BrokerNames::default())?;
    loaded.warnings.extend(unseen);
    Ok(loaded)
}

/// The admin plane's socket as FILE and `conf.d/*.toml` beside it say, without regard to any other mistake in them. Where
/// they cannot be read, that of the default state directory.
pub fn socket(file: &Path) -> PathBuf {
    let files = source::read(file).unwrap_or_default();
    let environment = Environment::of_process();
    let reading = Reading::new(&environment, BrokerNames::default(), Interpolated::default());
    let tables: Vec<DeTable<'_>> = files.iter().map(|file| file.parse().0).collect();
    let roots = tables_of(&reading, 0, files.iter().zip(&tables));
    daemon::read(&roots, &environment).admin.socket
}

/// Reads a text as if it stood in FILE, alone but for what was added at run time.
///
/// # Errors
/// As [`load`].
pub fn load_text(file: &Path, text: &str, runtime: &str) -> Result<Loaded, Problems> {
    let files = [SourceFile::new(file, text)];
    let runtime = |state_dir: &Path| Ok(SourceFile::runtime(state_dir.join(source::RUNTIME), runtime));
    assemble(&files, runtime, &Environment::of_process(), &BrokerNames::default())
}

/// Makes one configuration of the texts of all files, the main one first, and of what was added at run time, which
/// `read_runtime` finds in the state directory.
fn assemble(
    files: &[SourceFile],
    read_runtime: impl FnOnce(&Path) -> Result<SourceFile, Box<Problem>>,
    environment: &Environment,
    known: &BrokerNames,
) -> Result<Loaded, Problems> {
    assemble_knowing(Interpolated::default(), files, read_runtime, environment, known)
}

/// As [`assemble`], where it is known already what interpolations stand for.
fn assemble_knowing(
    interpolated: Interpolated,
    files: &[SourceFile],
    read_runtime: impl FnOnce(&Path) -> Result<SourceFile, Box<Problem>>,
    environment: &Environment,
    known: &BrokerNames,
) -> Result<Loaded, Problems> {
    // Numbers count only once the configuration is used.
    let names = known.draft();
    let reading = Reading::new(environment, names.clone(), interpolated);
    let tables: Vec<_> = files.iter().enumerate().map(|(order, file)| reading.parse(order, file)).collect();
    let mut roots = tables_of(&reading, 0, files.iter().zip(&tables));
    let settings = daemon::read(&roots, environment);
    let runtime = read_runtime(&settings.state_dir).map_err(|problem| vec![*problem])?;
    let runtime_table = reading.parse(files.len(), &runtime);
    roots.extend(tables_of(&reading, files.len(), [(&runtime, &runtime_table)]));

    let brokers = broker::read(&roots);
    let handlers = handler::read(&roots, &brokers, &settings);
    // What is added at run time has none.
    let schedules = schedule::read(&roots[..files.len()], &brokers, &handlers);
    let subscriptions = subscription::read(&roots, &brokers, &handlers, schedules.used);
    roots.into_iter().for_each(Table::finish);

    let interpolated = reading.interpolated();
    let (brokers, broker_origins) = brokers.into_iter().filter_map(|named| named.item).unzip();
    let handlers: Vec<_> = handlers.into_iter().filter_map(|named| named.item).collect();
    let (errors, warnings) = reading.into_problems();
    if !errors.is_empty() {
        return Err(Problems { errors, warnings, handlers, names });
    }
    let (handlers, handler_origins) = handlers.into_iter().unzip();
    let (subscriptions, subscription_origins) = subscriptions.into_iter().unzip();
    let (schedules, schedule_origins) = schedules.all.into_iter().unzip();
    let daemon::Daemon { state_dir, plugins_dir: _, native, log, shutdown_grace, received, watch_config, admin } =
        settings;
    let config = Config {
        state_dir,
        native,
        log,
        shutdown_grace,
        received,
        watch_config,
        admin,
        brokers,
        subscriptions,
        handlers,
        schedules,
    };
    let origins = Origins {
        brokers: broker_origins,
        subscriptions: subscription_origins,
        handlers: handler_origins,
        schedules: schedule_origins,
    };
    let sources = Sources { files: files.to_vec(), runtime: runtime.clone(), interpolated };
    let texts: Vec<_> = files.iter().zip(&tables).chain([(&runtime, &runtime_table)]).collect();
    Ok(Loaded { config, warnings, origins, names, shown: Shown::of(&texts), sources })
}

fn tables_of<'a>(
    reading: &'a Reading<'a>,
    first: usize,
    files: impl IntoIterator<Item = (&'a SourceFile, &'a DeTable<'a>)>,
) -> Vec<Table<'a>> {
    let files = files.into_iter().enumerate();
    files.map(|(order, (file, entries))| Table::root(reading, first + order, file, entries)).collect()
}

#[cfg(test)]
mod tests;
