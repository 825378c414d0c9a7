//! A scripted daemon for tests: answers what it is told to, in order, and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tempfile::TempDir;

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

    /// Server-sent events, and the end of the stream.
    pub fn events(text: &str) -> Scripted {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        Scripted(format!("{head}{:x}\r\n{text}\r\n0\r\n\r\n", text.len()))
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
    thread: JoinHandle<Vec<Asked>>,
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
        self.thread.join().expect("the script does not fail")
    }
}

fn serve(stream: UnixStream, answer: &Scripted) -> Asked {
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
    let line = lines.remove(0);
    let line = line.strip_suffix(" HTTP/1.1").expect("a request line").to_owned();
    let mut head: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    head.sort_unstable();
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the whole body");
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
    // A client that went away is not the script's business.
    let _ = reader.into_inner().write_all(answer.0.as_bytes());
    Asked { line, head, body }
}
