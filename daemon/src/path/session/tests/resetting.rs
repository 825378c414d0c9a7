//! Resets: the broker is to forget the session.

use super::*;

#[tokio::test]
async fn a_reset_makes_the_broker_forget_the_session_and_is_no_loss() {
    let listener = Listener::new().await;
    let will = "will = { topic = \"state\", message = \"lost\" }";
    let world = World::start(listener.port(), will, &["a"], ENDLESS);
    let (mut peer, connect) = listener.meet().await;
    assert!(!connect.clean_session && connect.last_will.is_some());
    peer.let_in(false).await;
    peer.grant().await;
    world.connected().await;
    let resetting = world.reset();
    peer.goodbye().await;
    let (mut peer, connect) = listener.meet().await;
    assert!(connect.clean_session && connect.last_will.is_none());
    peer.let_in(false).await;
    peer.goodbye().await;
    let (mut peer, connect) = listener.meet().await;
    assert!(!connect.clean_session && connect.last_will.is_some());
    peer.let_in(false).await;
    assert_eq!(done("reset", resetting).await, Ok(()));
    assert_eq!(peer.grant().await, ["a"]);
    world.connected().await;
    world.metric("tidegate_broker_sessions_lost_total{broker=\"plant\"} 0").await;

    let disconnecting = world.disconnect();
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    let record = world.folder.path().join("sessions/plant.json");
    assert!(record.exists());
    let resetting = world.reset();
    listener.accept(false).await.goodbye().await;
    assert_eq!(done("reset", resetting).await, Ok(()));
    assert!(!record.exists());
    world.until("it is as before", |status| status.state == SessionState::Disconnected).await;
    listener.nobody_comes().await;
}

#[tokio::test]
async fn a_reset_runs_what_the_broker_no_longer_has() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], Duration::from_millis(50));
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(1, "a").await;
    peer.publish(2, "a").await;
    world.metric("tidegate_messages_received_total{broker=\"plant\",qos=\"1\"} 2").await;
    let (turn, job) = world.next("the first message").await;
    let resetting = world.reset();
    peer.goodbye().await;
    listener.accept(false).await.goodbye().await;
    let _peer = listener.accept(false).await;
    assert_eq!(done("reset", resetting).await, Ok(()));
    job.part.end(Outcome::Handled);
    drop(turn);
    let (_turn, job) = world.next("the second message").await;
    job.part.end(Outcome::Handled);
    world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"handled\"} 2").await;
}

#[tokio::test]
async fn a_reset_that_does_not_reach_the_broker_says_that_nothing_was_forgotten() {
    // A port that is taken, and nothing listens.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let port = socket.local_addr().expect("is bound").port();
    let world = World::start(port, "auto-connect = false", &[], ENDLESS);
    let error = done("reset", world.reset()).await.expect_err("nothing listens").to_string();
    assert_eq!(error, "nothing listens at this address and port (connection refused); nothing was forgotten");
    world.until("it is as before", |status| status.state == SessionState::Idle).await;
}
