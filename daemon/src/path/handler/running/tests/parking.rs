//! Handlers that are paused, resumed and quarantined: where each message is, and in which order it comes back.

use super::*;
use crate::path::dispatch::Standing;
use crate::path::kept::Capacity;

/// Traps where the payload begins with "b"; otherwise it echoes.
static FAILS_ON_B: LazyLock<Plugin> = LazyLock::new(|| {
    plugin(&format!(
        "{PUBLISH}
        (func $handle (param $message i32) (result i32)
            (local $payload i32)
            (local.set $payload (i32.load offset=24 (local.get $message)))
            (if (i32.eq (i32.load8_u (local.get $payload)) (i32.const 98)) (then unreachable))
            (drop (call $publish-bytes (local.get $payload) (i32.load offset=28 (local.get $message))))
            (i32.const {RESULT}))"
    ))
});

impl World {
    fn pause(&self, queue: &HandlerQueue, paused: bool) {
        self.park().set_paused(paused);
        queue.follow_pause();
    }

    fn park(&self) -> Arc<Park> {
        self.parks.of(&"celsius".into())
    }

    fn parked(&self) -> u64 {
        self.park().held().rows
    }

    /// Waits until so many publishes were delivered, and nothing is left to do.
    async fn delivers(&self, expected: &[&str]) {
        let mut delivered = Vec::new();
        until(|| {
            delivered.extend(self.delivered());
            delivered.len() == expected.len()
        })
        .await;
        assert_eq!(delivered, expected);
        until(|| self.progress.open() == 0).await;
        assert_eq!(self.delivered(), None);
    }
}

#[tokio::test]
async fn what_comes_for_a_paused_handler_is_parked_and_comes_back_in_order() {
    let world = World::new();
    let running = world.ready(&ECHO, handler()).await.serve();
    let queue = Arc::clone(running.queue());
    world.pause(&queue, true);
    (1..=5).for_each(|number| world.push(&queue, "t", &number.to_string()));
    until(|| world.finished(Outcome::Parked) == 5).await;
    assert_eq!((world.parked(), world.progress.open(), queue.standing()), (5, 0, Standing::Paused));
    assert_eq!(world.delivered(), None, "nothing is called");
    world.pause(&queue, false);
    // Behind the parked ones, whenever it comes.
    world.push(&queue, "t", "6");
    world.delivers(&["1", "2", "3", "4", "5", "6"]).await;
    until(|| queue.standing() == Standing::Open).await;
    let counts = world.plant.counts();
    assert_eq!((counts.received, counts.in_progress, world.parked()), (6, 0, 0));
    assert_eq!((world.finished(Outcome::Parked), world.finished(Outcome::Handled)), (5, 1));
}

#[tokio::test]
async fn what_is_to_be_called_again_stands_before_what_waited_behind_it() {
    let world = World::new();
    let again = handler().retry(5, Duration::from_secs(3600));
    let running = world.ready(&FAILS_TWICE, again).await.serve();
    let queue = Arc::clone(running.queue());
    ["b1", "2", "3"].iter().for_each(|payload| world.push(&queue, "t", payload));
    until(|| queue.retrying() == 1).await;
    world.pause(&queue, true);
    until(|| world.finished(Outcome::Parked) == 3).await;
    // It has one call behind it, and fails once more before it succeeds.
    world.pause(&queue, false);
    until(|| world.calls(CallResult::Trap) == 2).await;
    until(|| queue.retrying() == 1).await;
    world.pause(&queue, true);
    until(|| queue.waiting() == 0).await;
    world.pause(&queue, false);
    world.delivers(&["b1", "2", "3"]).await;
    assert_eq!(world.calls(CallResult::Trap), 2, "its calls were counted on");
}

#[tokio::test]
async fn a_full_park_takes_nothing_more_until_there_is_room() {
    let world = World::new();
    let running = world.ready(&ECHO, handler()).await.serve();
    let queue = Arc::clone(running.queue());
    world.kept.0.limit(&"park/celsius".into(), Capacity { messages: 2, bytes: 1 << 20 });
    world.pause(&queue, true);
    (1..=4).for_each(|number| world.push(&queue, "t", &number.to_string()));
    let meters = world.metrics.handler("celsius");
    until(|| meters.park.counts() == (2, true)).await;
    until(|| world.finished(Outcome::Parked) == 2).await;
    assert_eq!((world.progress.open(), queue.waiting()), (2, 2));
    world.pause(&queue, false);
    world.delivers(&["1", "2", "3", "4"]).await;
    until(|| meters.park.counts() == (0, false)).await;
}

#[tokio::test]
async fn a_handler_that_takes_the_place_of_a_paused_one_is_paused_and_goes_on_in_order() {
    let world = World::new();
    let running = world.ready(&ECHO, handler()).await.serve();
    world.pause(running.queue(), true);
    ["1", "2"].iter().for_each(|payload| world.push(running.queue(), "t", payload));
    until(|| world.finished(Outcome::Parked) == 2).await;
    let next = world.ready(&ECHO, handler().instances(3)).await;
    world.push(next.queue(), "t", "3");
    let running = in_time(next.succeed(running, CancellationToken::new())).await;
    until(|| world.finished(Outcome::Parked) == 3).await;
    world.pause(running.queue(), false);
    world.delivers(&["1", "2", "3"]).await;
}

#[tokio::test]
async fn a_handler_that_is_removed_leaves_its_park_to_the_next_of_its_name() {
    let world = World::new();
    let running = world.ready(&ECHO, handler()).await.serve();
    world.pause(running.queue(), true);
    ["1", "2"].iter().for_each(|payload| world.push(running.queue(), "t", payload));
    assert_eq!(in_time(running.drain(soon(), CancellationToken::new())).await, 0);
    assert_eq!((world.finished(Outcome::Parked), world.parks.held()[0].1.rows), (2, 2));
    let running = world.ready(&ECHO, handler()).await.serve();
    assert_eq!(running.queue().standing(), Standing::Paused);
    world.pause(running.queue(), false);
    world.delivers(&["1", "2"]).await;
}

/// Also where the handler is changed together with that broker.
#[tokio::test]
async fn what_came_from_a_broker_that_is_not_known_stays_parked_until_it_is() {
    for changes in [false, true] {
        let mut world = World::new();
        let running = world.ready(&ECHO, handler()).await.serve();
        world.pause(running.queue(), true);
        ["1", "2"].iter().for_each(|payload| world.push(running.queue(), "t", payload));
        until(|| world.finished(Outcome::Parked) == 2).await;
        in_time(running.stop()).await;

        // As the next process finds it.
        world.brokers = BrokerNames::default();
        let (kept, progress) = (world.kept.0.clone(), Arc::clone(&world.progress));
        world.parks = Parks::load(kept, world.brokers.clone(), progress, CancellationToken::new()).expect("loads");
        let mut running = world.ready(&ECHO, handler()).await.serve();
        let queue = Arc::clone(running.queue());
        assert_eq!(queue.standing(), Standing::Replaying);
        until(|| queue.standing() == Standing::Open).await;
        assert_eq!((world.parked(), world.delivered()), (2, None));

        assert_eq!(world.brokers.number("plant"), PLANT);
        queue.look_again(&std::collections::HashSet::from(["plant".into()]));
        let next = if changes { Some(world.ready(&ECHO, handler().instances(3)).await) } else { None };
        let leads_to = next.as_ref().map_or(&queue, ReadyHandler::queue);
        world.push(leads_to, "t", "3");
        if let Some(next) = next {
            running = in_time(next.succeed(running, CancellationToken::new())).await;
        }
        world.delivers(&["1", "2", "3"]).await;
        assert_eq!(world.parked(), 0);
        until(|| running.queue().standing() == Standing::Open).await;
        in_time(running.stop()).await;
    }
}

#[tokio::test]
async fn a_handler_that_fails_again_and_again_is_left_alone_until_a_trial_succeeds() {
    let world = World::new();
    let wait = Duration::from_millis(50);
    let running = world.ready(&FAILS_ON_B, handler().quarantine(2, wait).instances(2)).await.serve();
    let queue = Arc::clone(running.queue());
    ["b1", "b2"].iter().for_each(|payload| world.push(&queue, "t", payload));
    until(|| matches!(queue.standing(), Standing::Quarantined(_))).await;
    ["b3", "b4", "5", "6"].iter().for_each(|payload| world.push(&queue, "t", payload));
    // The first two trials fail, each for good; the third succeeds.
    world.delivers(&["5", "6"]).await;
    until(|| queue.standing() == Standing::Open).await;
    assert_eq!((world.calls(CallResult::Trap), world.finished(Outcome::Parked)), (4, 4));
}

#[tokio::test]
async fn a_resume_ends_a_quarantine() {
    let world = World::new();
    let running = world.ready(&FAILS_ON_B, handler().quarantine(1, Duration::from_secs(3600))).await.serve();
    let queue = Arc::clone(running.queue());
    world.push(&queue, "t", "b1");
    until(|| matches!(queue.standing(), Standing::Quarantined(Some(_)))).await;
    world.push(&queue, "t", "2");
    until(|| world.finished(Outcome::Parked) == 1).await;
    world.pause(&queue, false);
    world.delivers(&["2"]).await;
}
