//! Versions on trial beside the one that runs: what becomes of each message, and of the handler.

use super::*;
use crate::control::config::model::WhenFull;
use crate::path::dispatch::Standing;
use crate::path::handler::canary::Verdict;
use crate::path::handler::native::testing;
use crate::path::handler::plugin::PluginFile;

/// Echoes the payload with a "!" in place of its first byte; publishes that, and then traps, where it begins with "b".
static CHANGED: LazyLock<Plugin> = LazyLock::new(|| {
    plugin(&format!(
        "{PUBLISH}
        (func $handle (param $message i32) (result i32)
            (local $payload i32) (local $first i32)
            (local.set $payload (i32.load offset=24 (local.get $message)))
            (local.set $first (i32.load8_u (local.get $payload)))
            (i32.store8 (local.get $payload) (i32.const 33))
            (drop (call $publish-bytes (local.get $payload) (i32.load offset=28 (local.get $message))))
            (if (i32.eq (local.get $first) (i32.const 98)) (then unreachable))
            (i32.const {RESULT}))"
    ))
});

/// Traps.
static TRAPS: LazyLock<Plugin> = LazyLock::new(|| plugin("(func $handle (param i32) (result i32) (unreachable))"));

/// As [`TRAPS`], on a schedule too.
static RUN_TRAPS: LazyLock<Plugin> = LazyLock::new(|| {
    plugin(
        "(func $handle (param i32) (result i32) (unreachable))
        (func $run (param i32 i32 i32 i64) (result i32) (unreachable))",
    )
});

/// Its `init` traps.
static DOES_NOT_START: LazyLock<Plugin> = LazyLock::new(|| plugin("(func $init (result i32) (unreachable))"));

impl World {
    /// Pushes messages of one topic, and waits until all have ended and were delivered.
    async fn echoes(&self, queue: &HandlerQueue, payloads: &[&str]) -> Vec<String> {
        payloads.iter().for_each(|payload| self.push(queue, "t", payload));
        let mut delivered = Vec::new();
        until(|| {
            delivered.extend(self.delivered());
            self.progress.open() == 0
        })
        .await;
        delivered
    }
}

async fn try_out(view: &HandlerView, plugin: &Plugin, share: f64) -> Result<(), HandlerError> {
    let new = in_time(view.start_version(plugin.clone())).await?;
    view.try_out(new, Arc::new(PluginFile::new(Vec::new())), share);
    Ok(())
}

/// Calls that have shown something, and failures among them.
fn counted(view: &HandlerView) -> (u32, u32) {
    view.trial().map(|trial| (trial.calls, trial.failures)).expect("something is on trial")
}

#[tokio::test]
async fn what_fails_on_trial_runs_again_at_once_on_the_other_version_and_leaves_nothing() {
    let world = World::new();
    // A single failure of the version that runs would quarantine it, and one more attempt would be made an hour later.
    let strict = handler().quarantine(1, HOUR).retry(3, HOUR).instances(2);
    let running = world.ready(&ECHO, strict).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    try_out(&view, &CHANGED, 1.0).await.expect("starts");
    assert_eq!(world.metrics.handler("celsius").instances.get(), 4);
    let payloads = ["1", "b2", "3", "b4", "5"];
    assert_eq!(world.echoes(&queue, &payloads).await, ["!", "b2", "!", "b4", "!"]);
    assert_eq!((world.calls(CallResult::Ok), world.calls(CallResult::Trap)), (5, 2));
    assert_eq!((world.finished(Outcome::Handled), queue.standing()), (5, Standing::Open));
    assert_eq!((counted(&view), view.last_failure()), ((5, 2), None));
    assert_eq!(world.metrics.handler("celsius").retries.get(), 0);
}

#[tokio::test]
async fn too_many_failures_end_the_calls_on_trial_and_tell_why() {
    let world = World::new();
    let running = world.ready(&ECHO, handler().quarantine(1, HOUR)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    try_out(&view, &TRAPS, 1.0).await.expect("starts");
    let payloads: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    assert_eq!(world.echoes(&queue, &payloads).await, payloads);
    in_time(world.verdicts.told()).await;
    let trial = view.trial().expect("stands until somebody acts on it");
    assert_eq!((trial.verdict, trial.version, trial.calls, trial.failures), (Verdict::RollBack, TRAPS.hash(), 20, 20));
    let refusal = trial.refusal.expect("says why");
    let told = "20 of 20 calls on trial failed, more than max-failures = 0.05; the last: the handler trapped: ";
    assert!(refusal.starts_with(told), "{refusal}");
    assert_eq!((world.calls(CallResult::Trap), world.finished(Outcome::Handled)), (20, 30));
    assert_eq!(queue.standing(), Standing::Open);
    view.end_trial();
    assert!(view.trial().is_none());
    assert_eq!((view.version(), world.metrics.handler("celsius").instances.get()), (ECHO.hash(), 1));
}

#[tokio::test]
async fn a_version_that_passes_takes_over_with_the_instances_that_it_has() {
    let world = World::new();
    let running = world.ready(&ECHO, handler()).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    try_out(&view, &CHANGED, 0.5).await.expect("starts");
    let delivered = world.echoes(&queue, &["x"; 300]).await;
    let tried = delivered.iter().filter(|payload| *payload == "!").count();
    assert!((delivered.len(), (140..=160).contains(&tried)) == (300, true), "{tried} of {}", delivered.len());
    in_time(world.verdicts.told()).await;
    let trial = view.trial().expect("stands until somebody acts on it");
    assert_eq!((trial.verdict, trial.calls, trial.failures), (Verdict::Promote, 100, 0));
    assert_eq!((view.version(), view.promote()), (ECHO.hash(), Some(ECHO.hash())));
    assert!(view.trial().is_none());
    assert_eq!((view.version(), world.metrics.handler("celsius").instances.get()), (CHANGED.hash(), 1));
    assert_eq!(world.echoes(&queue, &["y"; 20]).await, ["!"; 20]);
}

#[tokio::test]
async fn what_both_versions_fail_on_says_nothing_of_the_one_on_trial_and_is_retried_on_the_other() {
    let world = World::new();
    let running = world.ready(&FAILS_TWICE, handler().retry(2, 100 * MILLI).quarantine(3, HOUR)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    try_out(&view, &TRAPS, 1.0).await.expect("starts");
    assert_eq!(world.echoes(&queue, &["bad"]).await, ["bad"]);
    // Only the first attempt was on trial, too.
    assert_eq!((world.calls(CallResult::Trap), world.calls(CallResult::Ok)), (3, 1));
    assert_eq!((counted(&view), queue.standing()), ((0, 0), Standing::Open));
    assert_eq!(world.echoes(&queue, &["good"]).await, ["good"]);
    assert_eq!(counted(&view), (1, 1));
}

#[tokio::test]
async fn a_call_that_succeeds_on_trial_does_not_speak_for_the_version_that_runs() {
    let world = World::new();
    let running = world.ready(&TRAPS, handler().quarantine(2, HOUR)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    try_out(&view, &ECHO, 0.5).await.expect("starts");
    // On trial, not, on trial, not.
    assert_eq!(world.echoes(&queue, &["1", "2", "3", "4"]).await, ["1", "3"]);
    assert_eq!((counted(&view), world.calls(CallResult::Trap)), ((2, 0), 2));
    assert!(matches!(queue.standing(), Standing::Quarantined(_)));
}

#[tokio::test]
async fn a_trial_that_hangs_costs_its_deadline_and_then_the_other_version_runs() {
    let world = World::new();
    let running = world.ready(&ECHO, handler().deadline(20 * MILLI)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    try_out(&view, &LOOPS, 1.0).await.expect("starts");
    assert_eq!(world.echoes(&queue, &["1", "2"]).await, ["1", "2"]);
    assert_eq!((world.calls(CallResult::Deadline), counted(&view)), (2, (2, 2)));
}

#[tokio::test]
async fn a_full_outbox_says_nothing_of_the_version_on_trial() {
    let world = World::new();
    let limits = OutboxLimits { messages: 64, when_full: WhenFull::Reject, ..OutboxLimits::default() };
    world.outboxes.limit(PLANT, limits);
    let running = world.ready(&ECHO, handler().retry(1, HOUR)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    try_out(&view, &CHANGED, 1.0).await.expect("starts");
    (0..64).for_each(|_| world.push(&queue, "t", "1"));
    until(|| counted(&view) == (64, 0)).await;
    world.push(&queue, "t", "2");
    until(|| queue.retrying() == 1).await;
    assert_eq!((counted(&view), world.calls(CallResult::Retry), world.calls(CallResult::Ok)), ((64, 0), 1, 64));
    in_time(running.stop()).await;
}

/// Which the machine may be short of for a moment, while a rollback would be for good.
#[tokio::test]
async fn a_call_that_finds_no_room_for_an_instance_says_nothing_of_the_version_on_trial() {
    let world = World::new();
    let running = world.ready(&ECHO, handler().quarantine(1, HOUR)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    let native = testing::panics();
    try_out(&view, &Plugin::of_native(native.clone()), 1.0).await.expect("starts");
    assert_eq!(world.echoes(&queue, &["1"]).await, ["1"]);
    assert_eq!(counted(&view), (1, 1), "its instance is gone by that");
    testing::leave_no_room(&native, &view.handler().name);
    assert_eq!(world.echoes(&queue, &["x"; 30]).await, ["x"; 30]);
    assert_eq!((counted(&view), world.calls(CallResult::Trap), world.calls(CallResult::Ok)), ((1, 1), 31, 31));
    assert_eq!(view.trial().map(|trial| trial.verdict), Some(Verdict::Continue));
    assert_eq!((queue.standing(), view.last_failure()), (Standing::Open, None));
}

/// It is the version's own fault, if not of the call that finds it.
#[tokio::test]
async fn threads_that_hang_speak_against_the_version_on_trial() {
    let world = World::new();
    let running = world.ready(&ECHO, handler().quarantine(1, HOUR)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    let native = testing::panics();
    try_out(&view, &Plugin::of_native(native.clone()), 1.0).await.expect("starts");
    testing::hangs(&native, &view.handler().name);
    assert_eq!(world.echoes(&queue, &["x"; 30]).await, ["x"; 30]);
    assert_eq!(view.trial().map(|trial| trial.verdict), Some(Verdict::RollBack));
}

#[tokio::test]
async fn a_run_that_fails_on_trial_is_made_again_at_once_on_the_other_version() {
    let world = World::new();
    let running = world.ready(&RUNS, handler()).await.serve();
    let view = running.view();
    try_out(&view, &RUN_TRAPS, 1.0).await.expect("starts");
    let ended = world.push_run(running.queue(), "stats");
    assert!(matches!(in_time(ended).await, Ok(RunEnd::Ok)));
    assert_eq!((world.calls(CallResult::Trap), world.calls(CallResult::Ok), counted(&view)), (1, 1, (1, 1)));
    assert_eq!([world.delivered(), world.delivered()], [Some("stats".to_owned()), None]);
    try_out(&view, &RUNS, 1.0).await.expect("starts");
    assert!(matches!(in_time(world.push_run(running.queue(), "stats")).await, Ok(RunEnd::Ok)));
    assert_eq!((world.calls(CallResult::Ok), counted(&view)), (2, (1, 0)));
    in_time(running.stop()).await;
}

#[tokio::test]
async fn a_newer_version_or_a_swap_ends_a_trial_and_one_that_does_not_start_changes_nothing() {
    let world = World::new();
    let running = world.ready(&ECHO, handler().instances(2)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    let instances = || world.metrics.handler("celsius").instances.get();
    try_out(&view, &TRAPS, 1.0).await.expect("starts");
    assert_eq!(world.echoes(&queue, &["1"]).await, ["1"]);
    assert_eq!((counted(&view), instances()), ((1, 1), 3), "a trap costs an instance");
    let error = try_out(&view, &DOES_NOT_START, 1.0).await.expect_err("traps");
    assert!(matches!(error, HandlerError::Start(StartError::Trap(_))), "{error:?}");
    assert_eq!((counted(&view), instances()), ((1, 1), 3));
    try_out(&view, &CHANGED, 1.0).await.expect("starts");
    assert_eq!((counted(&view), instances()), ((0, 0), 4));
    let new = in_time(view.start_version(RETURNS_OK.clone())).await.expect("starts");
    assert_eq!(view.swap(new), ECHO.hash());
    assert!(view.trial().is_none());
    assert_eq!((view.version(), instances(), view.promote()), (RETURNS_OK.hash(), 2, None));
    assert_eq!(world.echoes(&queue, &["2"]).await, [] as [&str; 0]);
}

/// On several threads: every message is handled exactly once, and those of a topic in order, while versions on trial fail now and
/// then, pass, are replaced and rolled back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_doubled_or_overtaken_by_trials() {
    const TOPICS: usize = 5;
    const ROUNDS: usize = 12;
    const MESSAGES: usize = 200;
    /// Echoes, but traps after its publish where the payload begins with "0".
    static FAILS_ON_0: LazyLock<Plugin> = LazyLock::new(|| {
        plugin(&format!(
            "{PUBLISH}
            (func $handle (param $message i32) (result i32)
                (local $payload i32)
                (local.set $payload (i32.load offset=24 (local.get $message)))
                (drop (call $publish-bytes (local.get $payload) (i32.load offset=28 (local.get $message))))
                (if (i32.eq (i32.load8_u (local.get $payload)) (i32.const 48)) (then unreachable))
                (i32.const {RESULT}))"
        ))
    });
    let world = Arc::new(World::new());
    let running = world.ready(&ECHO, handler().instances(3).quarantine(1, HOUR).max_failures(0.5)).await.serve();
    let view = running.view();
    let (mut promoted, mut number) = (0, 0);
    for round in 0..ROUNDS {
        let plugin = [&FAILS_ON_0, &ECHO, &TRAPS][round % 3];
        try_out(&view, plugin, [1.0, 0.3][round % 2]).await.expect("starts");
        for _ in 0..MESSAGES {
            world.push(running.queue(), &format!("t/{}", number % TOPICS), &format!("{} {number}", number % TOPICS));
            number += 1;
            if number % 10 == 0 {
                tokio::task::yield_now().await;
            }
        }
        // Acted on while calls go on.
        match view.trial().map(|trial| trial.verdict) {
            // What fails now and then would be no good as the version that runs.
            Some(Verdict::Promote) if plugin.hash() == ECHO.hash() => promoted += usize::from(view.promote().is_some()),
            Some(Verdict::Promote | Verdict::RollBack) => view.end_trial(),
            Some(Verdict::Continue) | None => {}
        }
    }
    // However slow the calls were, one version passes.
    try_out(&view, &ECHO, 1.0).await.expect("starts");
    for _ in 0..MESSAGES {
        world.push(running.queue(), &format!("t/{}", number % TOPICS), &format!("{} {number}", number % TOPICS));
        number += 1;
    }
    until(|| view.trial().is_some_and(|trial| trial.verdict == Verdict::Promote)).await;
    promoted += usize::from(view.promote().is_some());
    assert!(promoted > 0);
    assert_eq!(in_time(running.drain(soon(), CancellationToken::new())).await, 0);
    let mut last = [None; TOPICS];
    let mut count = 0;
    while let Some(payload) = world.delivered() {
        let (topic, number) = payload.split_once(' ').expect("two numbers");
        let (topic, number): (usize, usize) = (topic.parse().expect("a number"), number.parse().expect("a number"));
        assert!(last[topic] < Some(number), "{number} after {:?}", last[topic]);
        last[topic] = Some(number);
        count += 1;
    }
    assert_eq!(count, (ROUNDS + 1) * MESSAGES);
    assert_eq!(world.finished(Outcome::Handled), ((ROUNDS + 1) * MESSAGES) as u64);
    assert!(world.calls(CallResult::Trap) > 0);
}

#[tokio::test]
async fn a_version_on_trial_takes_over_from_one_that_is_quarantined() {
    let world = World::new();
    let running = world.ready(&TRAPS, handler().quarantine(1, HOUR)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    // So small a share that no call but the first is on trial.
    try_out(&view, &ECHO, 0.000_001).await.expect("starts");
    assert_eq!(world.echoes(&queue, &["1"]).await, ["1"]);
    assert_eq!(view.trial().map(|trial| trial.verdict), Some(Verdict::Continue));
    world.push(&queue, "t", "2");
    in_time(world.verdicts.told()).await;
    assert!(matches!(queue.standing(), Standing::Quarantined(_)));
    assert_eq!(view.trial().map(|trial| trial.verdict), Some(Verdict::Promote));
    assert_eq!(view.promote(), Some(TRAPS.hash()));
    until(|| queue.standing() == Standing::Open).await;
}
