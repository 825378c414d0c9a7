//! Subscriptions that change, or are refused, on a live session.

use super::super::cover::{Batch, Cover, Next};
use super::super::packet::{LARGEST_PACKET, Welcome};
use super::super::subscribing::Request;
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

/// Until the broker has answered, also in the moment when it is told as connected.
#[tokio::test]
async fn what_a_lost_session_had_is_not_granted_when_the_next_one_begins() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configuration(folder.path(), 1883, "", &["in/#"]);
    let metrics = Metrics::new().expect("families are well formed");
    let meters = metrics.broker("plant");
    let queue = Arc::new(HandlerQueue::new(Arc::clone(&config.handlers[0]), metrics.handler("h"), None));
    let routes = routes(&config, &queue, &metrics, &meters);
    let names = config.subscriptions.iter().map(|subscription| Arc::clone(&subscription.name));
    let (sender, status) = watch::channel(SessionStatus::new(names));
    let cover = Cover::new(&config.brokers[0], routes, folder.path(), &meters, sender);
    let welcome = |session_present| Welcome {
        session_present,
        receive_maximum: 20,
        exactly_once_window: 20,
        max_packet: LARGEST_PACKET,
        max_qos: Qos::ExactlyOnce,
        retain: true,
        identifiers: false,
        shares: false,
        wildcards: true,
        keep_alive: None,
    };
    for (session_present, pending) in [(false, 1), (true, 0), (false, 1)] {
        cover.connecting().await;
        cover.connected(&welcome(session_present));
        assert_eq!(status.borrow().pending(), pending, "session present: {session_present}");
        loop {
            match cover.next(Batch { subscribe: 1, unsubscribe: 1 }) {
                Next::Save(record) => cover.save(record).await,
                Next::Send(Request::Subscribe(filters)) => cover.subscribed(&filters, &[Ok(Qos::AtLeastOnce)]),
                Next::Send(Request::Unsubscribe(_)) | Next::Wait => panic!("only a SUBSCRIBE is owed"),
                Next::Done => break,
            }
        }
        assert_eq!(status.borrow().pending(), 0);
    }
}
