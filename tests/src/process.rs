//! A child process whose output is kept, and which never outlives its owner.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::wait;

/// Lines of output that a failed scenario prints.
const TAIL: usize = 60;

/// A running or ended process. Dropping it kills it, and prints the end of its output when the test is failing.
pub struct Process {
    name: String,
    child: Child,
    /// Lines of both streams in the order of arrival. Written by the two reading threads.
    output: Arc<Mutex<Vec<String>>>,
    /// The reading threads, which end with the process. Joined once it has ended.
    reading: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it, with nothing on standard input.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        let output = Arc::new(Mutex::new(Vec::new()));
        let reading = vec![
            keep(child.stdout.take().expect("is piped"), Arc::clone(&output)),
            keep(child.stderr.take().expect("is piped"), Arc::clone(&output)),
        ];
        Process { name: name.to_owned(), child, output, reading }
    }

    /// Process identifier.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines written so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().expect("no thread panics with the lock").clone()
    }

    /// The exit status, once it has ended; then [`Self::lines`] has all that it wrote.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("is our child")?;
        self.reading.drain(..).for_each(|thread| thread.join().expect("reading does not panic"));
        Some(status)
    }

    /// Sends a signal by its name: `TERM`, `INT`, `USR1`.
    pub fn signal(&self, signal: &str) {
        let pid = self.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status().expect("the command kill exists");
        assert!(status.success(), "kill -s {signal} {pid} ({}): {status}", self.name);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It runs for longer than `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::until_within(limit, what, || self.ended().ok_or("it still runs"))
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.child.kill().expect("is our child");
        self.child.wait().expect("is our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
        if thread::panicking() {
            self.print_tail();
        }
    }
}

impl Process {
    #[expect(clippy::print_stderr, reason = "the report of a failed test")]
    fn print_tail(&self) {
        let lines = self.lines();
        eprintln!("--- the last lines of {} (process {}):", self.name, self.id());
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            eprintln!("{line}");
        }
        eprintln!("---");
    }
}

fn keep(stream: impl Read + Send + 'static, output: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            output.lock().expect("no thread panics with the lock").push(line);
        }
    })
}
