//! One HTTP GET, by hand.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// For connecting, and for each read.
const LIMIT: Duration = Duration::from_secs(10);

/// A response.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines, as they came.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Fetches `path` from a server on the loopback interface.
///
/// # Errors
/// Nobody listens, the connection breaks, or what comes is not HTTP.
pub fn get(port: u16, path: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, answer.clone()))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response { status, head: head.to_lowercase(), body: body.to_owned() })
}
