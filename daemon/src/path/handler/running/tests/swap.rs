//! Versions that take the place of the one that runs while messages come: what becomes of each message, and of the handler.

use std::collections::BTreeMap;

use super::*;
use crate::path::dispatch::Standing;

/// Echoes the payload behind a "!".
static MARKS: LazyLock<Plugin> = LazyLock::new(|| {
    plugin(&format!(
        "{PUBLISH}
        (func $handle (param $message i32) (result i32)
            (local $length i32)
            (local.set $length (i32.load offset=28 (local.get $message)))
            (i32.store8 (i32.const 0x600) (i32.const 33))
            (memory.copy (i32.const 0x601) (i32.load offset=24 (local.get $message)) (local.get $length))
            (drop (call $publish-bytes (i32.const 0x600) (i32.add (local.get $length) (i32.const 1))))
            (i32.const {RESULT}))"
    ))
});

/// Its `init` traps.
static DOES_NOT_START: LazyLock<Plugin> = LazyLock::new(|| plugin("(func $init (result i32) (unreachable))"));

/// Its calls trap.
static TRAPS: LazyLock<Plugin> = LazyLock::new(|| plugin("(func $handle (param i32) (result i32) (unreachable))"));

async fn swap(view: &HandlerView, plugin: &Plugin) -> PluginHash {
    let new = in_time(view.start_version(plugin.clone())).await.expect("starts");
    view.swap(new)
}

#[tokio::test]
async fn a_call_in_progress_ends_on_the_old_version_and_what_waits_goes_to_the_new_one_in_order() {
    let world = World::new();
    // Compiled before the call begins, whose time is short.
    LazyLock::force(&MARKS);
    let running = world.ready(&LOOPS, handler().deadline(Duration::from_secs(2))).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    world.push(&queue, "t", "1");
    until(|| queue.waiting() == 0).await;
    (2..=5).for_each(|number| world.push(&queue, "t", &number.to_string()));
    assert_eq!(swap(&view, &MARKS).await, LOOPS.hash());
    assert_eq!(
        (world.calls(CallResult::Deadline), queue.waiting()),
        (0, 4),
        "the call goes on, and nothing is dropped"
    );
    let mut delivered = Vec::new();
    until(|| {
        delivered.extend(world.delivered());
        world.progress.open() == 0
    })
    .await;
    assert_eq!(delivered, ["!2", "!3", "!4", "!5"]);
    assert_eq!((world.calls(CallResult::Deadline), world.calls(CallResult::Ok)), (1, 4));
    assert_eq!((view.version(), world.metrics.handler("celsius").instances.get()), (MARKS.hash(), 1));
}

#[tokio::test]
async fn what_is_to_be_called_again_is_called_on_the_new_version_before_what_came_after_it() {
    let world = World::new();
    LazyLock::force(&MARKS);
    let running = world.ready(&TRAPS, handler().retry(5, Duration::from_millis(300))).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    ["1", "2"].iter().for_each(|payload| world.push(&queue, "t", payload));
    until(|| queue.retrying() == 1).await;
    assert_eq!(swap(&view, &MARKS).await, TRAPS.hash());
    let mut delivered = Vec::new();
    until(|| {
        delivered.extend(world.delivered());
        world.progress.open() == 0
    })
    .await;
    assert_eq!((delivered.join(" "), world.finished(Outcome::Handled)), ("!1 !2".to_owned(), 2));
}

#[tokio::test]
async fn a_version_that_does_not_start_changes_nothing() {
    let world = World::new();
    let running = world.ready(&ECHO, handler().instances(3)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    let error = in_time(view.start_version(DOES_NOT_START.clone())).await.err().expect("traps");
    assert!(matches!(error, HandlerError::Start(StartError::Trap(_))), "{error:?}");
    let instances = || world.metrics.handler("celsius").instances.get();
    assert_eq!((view.version(), instances()), (ECHO.hash(), 3));
    // Nor does one that is not swapped in after all.
    drop(in_time(view.start_version(MARKS.clone())).await.expect("starts"));
    assert_eq!((view.version(), instances()), (ECHO.hash(), 3));
    world.push(&queue, "t", "x");
    in_time(world.outboxes.ready(PLANT)).await;
    assert_eq!(world.delivered().as_deref(), Some("x"));
}

#[tokio::test]
async fn a_new_version_is_not_blamed_for_what_the_old_one_failed_at() {
    let world = World::new();
    let hour = Duration::from_secs(3600);
    let running = world.ready(&TRAPS, handler().quarantine(1, hour)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    world.push(&queue, "t", "1");
    until(|| matches!(queue.standing(), Standing::Quarantined(_))).await;
    world.push(&queue, "t", "2");
    until(|| queue.park().is_some_and(|park| park.held().rows == 1)).await;
    assert_eq!(swap(&view, &MARKS).await, TRAPS.hash());
    in_time(world.outboxes.ready(PLANT)).await;
    assert_eq!(world.delivered().as_deref(), Some("!2"), "it is called again, and gets what was parked");
    until(|| queue.standing() == Standing::Open).await;

    let park = queue.park().expect("has one");
    park.set_paused(true);
    queue.follow_pause();
    assert_eq!(swap(&view, &ECHO).await, MARKS.hash());
    assert_eq!(queue.standing(), Standing::Paused, "whoever paused it has not resumed it");
}

#[tokio::test]
async fn what_ends_on_the_old_version_after_a_swap_says_nothing_of_the_new_one() {
    let world = World::new();
    LazyLock::force(&MARKS);
    let strict = handler().deadline(Duration::from_millis(300)).quarantine(1, HOUR);
    let running = world.ready(&LOOPS, strict).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    world.push(&queue, "t", "1");
    until(|| queue.waiting() == 0).await;
    assert_eq!(swap(&view, &MARKS).await, LOOPS.hash());
    until(|| world.calls(CallResult::Deadline) == 1 && world.progress.open() == 0).await;
    assert_eq!(queue.standing(), Standing::Open);
    world.push(&queue, "t", "2");
    in_time(world.outboxes.ready(PLANT)).await;
    assert_eq!(world.delivered().as_deref(), Some("!2"));
}

/// On several threads: every message is handled exactly once, those of a topic in order, and none by an older version than the one
/// before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_doubled_or_overtaken_by_swaps() {
    const TOPICS: usize = 5;
    const COUNT: usize = 2_000;
    const EVERY: usize = 100;
    let world = World::new();
    let running = world.ready(&ECHO, handler().instances(3)).await.serve();
    let (view, queue) = (running.view(), Arc::clone(running.queue()));
    let mut delivered = Vec::new();
    for number in 0..COUNT {
        world.push(&queue, &format!("t/{}", number % TOPICS), &format!("{} {}", number % TOPICS, number / TOPICS));
        if number % EVERY == EVERY / 2 {
            // Some swaps find messages waiting, and some do not, so that each version has handled what came to it.
            if matches!(number / EVERY % 4, 1 | 2) {
                until(|| {
                    delivered.extend(world.delivered());
                    world.progress.open() == 0
                })
                .await;
            }
            let plugin = if (number / EVERY).is_multiple_of(2) { &MARKS } else { &ECHO };
            swap(&view, plugin).await;
        }
        // Some wait at each swap, and all versions are called.
        until(|| {
            delivered.extend(world.delivered());
            queue.waiting() < EVERY / 2
        })
        .await;
    }
    until(|| {
        delivered.extend(world.delivered());
        world.progress.open() == 0
    })
    .await;
    assert_eq!((delivered.len(), world.finished(Outcome::Handled)), (COUNT, COUNT as u64));
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    let mut marked = 0;
    for text in &delivered {
        marked += usize::from(text.starts_with('!'));
        let (topic, number) = text.trim_start_matches('!').split_once(' ').expect("has two numbers");
        let next = next.entry(topic.to_owned()).or_default();
        assert_eq!(number, next.to_string(), "in topic {topic}");
        *next += 1;
    }
    assert!((1..COUNT).contains(&marked), "both versions were called: {marked}");
    assert_eq!(world.metrics.handler("celsius").instances.get(), 3);
}
