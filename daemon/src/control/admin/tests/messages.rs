//! Received messages, streams, publishing, explaining.

use std::time::SystemTime;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};

use super::*;
use crate::message::{Message, Qos};

impl Plane {
    /// The gateway receives a message.
    fn receive(&self, topic: &str, payload: &str) -> Arc<Message> {
        let message = Arc::new(Message {
            broker: self.names.number("plant"),
            qos: Qos::AtMostOnce,
            received: SystemTime::now(),
            ..Message::testing(topic, payload)
        });
        self.received.push(&message);
        message
    }

    /// Opens a stream, past its header.
    async fn stream(&self, target: &str, headers: &str) -> Stream {
        Stream::open(UnixStream::connect(&self.socket).await.expect("is served"), target, headers).await
    }

    /// As that, over TCP.
    async fn stream_tcp(&self, target: &str) -> Stream {
        Stream::open(TcpStream::connect(self.address).await.expect("is served"), target, "").await
    }
}

trait Connection: AsyncRead + AsyncWrite + Unpin {}
impl<C: AsyncRead + AsyncWrite + Unpin> Connection for C {}

struct Stream {
    head: Vec<String>,
    lines: Lines<BufReader<Box<dyn Connection>>>,
}

impl Stream {
    async fn open(stream: impl Connection + 'static, target: &str, headers: &str) -> Stream {
        let mut stream: Box<dyn Connection> = Box::new(stream);
        let text = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(text.as_bytes()).await.expect("is read");
        let mut lines = BufReader::new(stream).lines();
        let mut head = Vec::new();
        loop {
            match within(lines.next_line()).await.expect("a line") {
                Some(line) if line.is_empty() => break,
                Some(line) => head.push(line),
                None => panic!("ended: {head:?}"),
            }
        }
        Stream { head, lines }
    }

    /// The next line that belongs to an event; none at the stream's end. Sizes of chunks and empty lines are left out.
    async fn next(&mut self) -> Option<String> {
        loop {
            let line = within(self.lines.next_line()).await.expect("a stream that ends well");
            let line = line.expect("the last chunk comes before the connection's end");
            if line == "0" {
                return None;
            }
            if ["id:", "data:", "event:"].iter().any(|field| line.starts_with(field)) {
                return Some(line);
            }
        }
    }

    /// The next event's data.
    async fn data(&mut self) -> Value {
        loop {
            let line = self.next().await.expect("an event");
            if let Some(data) = line.strip_prefix("data:") {
                return serde_json::from_str(data).expect("is JSON");
            }
        }
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("comes in time")
}

#[tokio::test]
async fn received_messages_are_listed_filtered_and_forgotten() {
    let plane = Plane::start().await;
    for (topic, payload) in [("a/1", "x"), ("b/1", "y"), ("a/2", "z")] {
        plane.receive(topic, payload);
    }
    let list = async |query: &str| {
        let listed = plane.ask(get(&format!("/api/v1/received{query}"))).await.json();
        let data =
            listed["messages"].as_array().expect("a list").iter().map(|one| one["data"].clone()).collect::<Vec<_>>();
        (Value::from(data), listed["gone"].clone())
    };
    assert_eq!(list("").await, (json!(["x", "y", "z"]), json!(0)));
    assert_eq!(list("?topic=a/%2B").await.0, json!(["x", "z"]));
    assert_eq!(list("?topic=a/%2B&last=1&broker=plant").await.0, json!(["z"]));
    assert_eq!(list("?last=0").await.0, json!([]));
    plane.gateway.memory().brokers.extend(["plant".into(), "lab".into()]);
    let unknown = plane.ask(get("/api/v1/received?broker=other")).await;
    assert_eq!(unknown.problem(), (404, "not-found".into()));
    assert_eq!(unknown.json()["remedy"], "use one of plant, lab");
    assert_eq!(plane.ask(get("/api/v1/received?topic=a/%23/b")).await.problem(), (422, "invalid".into()));
    assert_eq!(plane.ask(request("DELETE", "/api/v1/received")).await.json(), json!({ "messages": 3 }));
    assert_eq!(list("").await, (json!([]), json!(3)));
}

/// Each list holds what it tells: so many may be in memory for slow clients, and no more.
#[tokio::test]
async fn a_list_waits_while_many_are_read_slowly() {
    let plane = Plane::start().await;
    // Six bytes of JSON each: more in all than the sockets' buffers hold.
    (0..90).for_each(|_| {
        plane.receive("a", &"\u{1}".repeat(1000));
    });
    let ask = async |head: &mut [u8]| {
        let mut stream = UnixStream::connect(&plane.socket).await.expect("is served");
        stream.write_all(&get("/api/v1/received").text("localhost")).await.expect("is read");
        within(stream.read_exact(head)).await.expect("an answer");
        stream
    };
    let mut slow = Vec::new();
    for _ in 0..limits::LISTS {
        let mut status = [0; 12];
        slow.push(ask(&mut status).await);
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    let mut waiting = Box::pin(plane.ask(get("/api/v1/received")));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "one list more than may be is answered");
    assert_eq!(plane.ask(get("/api/v1/status")).await.status, 200, "what is no list does not wait");
    slow.pop();
    assert_eq!(waiting.await.json()["messages"].as_array().map(Vec::len), Some(90));
    let mut rest = Vec::new();
    within(slow[0].read_to_end(&mut rest)).await.expect("goes on");
    assert!(rest.ends_with(b"\"gone\":0}\r\n0\r\n\r\n"), "the slow ones are told everything");
}

#[tokio::test]
async fn a_stream_tells_messages_as_they_come_and_goes_on_where_it_ended() {
    let plane = Plane::start().await;
    plane.receive("a", "before");
    let mut stream = plane.stream("/api/v1/received/stream?topic=a", "").await;
    let head = stream.head.join("\n").to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    plane.receive("b", "other");
    plane.receive("a", "first");
    assert_eq!(stream.next().await.as_deref(), Some("id: 3"));
    assert_eq!(stream.data().await["data"], "first");
    drop(stream);
    plane.receive("a", "meanwhile");
    let mut stream = plane.stream("/api/v1/received/stream?topic=a", "last-event-id: 3\r\n").await;
    assert_eq!(stream.data().await["data"], "meanwhile");
    let bad = plane.ask(get("/api/v1/received/stream").header("last-event-id", "x")).await;
    assert_eq!(bad.problem(), (400, "malformed".into()));
}

#[tokio::test]
async fn a_stream_that_misses_messages_says_so() {
    let plane = Plane::start().await;
    (0..3).for_each(|_| drop(plane.receive("a", "gone")));
    plane.received.clear();
    plane.receive("a", "kept");
    let mut stream = plane.stream("/api/v1/received/stream", "last-event-id: 1\r\n").await;
    assert_eq!(stream.next().await.as_deref(), Some("event: missed"));
    assert_eq!(stream.data().await, json!({ "count": 2 }));
    assert_eq!(stream.data().await["data"], "kept");
}

#[tokio::test]
async fn a_trace_tells_the_steps_of_so_many_messages() {
    let plane = Plane::start().await;
    let mut stream = plane.stream("/api/v1/trace?topic=a&count=1", "").await;
    let (other, one, two) = (plane.receive("b", "x"), plane.receive("a", "y"), plane.receive("a", "z"));
    assert!(plane.tracer.begin(1, &other).is_none(), "nobody watches it");
    let trace = plane.tracer.begin(2, &one).expect("is watched");
    assert!(plane.tracer.begin(3, &two).is_none(), "one was asked for");
    trace.queued("h", "s");
    drop(trace);
    let first = stream.data().await;
    assert_eq!((&first["sequence"], &first["step"], &first["topic"]), (&json!(2), &json!("received"), &json!("a")));
    assert_eq!(stream.data().await["step"], "queued");
    assert_eq!(stream.next().await, None, "the stream ends with the message");
}

#[tokio::test]
async fn only_so_many_streams_are_open() {
    let plane = Plane::start().await;
    let mut streams = Vec::new();
    for place in 0..limits::STREAMS {
        let target = if place % 2 == 0 { "/api/v1/received/stream" } else { "/api/v1/trace" };
        streams.push(plane.stream(target, "").await);
    }
    assert_eq!(plane.ask(get("/api/v1/trace")).await.problem(), (503, "streams".into()));
    assert_eq!(plane.ask(get("/api/v1/status")).await.status, 200, "other requests have their own");
    let (one, other) = (plane.stream_tcp("/api/v1/trace").await, plane.stream_tcp("/api/v1/received/stream").await);
    assert!(one.head[0].contains(" 200 ") && other.head[0].contains(" 200 "), "TCP has a share of its own");
    drop(streams.pop());
    // The server sees the end of the connection a moment later.
    let again = async {
        while plane.ask(get("/api/v1/trace?count=0")).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    within(again).await;
}

#[tokio::test]
async fn streams_end_with_the_daemon() {
    let plane = Plane::start().await;
    let mut received = plane.stream("/api/v1/received/stream", "").await;
    let mut trace = plane.stream("/api/v1/trace", "").await;
    plane.stop.cancel();
    assert_eq!((received.next().await, trace.next().await), (None, None));
    within(plane.serving).await.expect("does not panic");
    assert!(!plane.socket.exists(), "the socket goes too");
}

#[tokio::test]
async fn a_message_is_published() {
    let plane = Plane::start().await;
    let post = |body: &Value| request("POST", "/api/v1/publish").json(body);
    let large = "x".repeat(4 * limits::BODY_BYTES);
    let done = plane.ask(post(&json!({ "broker": "plant", "topic": "a", "message": large, "qos": 1 }))).await;
    assert_eq!((done.status, &done.json()["qos"]), (200, &json!(1)));
    assert_eq!(plane.gateway.asked(), [format!("publish plant a {}", large.len())]);
    let huge = "x".repeat(limits::PUBLISH_BYTES);
    let refused = plane.ask(post(&json!({ "broker": "plant", "topic": "a", "message": huge }))).await;
    assert_eq!(refused.problem(), (413, "too-large".into()));
    assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.contains("16777216")), "{refused:?}");
    let unknown = plane.ask(post(&json!({ "broker": "plant", "topic": "a", "mesage": "x" }))).await;
    assert_eq!(unknown.problem(), (422, "invalid".into()));
    assert!(unknown.json()["detail"].as_str().is_some_and(|detail| detail.contains("mesage")), "{unknown:?}");
}

#[tokio::test]
async fn a_topic_is_explained() {
    let plane = Plane::start().await;
    let explained = plane.ask(get("/api/v1/explain?topic=a/b&message=21.5&retained=true")).await.json();
    assert_eq!((&explained[0]["topic"], &explained[0]["outcome"]), (&json!("a/b"), &json!("unmatched")));
    assert_eq!(explained[0]["dispatch"], "\"21.5\" true", "payload and retain reach the decision");
    assert_eq!(plane.ask(get("/api/v1/explain?topic=a/%2B")).await.problem(), (422, "invalid".into()));
    assert_eq!(plane.ask(get("/api/v1/explain?topic=a&broker=x")).await.problem(), (404, "not-found".into()));
}
