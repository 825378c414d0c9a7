//! The configuration's files read again while the daemon runs: by command, by SIGHUP, or because they changed.
//!
//! Owns: what came of the last reload. Fed by the admin plane, a signal and the watch of the files; done by the task that makes all
//! changes (`change.rs`). What is made of the files is what a start would make of them: whatever keeps the daemon from starting with
//! them, and whatever needs a restart, keeps all as it is. What changes is decided in `control/config`, and told by `difference.rs`.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::change::{Request, blocking, kind_of, prepare, stopping};
use super::difference::{self, is_nothing};
use super::warnings::fresh;
use super::{Live, Refusal, RefusalKind, trials};
use crate::causes::{first_of, with_causes};
use crate::control::admin::resource::{LastReload, ReloadReport};
use crate::control::config::diff::{BrokerChange, Difference};
use crate::control::config::model::Config;
use crate::control::config::runtime::Section;
use crate::control::config::settings::need_restart;
use crate::control::config::{self, Origins, Problem};
use crate::gateway::{GatewayError, Stages};
use crate::path::handler::needs::{Caller, NotExported};
use crate::telemetry::metrics::ConfigMeters;

/// What asks for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// `tidegate reload`, or the HTTP API.
    Command,
    /// SIGHUP.
    Signal,
    /// `watch-config`.
    Watch,
}

impl Trigger {
    /// As it is told.
    fn word(self) -> &'static str {
        match self {
            Trigger::Command => "command",
            Trigger::Signal => "SIGHUP",
            Trigger::Watch => "watch-config",
        }
    }
}

/// A reload as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    trigger: Trigger,
    /// Nothing is changed.
    dry_run: bool,
}

/// What came of the last reload. Shared by the task that makes changes, which writes it, and by those who look.
pub struct Reloads {
    last: Mutex<Option<Ended>>,
    meters: ConfigMeters,
}

struct Ended {
    time: SystemTime,
    trigger: Trigger,
    /// Why nothing was changed.
    refusal: Option<Refusal>,
}

impl Reloads {
    /// Of a daemon that has just started with its configuration.
    pub fn new(meters: ConfigMeters) -> Reloads {
        meters.reloaded(SystemTime::now());
        Reloads { last: Mutex::default(), meters }
    }

    fn ended(&self, trigger: Trigger, refusal: Option<&Refusal>) {
        let time = SystemTime::now();
        match refusal {
            None => self.meters.reloaded(time),
            Some(_) => self.meters.failed(),
        }
        let ended = Ended { time, trigger, refusal: refusal.cloned() };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
    }

    /// The last reload; none since the start.
    fn last(&self) -> Option<LastReload> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Ended { time, trigger, refusal } = last.as_ref()?;
        Some(LastReload {
            time: humantime::format_rfc3339_millis(*time).to_string(),
            successful: refusal.is_none(),
            trigger: trigger.word().to_owned(),
            error: refusal.as_ref().map(ToString::to_string),
            problems: refusal.as_ref().map(|refusal| refusal.problems.clone()).unwrap_or_default(),
        })
    }
}

impl Live {
    /// Reads the configuration's files again and makes what they say; with `dry_run` nothing is changed, and what would be is told.
    /// Cancellation safe: it goes on.
    ///
    /// # Errors
    /// Nothing has changed; why.
    pub async fn reload_configuration(&self, trigger: Trigger, dry_run: bool) -> Result<ReloadReport, Refusal> {
        let (answer, told) = oneshot::channel();
        self.request(Request::Reload(Asked { trigger, dry_run }, answer), told).await
    }

    /// As [`Live::reload_configuration`], where nobody waits for the answer, and would ask again: it waits for its turn however many
    /// changes wait already, and what comes of it is in the log. For one at a time of each trigger.
    pub async fn reload_unasked(&self, trigger: Trigger) {
        in_turn(&self.changes, trigger).await;
    }

    /// What came of the last reload; none since the start.
    pub fn last_reload(&self) -> Option<LastReload> {
        self.configuration.last()
    }
}

/// Has the files read again once it is their turn. A daemon that stops ends it.
async fn in_turn(changes: &mpsc::Sender<Request>, trigger: Trigger) {
    let (answer, told) = oneshot::channel();
    let asked = Request::Reload(Asked { trigger, dry_run: false }, answer);
    let done = match changes.send(asked).await {
        Ok(()) => told.await.unwrap_or_else(|_| Err(stopping())),
        Err(_) => Err(stopping()),
    };
    // Whatever else came of it, the task that did it has said.
    if let Err(refusal) = done
        && refusal.kind == RefusalKind::Stopping
    {
        tracing::warn!(trigger = trigger.word(), %refusal, "the configuration is not read again");
    }
}

/// Does what was asked for. What has changed, or would.
pub(super) async fn reload(
    stages: &mut Stages,
    asked: Asked,
    reloads: &Reloads,
    shown: impl FnOnce(&Stages),
    stop: &CancellationToken,
) -> Result<ReloadReport, Refusal> {
    let Asked { trigger, dry_run } = asked;
    let result = attempt(stages, dry_run, stop).await;
    if dry_run || result.as_ref().is_err_and(|refusal| refusal.kind == RefusalKind::Stopping) {
        return result;
    }
    reloads.ended(trigger, result.as_ref().err());
    // Whoever reads that it is done finds what it has made.
    shown(stages);
    match &result {
        Ok(done) => say(trigger, done),
        Err(refusal) => {
            let trigger = trigger.word();
            tracing::error!(trigger, %refusal, "the configuration is not reloaded, and nothing has changed");
            for problem in &refusal.problems {
                tracing::error!(%problem, "configuration");
            }
        }
    }
    result
}

fn say(trigger: Trigger, done: &ReloadReport) {
    let trigger = trigger.word();
    for warning in &done.warnings {
        tracing::warn!(%warning, "configuration");
    }
    if is_nothing(done) {
        return tracing::info!(trigger, "configuration reloaded: nothing has changed");
    }
    let ReloadReport { settings, brokers, subscriptions, handlers, schedules, .. } = done;
    tracing::info!(
        trigger,
        settings = settings.len(),
        brokers = brokers.len(),
        subscriptions = subscriptions.len(),
        handlers = handlers.len(),
        schedules = schedules.len(),
        "configuration reloaded",
    );
}

async fn attempt(stages: &mut Stages, dry_run: bool, stop: &CancellationToken) -> Result<ReloadReport, Refusal> {
    let old = Arc::clone(stages.loaded());
    let (file, names) = (stages.file().to_owned(), stages.names().clone());
    let candidate = blocking(move || config::load_again(&file, &names)).await?;
    let added = old.sources.runtime_path();
    let candidate = candidate.map_err(|problems| refused(RefusalKind::Invalid, &problems.errors, added))?;
    let fixed = need_restart(&old, &candidate);
    if !fixed.is_empty() {
        return Err(refused(RefusalKind::NeedsRestart, &fixed, added));
    }
    let difference = Difference::between(Some(&old), &candidate);
    leaves_nothing_behind(stages, &difference)?;
    let mut told = difference::told(&old, &candidate, &difference);
    (told.dry_run, told.warnings) = (dry_run, fresh(&old.warnings, &candidate.warnings));
    let (objects, origins) = (candidate.config.clone(), candidate.origins.clone());
    let prepared = prepare(stages, candidate, stop).await?;
    let prepared = prepared.map_err(|error| not_prepared(&error, &objects, &origins))?;
    // Preparing may take seconds, in which a broker may be lost.
    if let Err(refusal) = leaves_nothing_behind(stages, &difference) {
        stages.discard(&prepared);
        return Err(refusal);
    }
    if dry_run {
        stages.discard(&prepared);
    } else {
        trials::make(stages, prepared).await;
    }
    Ok(told)
}

/// A broker that is removed while it is connected gets what waits for it before. Where it is not connected that would be dropped,
/// which nobody may have meant.
fn leaves_nothing_behind(stages: &Stages, difference: &Difference) -> Result<(), Refusal> {
    let removed = difference.brokers.iter().filter(|(_, change)| *change == BrokerChange::Removed);
    let stranded = removed.map(|(name, _)| (name, stages.stranded(name))).find(|(_, messages)| *messages > 0);
    let Some((name, messages)) = stranded else { return Ok(()) };
    Err(Refusal::new(
        RefusalKind::InUse,
        format!(
            "the broker {name} stands in no file any more, is not connected, and {messages} messages wait in memory to be \
             published to it"
        ),
        format!("connect it, or drop them with `tidegate outbox purge {name}`, and reload again"),
    ))
}

/// What is wrong with a configuration. `added` is the file of what was added by command, which nobody writes by hand.
fn refused(kind: RefusalKind, problems: &[Problem], added: &Path) -> Refusal {
    let told = |problem: &Problem| {
        let of_command = (Path::new(&problem.origin.place.file) == added).then(|| by_command(&problem.origin.field));
        (problem.sentence(Path::new("")), of_command.unwrap_or_else(|| problem.remedy.clone()))
    };
    let line = |problem: &Problem| {
        let (sentence, remedy) = told(problem);
        Refusal::new(kind, sentence, remedy).to_string()
    };
    match problems {
        [one] => {
            let (sentence, remedy) = told(one);
            Refusal::new(kind, sentence, remedy)
        }
        all => Refusal {
            problems: all.iter().map(line).collect(),
            ..Refusal::new(kind, format!("the configuration has {} problems", all.len()), "")
        },
    }
}

/// What to do about an object that was added by command and contradicts the files now.
fn by_command(field: &str) -> String {
    let mut levels = field.split(['.', '[']);
    let section = levels.next().unwrap_or_default();
    let known = [Section::Brokers, Section::Subscriptions, Section::Handlers];
    let name = levels.next().unwrap_or_default();
    match known.into_iter().find(|known| known.key() == section) {
        Some(Section::Subscriptions) => {
            "it was added by command: remove it with `tidegate unsubscribe`, or change it with `tidegate subscriptions set`, \
             or change the file"
                .to_owned()
        }
        Some(_) => format!(
            "it was added by command: remove it with `tidegate {section} remove {name}`, or change it with \
             `tidegate {section} set {name}`, or change the file"
        ),
        None => "it is written by the daemon alone: take out what was added there by hand".to_owned(),
    }
}

/// What keeps a configuration from running, where it stands.
fn not_prepared(error: &GatewayError, config: &Config, origins: &Origins) -> Refusal {
    let kind = kind_of(error);
    let refusal = |error: &GatewayError| match problem(error, config, origins) {
        Some(problem) => Refusal::new(kind, problem.sentence(Path::new("")), problem.remedy),
        None => Refusal::new(kind, with_causes(error), ""),
    };
    match error {
        GatewayError::Several(all) => Refusal {
            problems: first_of(all.iter().map(|error| refusal(error).to_string())),
            ..Refusal::new(kind, format!("the configuration has {} problems", all.len()), "")
        },
        one => refusal(one),
    }
}

fn problem(error: &GatewayError, config: &Config, origins: &Origins) -> Option<Problem> {
    let plugin = |name: &str| {
        let place = config.handlers.iter().position(|handler| *handler.name == *name)?;
        Some(&origins.handlers.get(place)?.plugin)
    };
    match error {
        GatewayError::Load { handler, source, .. } => Some(plugin(handler)?.problem(with_causes(source), "")),
        GatewayError::Start { handler, source } => Some(plugin(handler)?.problem(with_causes(source), "")),
        GatewayError::NotExported(missing) => {
            let NotExported { caller, .. } = missing;
            let object = match caller {
                Caller::Subscription { place, .. } | Caller::Silence { place, .. } => origins.subscriptions.get(*place),
                Caller::Schedule { place, .. } => origins.schedules.get(*place),
            };
            Some(object?.table.problem(missing.problem(), missing.remedy()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use super::*;
    use crate::control::config::load_text;
    use crate::path::handler::StartError;
    use crate::path::handler::plugin::LoadError;

    const FILE: &str = "/nowhere/tidegate.toml";

    /// What is said of a configuration that contradicts what was added by command.
    #[track_caller]
    fn check(file: &str, added: &str, expected: &[&str]) {
        let problems = load_text(Path::new(FILE), &format!("state-dir = \"/state\"\n{file}"), added);
        let problems = problems.expect_err("is refused").errors;
        let refusal = refused(RefusalKind::Invalid, &problems, Path::new("/state/runtime.toml"));
        let lines = if refusal.problems.is_empty() { vec![refusal.to_string()] } else { refusal.problems };
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_was_added_by_command_is_changed_by_command() {
        check(
            "[brokers.plant]\naddress = \"a\"\n",
            "[brokers.plant]\naddress = \"b\"\n",
            &[
                "/state/runtime.toml:1:1: brokers.plant: also defined at /nowhere/tidegate.toml:2:1; it was added by command: \
              remove it with `tidegate brokers remove plant`, or change it with `tidegate brokers set plant`, or change the \
              file",
            ],
        );
        check(
            "[brokers.plant]\naddress = \"a\"\nport = \"x\"\n",
            "[[subscriptions]]\nbroker = \"cloud\"\ntopic = \"t\"\n",
            &[
                "/nowhere/tidegate.toml:4:8: brokers.plant.port = \"x\": expected an integer, got a string; use a number from \
                 1 to 65535, without quotes",
                "/state/runtime.toml:2:10: subscriptions[0].broker = \"cloud\": no such broker; it was added by command: \
                 remove it with `tidegate unsubscribe`, or change it with `tidegate subscriptions set`, or change the file",
            ],
        );
    }

    #[test]
    fn each_handler_that_does_not_start_is_told_where_it_stands() {
        let text = "[handlers.a]\nplugin = \"a.wasm\"\n[handlers.b]\nplugin = \"b.wasm\"\n\
            [[schedules]]\nname = \"s\"\nevery = \"1s\"\non-schedule = \"a\"\n";
        let loaded = load_text(Path::new(FILE), text, "").expect("is good");
        let load = |handler: &str| GatewayError::Load {
            handler: handler.into(),
            plugin: "x.wasm".into(),
            source: LoadError::Missing,
        };
        let start = GatewayError::Start { handler: "b".into(), source: StartError::Refused("no unit".to_owned()) };
        let caller = Caller::Schedule { place: 0, name: "s".into() };
        let check = |error: GatewayError, refusal: &str, problems: &[&str]| {
            let told = not_prepared(&error, &loaded.config, &loaded.origins);
            assert_eq!((told.kind, told.to_string().as_str()), (RefusalKind::Plugin, refusal));
            assert_eq!(told.problems, problems);
        };
        let a = "/nowhere/tidegate.toml:2:10: handlers.a.plugin = \"a.wasm\": does not exist";
        let b = "/nowhere/tidegate.toml:4:10: handlers.b.plugin = \"b.wasm\": init refused: no unit";
        let s = "/nowhere/tidegate.toml:5:1: schedules[0]: the schedule s runs the handler a, whose plugin does not export \
                 on-schedule; use another handler, or build the plugin for the world schedule-handler or full-handler";
        check(load("a"), a, &[]);
        let missing = NotExported { caller, handler: "a".into() };
        let all = GatewayError::Several(vec![load("a"), start, missing.into()]);
        check(all, "the configuration has 3 problems", &[a, b, s]);
        let more = "and 2 more";
        let all = GatewayError::Several((0..12).map(|_| load("a")).collect());
        check(all, "the configuration has 12 problems", &[[a; 10].as_slice(), &[more]].concat());
    }

    /// With room for no further change, as behind many that wait.
    #[tokio::test]
    async fn a_reload_that_nobody_would_ask_for_again_waits_for_its_turn_or_the_end() {
        for stops in [false, true] {
            let (changes, mut task) = mpsc::channel(1);
            let asked = |trigger| Request::Reload(Asked { trigger, dry_run: false }, oneshot::channel().0);
            changes.try_send(asked(Trigger::Command)).map_err(|_| "is full").expect("has room for one");
            let mut waiting = pin!(in_turn(&changes, Trigger::Signal));
            assert!(poll_once(waiting.as_mut()).await.is_pending(), "nothing has become of it");
            if stops {
                drop(task);
            } else {
                assert!(matches!(task.recv().await, Some(Request::Reload(Asked { trigger: Trigger::Command, .. }, _))));
                assert!(poll_once(waiting.as_mut()).await.is_pending(), "it has no answer");
                let Some(Request::Reload(asked, answer)) = task.recv().await else { panic!("it was asked for") };
                assert_eq!((asked.trigger, asked.dry_run), (Trigger::Signal, false));
                drop(answer);
            }
            assert!(poll_once(waiting.as_mut()).await.is_ready(), "it has ended");
        }
    }

    /// One step of what waits.
    async fn poll_once(mut waiting: Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await
    }

    #[test]
    fn the_last_reload_is_told_until_the_next() {
        let metrics = crate::telemetry::metrics::Metrics::new().expect("well formed");
        let reloads = Reloads::new(metrics.config());
        let page = || String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
        assert!(reloads.last().is_none() && page().contains("tidegate_config_last_reload_successful 1\n"));
        let refusal = Refusal::new(RefusalKind::Invalid, "a.toml:1:1: x: unknown key", "remove it");
        reloads.ended(Trigger::Signal, Some(&refusal));
        let last = reloads.last().expect("there was one");
        assert!(page().contains("tidegate_config_last_reload_successful 0\n"));
        let failure = last.failure().expect("failed");
        assert!(
            failure.ends_with(" (SIGHUP) and has changed nothing: a.toml:1:1: x: unknown key; remove it"),
            "{failure}"
        );
        reloads.ended(Trigger::Watch, None);
        assert!(page().contains("tidegate_config_last_reload_successful 1\n"));
        assert_eq!(reloads.last().and_then(|last| last.failure()), None);
    }
}
