//! HTTP GET by hand: a page, or a stream of events.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::wait::PATIENCE;

/// A response.
#[derive(Debug)]
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
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, String::from_utf8_lossy(&answer).into_owned());
    parse(&answer).ok_or_else(invalid)
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (str::from_utf8(&answer[..end]).ok()?.to_lowercase(), &answer[end + 4..]);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.lines().any(|line| line == "transfer-encoding: chunked");
    let body = if chunked { unchunked(body)? } else { body.to_owned() };
    Some(Response { status, head, body: String::from_utf8(body).ok()? })
}

/// A body that came in chunks (RFC 9112 §7.1); none where it breaks off.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let chunk = rest.get(end + 2..end + 2 + size)?;
        rest = rest[end + 2 + size..].strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
    }
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
