//! A broker that does what a scenario says, packet by packet: for promises that no real broker shows.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::client::Protocol;
use crate::client::codec;
pub use crate::client::codec::{Limits, Request};
use crate::client::message::Message;
use crate::wait::{self, PATIENCE};

/// How long a scenario looks for a packet that must not come. A longer look finds no more in a daemon that keeps its word.
const SILENCE: Duration = Duration::from_millis(200);

/// A listening port that a scenario answers for.
pub struct ScriptedBroker {
    listener: TcpListener,
    protocol: Protocol,
}

/// One connection of the daemon.
pub struct Peer {
    stream: BufReader<TcpStream>,
    protocol: Protocol,
}

impl ScriptedBroker {
    /// Listens on a free port of the loopback interface.
    pub fn listen(protocol: Protocol) -> ScriptedBroker {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("is a socket");
        ScriptedBroker { listener, protocol }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("is bound").port()
    }

    /// Waits for the next connection and its CONNECT, and lets it in.
    #[track_caller]
    pub fn accept(&self, session_present: bool) -> Peer {
        self.accept_with(session_present, &Limits::default())
    }

    /// As [`ScriptedBroker::accept`], with limits in the CONNACK of protocol 5.
    #[track_caller]
    pub fn accept_with(&self, session_present: bool, limits: &Limits) -> Peer {
        let mut peer = self.meet();
        peer.send(&codec::connack(self.protocol, session_present, limits));
        peer
    }

    /// Waits for the next connection and its CONNECT, and leaves it without an answer.
    #[track_caller]
    pub fn meet(&self) -> Peer {
        let (stream, _) = wait::until("the daemon connects", || self.listener.accept());
        stream.set_nonblocking(false).expect("is a socket");
        stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE))).expect("is a socket");
        let mut peer = Peer { stream: BufReader::new(stream), protocol: self.protocol };
        assert_eq!(peer.request(), Request::Connect);
        peer
    }
}

impl Peer {
    /// The next packet but for pings, which are answered.
    #[track_caller]
    pub fn request(&mut self) -> Request {
        loop {
            match codec::read_request(&mut self.stream, self.protocol).expect("the daemon sends a packet") {
                Request::Ping => self.send(&codec::pingresp()),
                request => return request,
            }
        }
    }

    /// The next packet, pings included; an error once the connection has ended.
    ///
    /// # Errors
    /// The daemon sends nothing any more, or nothing for [`PATIENCE`].
    pub fn packet(&mut self) -> io::Result<Request> {
        codec::read_request(&mut self.stream, self.protocol)
    }

    /// The kind of the next packet, by its number (MQTT 5 §2.1.2), of which no more than the beginning is read.
    #[track_caller]
    pub fn kind(&mut self) -> u8 {
        loop {
            match self.stream.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                beginning => {
                    let beginning = beginning.expect("the daemon sends a packet");
                    return beginning.first().expect("the connection stands") >> 4;
                }
            }
        }
    }

    /// Waits until the daemon has closed the connection; what it sent before is thrown away.
    #[track_caller]
    pub fn closed(&mut self) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.packet() {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(_) => return,
            }
        }
        panic!("the daemon has not closed the connection within {PATIENCE:?}");
    }

    /// Sends these bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.send(bytes);
    }

    /// DISCONNECT with a reason code, on protocol 5; closes the connection.
    #[track_caller]
    pub fn disconnect(mut self, reason: u8) {
        self.send(&codec::disconnect_because(reason));
        self.hang_up();
    }

    /// Closes the connection so that all that was sent before arrives: a connection that is closed while something is
    /// unread is reset.
    #[track_caller]
    pub fn hang_up(mut self) {
        // An error means that the daemon was faster.
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
        self.closed();
    }

    /// As [`Peer::hang_up`], and checks that the daemon sent nothing before.
    #[track_caller]
    pub fn hang_up_on_silence(mut self) {
        // An error means that the daemon was faster.
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
        match self.packet() {
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            seen => panic!("the daemon sent {seen:?}"),
        }
    }

    /// PINGRESP.
    pub fn pong(&mut self) {
        self.send(&codec::pingresp());
    }

    /// Grants the next SUBSCRIBE all that it asks for.
    #[track_caller]
    pub fn grant(&mut self) {
        let request = self.request();
        self.grant_request(&request);
    }

    /// Grants a SUBSCRIBE all that it asks for.
    #[track_caller]
    pub fn grant_request(&mut self, request: &Request) {
        let Request::Subscribe(id, filters) = request else { panic!("no SUBSCRIBE but {request:?}") };
        let granted: Vec<_> = filters.iter().map(|(_, qos)| *qos).collect();
        self.send(&codec::suback(self.protocol, *id, &granted));
    }

    /// Answers the next SUBSCRIBE, and returns its filters.
    #[track_caller]
    pub fn answer(&mut self, answer: impl Fn(&str, u8) -> u8) -> Vec<String> {
        let Request::Subscribe(id, filters) = self.request() else { panic!("no SUBSCRIBE") };
        let codes: Vec<_> = filters.iter().map(|(filter, qos)| answer(filter, *qos)).collect();
        self.send(&codec::suback(self.protocol, id, &codes));
        filters.into_iter().map(|(filter, _)| filter).collect()
    }

    /// Answers the next UNSUBSCRIBE, and returns its filters.
    #[track_caller]
    pub fn release(&mut self) -> Vec<String> {
        let request = self.request();
        let Request::Unsubscribe(id, filters) = request else { panic!("no UNSUBSCRIBE but {request:?}") };
        self.send(&codec::unsuback(self.protocol, id, filters.len()));
        filters
    }

    /// Publishes with this packet identifier.
    pub fn publish(&mut self, id: u16, message: &Message) {
        self.send(&codec::publish(self.protocol, id, message));
    }

    /// Publishes with this packet identifier for the second time.
    pub fn publish_again(&mut self, id: u16, message: &Message) {
        let mut packet = codec::publish(self.protocol, id, message);
        // DUP (MQTT 5 §3.3.1.1).
        packet[0] |= 0b1000;
        self.send(&packet);
    }

    /// Acknowledges a publish of the daemon.
    pub fn acknowledge(&mut self, id: u16) {
        self.send(&codec::puback(id));
    }

    /// Refuses a publish of the daemon, on protocol 5.
    pub fn refuse(&mut self, id: u16, reason: u8) {
        self.send(&codec::puback_because(id, reason));
    }

    /// Checks that the daemon sends nothing for a while.
    #[track_caller]
    pub fn is_silent(&mut self) {
        self.stream.get_ref().set_read_timeout(Some(SILENCE)).expect("is a socket");
        let seen = codec::read_request(&mut self.stream, self.protocol);
        self.stream.get_ref().set_read_timeout(Some(PATIENCE)).expect("is a socket");
        match seen {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            seen => panic!("the daemon sent {seen:?}"),
        }
    }

    fn send(&mut self, packet: &[u8]) {
        self.stream.get_mut().write_all(packet).expect("the daemon reads");
    }
}
