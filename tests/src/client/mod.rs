//! An MQTT client for both protocols, written for the scenarios alone: it acknowledges what it gets at once, keeps it
//! in the order of arrival, and never reconnects by itself.
//!
//! [`Client`] is one connection with a thread that reads; [`stream`] publishes through outages of the broker.

pub(crate) mod codec;
mod endurance;
pub mod message;
pub mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use codec::{Connect, Packet};
use message::Message;

use crate::wait::PATIENCE;

/// Unacknowledged publishes of one client: what mosquitto grants a protocol 5 client unless told otherwise.
const WINDOW: usize = 20;

/// The version of MQTT that a client, or a broker's session in the daemon, speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

impl fmt::Display for Protocol {
    /// As the configuration's key `protocol` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::V311 => "3.1.1",
            Protocol::V5 => "5",
        })
    }
}

/// How a client connects.
#[derive(Clone)]
pub struct Options {
    port: u16,
    protocol: Protocol,
    login: Option<(String, String)>,
    /// A client identifier whose session the broker keeps.
    session: Option<String>,
    /// Leaves what is received with QoS 2 half done.
    unfinished: bool,
}

impl Options {
    /// Sends this user name and password.
    pub fn login(mut self, login: Option<(&str, &str)>) -> Options {
        self.login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        self
    }

    /// Connects with this client identifier and asks the broker to keep its session.
    pub fn session(mut self, client_id: &str) -> Options {
        self.session = Some(client_id.to_owned());
        self
    }

    /// Never answers PUBREL, so that what it receives with QoS 2 stays half done in its session.
    pub fn unfinished(mut self) -> Options {
        self.unfinished = true;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody listens, or the broker refuses.
    pub fn connect(&self) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        let client = Client { shared: Arc::new(Shared::default()), stream, options: self.clone() };
        let reader = io::BufReader::new(client.stream.try_clone()?);
        let (shared, answers) = (Arc::clone(&client.shared), client.stream.try_clone()?);
        client.shared.lock().unfinished = self.unfinished;
        let protocol = self.protocol;
        thread::spawn(move || shared.read(reader, answers, protocol));
        let id = self.session.clone().unwrap_or_else(unique_id);
        let login = self.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        client.send(&codec::connect(protocol, &Connect { id: &id, keep_session: self.session.is_some(), login }))?;
        let code = client.shared.wait(PATIENCE, |state| state.connack.ok_or("no CONNACK"));
        match code.map_err(io::Error::other)? {
            0 => Ok(client),
            code => Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("CONNACK {code:#04x}"))),
        }
    }
}

/// A client identifier that no other client has.
fn unique_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("scenario-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One connection. Dropping it disconnects.
pub struct Client {
    shared: Arc<Shared>,
    stream: TcpStream,
    options: Options,
}

impl Client {
    /// How to connect to a broker on the loopback interface.
    pub fn options(port: u16, protocol: Protocol) -> Options {
        Options { port, protocol, login: None, session: None, unfinished: false }
    }

    /// Connects with a session of this connection only.
    ///
    /// # Panics
    /// The broker is not there or refuses.
    #[track_caller]
    pub fn connect(port: u16, protocol: Protocol) -> Client {
        Client::options(port, protocol).connect().expect("the broker lets the client in")
    }

    /// Subscribes and waits for the grant.
    ///
    /// # Panics
    /// The broker refuses, grants less, or does not answer.
    #[track_caller]
    pub fn subscribe(&self, filter: &str, qos: u8) {
        assert_eq!(self.ask(filter, qos), qos, "the broker's answer to SUBSCRIBE {filter}");
    }

    /// Subscribes and returns the broker's answer: a granted QoS, or a refusal from 0x80.
    ///
    /// # Panics
    /// It does not answer.
    #[track_caller]
    pub fn ask(&self, filter: &str, qos: u8) -> u8 {
        let id = self.shared.lock().next_id();
        self.send(&codec::subscribe(self.options.protocol, id, filter, qos)).expect("the connection stands");
        let answers = self.wait("SUBACK", |state| state.subacks.remove(&id).ok_or("no SUBACK"));
        assert_eq!(answers.len(), 1, "one answer for one filter");
        answers[0]
    }

    /// Publishes, and waits until the broker has taken it: at QoS 0 read, at QoS 1 and 2 acknowledged.
    #[track_caller]
    pub fn publish(&self, message: &Message) {
        self.publish_all([message]);
    }

    /// Publishes in order, [`WINDOW`] messages at a time, and waits until the broker has taken the last.
    #[track_caller]
    pub fn publish_all<'a>(&self, messages: impl IntoIterator<Item = &'a Message>) {
        let written = messages.into_iter().try_for_each(|message| self.start(message));
        let taken = written.and_then(|()| {
            self.shared.wait(PATIENCE, |state| match state.open.len() {
                0 => Ok(()),
                open => Err(format!("{open} publishes without acknowledgement")),
            })
        });
        taken.unwrap_or_else(|reason| panic!("publishing: {reason}"));
        self.flush();
    }

    /// Publishes, whatever the broker makes of it.
    #[track_caller]
    pub fn attempt(&self, message: &Message) {
        self.start(message).unwrap_or_else(|reason| panic!("publishing: {reason}"));
    }

    /// Waits until the broker has read everything sent so far.
    #[track_caller]
    pub fn flush(&self) {
        let before = self.shared.lock().pongs;
        self.send(&codec::pingreq()).expect("the connection stands");
        self.wait("PINGRESP", |state| if state.pongs > before { Ok(()) } else { Err("no PINGRESP") });
    }

    /// The next `count` messages, in the order of arrival.
    ///
    /// # Panics
    /// Fewer came in time; the message shows them.
    #[track_caller]
    pub fn collect(&self, count: usize) -> Vec<Message> {
        let what = format!("{count} messages");
        self.wait(&what, |state| {
            if state.inbox.len() < count {
                return Err(format!("{}: {}", state.inbox.len(), shown(&state.inbox)));
            }
            Ok(state.inbox.drain(..count).collect())
        })
    }

    /// The next message, whenever it comes within the usual time; `what` says what is missing otherwise.
    ///
    /// # Panics
    /// None came in time.
    #[track_caller]
    pub fn next(&self, what: impl FnOnce() -> String) -> Message {
        let next = self.shared.wait(PATIENCE, |state| state.inbox.pop_front().ok_or("no message"));
        next.unwrap_or_else(|reason| panic!("{}: {reason}", what()))
    }

    /// Everything until a message satisfies `last`, which is the last that is returned.
    #[track_caller]
    pub fn collect_until(&self, what: &str, mut last: impl FnMut(&Message) -> bool) -> Vec<Message> {
        let mut taken: Vec<Message> = Vec::new();
        self.wait(what, |state| {
            while let Some(message) = state.inbox.pop_front() {
                let found = last(&message);
                taken.push(message);
                if found {
                    return Ok(());
                }
            }
            Err(format!("{} messages so far", taken.len()))
        });
        taken
    }

    /// Everything that the broker had for this client before this call and was not collected yet: what somebody else
    /// published and the broker acknowledged before is among it.
    #[track_caller]
    pub fn rest(&self) -> Vec<Message> {
        let marker = Message::new(format!("scenario/marker/{}", unique_id()), "");
        self.subscribe(&marker.topic, 1);
        self.publish(&marker);
        let mut rest = self.collect_until("its own marker", |message| message.topic == marker.topic);
        rest.pop();
        rest
    }

    /// Everything that came before `last`, a further message, which is published now. Right with any broker where `last` has
    /// the QoS of what is looked for and matches the same filter: then it comes after it.
    #[track_caller]
    pub fn until_own(&self, last: &Message) -> Vec<Message> {
        self.publish(last);
        let mut before = self.collect_until("its own message", |message| message.topic == last.topic);
        before.pop();
        before
    }

    /// How many messages came and were not collected yet.
    pub fn waiting(&self) -> usize {
        self.shared.lock().inbox.len()
    }

    /// Waits until the broker has released `count` messages with QoS 2.
    #[track_caller]
    pub fn wait_releases(&self, count: usize) {
        self.wait("PUBREL", |state| if state.releases >= count { Ok(()) } else { Err(state.releases) });
    }

    /// How many messages with QoS 2 the broker has released on this connection.
    pub fn releases(&self) -> usize {
        self.shared.lock().releases
    }

    /// Connects again after the broker ended the connection; what was not collected yet is kept.
    #[track_caller]
    pub fn reconnect(&mut self) {
        let again = self.options.connect().expect("the broker lets the client in again");
        let mut kept = std::mem::take(&mut self.shared.lock().inbox);
        {
            let mut state = again.shared.lock();
            kept.append(&mut state.inbox);
            state.inbox = kept;
        }
        *self = again;
    }

    /// Waits until the connection has ended, and says why.
    #[track_caller]
    pub fn ended(&self) -> String {
        let end = |state: &mut State| Ok::<_, &str>(state.ended.clone()).and_then(|end| end.ok_or("it stands"));
        let waited = self.shared.wait_even_ended(PATIENCE, end);
        waited.unwrap_or_else(|reason| panic!("the end of the connection: {reason}"))
    }

    /// Writes a publish, as soon as the window has room for it.
    fn start(&self, message: &Message) -> Result<(), String> {
        let id = match message.qos {
            0 => 0,
            _ => self.shared.wait(PATIENCE, |state| {
                if state.open.len() >= WINDOW {
                    return Err(format!("{WINDOW} publishes without acknowledgement"));
                }
                let id = state.next_id();
                state.open.push_back(id);
                Ok(id)
            })?,
        };
        self.send(&codec::publish(self.options.protocol, id, message)).map_err(|error| error.to_string())
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        // The lock keeps packets of the reading thread (acknowledgements) and ours apart.
        let _whole = self.shared.writing.lock().expect("no thread panics with the lock");
        (&self.stream).write_all(packet)
    }

    #[track_caller]
    fn wait<T, E: fmt::Display>(&self, what: &str, attempt: impl FnMut(&mut State) -> Result<T, E>) -> T {
        self.shared.wait(PATIENCE, attempt).unwrap_or_else(|reason| panic!("{what}: {reason}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Either fails when the broker has ended the connection already: there is nothing to disconnect then.
        let _ = self.send(&codec::disconnect());
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// What the reading thread and the client's owner share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Held while one whole packet is written.
    writing: Mutex<()>,
}

/// Written by the reading thread as packets come; emptied by the client's owner.
#[derive(Default)]
struct State {
    /// CONNACK's code.
    connack: Option<u8>,
    /// Publishes that came, in order of arrival.
    inbox: VecDeque<Message>,
    /// Identifiers of our publishes that are not acknowledged yet, in order of sending.
    open: VecDeque<u16>,
    /// How many of ours were acknowledged.
    acknowledged: usize,
    subacks: BTreeMap<u16, Vec<u8>>,
    pongs: u32,
    /// QoS 2 publishes that came and are not released yet: a further copy is not taken in.
    unreleased: Vec<u16>,
    last_id: u16,
    /// PUBREL is not answered. Written before the connection is made.
    unfinished: bool,
    /// How often PUBREL came.
    releases: usize,
    /// Why the connection ended.
    ended: Option<String>,
}

impl State {
    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id % u16::MAX + 1;
        self.last_id
    }

    /// Takes a packet in; returns what is to be answered.
    fn take(&mut self, packet: Packet, protocol: Protocol) -> Option<Vec<u8>> {
        match packet {
            Packet::ConnAck { code } => self.connack = Some(code),
            Packet::Publish { message, id } => {
                let repeated = message.qos == 2 && self.unreleased.contains(&id);
                let answer = match message.qos {
                    0 => None,
                    1 => Some(codec::puback(id)),
                    _ => Some(codec::pubrec(id)),
                };
                if message.qos == 2 && !repeated {
                    self.unreleased.push(id);
                }
                if !repeated {
                    self.inbox.push_back(message);
                }
                return answer;
            }
            Packet::PubAck { id } | Packet::PubComp { id } => {
                self.open.retain(|open| *open != id);
                self.acknowledged += 1;
            }
            Packet::PubRec { id } => return Some(codec::pubrel(id)),
            Packet::PubRel { .. } if self.unfinished => self.releases += 1,
            Packet::PubRel { id } => {
                self.releases += 1;
                self.unreleased.retain(|unreleased| *unreleased != id);
                return Some(codec::pubcomp(id));
            }
            Packet::SubAck { id, codes } => drop(self.subacks.insert(id, codes)),
            Packet::PingResp => self.pongs += 1,
            Packet::Disconnect { reason } => self.ended = Some(format!("DISCONNECT {reason:#04x} ({protocol})")),
        }
        None
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    /// Waits until `attempt` gives a value; fails with its last error when the limit passes or the connection ends.
    fn wait<T, E: fmt::Display>(
        &self,
        limit: Duration,
        mut attempt: impl FnMut(&mut State) -> Result<T, E>,
    ) -> Result<T, String> {
        self.wait_even_ended(limit, |state| match (attempt(state), &state.ended) {
            (Ok(value), _) => Ok(Ok(value)),
            (Err(seen), Some(end)) => Ok(Err(format!("{seen}; the connection ended: {end}"))),
            (Err(seen), None) => Err(seen),
        })?
    }

    fn wait_even_ended<T, E: fmt::Display>(
        &self,
        limit: Duration,
        mut attempt: impl FnMut(&mut State) -> Result<T, E>,
    ) -> Result<T, String> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            let seen = match attempt(&mut state) {
                Ok(value) => return Ok(value),
                Err(seen) => seen,
            };
            let Some(left) = limit.checked_sub(start.elapsed()) else {
                return Err(format!("not within {limit:?}; last seen: {seen}"));
            };
            state = self.changed.wait_timeout(state, left).expect("no thread panics with the lock").0;
        }
    }

    /// The reading thread: takes packets in and answers them until the connection ends.
    fn read(&self, mut reader: io::BufReader<TcpStream>, answers: TcpStream, protocol: Protocol) {
        let end = loop {
            let packet = match codec::read(&mut reader, protocol) {
                Ok(packet) => packet,
                Err(error) => break error.to_string(),
            };
            let answer = self.lock().take(packet, protocol);
            self.changed.notify_all();
            if let Some(answer) = answer {
                let _whole = self.writing.lock().expect("no thread panics with the lock");
                if let Err(error) = (&answers).write_all(&answer) {
                    break error.to_string();
                }
            }
        };
        self.lock().ended.get_or_insert(end);
        self.changed.notify_all();
    }
}

/// The first messages of an inbox, for a failed test.
fn shown(inbox: &VecDeque<Message>) -> String {
    inbox.iter().take(10).map(|message| format!("\n  {message:?}")).collect()
}

/// The checker checked, with mosquitto alone between two clients.
#[cfg(test)]
mod tests {
    use super::stream::Stream;
    use super::*;
    use crate::Mosquitto;
    use crate::mosquitto::Options;

    const BOTH: [Protocol; 2] = [Protocol::V311, Protocol::V5];

    #[test]
    fn each_quality_of_service_passes_from_client_to_client() {
        let broker = Mosquitto::start();
        for (protocol, qos) in BOTH.into_iter().flat_map(|protocol| [0, 1, 2].map(|qos| (protocol, qos))) {
            let receiver = broker.client(protocol);
            receiver.subscribe("a/#", 2);
            let sent: Vec<_> = (0..200).map(|n| Message::new("a/b", format!("{n}")).qos(qos)).collect();
            broker.client(protocol).publish_all(&sent);
            assert_eq!(receiver.collect(200), sent);
            assert_eq!(receiver.rest(), []);
        }
    }

    #[test]
    fn a_kept_session_goes_on_after_a_restart_and_a_stream_misses_nothing() {
        for protocol in BOTH {
            let mut broker = Mosquitto::persistent();
            let mut receiver =
                Client::options(broker.port(), protocol).session("receiver").connect().expect("is let in");
            receiver.subscribe("a", 1);
            let sent: Vec<_> = (0..1000).map(|n| Message::new("a", format!("{n}"))).collect();
            let stream = Stream::start(broker.port(), protocol, sent.clone());
            let mut came = receiver.collect(100);
            broker.stop();
            receiver.ended();
            broker.restart();
            receiver.reconnect();
            came.extend(receiver.collect_until("the last", |message| message == sent.last().expect("there")));
            stream.finish();
            came.sort_by_key(|message| message.text().parse::<u32>().expect("a number"));
            came.dedup();
            assert_eq!(came, sent);
        }
    }

    #[test]
    fn a_wrong_password_is_an_error() {
        let login = Some(("user".to_owned(), "right".to_owned()));
        let broker = Mosquitto::with(Options { login, ..Options::default() });
        for protocol in BOTH {
            let client = |password| Client::options(broker.port(), protocol).login(Some(("user", password))).connect();
            assert!(client("right").is_ok());
            assert!(client("wrong").is_err());
        }
    }

    #[test]
    fn what_a_killed_broker_saved_is_there_again() {
        let mut broker = Mosquitto::persistent();
        let connect = || Client::options(broker.port(), Protocol::V5).session("receiver").connect().expect("is let in");
        connect().subscribe("a", 1);
        broker.client(Protocol::V5).publish(&Message::new("a", "saved"));
        broker.save();
        broker.client(Protocol::V5).publish(&Message::new("a", "forgotten"));
        broker.kill();
        broker.restart();
        let receiver = Client::options(broker.port(), Protocol::V5).session("receiver").connect().expect("is let in");
        assert_eq!(receiver.rest(), [Message::new("a", "saved")]);
    }
}
