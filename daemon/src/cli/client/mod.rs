//! The client of the daemon's HTTP API: a request, its answer, or a stream of events.
//!
//! Fed by the commands in `cli/operator`. Each request has a connection of its own, since a command makes one or two. It knows
//! no resource; it never tries again by itself, since a change may have been made although its answer did not come.

pub mod endpoint;
pub mod events;
mod failure;
pub mod request;
#[cfg(test)]
pub mod testing;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::rt::{Read, Write};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

pub use endpoint::{Connection, Endpoint, Place};
pub use events::Event;
pub use failure::Failure;
pub use request::Request;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a stream may be silent: the daemon sends a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(60);

/// The media type of RFC 9457.
const PROBLEM: &str = "application/problem+json";

/// What to do where nothing answers.
const START: &str = "start it with `tidegate run`, or name another with --socket PATH or --url URL";

/// Talks to one daemon.
pub struct Client<'a> {
    connection: Connection,
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// Set with the first request.
    endpoint: OnceCell<Endpoint>,
}

/// What a request that was done brought.
#[derive(Debug)]
pub struct Answer {
    at: String,
    body: Bytes,
}

impl Answer {
    /// The body as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.body).map_err(|error| not_understood(&self.at, &error))
    }

    /// The body as JSON; null where there is none.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn json(&self) -> Result<Value, Failure> {
        if self.body.is_empty() { Ok(Value::Null) } else { self.read() }
    }

    /// The resource in the body.
    ///
    /// # Errors
    /// It is something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| not_understood(&self.at, &error))
    }
}

/// A stream of events that is open.
#[derive(Debug)]
pub struct Events {
    at: String,
    body: Incoming,
    parser: events::Parser,
    /// Complete, and not yet taken.
    ready: VecDeque<Event>,
    /// How long nothing may come.
    silence: Duration,
}

impl Events {
    /// Where the daemon is, for errors.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// The next event; none at the end of the stream. Nothing is lost when it is dropped while it waits.
    ///
    /// # Errors
    /// The connection breaks, or nothing comes any more.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let silent = |_| unreachable(&self.at, format!("nothing came for {} s", self.silence.as_secs()), START);
            let Some(frame) = timeout(self.silence, self.body.frame()).await.map_err(silent)? else { return Ok(None) };
            let frame = frame.map_err(|error| unreachable(&self.at, broken(&error), START))?;
            if let Some(bytes) = frame.data_ref() {
                self.ready.extend(self.parser.feed(bytes));
            }
        }
    }
}

impl Client<'_> {
    /// A client of the daemon that these options or this environment name. It looks for it with the first request, so that
    /// what is wrong in any case is told first.
    pub fn new(connection: Connection, environment: &dyn Fn(&str) -> Option<OsString>) -> Client<'_> {
        Client { connection, environment, endpoint: OnceCell::new() }
    }

    fn endpoint(&self) -> Result<&Endpoint, Failure> {
        if let Some(endpoint) = self.endpoint.get() {
            return Ok(endpoint);
        }
        let endpoint = self.connection.endpoint(self.environment)?;
        Ok(self.endpoint.get_or_init(|| endpoint))
    }

    /// Sends a request and waits for its whole answer.
    ///
    /// # Errors
    /// The daemon cannot be reached, does not answer in time, or refuses.
    pub async fn send(&self, request: Request) -> Result<Answer, Failure> {
        let endpoint = self.endpoint()?;
        let patience = request.patience();
        let whole = async {
            let response = begin(endpoint, &request).await?;
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| no_answer(endpoint, broken(&error), &request))?;
            Ok(Answer { at: endpoint.to_string(), body: body.to_bytes() })
        };
        let late = |_| no_answer(endpoint, format!("no answer within {} s", patience.as_secs()), &request);
        timeout(patience, whole).await.map_err(late)?
    }

    /// Opens a stream of events.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn stream(&self, request: Request) -> Result<Events, Failure> {
        let endpoint = self.endpoint()?;
        let patience = request.patience();
        let late = |_| no_answer(endpoint, format!("no answer within {} s", patience.as_secs()), &request);
        let response = timeout(patience, begin(endpoint, &request)).await.map_err(late)??;
        Ok(Events {
            at: endpoint.to_string(),
            body: response.into_body(),
            parser: events::Parser::default(),
            ready: VecDeque::new(),
            silence: SILENCE,
        })
    }
}

/// Sends a request; its answer has begun, and is no refusal.
async fn begin(endpoint: &Endpoint, request: &Request) -> Result<Response<Incoming>, Failure> {
    let mut sender = connect(endpoint).await?;
    let response = sender.send_request(in_http(endpoint, request)?).await;
    let response = response.map_err(|error| no_answer(endpoint, broken(&error), request))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let is_problem = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == PROBLEM.as_bytes());
    let body = response.into_body().collect().await.map_err(|error| no_answer(endpoint, broken(&error), request))?;
    Err(refusal(endpoint, status, is_problem, &body.to_bytes()))
}

fn in_http(endpoint: &Endpoint, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
    let mut http = hyper::Request::builder().method(&request.method).uri(&request.path);
    match endpoint {
        Endpoint::Socket(_) => http = http.header(HOST, "localhost"),
        Endpoint::Http { authority, token, .. } => {
            http = http.header(HOST, authority);
            if let Some(token) = token {
                http = http.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
            }
        }
    }
    let body = match &request.body {
        Some(body) => {
            http = http.header(CONTENT_TYPE, request.content_type());
            serde_json::to_vec(body).expect("a JSON value becomes JSON")
        }
        None => Vec::new(),
    };
    http.body(Full::from(body)).map_err(|error| Failure::WrongUse(format!("cannot be asked over HTTP: {error}")))
}

async fn connect(endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let connected = timeout(CONNECT, async {
        match endpoint {
            Endpoint::Socket(path) => handshake(UnixStream::connect(path).await?).await,
            Endpoint::Http { host, port, .. } => handshake(TcpStream::connect((host.as_str(), *port)).await?).await,
        }
    });
    match connected.await {
        Ok(Ok(sender)) => Ok(sender),
        Ok(Err(error)) => {
            let (reason, remedy) = why_not(endpoint, &error);
            Err(unreachable(endpoint, reason, remedy))
        }
        Err(_) => Err(unreachable(endpoint, format!("no connection within {} s", CONNECT.as_secs()), START)),
    }
}

/// The daemon was reached, but its answer is missing.
fn no_answer(endpoint: &Endpoint, reason: String, request: &Request) -> Failure {
    let remedy = if request.changes() { "look whether it was done before you try again" } else { START };
    unreachable(endpoint, reason, remedy)
}

/// Begins HTTP on a connection, which a task of its own serves until its end.
async fn handshake<S>(stream: S) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: Send + 'static,
    TokioIo<S>: Read + Write + Unpin,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Its error reaches the request, too.
    tokio::spawn(connection);
    Ok(sender)
}

/// Why there is no connection, and what to do.
fn why_not(endpoint: &Endpoint, error: &io::Error) -> (String, &'static str) {
    match (endpoint, error.kind()) {
        (Endpoint::Socket(_), ErrorKind::NotFound) => ("there is no such socket".to_owned(), START),
        (Endpoint::Socket(_), ErrorKind::ConnectionRefused) => {
            ("nobody listens on that socket any more".to_owned(), START)
        }
        (Endpoint::Socket(_), ErrorKind::PermissionDenied) => {
            ("permission denied".to_owned(), "run this as the user of the daemon, whose socket it is, or as root")
        }
        (Endpoint::Http { .. }, ErrorKind::ConnectionRefused) => (
            "nobody listens there".to_owned(),
            "set listen in [admin] of its configuration, or name another with --url URL or --socket PATH",
        ),
        _ => (error.to_string(), "name another with --socket PATH or --url URL"),
    }
}

fn unreachable(at: impl ToString, reason: impl Into<String>, remedy: &str) -> Failure {
    Failure::Unreachable { at: at.to_string(), reason: reason.into(), remedy: remedy.to_owned() }
}

fn broken(error: &hyper::Error) -> String {
    format!("the connection broke: {}", crate::causes::with_causes(error))
}

fn not_understood(at: &str, error: &dyn std::error::Error) -> Failure {
    let remedy = "use the tidegate of the daemon's version";
    unreachable(at, format!("its answer is not understood: {error}"), remedy)
}

/// A refusal, if it is the daemon's.
fn refusal(at: &Endpoint, status: StatusCode, is_problem: bool, body: &[u8]) -> Failure {
    match serde_json::from_slice(body) {
        Ok(problem) if is_problem => Failure::Refused(Box::new(problem)),
        _ => unreachable(
            at,
            format!("what answers there, with status {}, is no Tidegate", status.as_u16()),
            "name the daemon with --socket PATH or --url URL",
        ),
    }
}

#[cfg(test)]
mod tests;
