//! Connections: how many, how long, and their end.

use super::*;

#[tokio::test]
async fn beyond_the_limit_connections_wait_and_tcp_leaves_the_socket_alone() {
    let plane = Plane::start().await;
    let mut held = Vec::new();
    for _ in 0..limits::TCP_CONNECTIONS {
        let mut stream = TcpStream::connect(plane.address).await.expect("is accepted");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("is read");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("is answered");
        assert_eq!(&answer, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut beyond = TcpStream::connect(plane.address).await.expect("the system takes it");
    beyond.write_all(&get("/healthz").text("localhost")).await.expect("the system takes it");
    let mut answer = [0; 12];
    tokio::select! {
        _ = beyond.read_exact(&mut answer) => panic!("one connection too many is served"),
        answer = plane.ask(get("/healthz")) => assert_eq!(answer.status, 200),
    }
    held.pop();
    let served = tokio::time::timeout(PATIENCE, beyond.read_exact(&mut answer)).await;
    served.expect("once there is room").expect("is answered");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_header_that_is_too_long_is_refused() {
    let plane = Plane::start().await;
    let mut stream = TcpStream::connect(plane.address).await.expect("is accepted");
    let long = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(limits::HEADER_BYTES));
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("is answered");
    assert_eq!(&answer, b"HTTP/1.1 431");
}

/// A request under way is answered at the stop; a connection without one is closed.
#[tokio::test]
async fn the_stop_answers_what_was_asked() {
    let plane = Plane::start().await;
    plane.gateway.memory().brokers.push("plant".into());
    let mut idle = UnixStream::connect(&plane.socket).await.expect("is served");
    let mut asking = UnixStream::connect(&plane.socket).await.expect("is served");
    let patch = request("PATCH", "/api/v1/brokers/plant").header("content-type", "application/json").body("{}");
    let text = patch.header("expect", "100-continue").text("x");
    let (head, body) = text.split_at(text.len() - 2);
    asking.write_all(head).await.expect("is read");
    let mut go_on = [0; 25];
    asking.read_exact(&mut go_on).await.expect("the body is waited for");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    plane.stop.cancel();
    let closed = tokio::time::timeout(PATIENCE, idle.read(&mut [0; 64])).await.expect("at once");
    assert_eq!(closed.ok(), Some(0), "closed without an answer");
    asking.write_all(body).await.expect("is still read");
    let mut answer = [0; 12];
    asking.read_exact(&mut answer).await.expect("is answered");
    assert_eq!(&answer, b"HTTP/1.1 200");
    tokio::time::timeout(PATIENCE, plane.serving).await.expect("ends").expect("does not panic");
}
