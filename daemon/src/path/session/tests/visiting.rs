//! Visits: connections for one purpose alone.

use super::*;

#[tokio::test]
async fn a_visit_sends_what_waits_and_leaves_all_as_it_was() {
    // More than fits into the window: the rest is not on its way when the visit ends.
    const MESSAGES: usize = 100;
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    let disconnecting = world.disconnect();
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    let session = Arc::clone(&world.session);
    let visiting = tokio::spawn(async move { session.visit().await });
    let mut peer = listener.accept(true).await;
    let visit = done("visit", visiting).await.expect("nothing else wants it");
    let joined = soon("visit", world.session.visit()).await;
    assert_eq!(joined.map(|_| ()), Err(VisitError::Kept(Kept::Connected)));
    (0..MESSAGES).for_each(|number| world.publish(&number.to_string()));
    let leaving = tokio::spawn(visit.leave());
    world.ends().await;
    for number in 0..MESSAGES {
        assert_eq!(peer.take().await, number.to_string());
    }
    peer.goodbye().await;
    assert!(done("leave", leaving).await);
    assert_eq!(world.state(), SessionState::Disconnected);
    listener.nobody_comes().await;
    // As before, something new to publish connects it.
    world.publish("new");
    assert_eq!(listener.accept(true).await.take().await, "new");
}

#[tokio::test]
async fn a_visit_that_is_given_up_or_fails_leaves_all_as_it_was() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &[], ENDLESS);
    let session = Arc::clone(&world.session);
    let visiting = tokio::spawn(async move { session.visit().await });
    let (mut peer, _) = listener.meet().await;
    visiting.abort();
    assert!(peer.read().await.is_none(), "nobody waits for the attempt any more");
    world.until("it rests", |status| status.state == SessionState::Idle).await;

    done("disconnect", world.disconnect()).await;
    let session = Arc::clone(&world.session);
    let visiting = tokio::spawn(async move { session.visit().await.map(|_| ()) });
    let (mut peer, _) = listener.meet().await;
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::BadUserNamePassword, false))).await;
    let error = VisitError::NotConnected(ConnectError::Failed(Failure::Credentials));
    assert_eq!(done("visit", visiting).await, Err(error));
    world.until("it is as before", |status| status.state == SessionState::Disconnected).await;
    listener.nobody_comes().await;
}

#[tokio::test]
async fn a_visit_ends_no_connection_that_a_command_has_asked_for() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &[], ENDLESS);
    let session = Arc::clone(&world.session);
    let visiting = tokio::spawn(async move { session.visit().await });
    let (mut peer, _) = listener.meet().await;
    let connecting = world.connect();
    tokio::task::yield_now().await;
    peer.let_in(false).await;
    let visit = done("visit", visiting).await.expect("it came first");
    assert_eq!(done("connect", connecting).await, Ok(Opened::Already));
    assert!(!soon("leave", visit.leave()).await);
    assert_eq!(world.state(), SessionState::Connected);
    assert!(tokio::time::timeout(SILENCE, peer.read()).await.is_err(), "it is disconnected");
}
