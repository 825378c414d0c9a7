//! A scripted daemon for tests: answers what it is told to, in order, and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tempfile::TempDir;

/// The header line of a stream.
const EVENTS: &str = "content-type: text/event-stream\r\n";

/// An answer: the whole of it, as bytes on the wire.
pub struct Scripted(pub String);

impl Scripted {
    /// 200 with JSON.
    pub fn json(value: &Value) -> Scripted {
        Scripted::body("200 OK", "application/json", &value.to_string())
    }

    /// 204.
    pub fn nothing() -> Scripted {
        Scripted("HTTP/1.1 204 No Content\r\n\r\n".to_owned())
    }

    /// A problem document.
    pub fn problem(status: &str, detail: &str, remedy: &str) -> Scripted {
        let code: u16 = status.split(' ').next().and_then(|code| code.parse().ok()).expect("begins with a code");
        let document = serde_json::json!({
            "type": "urn:tidegate:problem:test", "title": "a test", "status": code, "detail": detail, "remedy": remedy,
        });
        Scripted::body(status, "application/problem+json", &document.to_string())
    }

    /// Any status, type and text.
    pub fn body(status: &str, kind: &str, text: &str) -> Scripted {
        Scripted(format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{text}", text.len()))
    }

    /// Whether the connection stays open.
    fn goes_on(&self) -> bool {
        self.0.contains(EVENTS) && !self.0.ends_with("\r\n0\r\n\r\n")
    }

    /// Server-sent events, and the end of the stream.
    pub fn events(text: &str) -> Scripted {
        let Scripted(open) = Scripted::open(text);
        Scripted(format!("{open}0\r\n\r\n"))
    }

    /// Server-sent events in a stream that has no end, as long as the daemon's folder lives.
    pub fn open(text: &str) -> Scripted {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
        Scripted(format!("{head}{EVENTS}\r\n{:x}\r\n{text}\r\n", text.len()))
    }
}

/// What it was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// `METHOD PATH`.
    pub line: String,
    /// Header lines in lower case, sorted.
    pub head: Vec<String>,
    /// The body, if it is JSON; null without one.
    pub body: Value,
}

/// A daemon that answers so often as it has answers, on a Unix socket of its own.
pub struct ScriptedDaemon {
    folder: TempDir,
    /// The connections stay open until all answers are given and asked for.
    thread: JoinHandle<Vec<(Asked, UnixStream)>>,
}

impl ScriptedDaemon {
    /// Listens.
    pub fn start(answers: Vec<Scripted>) -> ScriptedDaemon {
        let folder = tempfile::Builder::new().prefix("tidegate-cli-").tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join("admin.sock")).expect("a new socket");
        let thread = thread::spawn(move || {
            let answer = |answer: Scripted| serve(listener.accept().expect("a client").0, &answer);
            answers.into_iter().map(answer).collect()
        });
        ScriptedDaemon { folder, thread }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// A folder that lives as long.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it was asked, once all answers are given.
    pub fn asked(self) -> Vec<Asked> {
        // The commands have ended: a script that still waits for one fails here, in place of waiting for ever.
        drop(UnixStream::connect(self.socket()));
        let served = self.thread.join().expect("the script does not fail");
        served.into_iter().map(|(asked, _)| asked).collect()
    }
}

fn serve(stream: UnixStream, answer: &Scripted) -> (Asked, UnixStream) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a head");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    assert!(!lines.is_empty(), "nothing was asked of the scripted daemon");
    let line = lines.remove(0);
    let line = line.strip_suffix(" HTTP/1.1").expect("a request line").to_owned();
    let mut head: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    head.sort_unstable();
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the whole body");
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
    // A client that went away is not the script's business.
    let mut stream = reader.into_inner();
    let _ = stream.write_all(answer.0.as_bytes());
    if !answer.goes_on() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    (Asked { line, head, body }, stream)
}
