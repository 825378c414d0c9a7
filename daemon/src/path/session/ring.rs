//! The messages of one connection that are not acknowledged, in the order of receipt.
//!
//! Pure: no lock, no clock of its own. Decides what may be acknowledged when (MQTT 5 §4.6 [MQTT-4.6.0-2]), and what more may
//! be taken in. Fed by `ack.rs`.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use crate::message::Qos;

/// Bytes that a waiting message takes beside its topic and payload, so that many small ones are bounded too.
const MESSAGE_OVERHEAD: usize = 1024;

/// A received packet that the broker wants to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Its packet identifier.
    pub(super) packet: u16,
    /// The broker says that it has sent it before.
    pub(super) dup: bool,
    /// At least once, or exactly once from a session that an earlier client left.
    pub(super) qos: Qos,
    /// Bytes of its topic, payload and properties.
    pub(super) weight: usize,
}

/// How much may be unacknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// `receive-maximum`: what a broker that keeps to it never exceeds. Also the acknowledgements that may be on their way
    /// at the same time.
    pub(super) messages: usize,
    /// `receive-maximum` × `max-packet`, in bytes: what the configuration allows to be in memory. A broker that goes beyond
    /// the number of messages is indulged up to here: 3.1.1 has no such limit, and mosquitto before 2.0.12 forgets it.
    pub(super) bytes: usize,
}

/// Whether a message is taken in, with its number on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Within the window.
    Within(u64),
    /// More messages than the window has, in little memory.
    Beyond(u64),
    /// It would take more memory than the window has.
    Refused,
    /// It is here already: a packet identifier is in use until its acknowledgement (MQTT 5 §2.2.1). Some brokers send a message
    /// again on the same connection when they get impatient.
    Known,
}

/// The messages that wait for their acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unacknowledged {
    /// When the oldest of them came.
    pub(super) since: Instant,
    pub(super) messages: usize,
    /// A broker that keeps to `receive-maximum` sends no more.
    pub(super) full: bool,
}

#[derive(Debug)]
struct Slot {
    received: Received,
    arrived: Instant,
    settled: bool,
}

/// The unacknowledged messages of one connection.
#[derive(Debug)]
pub(super) struct AckRing {
    window: Window,
    slots: VecDeque<Slot>,
    /// The packet identifiers of all slots.
    packets: HashSet<u16>,
    /// The number of the first slot. Numbers count the messages of the connection.
    first: u64,
    /// Bytes of all slots, overhead included.
    bytes: usize,
    /// Acknowledgements released that do not leave yet. They fill the broker's window as unsettled messages do.
    unwritten: usize,
}

impl AckRing {
    /// Of a connection that is about to be made.
    pub(super) fn new(window: Window) -> AckRing {
        AckRing { window, slots: VecDeque::new(), packets: HashSet::new(), first: 0, bytes: 0, unwritten: 0 }
    }

    /// Takes a message in, if there is room.
    pub(super) fn receive(&mut self, received: Received, arrived: Instant) -> Admission {
        if received.dup && self.packets.contains(&received.packet) {
            return Admission::Known;
        }
        let bytes = self.bytes + received.weight + MESSAGE_OVERHEAD;
        let beyond = self.slots.len() + self.unwritten >= self.window.messages;
        if beyond && bytes > self.window.bytes {
            return Admission::Refused;
        }
        self.bytes = bytes;
        self.packets.insert(received.packet);
        self.slots.push_back(Slot { received, arrived, settled: false });
        let number = self.first + self.slots.len() as u64 - 1;
        if beyond { Admission::Beyond(number) } else { Admission::Within(number) }
    }

    /// A message needs no further delivery.
    pub(super) fn settle(&mut self, number: u64) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(slot) = place.and_then(|place| self.slots.get_mut(place)) {
            slot.settled = true;
        }
    }

    /// The first message, if it is settled: it is to be acknowledged now. Of many that are settled at once, no more than the
    /// window has are on their way at the same time.
    pub(super) fn release(&mut self) -> Option<Received> {
        if self.unwritten >= self.window.messages || !self.slots.front()?.settled {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.packets.remove(&slot.received.packet);
        self.first += 1;
        self.bytes -= slot.received.weight + MESSAGE_OVERHEAD;
        self.unwritten += 1;
        Some(slot.received)
    }

    /// So many of the released acknowledgements begin to be written: the broker may have them at any moment.
    pub(super) fn leave(&mut self, count: usize) {
        self.unwritten = self.unwritten.saturating_sub(count);
    }

    /// What is not acknowledged; none where everything is.
    pub(super) fn unacknowledged(&self) -> Option<Unacknowledged> {
        let messages = self.slots.len();
        let full = messages + self.unwritten >= self.window.messages;
        self.slots.front().map(|oldest| Unacknowledged { since: oldest.arrived, messages, full })
    }

    /// Whether a message is unsettled, or behind one that is.
    pub(super) fn holds_any(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Whether an acknowledgement waits for its turn or is on its way.
    pub(super) fn is_acknowledging(&self) -> bool {
        self.unwritten > 0 || self.slots.front().is_some_and(|slot| slot.settled)
    }

    /// Whether the broker has every acknowledgement that it is owed.
    pub(super) fn is_clear(&self) -> bool {
        self.slots.is_empty() && self.unwritten == 0
    }

    /// How much may be unacknowledged.
    pub(super) fn window(&self) -> Window {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Receive,
        Settle { pick: usize },
        SettleAgain { pick: usize },
        Write,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Receive),
            3 => any::<usize>().prop_map(|pick| Step::Settle { pick }),
            1 => any::<usize>().prop_map(|pick| Step::SettleAgain { pick }),
            3 => Just(Step::Write),
        ]
    }

    fn received(packet: usize, weight: usize) -> Received {
        Received { packet: u16::try_from(packet).expect("few"), dup: false, qos: Qos::AtLeastOnce, weight }
    }

    const ROOMY: Window = Window { messages: 4, bytes: usize::MAX };

    #[test]
    fn a_broker_that_ignores_the_window_is_indulged_up_to_its_memory() {
        let bytes = 3 * MESSAGE_OVERHEAD + 10;
        let mut ring = AckRing::new(Window { messages: 1, bytes });
        let now = Instant::now();
        assert_eq!(ring.receive(received(1, 0), now), Admission::Within(0));
        assert_eq!(ring.receive(received(2, 10), now), Admission::Beyond(1));
        assert_eq!(ring.receive(received(3, 1), now), Admission::Refused);
        assert_eq!(ring.receive(received(3, 0), now), Admission::Beyond(2));
        assert_eq!(ring.receive(received(4, 0), now), Admission::Refused);
    }

    #[test]
    fn a_message_that_is_sent_again_before_its_acknowledgement_is_known() {
        let mut ring = AckRing::new(ROOMY);
        let (now, again) = (Instant::now(), Received { dup: true, ..received(1, 0) });
        assert_eq!(ring.receive(again, now), Admission::Within(0), "its first copy came on an earlier connection");
        assert_eq!(ring.receive(again, now), Admission::Known);
        ring.settle(0);
        assert_eq!(ring.release(), Some(again));
        assert_eq!(ring.receive(again, now), Admission::Within(1), "the identifier is free again");
    }

    #[test]
    fn one_message_within_the_window_is_never_too_large() {
        let mut ring = AckRing::new(Window { messages: 1, bytes: 1 });
        assert_eq!(ring.receive(received(1, 1_000_000), Instant::now()), Admission::Within(0));
    }

    proptest! {
        /// Against the rule itself: acknowledged is exactly the longest prefix of the received messages that are all
        /// settled, but for what has to wait because a window of acknowledgements is unwritten.
        #[test]
        fn acknowledges_the_settled_prefix_in_order(steps in prop::collection::vec(step(), 0..300)) {
            let start = Instant::now();
            let mut ring = AckRing::new(ROOMY);
            let mut settled: Vec<bool> = Vec::new();
            let mut acknowledged: Vec<u16> = Vec::new();
            let mut written = 0;
            for step in steps {
                match step {
                    Step::Receive => {
                        let arrived = start + Duration::from_secs(settled.len() as u64);
                        let (Admission::Within(number) | Admission::Beyond(number)) =
                            ring.receive(received(settled.len(), 7), arrived) else { panic!("there is room") };
                        prop_assert_eq!(number, settled.len() as u64);
                        settled.push(false);
                    }
                    Step::Settle { pick } => {
                        let open: Vec<usize> = (0..settled.len()).filter(|place| !settled[*place]).collect();
                        if open.is_empty() { continue }
                        let place = open[pick % open.len()];
                        settled[place] = true;
                        ring.settle(place as u64);
                    }
                    Step::SettleAgain { pick } if !settled.is_empty() => {
                        let place = pick % settled.len();
                        if settled[place] {
                            ring.settle(place as u64);
                        }
                    }
                    Step::SettleAgain { .. } => {}
                    Step::Write => {
                        ring.leave(1);
                        written = acknowledged.len().min(written + 1);
                    }
                }
                acknowledged.extend(std::iter::from_fn(|| ring.release()).map(|received| received.packet));
                let prefix = settled.iter().take_while(|settled| **settled).count();
                let released = prefix.min(written + ROOMY.messages);
                let expected: Vec<u16> = (0..released).map(|packet| u16::try_from(packet).expect("few")).collect();
                prop_assert_eq!(&acknowledged, &expected);
                let oldest = (released < settled.len()).then(|| start + Duration::from_secs(released as u64));
                let messages = settled.len() - released;
                let full = settled.len() - written >= ROOMY.messages;
                let waiting = oldest.map(|since| Unacknowledged { since, messages, full });
                prop_assert_eq!(ring.unacknowledged(), waiting);
                prop_assert_eq!(ring.bytes, (settled.len() - released) * (MESSAGE_OVERHEAD + 7));
                prop_assert_eq!(ring.is_clear(), released == settled.len() && written == released);
            }
        }
    }
}
