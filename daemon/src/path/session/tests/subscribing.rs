//! Subscriptions that change, or are refused, on a live session.

use super::*;

#[tokio::test]
async fn subscriptions_change_on_a_live_session_while_publishes_flow() {
    let listener = Listener::new().await;
    let mut world = World::start(listener.port(), "", &["a", "b"], ENDLESS);
    let mut peer = listener.accept(false).await;
    assert_eq!(peer.grant().await, ["a", "b"]);
    // Publishing has begun, and the first subscribing is over.
    world.publish("first");
    assert_eq!(peer.take().await, "first");
    world.subscribe(&["b", "c"]);
    assert_eq!(world.session.routes().table.subscriptions().len(), 2);
    let (packet, filters) = peer.asked().await;
    assert_eq!(filters, ["c"]);
    let status = world.until("c is pending", |status| status.pending() == 1).await;
    assert_eq!(status.subscriptions[0], (Arc::from("plant:b"), Standing::Granted(Qos::AtLeastOnce)));
    assert_eq!(status.subscriptions[1], (Arc::from("plant:c"), Standing::Pending));
    // The SUBACK is awaited: publishes go out, messages come in by the new routes.
    world.publish("out");
    assert_eq!(peer.take().await, "out");
    peer.publish(1, "b").await;
    let (_turn, job) = world.next("the message of b").await;
    assert_eq!(&*job.subscription.name, "plant:b");
    job.part.end(Outcome::Handled);
    peer.acknowledged(1).await;
    peer.answer(packet, vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)]).await;
    assert_eq!(peer.give_back().await, ["a"]);
    world.connected().await;
    listener.nobody_comes().await;
    world.metric("tidegate_broker_connects_total{broker=\"plant\",result=\"accepted\"} 1").await;
}

#[tokio::test]
async fn a_message_of_a_subscription_that_is_gone_is_not_handled() {
    let listener = Listener::new().await;
    let mut world = World::start(listener.port(), "", &["a", "b"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    world.connected().await;
    world.subscribe(&["b"]);
    assert_eq!(peer.give_back().await, ["a"]);
    peer.publish(1, "a").await;
    peer.acknowledged(1).await;
    world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"unmatched\"} 1").await;
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a", "b"], ENDLESS);
    let mut peer = listener.accept(false).await;
    let (packet, _) = peer.asked().await;
    peer.answer(packet, vec![SubscribeReasonCode::Failure, SubscribeReasonCode::Success(QoS::AtMostOnce)]).await;
    let status = world.until("all is answered", |status| status.pending() == 0).await;
    let refused: Vec<_> = status.refused().collect();
    assert_eq!(refused, [(&Arc::from("plant:a"), "the broker's access rules refuse it")]);
    assert_eq!(status.subscriptions[1].1, Standing::Granted(Qos::AtMostOnce));
}
