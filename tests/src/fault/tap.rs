//! What passes a proxied connection, as MQTT packets.
//!
//! Pure: fed with the bytes of both directions in the order in which they are passed on, cut anywhere. It knows which messages the
//! broker has sent to the daemon, and which each side has not acknowledged yet; and it holds the daemon to
//! [MQTT-4.6.0-2]: acknowledgements leave in the order in which their messages came.

use std::collections::{BTreeSet, VecDeque};

use super::Direction;
use crate::client::Protocol;
use crate::client::codec::{self, Packet};
use crate::client::message::Message;

/// PUBLISH and PUBACK, by the number of their kind (MQTT 5 §2.1.2).
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;

/// The traffic of one connection.
#[derive(Debug)]
pub struct Tap {
    protocol: Protocol,
    up: Framer,
    down: Framer,
    /// Identifiers of messages that the broker sent and the daemon has not acknowledged, in the order of arrival.
    awaiting: VecDeque<u16>,
    /// Identifiers of messages that the daemon sent and the broker has not acknowledged.
    offered: BTreeSet<u16>,
    /// Acknowledgements that the daemon sent.
    acknowledged: usize,
    violations: Vec<String>,
}

impl Tap {
    /// Of a new connection.
    pub fn new(protocol: Protocol) -> Tap {
        Tap {
            protocol,
            up: Framer::default(),
            down: Framer::default(),
            awaiting: VecDeque::new(),
            offered: BTreeSet::new(),
            acknowledged: 0,
            violations: Vec::new(),
        }
    }

    /// These bytes come next in this direction; gives the QoS 1 messages that end in them. To be called before
    /// the bytes are passed on: the answer must not overtake them.
    pub fn passes(&mut self, direction: Direction, bytes: &[u8]) -> Vec<Message> {
        let framer = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        framer.bytes.extend(bytes);
        let mut came = Vec::new();
        while let Some(packet) = self.framer(direction).next() {
            came.extend(self.see(direction, &packet));
        }
        if let Some(begin) = self.framer(direction).malformed.take() {
            self.unreadable(direction, "remaining length", &begin);
        }
        came
    }

    /// Bytes of this direction are thrown away: what follows has no beginning.
    pub fn blind(&mut self, direction: Direction) {
        self.framer(direction).blind = true;
    }

    /// Messages of either direction that are sent and not acknowledged.
    pub fn open(&self) -> usize {
        self.awaiting.len() + self.offered.len()
    }

    /// Acknowledgements that the daemon has sent.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Acknowledgements of the daemon that left out of order, or for nothing.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    fn framer(&mut self, direction: Direction) -> &mut Framer {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn see(&mut self, direction: Direction, packet: &[u8]) -> Option<Message> {
        match (packet[0] >> 4, direction) {
            (PUBLISH, _) => self.see_publish(direction, packet),
            (PUBACK, _) => {
                match (identifier(packet), direction) {
                    (None, _) => self.unreadable(direction, "PUBACK", packet),
                    (Some(id), Direction::Up) => self.see_acknowledgement(id),
                    (Some(id), Direction::Down) => drop(self.offered.remove(&id)),
                }
                None
            }
            _ => None,
        }
    }

    fn see_publish(&mut self, direction: Direction, packet: &[u8]) -> Option<Message> {
        let Ok(Packet::Publish { message, id }) = codec::read(&mut &*packet, self.protocol) else {
            self.unreadable(direction, "PUBLISH", packet);
            return None;
        };
        if message.qos != 1 {
            return None;
        }
        match direction {
            Direction::Down => {
                self.awaiting.push_back(id);
                Some(message)
            }
            Direction::Up => {
                if !self.offered.insert(id) {
                    self.violations.push(format!("the packet identifier {id} is used twice at the same time"));
                }
                Some(message)
            }
        }
    }

    fn unreadable(&mut self, direction: Direction, kind: &str, packet: &[u8]) {
        self.violations.push(format!("{direction:?}: a {kind} that cannot be read: {packet:02x?}"));
    }

    fn see_acknowledgement(&mut self, id: u16) {
        self.acknowledged += 1;
        if self.awaiting.front() == Some(&id) {
            self.awaiting.pop_front();
            return;
        }
        self.violations.push(match self.awaiting.front() {
            Some(first) => format!("PUBACK {id} left before that of {first}, which came first"),
            None => format!("PUBACK {id} left though nothing was to be acknowledged"),
        });
        self.awaiting.retain(|awaiting| *awaiting != id);
    }
}

/// The packet identifier of a packet that begins with one (MQTT 5 §2.2.1); none if it is too short for one.
fn identifier(packet: &[u8]) -> Option<u16> {
    let length = 1 + packet[1..].iter().take_while(|byte| **byte & 0x80 != 0).count();
    Some(u16::from_be_bytes([*packet.get(length + 1)?, *packet.get(length + 2)?]))
}

/// Bytes of one direction that are no whole packet yet.
#[derive(Debug, Default)]
struct Framer {
    bytes: Vec<u8>,
    /// Something is missing: nothing can be told any more.
    blind: bool,
    /// The beginning of a packet whose length cannot be read, until it is told.
    malformed: Option<Vec<u8>>,
}

impl Framer {
    /// The next packet, once it is whole.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.blind {
            self.bytes.clear();
            return None;
        }
        let mut length = 0;
        for place in 0..4 {
            let byte = *self.bytes.get(1 + place)?;
            length |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                let whole = 2 + place + length;
                return (self.bytes.len() >= whole).then(|| self.bytes.drain(..whole).collect());
            }
        }
        // Where the next packet begins cannot be told any more [MQTT-1.5.5-1].
        self.blind = true;
        self.malformed = Some(self.bytes[..5].to_vec());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Down, Up};
    use super::*;

    const BOTH: [Protocol; 2] = [Protocol::V311, Protocol::V5];

    fn publish(protocol: Protocol, id: u16) -> Vec<u8> {
        codec::publish(protocol, id, &message(id))
    }

    fn message(id: u16) -> Message {
        Message::new("in/a", vec![b'x'; usize::from(id) * 50])
    }

    /// A tap that saw these messages come from the broker.
    fn tap(protocol: Protocol, ids: &[u16]) -> Tap {
        let mut tap = Tap::new(protocol);
        ids.iter().for_each(|id| drop(tap.passes(Down, &publish(protocol, *id))));
        tap
    }

    #[test]
    fn packets_are_seen_wherever_they_are_cut() {
        for protocol in BOTH {
            let bytes =
                [codec::connack(protocol, true, &codec::Limits::default()), publish(protocol, 1), publish(protocol, 7)];
            for size in [1, 2, 3, 7, 1000] {
                let mut tap = Tap::new(protocol);
                let parts = bytes.concat();
                let came: Vec<_> = parts.chunks(size).flat_map(|part| tap.passes(Down, part)).collect();
                assert_eq!(came, [message(1), message(7)]);
                assert_eq!(tap.open(), 2);
            }
        }
    }

    #[test]
    fn half_a_message_has_not_come() {
        let mut tap = Tap::new(Protocol::V5);
        let bytes = publish(Protocol::V5, 3);
        assert_eq!(tap.passes(Down, &bytes[..bytes.len() - 1]), []);
        assert_eq!(tap.open(), 0);
    }

    #[test]
    fn acknowledgements_in_order_are_right() {
        let mut tap = tap(Protocol::V5, &[5, 6, 7]);
        tap.passes(Up, &[codec::puback(5), codec::puback(6)].concat());
        assert_eq!((tap.open(), tap.acknowledged()), (1, 2));
        assert!(tap.violations().is_empty());
    }

    #[test]
    fn an_acknowledgement_that_passes_another_is_found() {
        let mut tap = tap(Protocol::V311, &[5, 6, 7]);
        tap.passes(Up, &codec::puback(6));
        tap.passes(Up, &[codec::puback(5), codec::puback(7)].concat());
        assert_eq!(tap.violations(), ["PUBACK 6 left before that of 5, which came first"]);
        assert_eq!(tap.open(), 0);
    }

    #[test]
    fn an_acknowledgement_for_nothing_is_found() {
        let mut tap = tap(Protocol::V311, &[5]);
        tap.passes(Up, &[codec::puback(5), codec::puback(5)].concat());
        assert_eq!(tap.violations(), ["PUBACK 5 left though nothing was to be acknowledged"]);
    }

    #[test]
    fn what_the_daemon_publishes_is_open_until_the_broker_acknowledges_it() {
        for protocol in BOTH {
            let mut tap = Tap::new(protocol);
            assert_eq!(
                tap.passes(Up, &[publish(protocol, 1), publish(protocol, 2)].concat()),
                [message(1), message(2)]
            );
            assert_eq!(tap.open(), 2);
            // In any order that the broker likes.
            tap.passes(Down, &[codec::puback(2), codec::puback(1)].concat());
            assert_eq!((tap.open(), tap.violations().len()), (0, 0));
            tap.passes(Up, &[publish(protocol, 3), publish(protocol, 3)].concat());
            assert_eq!(tap.violations(), ["the packet identifier 3 is used twice at the same time"]);
        }
    }

    #[test]
    fn packets_that_cannot_be_read_are_found() {
        let mut tap = tap(Protocol::V5, &[5]);
        tap.passes(Up, &[0x40, 0x01, 0x05]);
        tap.passes(Up, &[0x40, 0xff, 0xff, 0xff, 0xff, 0x01]);
        let [short, long] = tap.violations() else { panic!("{:?}", tap.violations()) };
        assert_eq!(short, "Up: a PUBACK that cannot be read: [40, 01, 05]");
        assert_eq!(long, "Up: a remaining length that cannot be read: [40, ff, ff, ff, ff]");
    }

    #[test]
    fn nothing_is_told_of_a_direction_with_a_hole() {
        let mut tap = Tap::new(Protocol::V5);
        tap.blind(Down);
        assert_eq!(tap.passes(Down, &publish(Protocol::V5, 3)), []);
        assert_eq!(tap.open(), 0);
    }
}
