//! The admin plane over real sockets, in front of a gateway that only remembers what it is asked.
//!
//! Each answer is held against the OpenAPI document: a status or a media type that is not described there fails the test.

mod access;
mod contract;
mod fake;
mod messages;
mod server;
mod stored;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use self::fake::Fake;
use super::api::Operations;
use super::*;
use crate::brokers::BrokerNames;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::received::{Limits, ReceivedRing};
use crate::telemetry::trace::Tracer;

/// For anything that should come at once.
const PATIENCE: Duration = Duration::from_secs(40);

/// An admin plane that serves.
struct Plane {
    folder: TempDir,
    socket: PathBuf,
    address: SocketAddr,
    gateway: Arc<Fake>,
    received: ReceivedRing,
    tracer: Tracer,
    names: BrokerNames,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Plane {
    /// With a socket and a TCP port, without a token.
    async fn start() -> Plane {
        Plane::start_with(None).await
    }

    /// With this text in the token file.
    async fn with_token(token: &str) -> Plane {
        Plane::start_with(Some(token)).await
    }

    async fn start_with(token: Option<&str>) -> Plane {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("admin.sock");
        let token_file = token.map(|token| {
            let file = folder.path().join("token");
            std::fs::write(&file, token).expect("writes");
            file
        });
        let listen = Some("127.0.0.1:0".parse().expect("an address"));
        let admin = Admin::bind(&model::Admin { socket: socket.clone(), listen, token_file }).await.expect("binds");
        let address = admin.address().expect("was asked for");
        let (gateway, stop) = (Arc::new(Fake::default()), CancellationToken::new());
        let received = ReceivedRing::new(Limits { messages: 100, bytes: 100_000 });
        let names = BrokerNames::default();
        names.number("plant");
        let tracer = Tracer::new(names.clone());
        let operations: Arc<dyn Operations> = Arc::clone(&gateway) as _;
        let api = Api::new(operations, received.clone(), tracer.clone(), names.clone(), stop.clone());
        let metrics = Arc::new(Metrics::new().expect("registers"));
        let pages = Pages { metrics, obstacles: Box::new(Vec::new), details: Box::new(Vec::new) };
        let serving = tokio::spawn(admin.serve(pages, api, stop.clone()));
        Plane { folder, socket, address, gateway, received, tracer, names, stop, serving }
    }

    /// Asks over the Unix socket.
    async fn ask(&self, request: Request) -> Answer {
        let stream = UnixStream::connect(&self.socket).await.expect("is served");
        request.send(stream, "localhost").await
    }

    /// Asks over TCP.
    async fn ask_tcp(&self, request: Request) -> Answer {
        let stream = TcpStream::connect(self.address).await.expect("is served");
        request.send(stream, &self.address.to_string()).await
    }
}

/// A request.
#[derive(Clone)]
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

fn request(method: &str, target: &str) -> Request {
    Request { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: None }
}

fn get(target: &str) -> Request {
    request("GET", target)
}

impl Request {
    fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn json(self, body: &Value) -> Request {
        self.header("content-type", "application/json").body(body.to_string())
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self
    }

    /// What goes over the wire.
    fn text(&self, host: &str) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            text += &format!("host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            text += &format!("content-length: {}\r\n", body.len());
        }
        let mut text = (text + "\r\n").into_bytes();
        text.extend(self.body.iter().flatten());
        text
    }

    async fn send(self, mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> Answer {
        let exchange = async {
            // The server may have answered before it has read everything.
            let written = stream.write_all(&self.text(host)).await;
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer).await;
            assert!(!answer.is_empty(), "{} {}: {written:?}, {read:?}", self.method, self.target);
            Answer::parse(&answer)
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time");
        answer.is_described(&self);
        answer
    }
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A body that came in chunks (RFC 9112 §7.1), whole.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").expect("a chunk's size");
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.expect("a chunk's size in hexadecimal digits");
        let chunk = &rest[end + 2..];
        assert_eq!(chunk.get(size..size + 2), Some(&b"\r\n"[..]), "the answer breaks off");
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..size]);
        rest = &chunk[size + 2..];
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a header");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let mut answer = Answer {
            status: status.expect("a status"),
            headers: lines.filter_map(pair).collect(),
            body: bytes[end + 4..].to_vec(),
        };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunked(&answer.body);
        }
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The end of the problem's type, and its detail.
    #[track_caller]
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some(problem::MEDIA_TYPE), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        let text = |member: &str| document[member].as_str().unwrap_or_default();
        assert!(!text("detail").is_empty() && !text("title").is_empty(), "{document}");
        let kind = text("type").strip_prefix("urn:tidegate:problem:").expect("is one of ours");
        (self.status, kind.to_owned())
    }

    /// Every answer of a described path is described, and every answer has the headers that browsers obey.
    #[track_caller]
    fn is_described(&self, request: &Request) {
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{} {}", request.method, request.target);
        assert_eq!(self.header("cache-control"), Some("no-store"), "{} {}", request.method, request.target);
        assert_eq!(self.header("access-control-allow-origin"), None);
        let document = api::document();
        let path = request.target.split('?').next().expect("a path");
        let matches = |template: &str| {
            template.split('/').count() == path.split('/').count()
                && template.split('/').zip(path.split('/')).all(|(known, part)| known == part || known.starts_with('{'))
        };
        let paths = document["paths"].as_object().expect("an object");
        // What stands there literally counts before what has a name in it.
        let template = paths.keys().filter(|template| matches(template)).min_by_key(|template| template.contains('{'));
        let operation = template.and_then(|template| paths[template].get(request.method.to_lowercase()));
        let Some(operation) = operation else { return };
        let response = &operation["responses"][self.status.to_string()];
        assert!(response.is_object(), "{} {path} answers {}, which is not described", request.method, self.status);
        let kind = self.header("content-type").map(|kind| kind.split(';').next().expect("a first part"));
        let described = response["content"].as_object().map(|content| content.keys().map(String::as_str).collect());
        let described: Vec<&str> = described.unwrap_or_default();
        let same = kind.map_or(described.is_empty(), |kind| described.contains(&kind));
        assert!(same, "{} {path} answers {} with {kind:?}; described is {described:?}", request.method, self.status);
    }
}
