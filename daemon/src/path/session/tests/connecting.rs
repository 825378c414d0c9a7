//! What makes a session connect: commands, and something to publish.

use super::*;

#[tokio::test]
async fn something_new_to_publish_connects_by_force_and_what_waited_does_not() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &["a"], Duration::from_millis(50));
    world.publish("first");
    let mut peer = listener.accept_and_grant(false).await;
    let packet = peer.packet().await;
    assert!(matches!(packet, Packet::Publish(_)), "{packet:?}");
    // It is not acknowledged, and so waits again.
    let disconnecting = world.disconnect();
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    listener.nobody_comes().await;
    assert_eq!(world.state(), SessionState::Disconnected);
    world.publish("second");
    let mut peer = listener.accept(true).await;
    assert_eq!([peer.take().await, peer.take().await], ["first", "second"]);
    drop(peer);
    world.until("it rests", |status| status.state == SessionState::Idle).await;
}

#[tokio::test]
async fn a_command_connects_for_one_attempt_and_says_why_not() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &[], ENDLESS);
    let connecting = world.connect();
    let (mut peer, _) = listener.meet().await;
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::ServiceUnavailable, false))).await;
    let error = done("connect", connecting).await.expect_err("it is refused").to_string();
    assert_eq!(error, "the broker says that it is unavailable at the moment: server unavailable");
    let status = world.session.status().borrow().clone();
    assert_eq!((status.state, status.last_error), (SessionState::Idle, Some(error)));
    listener.nobody_comes().await;

    let connecting = world.connect();
    let peer = listener.accept(false).await;
    assert_eq!(done("connect", connecting).await, Ok(Opened::New));
    assert_eq!(done("connect", world.connect()).await, Ok(Opened::Already));
    // Without auto-connect a lost connection is left at that.
    drop(peer);
    world.until("it rests", |status| status.state == SessionState::Idle).await;
    listener.nobody_comes().await;
    world.session.auto_connect(true);
    listener.accept(true).await;
}

#[tokio::test]
async fn a_command_does_not_wait_for_the_backoff() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &[], ENDLESS);
    let (mut peer, _) = listener.meet().await;
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false))).await;
    let waits = |status: &SessionStatus| matches!(status.state, SessionState::Waiting { .. });
    let SessionState::Waiting { until } = world.until("it waits", waits).await.state else { unreachable!("it waits") };
    let connecting = world.connect();
    let (mut peer, _) = listener.meet().await;
    assert!(Instant::now() < until, "the attempt may be the backoff's");
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::BadUserNamePassword, false))).await;
    let refused = done("connect", connecting).await.expect_err("it is refused");
    assert_eq!(refused, ConnectError::Failed(Failure::Credentials));
    world.until("it goes on waiting", waits).await;
}

#[tokio::test]
async fn an_attempt_that_auto_connect_makes_is_of_no_command() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let (mut peer, _) = listener.meet().await;
    let connecting = world.connect();
    let visit = soon("visit", world.session.visit()).await;
    assert_eq!(visit.map(|_| ()), Err(VisitError::Kept(Kept::Auto)));
    peer.let_in(false).await;
    assert_eq!(done("connect", connecting).await, Ok(Opened::Already));
    peer.grant().await;
    world.connected().await;
}
