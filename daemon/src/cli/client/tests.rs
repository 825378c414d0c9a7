//! The client against a scripted daemon.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use serde_json::json;

use super::testing::{Scripted, ScriptedDaemon};
use super::*;
use crate::control::config::secret::Secret;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn client(endpoint: Endpoint) -> Client<'static> {
    let client = Client::new(Connection::default(), &|_| None);
    client.endpoint.set(endpoint).expect("nothing was asked yet");
    client
}

/// What a client gets for one request; the JSON, or code and lines of its failure.
fn ask(endpoint: Endpoint, request: Request) -> Result<Value, (u8, String)> {
    let sent = runtime().block_on(client(endpoint).send(request));
    sent.and_then(|answer| answer.json()).map_err(|failure| (failure.code(), failure.lines().join("\n")))
}

fn scripted(answer: Scripted) -> Result<Value, (u8, String)> {
    let daemon = ScriptedDaemon::start(vec![answer]);
    let answer = ask(Endpoint::Socket(daemon.socket()), Request::get(&["status"]));
    daemon.asked();
    answer
}

#[test]
fn a_request_arrives_as_it_is_and_its_answer_comes_back() {
    let daemon = ScriptedDaemon::start(vec![Scripted::json(&json!({"a": 1}))]);
    let request = Request::patch(&["brokers", "b"], json!({"port": null}));
    assert_eq!(ask(Endpoint::Socket(daemon.socket()), request), Ok(json!({"a": 1})));
    let asked = daemon.asked().remove(0);
    assert_eq!(asked.line, "PATCH /api/v1/brokers/b");
    assert_eq!(asked.body, json!({"port": null}));
    for header in ["host: localhost", "content-type: application/merge-patch+json"] {
        assert!(asked.head.iter().any(|line| line == header), "{header}: {:?}", asked.head);
    }
}

#[test]
fn an_answer_without_body_is_null() {
    assert_eq!(scripted(Scripted::nothing()), Ok(Value::Null));
}

#[test]
fn a_problem_document_is_a_refusal() {
    let refused = scripted(Scripted::problem("404 Not Found", "there is no broker \"x\"", "add it"));
    assert_eq!(refused, Err((4, "error: there is no broker \"x\"; add it".to_owned())));
}

#[test]
fn what_is_no_daemon_is_told_from_one() {
    let (code, said) = scripted(Scripted::body("404 Not Found", "text/html", "<p>no</p>")).expect_err("no daemon");
    assert_eq!(code, 3);
    assert!(said.contains("what answers there, with status 404, is no Tidegate"), "{said}");
    let (code, said) = scripted(Scripted::body("200 OK", "text/html", "<p>yes</p>")).expect_err("no JSON");
    assert_eq!(code, 3);
    assert!(said.contains("its answer is not understood"), "{said}");
}

#[test]
fn a_connection_that_breaks_is_told() {
    let daemon = ScriptedDaemon::start(vec![Scripted(String::new())]);
    let post = Request::post(&["publish"], Some(json!({})));
    let (code, said) = ask(Endpoint::Socket(daemon.socket()), post).expect_err("no answer");
    assert_eq!(code, 3);
    assert!(said.contains("the connection broke") && said.contains("look whether it was done"), "{said}");
    daemon.asked();
}

#[test]
fn a_socket_that_nobody_serves_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("admin.sock");
    let status = || ask(Endpoint::Socket(socket.clone()), Request::get(&["status"])).expect_err("nobody answers");
    let expected =
        |reason: &str| (3, format!("error: cannot reach the daemon at {}: {reason}; {START}", socket.display()));
    assert_eq!(status(), expected("there is no such socket"));
    drop(UnixListener::bind(&socket).expect("a new socket"));
    assert_eq!(status(), expected("nobody listens on that socket any more"));
}

#[test]
fn a_socket_of_another_user_says_so() {
    let error = io::Error::from(ErrorKind::PermissionDenied);
    let (reason, remedy) = why_not(&Endpoint::Socket("/x".into()), &error);
    assert_eq!(
        (&*reason, remedy),
        ("permission denied", "run this as the user of the daemon, whose socket it is, or as root")
    );
    // Root may do everything, so only others can see it happen.
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("admin.sock");
    let _listener = UnixListener::bind(&socket).expect("a new socket");
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o000)).expect("our socket");
    if std::os::unix::net::UnixStream::connect(&socket).is_err() {
        let (code, said) = ask(Endpoint::Socket(socket), Request::get(&["status"])).expect_err("not ours");
        assert_eq!(code, 3);
        assert!(said.contains("permission denied"), "{said}");
    }
}

#[test]
fn over_http_the_token_goes_along() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    let served = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().expect("a client");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").expect("a client");
        String::from_utf8(head).expect("ASCII").to_lowercase()
    });
    let authority = format!("127.0.0.1:{port}");
    let endpoint = Endpoint::Http {
        host: "127.0.0.1".into(),
        port,
        authority: authority.clone(),
        token: Some(Secret::new("t0ken")),
    };
    assert_eq!(ask(endpoint, Request::get(&["status"])), Ok(json!({})));
    let head = served.join().expect("it was asked");
    for header in [format!("host: {authority}\r\n"), "authorization: bearer t0ken\r\n".to_owned()] {
        assert!(head.contains(&header), "{header}: {head}");
    }
}

#[test]
fn a_port_that_nobody_serves_says_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    drop(listener);
    let endpoint =
        Endpoint::Http { host: "127.0.0.1".into(), port, authority: format!("127.0.0.1:{port}"), token: None };
    let (code, said) = ask(endpoint, Request::get(&["status"])).expect_err("nobody answers");
    assert_eq!(code, 3);
    assert!(said.contains("nobody listens there; set listen in [admin]"), "{said}");
}

#[test]
fn a_stream_gives_events_until_its_end() {
    let daemon = ScriptedDaemon::start(vec![Scripted::events(":\n\ndata: 1\n\nevent: missed\ndata: 2\n\n")]);
    let client = client(Endpoint::Socket(daemon.socket()));
    runtime().block_on(async {
        let mut events = client.stream(Request::get(&["received", "stream"])).await.expect("a stream");
        let mut found = Vec::new();
        while let Some(event) = events.next().await.expect("no break") {
            found.push((event.kind, event.data));
        }
        let expected = [("message", "1"), ("missed", "2")].map(|(kind, data)| (kind.to_owned(), data.to_owned()));
        assert_eq!(found, expected);
    });
    daemon.asked();
}

#[test]
fn a_stream_that_breaks_is_no_end() {
    let cut = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    let daemon = ScriptedDaemon::start(vec![Scripted(cut.to_owned())]);
    let client = client(Endpoint::Socket(daemon.socket()));
    runtime().block_on(async {
        let mut events = client.stream(Request::get(&["received", "stream"])).await.expect("a stream");
        assert_eq!(events.next().await.expect("an event").map(|event| event.data), Some("1".to_owned()));
        assert_eq!(events.next().await.expect_err("no end").code(), 3);
    });
    daemon.asked();
}

#[test]
fn a_stream_in_which_nothing_comes_any_more_is_given_up() {
    // Without its last chunk, the stream is not at its end; the daemon keeps the connection.
    let daemon = ScriptedDaemon::start(vec![Scripted::open(":\n\n")]);
    let client = client(Endpoint::Socket(daemon.socket()));
    runtime().block_on(async {
        let mut events = client.stream(Request::get(&["received", "stream"])).await.expect("a stream");
        events.silence = Duration::from_millis(10);
        let failure = events.next().await.expect_err("nothing comes");
        assert!(failure.lines()[0].contains("nothing came for"), "{failure:?}");
    });
    daemon.asked();
}
