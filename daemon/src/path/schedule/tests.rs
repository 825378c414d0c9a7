//! What is due, what is under way, and what stays known when the configuration changes.

use std::sync::Arc;
use std::time::Duration;

use super::schedules::{RunReport, Start};
use super::timing::Now;
use super::*;
use crate::control::config::Loaded;
use crate::control::config::diff::Difference;
use crate::control::config::load_text;
use crate::message::{BrokerId, Qos};
use crate::path::handler::CallResult;
use crate::path::outbox::Outboxes;
use crate::path::receipt::Progress;
use crate::path::session::{SessionState, SessionStatus, Standing};
use crate::telemetry::metrics::Metrics;

const SECOND: Duration = Duration::from_secs(1);

const BEAT: &str = "[[schedules]]\nname = \"beat\"\nevery = \"10s\"\npublish = { broker = \"b\", topic = \"t\" }\n";
const SLOW: &str = "[[schedules]]\nname = \"slow\"\nevery = \"1h\"\non-schedule = \"h\"\n";
const SILENT: &str =
    "[[subscriptions]]\nname = \"in\"\nbroker = \"b\"\ntopic = \"t\"\non-message = \"h\"\nsilence = \"10s\"\n";

struct World {
    schedules: Arc<Schedules>,
    metrics: Arc<Metrics>,
    loaded: Option<Loaded>,
    /// When the first configuration came.
    start: Now,
}

impl World {
    fn new(text: &str) -> World {
        let (metrics, progress) = (Arc::new(Metrics::new().expect("well formed")), Arc::<Progress>::default());
        let schedules = Arc::new(Schedules::new(Arc::clone(&metrics), Arc::new(Outboxes::new()), progress));
        let mut world = World { schedules, metrics, loaded: None, start: Now::read() };
        world.configure(text);
        world
    }

    fn configure(&mut self, text: &str) {
        let text = format!("brokers.b.address = \"a\"\n[handlers.h]\nplugin = \"h.wasm\"\n{text}");
        let loaded = load_text(std::path::Path::new("/nowhere/tidegate.toml"), &text, "").expect("is good");
        let changed = Difference::between(self.loaded.as_ref(), &loaded).schedules;
        let changed: Vec<_> = changed.into_iter().map(|(name, _)| name).collect();
        self.schedules.configure(&loaded.config, &changed, std::collections::HashMap::new());
        self.loaded = Some(loaded);
    }

    /// So long after the first configuration came, and a little later, since the schedules began after it.
    fn at(&self, time: Duration) -> Now {
        let late = time + Duration::from_millis(500);
        Now { mono: self.start.mono + late, wall: self.start.wall + late }
    }

    fn look(&self, time: Duration) -> Vec<Start> {
        self.schedules.look(self.at(time)).0
    }

    fn end(&self, start: &Start, result: CallResult) {
        let report = RunReport { result, error: (result != CallResult::Ok).then(|| "it broke".to_owned()) };
        self.schedules.ended(&start.key, start.run, self.start.wall, Some(&report));
    }

    fn view(&self, name: &str) -> ScheduleView {
        self.schedules.list().into_iter().find(|view| *view.name == *name).expect("is there")
    }

    fn samples(&self, schedule: &str) -> usize {
        let page = String::from_utf8(self.metrics.render().expect("renders")).expect("UTF-8");
        page.lines().filter(|line| line.contains(&format!("schedule=\"{schedule}\""))).count()
    }
}

fn keys(starts: &[Start]) -> Vec<&str> {
    starts.iter().map(|start| &*start.key).collect()
}

#[test]
fn what_is_due_while_a_run_is_under_way_is_skipped_and_counted() {
    let world = World::new(BEAT);
    assert!(world.look(9 * SECOND).is_empty());
    let first = world.look(10 * SECOND);
    assert_eq!(keys(&first), ["beat"]);
    assert!(world.look(20 * SECOND).is_empty() && world.look(30 * SECOND).is_empty());
    assert_eq!((world.view("beat").skipped, world.view("beat").runs), (2, 0));
    world.end(&first[0], CallResult::Ok);
    assert!(world.look(31 * SECOND).is_empty(), "what was skipped is not made up for");
    let second = world.look(40 * SECOND);
    assert_eq!(keys(&second), ["beat"]);
    world.end(&second[0], CallResult::Trap);
    let view = world.view("beat");
    assert_eq!((view.runs, view.failures, view.skipped), (2, 1, 2));
    assert_eq!(
        (view.last.map(|last| last.result), view.last_error.as_deref()),
        (Some(CallResult::Trap), Some("it broke"))
    );
    let third = world.look(50 * SECOND);
    world.end(&third[0], CallResult::Ok);
    assert_eq!(world.view("beat").last_error, None);
    let page = String::from_utf8(world.metrics.render().expect("renders")).expect("UTF-8");
    for (result, count) in [("ok", 2), ("trap", 1), ("skipped", 2), ("reject", 0)] {
        let sample = format!("tidegate_schedule_runs_total{{result=\"{result}\",schedule=\"beat\"}} {count}\n");
        assert!(page.contains(&sample), "{sample}{page}");
    }
}

#[test]
fn a_run_that_is_cut_short_counts_as_none() {
    let world = World::new(BEAT);
    let first = world.look(10 * SECOND);
    world.schedules.ended(&first[0].key, first[0].run, world.start.wall, None);
    assert_eq!((world.view("beat").runs, world.view("beat").last), (0, None));
    assert_eq!(keys(&world.look(20 * SECOND)), ["beat"]);
}

#[test]
fn what_is_written_as_before_goes_on_and_what_is_gone_leaves_nothing() {
    let mut world = World::new(&format!("{BEAT}{SLOW}"));
    assert_eq!(world.samples("slow"), CallResult::ALL.len() + 1);
    let run = world.look(10 * SECOND);
    assert_eq!(keys(&run), ["beat"]);
    world.configure(&format!("# a comment\n{BEAT}"));
    assert_eq!((world.samples("slow"), world.schedules.list().len()), (0, 1));
    // The run that was under way is known, and the next one is due as if nothing had happened.
    assert!(world.look(20 * SECOND).is_empty());
    world.end(&run[0], CallResult::Ok);
    let run = world.look(30 * SECOND);
    assert_eq!(keys(&run), ["beat"]);
    world.end(&run[0], CallResult::Ok);
    assert_eq!((world.view("beat").runs, world.view("beat").skipped), (2, 1));
    // Changed, it begins anew, with what is known of it.
    world.configure(&BEAT.replace("10s", "1h"));
    assert!(world.look(60 * SECOND).is_empty());
    assert_eq!((world.view("beat").runs, world.view("beat").timing.as_str()), (2, "every 1h"));
    world.configure("");
    assert!(world.schedules.list().is_empty());
    world.configure(BEAT);
    assert_eq!(world.view("beat").runs, 0);
}

#[test]
fn a_run_of_a_schedule_that_was_removed_is_no_run_of_one_that_comes_later() {
    let mut world = World::new(BEAT);
    let old = world.look(10 * SECOND);
    world.configure("");
    world.configure(BEAT);
    let new = world.look(25 * SECOND);
    assert_eq!(keys(&new), ["beat"]);
    world.end(&old[0], CallResult::Ok);
    assert_eq!(world.view("beat").runs, 0);
    assert!(world.look(35 * SECOND).is_empty(), "the new one is under way");
    world.end(&new[0], CallResult::Ok);
    assert_eq!(world.view("beat").runs, 1);
}

#[tokio::test]
async fn a_run_by_command_is_one_of_its_schedule() {
    let world = World::new(SLOW);
    assert_eq!(world.schedules.run("none").await, Err(NotRun::Unknown("none".to_owned())));
    let schedules = Arc::clone(&world.schedules);
    let asked = tokio::spawn(async move { schedules.run("slow").await });
    let start = loop {
        tokio::task::yield_now().await;
        if let Some(start) = world.look(Duration::ZERO).pop() {
            break start;
        }
    };
    assert_eq!(&*start.key, "slow");
    assert_eq!(world.schedules.run("slow").await, Err(NotRun::UnderWay("slow".to_owned())));
    world.end(&start, CallResult::Ok);
    let report = RunReport { result: CallResult::Ok, error: None };
    start.told.expect("somebody asks").send(report.clone()).expect("and waits");
    assert_eq!(asked.await.expect("ends"), Ok(report));
    assert_eq!(world.view("slow").runs, 1);
}

fn status(standing: Standing) -> SessionStatus {
    let state = SessionState::Connected;
    SessionStatus { state, last_error: None, subscriptions: vec![("in".into(), standing)] }
}

#[tokio::test]
async fn silence_begins_when_the_subscription_is_granted_and_ends_with_a_message() {
    let mut world = World::new(SILENT);
    let (sender, receiver) = tokio::sync::watch::channel(status(Standing::Pending));
    world.schedules.watch(std::iter::once((BrokerId(0), receiver)));
    assert!(world.look(3600 * SECOND).is_empty(), "it was not granted");
    sender.send_replace(status(Standing::Granted(Qos::AtLeastOnce)));
    let end = std::time::Instant::now() + 20 * SECOND;
    while world.view("silence:in").next.is_none() {
        assert!(std::time::Instant::now() < end, "it never counts");
        tokio::task::yield_now().await;
    }
    let granted = world.start.mono.elapsed();
    let run = world.look(granted + 10 * SECOND);
    assert_eq!(keys(&run), ["silence:in"]);
    world.end(&run[0], CallResult::Ok);
    let subscription = Arc::clone(&world.loaded.as_ref().expect("is there").config.subscriptions[0]);
    let heard = world.schedules.heard(&subscription).expect("somebody asks");
    heard.mark(world.at(granted + 15 * SECOND).mono);
    assert!(world.look(granted + 24 * SECOND).is_empty());
    // Another handler key changes nothing; another topic begins anew.
    world.configure(&format!("{SILENT}qos = 1\n"));
    assert_eq!(keys(&world.look(granted + 25 * SECOND)), ["silence:in"]);
    world.configure(&SILENT.replace("topic = \"t\"", "topic = \"u\""));
    assert_eq!(world.view("silence:in").next, None);
    world.configure(&SILENT.replace("silence = \"10s\"\n", ""));
    assert!(world.schedules.list().is_empty() && world.samples("silence:in") == 0);
}
