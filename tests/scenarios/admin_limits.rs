//! Slow and idle clients of the admin plane: they end, and nobody waits for them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, wait};

/// docs/http-api.md: for a header, and for a body.
const SLOW: Duration = Duration::from_secs(15);

/// docs/http-api.md: a client that takes nothing of its answer.
const STALL: Duration = Duration::from_secs(30);

/// docs/http-api.md: streams at the same time over TCP.
const STREAMS: usize = 32;

/// docs/http-api.md: lists of received messages at the same time over TCP.
const LISTS: usize = 8;

/// docs/http-api.md: for such a list, from its beginning.
const LIST: Duration = Duration::from_secs(45);

/// For a loaded machine.
const SLACK: Duration = Duration::from_secs(15);

fn daemon() -> Daemon {
    let token = Config::new().admin("token-file = \"token\"");
    Daemon::start(&token.broker("plant", 1883, Protocol::V5, "auto-connect = false"))
}

fn connect(daemon: &Daemon, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.admin())).expect("is served");
    stream.set_read_timeout(Some(SLOW + STALL + SLACK)).expect("a time");
    stream.write_all(text.as_bytes()).expect("the system takes it");
    stream
}

/// What comes until the daemon ends the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // The end of a connection of which the daemon has not read everything.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A header that never ends, a connection on which nothing is asked, and a body that never comes: each has its time.
#[test]
fn slow_requests_are_ended() {
    let daemon = daemon();
    let begun = Instant::now();
    daemon.home().write("token", "0123456789abcdef");
    let silent = connect(&daemon, "");
    let header = connect(&daemon, "GET /healthz HTTP/1.1\r\nhost: local");
    let idle = connect(&daemon, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let body = connect(
        &daemon,
        "POST /api/v1/publish HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer 0123456789abcdef\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    );
    assert_eq!(daemon.get("/healthz").status, 200, "others are served meanwhile");
    let (silent, header, idle, body) = (rest(silent), rest(header), rest(idle), rest(body));
    let took = begun.elapsed();
    assert_eq!(silent, "");
    assert!(header.is_empty() || header.starts_with("HTTP/1.1 408"), "{header}");
    assert!(idle.starts_with("HTTP/1.1 200") && idle.matches("HTTP/1.1").count() == 1, "{idle}");
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("urn:tidegate:problem:slow-body"), "{body}");
    assert!((SLOW..SLOW + SLACK).contains(&took), "{took:?}");
}

/// A client that asks and asks and reads nothing.
#[test]
#[ignore = "long: it takes half a minute until such a client is given up"]
fn a_client_that_takes_nothing_is_ended() {
    let daemon = daemon();
    let mut stream = connect(&daemon, "");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a time");
    let page = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    // Until the answers fill both sockets' buffers, so that the daemon reads no further.
    while stream.write_all(page.as_bytes()).is_ok() {}
    let begun = Instant::now();
    stream.set_write_timeout(Some(STALL + SLACK)).expect("a time");
    let ended = loop {
        if let Err(error) = stream.write(b"G") {
            break error;
        }
    };
    assert!(matches!(ended.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{ended}");
    assert!(begun.elapsed() < STALL + SLACK, "{:?}", begun.elapsed());
    assert_eq!(daemon.get("/healthz").status, 200);
}

/// Whoever may open the socket is not kept out by programs on this machine that bring no token.
#[test]
fn streams_over_tcp_leave_the_socket_its_own() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&quiet(&broker));
    let _streams: Vec<_> = (0..STREAMS).map(|_| daemon.follow("/api/v1/received/stream")).collect();
    assert_eq!(daemon.get("/api/v1/trace?count=0").status, 503, "TCP's share is taken");
    let mut trace = daemon.begin(&["trace", "quiet/#", "--count", "1"]);
    let client = broker.client(Protocol::V5);
    let ended = wait::until("the trace's end", || {
        client.publish(&Message::new("quiet/a", "x"));
        trace.ended().ok_or("it still runs")
    });
    assert_eq!(ended.code(), Some(0), "{:?}", trace.lines());
}

fn quiet(broker: &Mosquitto) -> Config {
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "");
    config.table("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"quiet/#\"\nqos = 1")
}

/// A list that no socket's buffers hold: its messages become six times as long in JSON.
fn long_list() -> (Mosquitto, Daemon) {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&quiet(&broker));
    let messages: Vec<_> = (0..4).map(|_| Message::new("quiet/a", vec![1; 1_000_000])).collect();
    broker.client(Protocol::V5).publish_all(&messages);
    daemon.settle("plant", messages.len());
    (broker, daemon)
}

/// Asks for the list and takes no more of it than its status.
fn begin_list(daemon: &Daemon) -> TcpStream {
    let mut stream = connect(daemon, "GET /api/v1/received HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[test]
fn lists_over_tcp_leave_the_socket_its_own() {
    let (_broker, daemon) = long_list();
    let _slow: Vec<_> = (0..LISTS).map(|_| begin_list(&daemon)).collect();
    let mut beyond = connect(&daemon, "GET /api/v1/received?last=0 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let listed = daemon.json(&["recv", "list"]);
    assert_eq!(listed["messages"].as_array().map(Vec::len), Some(4));
    beyond.set_nonblocking(true).expect("a socket");
    let early = beyond.read(&mut [0; 12]).expect_err("one list more than TCP's share is answered");
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
}

/// Clients that take a list piece by piece, so that they never stand still: the next one gets its turn.
#[test]
#[ignore = "long: it takes three quarters of a minute until such clients are given up"]
fn a_list_that_drips_is_ended() {
    let (_broker, daemon) = long_list();
    let begun = Instant::now();
    let slow: Vec<_> = (0..LISTS).map(|_| begin_list(&daemon)).collect();
    let dripping: Vec<_> = slow
        .into_iter()
        .map(|stream| {
            std::thread::spawn(move || {
                let mut taken = Vec::new();
                // The pace is the client's nature: nothing is waited for.
                while (&stream).take(100_000).read_to_end(&mut taken).is_ok_and(|count| count > 0) {
                    std::thread::sleep(Duration::from_secs(1));
                }
                taken
            })
        })
        .collect();
    let waiting =
        connect(&daemon, "GET /api/v1/received?last=0 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let answer = rest(waiting);
    let took = begun.elapsed();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"messages\":[]"), "{answer}");
    assert!((LIST..LIST + SLACK).contains(&took), "{took:?}");
    for client in dripping {
        let taken = client.join().expect("does not panic");
        assert!(!taken.ends_with(b"0\r\n\r\n"), "nobody may take {} bytes for the whole list", taken.len());
    }
}
