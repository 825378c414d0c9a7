//! Clients of the admin plane that read slowly, many at once: half follow what is received, half ask questions.
//!
//! Owns one thread that looks at all of their sockets in turn, without waiting for any. Fed by the daemon's admin plane over TCP
//! and over its Unix socket, evenly; feeds [`Counts`]. Each comes back as real clients do: a moment after it was refused or
//! its stream has ended, and at once after an answer. It does not check what the answers say.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// How many there are.
pub const CLIENTS: usize = 500;

/// Between two reads of a client.
const TICK: Duration = Duration::from_millis(100);

/// `HTTP/1.1 200`: what each client reads at once, to know whether it is served.
const STATUS_BYTES: usize = 12;

/// How long a client whose stream was refused stays away.
const REFUSED: Duration = Duration::from_secs(3);

/// How long a client stays on a stream: longer than the daemon bears that it takes nothing.
const STAY: Duration = Duration::from_secs(40);

/// How long the clients over TCP may wait for the first bytes of their first answers, all of them together.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for, in turn, and the bytes of the answer that are taken in a tick.
const QUESTIONS: [(&str, usize); 3] =
    [("/api/v1/received?last=1000", 4096), ("/api/v1/status", 64), ("/api/v1/config", 64)];

/// What the clients saw since they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams that were opened.
    pub followed: u64,
    /// Streams that were refused.
    pub refused: u64,
    /// Requests that waited too long for their answers to begin.
    pub late: u64,
    /// Answers that came whole.
    pub answered: u64,
    /// Connections that broke off in the middle of an answer.
    pub broken: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Streams open now.
    pub open: u64,
}

/// The clients. Dropping them ends their connections.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    counts: Mutex<Counts>,
    /// Clients over TCP that have had the first bytes of an answer.
    served: AtomicU64,
}

impl Crowd {
    /// They come, all at once, and have been answered over TCP, where the daemon has room for half of them.
    ///
    /// # Errors
    /// One cannot connect, or is not answered.
    pub fn start(port: u16, socket: &Path) -> Result<Crowd> {
        let (stop, shared) = (Arc::new(AtomicBool::new(false)), Arc::new(Shared::default()));
        let clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
        let remote = clients.iter().filter(|client| client.remote()).count() as u64;
        let ways = Ways { port, socket: socket.to_owned() };
        let thread = std::thread::Builder::new().name("crowd".to_owned());
        let (stopped, counting) = (Arc::clone(&stop), Arc::clone(&shared));
        let thread = thread.spawn(move || run(clients, &ways, &stopped, &counting))?;
        let mut crowd = Crowd { stop, shared, thread: Some(thread) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let served = crowd.shared.served.load(Ordering::Relaxed);
            if served == remote {
                return Ok(crowd);
            }
            crowd.check()?;
            if Instant::now() > deadline {
                bail!("only {served} of {remote} clients were answered over TCP within {PATIENCE:?}");
            }
            std::thread::sleep(TICK / 10);
        }
    }

    /// What they saw so far.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They go.
    ///
    /// # Errors
    /// One could not connect meanwhile.
    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn check(&mut self) -> Result<()> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) { self.join() } else { Ok(()) }
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the clients of the admin plane panicked"))?
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever wants to know how they ended calls `stop`.
        let _ = self.join();
    }
}

fn run(mut clients: Vec<Client>, ways: &Ways, stop: &AtomicBool, shared: &Shared) -> Result<()> {
    let mut counts = Counts::default();
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for client in &mut clients {
            client.tick(ways, &mut counts)?;
        }
        counts.open = clients.iter().filter(|client| client.streams()).count() as u64;
        *shared.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        let served = clients.iter().filter(|client| client.served && client.remote()).count();
        shared.served.store(served as u64, Ordering::Relaxed);
        due += TICK;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// The two ways to the admin plane.
struct Ways {
    port: u16,
    socket: PathBuf,
}

trait Socket: Read + Write + Send {}
impl Socket for TcpStream {}
impl Socket for UnixStream {}

impl Ways {
    /// Connects and asks. From then on nothing waits.
    fn ask(&self, remote: bool, path: &str) -> Result<Box<dyn Socket>> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n\r\n", self.port);
        let refused = "the admin plane does not accept a connection";
        let socket: Box<dyn Socket> = if remote {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).context(refused)?;
            stream.write_all(request.as_bytes())?;
            stream.set_nonblocking(true)?;
            Box::new(stream)
        } else {
            let mut stream = UnixStream::connect(&self.socket).context(refused)?;
            stream.write_all(request.as_bytes())?;
            stream.set_nonblocking(true)?;
            Box::new(stream)
        };
        Ok(socket)
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Follows what is received, ten bytes a second.
    Sips,
    /// Follows what is received, and takes nothing of it.
    Ignores,
    /// Asks one question after another.
    Asks,
}

struct Client {
    number: usize,
    /// Questions that it has asked.
    asked: usize,
    /// It was answered at least once.
    served: bool,
    state: State,
}

enum State {
    Away { until: Instant },
    There(Visit),
}

/// A connection.
struct Visit {
    socket: Box<dyn Socket>,
    begun: Instant,
    /// The answer's header, as far as it came.
    head: Vec<u8>,
    /// What is to come of the body; known once the header is there.
    body: Option<Body>,
    /// Bytes of the answer to take in a tick.
    sip: usize,
}

/// How an answer's body ends (RFC 9112 §6.3).
enum Body {
    /// After so many more bytes.
    Length(u64),
    /// With an empty chunk: the last bytes so far.
    Chunks(Vec<u8>),
}

/// The end of the last chunk before the empty one, and that one.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

impl Body {
    fn take(&mut self, bytes: &[u8]) {
        match self {
            Body::Length(left) => *left = left.saturating_sub(bytes.len() as u64),
            Body::Chunks(last) => {
                last.extend_from_slice(bytes);
                last.drain(..last.len().saturating_sub(LAST_CHUNK.len()));
            }
        }
    }

    fn whole(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunks(last) => last == LAST_CHUNK,
        }
    }
}

/// What became of a look at the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It goes on.
    Stay,
    /// The answer is whole.
    Whole,
    /// The stream was refused.
    Refused,
    /// It waited too long for its answer to begin.
    Late,
    /// The connection is gone.
    Broken,
}

impl Client {
    fn new(number: usize) -> Client {
        Client { number, asked: 0, served: false, state: State::Away { until: Instant::now() } }
    }

    /// Comes over TCP.
    fn remote(&self) -> bool {
        (self.number / 4).is_multiple_of(2)
    }

    fn habit(&self) -> Habit {
        match self.number % 4 {
            0 => Habit::Sips,
            2 => Habit::Ignores,
            _ => Habit::Asks,
        }
    }

    /// It has a stream.
    fn streams(&self) -> bool {
        let open = |visit: &Visit| visit.status().is_some_and(|status| status.ends_with(b" 200"));
        self.habit() != Habit::Asks && matches!(&self.state, State::There(visit) if open(visit))
    }

    fn tick(&mut self, ways: &Ways, counts: &mut Counts) -> Result<()> {
        let habit = self.habit();
        let visit = match &mut self.state {
            State::Away { until } if *until > Instant::now() => return Ok(()),
            State::Away { .. } => {
                let (path, sip) = match habit {
                    Habit::Sips => ("/api/v1/received/stream", 1),
                    Habit::Ignores => ("/api/v1/received/stream", 0),
                    // Not all the same question at the same time.
                    Habit::Asks => QUESTIONS[(self.number / 8 + self.asked) % QUESTIONS.len()],
                };
                self.asked += 1;
                let socket = ways.ask(self.remote(), path)?;
                self.state = State::There(Visit { socket, begun: Instant::now(), head: Vec::new(), body: None, sip });
                return Ok(());
            }
            State::There(visit) => visit,
        };
        let known = visit.status().is_some();
        let look = visit.look(counts).context("a client of the admin plane cannot read")?;
        if let (false, Some(status)) = (known, visit.status()) {
            self.served = true;
            counts.followed += u64::from(habit != Habit::Asks && status.ends_with(b" 200"));
        }
        let away = match look {
            Look::Stay if habit == Habit::Asks || visit.begun.elapsed() < STAY => return Ok(()),
            Look::Stay => Duration::ZERO,
            Look::Whole => {
                counts.answered += 1;
                Duration::ZERO
            }
            Look::Refused => {
                counts.refused += 1;
                REFUSED
            }
            Look::Late => {
                counts.late += 1;
                REFUSED
            }
            Look::Broken => {
                counts.broken += 1;
                REFUSED
            }
        };
        self.state = State::Away { until: Instant::now() + away };
        Ok(())
    }
}

impl Visit {
    fn status(&self) -> Option<&[u8]> {
        self.head.get(..STATUS_BYTES)
    }

    /// Takes what a client takes in a tick.
    fn look(&mut self, counts: &mut Counts) -> Result<Look> {
        let mut buffer = [0; 4096];
        let wanted = if self.status().is_some() { self.sip } else { STATUS_BYTES - self.head.len() };
        if wanted == 0 {
            return Ok(Look::Stay);
        }
        let read = match self.socket.read(&mut buffer[..wanted]) {
            Ok(0) if self.body.as_ref().is_some_and(Body::whole) => return Ok(Look::Whole),
            Ok(0) => return Ok(Look::Broken),
            Ok(read) => read,
            Err(error) => return quiet(&error).map_or_else(|| Err(error.into()), Ok),
        };
        counts.bytes += read as u64;
        match &mut self.body {
            Some(body) => body.take(&buffer[..read]),
            None => self.take_head(&buffer[..read]),
        }
        match self.status() {
            None => Ok(Look::Stay),
            Some(status) if status.ends_with(b" 200") => Ok(Look::Stay),
            Some(status) if status.ends_with(b" 503") => Ok(Look::Refused),
            Some(status) if status.ends_with(b" 504") => Ok(Look::Late),
            Some(status) => bail!("the admin plane answers {}", String::from_utf8_lossy(status)),
        }
    }

    fn take_head(&mut self, bytes: &[u8]) {
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else { return };
        let text = String::from_utf8_lossy(&self.head[..end]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<u64>().ok());
        let mut body = length.map_or(Body::Chunks(Vec::new()), Body::Length);
        body.take(&self.head[end + 4..]);
        self.body = Some(body);
    }
}

/// What an error of a read means where it is none of ours.
fn quiet(error: &io::Error) -> Option<Look> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Some(Look::Stay),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Some(Look::Broken),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_follow_and_half_come_over_tcp() {
        let clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
        let count = |wanted: &dyn Fn(&&Client) -> bool| clients.iter().filter(wanted).count();
        assert_eq!(count(&|client| client.habit() == Habit::Sips), CLIENTS / 4);
        assert_eq!(count(&|client| client.habit() == Habit::Ignores), CLIENTS / 4);
        let remote = count(&|client| client.remote());
        assert!(remote.abs_diff(CLIENTS / 2) <= 4, "{remote}");
        for question in 0..QUESTIONS.len() {
            let asks =
                |client: &&Client| client.habit() == Habit::Asks && client.number / 8 % QUESTIONS.len() == question;
            assert!(count(&asks) > CLIENTS / 8, "question {question} is asked first by {}", count(&asks));
        }
    }

    /// What a client makes of an answer that ends there, taken seven bytes at a time.
    #[track_caller]
    fn check(answer: &str, expected: Option<Look>) {
        let (client, mut server) = UnixStream::pair().expect("a pair");
        client.set_nonblocking(true).expect("ours");
        let mut visit = Visit { socket: Box::new(client), begun: Instant::now(), head: Vec::new(), body: None, sip: 7 };
        server.write_all(answer.as_bytes()).expect("has room");
        drop(server);
        let mut counts = Counts::default();
        let end = loop {
            match visit.look(&mut counts) {
                Ok(Look::Stay) => {}
                Ok(look) => break Some(look),
                Err(_) => break None,
            }
        };
        assert_eq!(end, expected, "{answer}");
    }

    #[test]
    fn an_answer_that_breaks_off_is_not_whole() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n";
        check(&format!("{head}12345678901234567890"), Some(Look::Whole));
        check(&format!("{head}1234567890123456789"), Some(Look::Broken));
        check("HTTP/1.1 200 OK\r\n", Some(Look::Broken));
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        check(&format!("{head}5\r\n12345\r\n0\r\n\r\n"), Some(Look::Whole));
        check(&format!("{head}5\r\n12345\r\n"), Some(Look::Broken));
        check("HTTP/1.1 503 Service Unavailable\r\n", Some(Look::Refused));
        check("HTTP/1.1 504 Gateway Timeout\r\n", Some(Look::Late));
        check("HTTP/1.1 404 Not Found\r\n", None);
    }
}
