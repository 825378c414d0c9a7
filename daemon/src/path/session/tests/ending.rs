//! A session's end, and the one that takes its place.

use super::*;

#[tokio::test]
async fn a_session_ends_alone_and_then_refuses_commands() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    world.connected().await;
    let session = Arc::clone(&world.session);
    let ending = tokio::spawn(async move { session.end(false, None).await });
    peer.goodbye().await;
    let _nothing = done("end", ending).await;
    assert!(!world.stop.is_cancelled());
    assert_eq!(done("connect", world.connect()).await, Err(ConnectError::Ended));
    assert_eq!(done("reset", world.reset()).await, Err(ResetError::Ended));
    assert_eq!(soon("disconnect", world.session.disconnect()).await, Err(Ended));
    listener.nobody_comes().await;
}

#[tokio::test]
async fn a_stop_of_the_gateway_ends_every_session() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    // Not finished: the gateway has waited for its messages before, as long as it may.
    peer.publish(1, "a").await;
    let (_turn, _job) = world.next("the message").await;
    world.stop.cancel();
    peer.goodbye().await;
    soon("the session ends", world.session.ended()).await;
}

#[tokio::test]
async fn the_session_that_follows_keeps_what_was_commanded() {
    let listener = Listener::new().await;
    let mut world = World::start(listener.port(), "", &["a"], ENDLESS);
    world.publish("out");
    let mut peer = listener.accept_and_grant(false).await;
    let Packet::Publish(publish) = peer.packet().await else { panic!("no PUBLISH") };
    let disconnecting = world.disconnect();
    world.ends().await;
    let ending = world.end(|_| ());
    peer.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    world.follow(done("end", ending).await);
    world.until("it stays so", |status| status.state == SessionState::Disconnected).await;
    listener.nobody_comes().await;
}

#[tokio::test]
async fn the_session_that_follows_a_connected_one_connects_by_itself() {
    let listener = Listener::new().await;
    let mut world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    world.connected().await;
    let ending = world.end(|broker| broker.auto_connect = false);
    peer.goodbye().await;
    world.follow(done("end", ending).await);
    listener.accept(true).await;
}

/// A session with a message in a call and one behind it in no call, whose connection is lost, or ends with the grace period; and
/// which ends for a changed broker. The call, and what the session leaves.
async fn left(
    listener: &Listener,
    is_lost: bool,
    change: impl FnOnce(&mut Broker),
) -> (World, (Turn, Job), (Legacy, Broker)) {
    let world = World::start(listener.port(), "", &["a"], Duration::from_millis(50));
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(1, "a").await;
    peer.publish(2, "a").await;
    world.metric("tidegate_messages_received_total{broker=\"plant\",qos=\"1\"} 2").await;
    let call = world.next("the first message").await;
    if !is_lost {
        let ending = world.end(change);
        peer.goodbye().await;
        return (world, call, done("end", ending).await);
    }
    drop(peer);
    // The attempt to connect again shows that the loss was seen. It ends with the session, which makes no other.
    let _attempt = listener.meet().await;
    let legacy = done("end", world.end(change)).await;
    (world, call, legacy)
}

/// The message in a call, and the one behind it, are handled; no other copy of them was counted on.
async fn both_are_handled(world: &World, (turn, job): (Turn, Job)) {
    job.part.end(Outcome::Handled);
    drop(turn);
    let (_turn, job) = world.next("the second message").await;
    job.part.end(Outcome::Handled);
    world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"handled\"} 2").await;
    world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"returned\"} 0").await;
}

#[tokio::test]
async fn what_another_session_of_the_broker_will_not_bring_again_is_handled() {
    let changes: [fn(&mut Broker); 4] = [
        |broker| broker.client_id = "another".to_owned(),
        |broker| broker.address = "localhost".to_owned(),
        |broker| broker.port = std::num::NonZero::new(1).expect("is not 0"),
        |broker| broker.clean_session = true,
    ];
    for is_lost in [true, false] {
        for change in changes {
            let listener = Listener::new().await;
            let (world, call, _legacy) = left(&listener, is_lost, change).await;
            // At once: no connection would tell more.
            both_are_handled(&world, call).await;
        }
    }
}

#[tokio::test]
async fn the_session_that_follows_learns_whether_the_broker_sends_again_what_was_left() {
    for is_lost in [true, false] {
        for session_present in [true, false] {
            let listener = Listener::new().await;
            let change = |broker: &mut Broker| (broker.auto_connect, broker.keep_alive) = (false, 77);
            let (mut world, call, legacy) = left(&listener, is_lost, change).await;
            world.follow(legacy);
            // What waits for its fate wants a connection, whatever `auto-connect` says.
            let (mut peer, _) = listener.meet().await;
            world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"returned\"} 0").await;
            assert_eq!(world.queue.waiting(), 1, "it waits for the CONNACK");
            peer.let_in(session_present).await;
            if session_present {
                world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"returned\"} 1").await;
                assert_eq!(world.queue.waiting(), 0);
            } else {
                both_are_handled(&world, call).await;
            }
        }
    }
}

#[tokio::test]
async fn what_a_removed_broker_has_in_its_session_is_left_there() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], Duration::from_millis(50));
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(1, "a").await;
    peer.publish(2, "a").await;
    world.metric("tidegate_messages_received_total{broker=\"plant\",qos=\"1\"} 2").await;
    let _call = world.next("the first message").await;
    let session = Arc::clone(&world.session);
    let ending = tokio::spawn(async move { session.end(false, None).await });
    peer.goodbye().await;
    let _nothing = done("end", ending).await;
    world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"returned\"} 1").await;
    assert_eq!(world.queue.waiting(), 0);
}

/// A connected session that ends, after what waits to be published; what is in its outbox is put there before.
async fn delivers(put: impl FnOnce(&World)) -> (World, Peer, JoinHandle<Legacy>) {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    world.connected().await;
    put(&world);
    let session = Arc::clone(&world.session);
    let ending = tokio::spawn(async move { session.end(true, None).await });
    world.ends().await;
    (world, peer, ending)
}

#[tokio::test]
async fn an_end_that_delivers_waits_for_what_the_broker_does_not_take_for_now() {
    let (world, mut peer, ending) = delivers(|world| {
        ["first", "second"].into_iter().for_each(|topic| world.publish(topic));
        // As where its acknowledgement tells of a quota, which only protocol 5 has: the session had no turn to send it.
        let (entry, _) = world.outboxes.take_next(PLANT).expect("the first is unsent");
        assert!(world.outboxes.postponed(PLANT, entry));
    })
    .await;
    assert_eq!([peer.take().await, peer.take().await], ["first", "second"]);
    peer.goodbye().await;
    let _nothing = done("end", ending).await;
    assert_eq!(world.outboxes.usage(PLANT), (0, 0));
}

#[tokio::test]
async fn an_end_that_delivers_waits_for_what_has_no_room_yet() {
    const MESSAGES: usize = 5;
    let topics = || (0..MESSAGES).map(|number| number.to_string());
    let (world, mut peer, ending) = delivers(|world| {
        world.outboxes.limit(PLANT, OutboxLimits { messages: 1, ..OutboxLimits::default() });
        world.publish("0");
        topics().skip(1).for_each(|topic| world.publish_later(&topic));
    })
    .await;
    for topic in topics() {
        assert_eq!(peer.take().await, topic);
    }
    peer.goodbye().await;
    let _nothing = done("end", ending).await;
    assert_eq!((world.outboxes.usage(PLANT), world.outboxes.waiting(PLANT)), ((0, 0), 0));
}

#[tokio::test]
async fn an_end_that_does_not_deliver_leaves_what_waits_where_it_is() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    world.connected().await;
    world.publish("held back");
    let (entry, _) = world.outboxes.take_next(PLANT).expect("it is unsent");
    assert!(world.outboxes.postponed(PLANT, entry));
    let ending = world.end(|_| ());
    peer.goodbye().await;
    let _legacy = done("end", ending).await;
    assert_eq!(world.outboxes.usage(PLANT).0, 1);
}
