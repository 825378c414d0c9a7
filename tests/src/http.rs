//! HTTP GET by hand: a page, or a stream of events.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::wait::PATIENCE;

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

/// Server-sent events, as they come: the data of each, comments left out. Ends with the stream.
pub struct Events {
    lines: BufReader<TcpStream>,
}

impl Events {
    /// Opens the stream at `path` of a server on the loopback interface: its header has come.
    ///
    /// # Errors
    /// Nobody listens, the connection breaks, or the answer is no stream.
    pub fn open(port: u16, path: &str) -> io::Result<Events> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n")?;
        let mut events = Events { lines: BufReader::new(stream) };
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if events.lines.read_line(&mut head)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, head));
            }
        }
        if head.starts_with("HTTP/1.1 200 ") && head.to_lowercase().contains("content-type: text/event-stream") {
            return Ok(events);
        }
        events.lines.read_to_string(&mut head)?;
        Err(io::Error::new(io::ErrorKind::InvalidData, head))
    }
}

impl Iterator for Events {
    type Item = String;

    /// # Panics
    /// Nothing comes for long, or the connection breaks.
    fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.lines.read_line(&mut line).expect("the stream goes on") > 0 {
            // The server sends an event in one chunk: a line is never cut by the framing.
            if let Some(data) = line.strip_prefix("data:") {
                return Some(data.trim().to_owned());
            }
            line.clear();
        }
        None
    }
}
