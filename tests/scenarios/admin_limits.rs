//! Slow and idle clients of the admin plane: they end, and nobody waits for them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tidegate_tests::{Config, Daemon, Protocol};

/// docs/http-api.md: for a header, and for a body.
const SLOW: Duration = Duration::from_secs(15);

/// docs/http-api.md: a client that takes nothing of its answer.
const STALL: Duration = Duration::from_secs(30);

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
