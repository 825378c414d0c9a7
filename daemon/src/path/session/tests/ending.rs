//! A session's end, and the one that takes its place.

use super::*;

#[tokio::test]
async fn a_session_ends_alone_and_then_refuses_commands() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    world.connected().await;
    let session = Arc::clone(&world.session);
    let ending = tokio::spawn(async move { session.end(false).await });
    peer.goodbye().await;
    done("end", ending).await;
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
    let session = Arc::clone(&world.session);
    let ending = tokio::spawn(async move { session.end(false).await });
    peer.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    let wish = done("end", ending).await;
    world.follow(wish, true);
    world.until("it stays so", |status| status.state == SessionState::Disconnected).await;
    listener.nobody_comes().await;
}

#[tokio::test]
async fn the_session_that_follows_a_connected_one_connects_by_itself() {
    let listener = Listener::new().await;
    let mut world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    world.connected().await;
    let session = Arc::clone(&world.session);
    let ending = tokio::spawn(async move { session.end(false).await });
    peer.goodbye().await;
    let wish = done("end", ending).await;
    world.follow(wish, false);
    listener.accept(true).await;
}
