//! What a disconnect by command finishes, and what it leaves.

use super::*;

#[tokio::test]
async fn a_disconnect_finishes_what_is_in_hand_and_takes_nothing_more() {
    let listener = Listener::new().await;
    let close = "close = { topic = \"state\", message = \"bye\", qos = 1 }";
    let world = World::start(listener.port(), close, &["a"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(7, "a").await;
    let (_turn, job) = world.next("the message").await;
    let disconnecting = world.disconnect();
    world.ends().await;
    // What is in hand may publish to this very broker; what comes now is left to it.
    world.publish("sent while it ends");
    assert_eq!(peer.take().await, "sent while it ends");
    peer.publish(8, "a").await;
    world.publish("after that");
    assert_eq!(peer.take().await, "after that");
    assert!(!disconnecting.is_finished());
    job.part.end(Outcome::Handled);
    peer.acknowledged(7).await;
    assert_eq!(peer.take().await, "state");
    peer.goodbye().await;
    assert_eq!(done("disconnect", disconnecting).await, Disconnected { was_connected: true });
    assert_eq!(world.state(), SessionState::Disconnected);
    world.session.auto_connect(true);
    listener.nobody_comes().await;
    world.metric("tidegate_messages_received_total{broker=\"plant\",qos=\"1\"} 1").await;
    assert_eq!(done("disconnect", world.disconnect()).await, Disconnected { was_connected: false });
}

#[tokio::test]
async fn a_disconnect_waits_for_messages_that_need_no_acknowledgement_too() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(0, "a").await;
    let (_turn, job) = world.next("the message").await;
    let disconnecting = world.disconnect();
    world.ends().await;
    // What it publishes would connect the broker by force if that came after the end.
    world.publish("by the call");
    assert_eq!(peer.take().await, "by the call");
    world.metric("tidegate_messages_published_total{broker=\"plant\",qos=\"1\"} 1").await;
    assert!(tokio::time::timeout(SILENCE, peer.packet()).await.is_err(), "it ends before the call");
    job.part.end(Outcome::Handled);
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    listener.nobody_comes().await;
}

#[tokio::test]
async fn a_disconnect_waits_for_what_is_on_its_way_to_the_broker() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    world.publish("out");
    let Packet::Publish(publish) = peer.packet().await else { panic!("no PUBLISH") };
    let disconnecting = world.disconnect();
    assert!(tokio::time::timeout(SILENCE, peer.packet()).await.is_err(), "it ends before the acknowledgement");
    peer.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    world.metric("tidegate_outbox_messages{broker=\"plant\"} 0").await;
}

#[tokio::test]
async fn what_is_not_started_in_time_is_left_to_the_broker() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], Duration::from_millis(50));
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(1, "a").await;
    peer.publish(2, "a").await;
    world.metric("tidegate_messages_received_total{broker=\"plant\",qos=\"1\"} 2").await;
    let (turn, job) = world.next("the first message").await;
    let disconnecting = world.disconnect();
    peer.goodbye().await;
    assert_eq!(done("disconnect", disconnecting).await, Disconnected { was_connected: true });
    world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"returned\"} 1").await;
    listener.nobody_comes().await;
    job.part.end(Outcome::Handled);
    drop(turn);
    soon("nothing holds up a stop", world.progress.idle()).await;
}

#[tokio::test]
async fn a_disconnect_ends_an_attempt_and_the_waiting_for_the_next() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &[], ENDLESS);
    let (mut peer, _) = listener.meet().await;
    let both = async { tokio::join!(world.session.connect(), world.session.disconnect()) };
    let (connected, disconnected) = soon("both are answered", both).await;
    assert_eq!(connected, Err(ConnectError::Disconnected));
    assert_eq!(disconnected, Ok(Disconnected { was_connected: false }));
    assert_eq!(world.state(), SessionState::Disconnected);
    assert!(peer.read().await.is_none(), "the connection is closed");

    let connecting = world.connect();
    let (mut peer, _) = listener.meet().await;
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false))).await;
    done("connect", connecting).await.expect_err("it is refused");
    world.until("it waits", |status| matches!(status.state, SessionState::Waiting { .. })).await;
    assert_eq!(done("disconnect", world.disconnect()).await, Disconnected { was_connected: false });
    assert_eq!(world.state(), SessionState::Disconnected);
}

#[tokio::test]
async fn what_is_offered_while_a_disconnect_drains_and_not_sent_connects_again() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &["a"], ENDLESS);
    world.publish("out");
    let mut peer = listener.accept_and_grant(false).await;
    let Packet::Publish(publish) = peer.packet().await else { panic!("no PUBLISH") };
    let disconnecting = world.disconnect();
    world.ends().await;
    assert_eq!(world.session.while_connected(|| ()), None);
    // Nothing is in hand, so that it is not sent any more.
    world.publish("new");
    assert!(tokio::time::timeout(SILENCE, peer.packet()).await.is_err(), "it is sent, or the connection ends");
    peer.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    assert_eq!(listener.accept(true).await.take().await, "new");
}
