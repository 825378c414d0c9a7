//! The MQTT 3.1.1 packets of the load generator and the receiver: the few that they need, written for speed.
//!
//! Pure: bytes in, bytes out. It shares no code with the daemon, nor with rumqttc, nor with the scenarios' client, which is
//! written for rigour. 3.1.1, because a publisher has no receive maximum there: only the rate limits what it sends.

/// A PUBLISH arrives, what acknowledges it, or something else.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A message; its packet identifier where it wants an acknowledgement (MQTT 3.1.1 §3.3).
    Publish {
        /// The topic name, unchecked.
        topic: &'a [u8],
        /// None at QoS 0.
        packet: Option<u16>,
        /// The application payload.
        payload: &'a [u8],
    },
    /// Any other packet, by its type (MQTT 3.1.1 §2.2.1), with what follows its fixed header.
    Other(u8, &'a [u8]),
}

/// CONNACK (MQTT 3.1.1 §3.2).
pub const CONNACK: u8 = 2;
/// SUBACK (MQTT 3.1.1 §3.9).
pub const SUBACK: u8 = 9;

/// The first packet in `bytes` and its length; none while it is incomplete.
///
/// # Errors
/// They are no MQTT packet.
pub fn first(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some((head, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, rest)) = remaining_length(rest)? else { return Ok(None) };
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let total = bytes.len() - rest.len() + length;
    let packet = match head >> 4 {
        3 => publish(*head, body).ok_or(Malformed)?,
        other => Packet::Other(other, body),
    };
    Ok(Some((packet, total)))
}

/// What came is no MQTT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// MQTT 3.1.1 §2.2.3.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, Malformed> {
    let mut length = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((length, &bytes[place + 1..])));
        }
    }
    if bytes.len() >= 4 { Err(Malformed) } else { Ok(None) }
}

fn publish(head: u8, body: &[u8]) -> Option<Packet<'_>> {
    let (topic, rest) = split_text(body)?;
    let (packet, payload) = match head >> 1 & 3 {
        0 => (None, rest),
        _ => {
            let (packet, payload) = rest.split_first_chunk()?;
            (Some(u16::from_be_bytes(*packet)), payload)
        }
    };
    Some(Packet::Publish { topic, packet, payload })
}

fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// CONNECT with a clean session and no keep alive (MQTT 3.1.1 §3.1).
pub fn connect(client: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text("MQTT", &mut body);
    body.extend_from_slice(&[4, 2, 0, 0]);
    text(client, &mut body);
    with_header(0x10, &body)
}

/// SUBSCRIBE to one filter at QoS 1 (MQTT 3.1.1 §3.8).
pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(filter, &mut body);
    body.push(1);
    with_header(0x82, &body)
}

/// DISCONNECT (MQTT 3.1.1 §3.14).
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Writes a PUBACK (MQTT 3.1.1 §3.4).
pub fn puback(packet: u16, to: &mut Vec<u8>) {
    let [high, low] = packet.to_be_bytes();
    to.extend_from_slice(&[0x40, 2, high, low]);
}

/// What stands before the packet identifier, or at QoS 0 before the payload, of every PUBLISH to this topic with a payload
/// of this length (MQTT 3.1.1 §3.3).
pub fn publish_start(topic: &str, at_least_once: bool, payload: usize) -> Vec<u8> {
    let length = 2 + topic.len() + if at_least_once { 2 } else { 0 } + payload;
    let mut start = vec![0x30 | u8::from(at_least_once) << 1];
    write_length(length, &mut start);
    text(topic, &mut start);
    start
}

fn with_header(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    write_length(body.len(), &mut packet);
    packet.extend_from_slice(body);
    packet
}

fn write_length(mut length: usize, to: &mut Vec<u8>) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        to.push(if length == 0 { low } else { low | 0x80 });
        if length == 0 {
            return;
        }
    }
}

fn text(text: &str, to: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("names here are short");
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish_packet(at_least_once: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = publish_start("a/b", at_least_once, payload.len());
        if at_least_once {
            packet.extend_from_slice(&7u16.to_be_bytes());
        }
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn a_publish_is_read_as_it_was_written() {
        let payload = [b'x'; 300];
        for at_least_once in [false, true] {
            let bytes = publish_packet(at_least_once, &payload);
            let expected = Packet::Publish { topic: b"a/b", packet: at_least_once.then_some(7), payload: &payload };
            assert_eq!(first(&bytes), Ok(Some((expected, bytes.len()))));
            let mut two = bytes.clone();
            two.extend_from_slice(&bytes);
            assert!(first(&two).is_ok_and(|packet| packet.is_some_and(|(_, length)| length == bytes.len())));
            for end in 0..bytes.len() {
                assert_eq!(first(&bytes[..end]), Ok(None), "{end} bytes are not all of it");
            }
        }
    }

    #[test]
    fn what_is_no_packet_is_told() {
        assert_eq!(first(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]), Err(Malformed));
        assert_eq!(first(&[0x30, 3, 0, 9, b'a']), Err(Malformed));
        assert_eq!(first(&[0x32, 4, 0, 1, b'a', 0]), Err(Malformed));
    }

    #[test]
    fn the_packets_are_those_of_the_standard() {
        assert_eq!(connect("x"), b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x");
        assert_eq!(subscribe("a/#"), b"\x82\x08\x00\x01\x00\x03a/#\x01");
        assert_eq!(publish_packet(true, b"hi"), b"\x32\x09\x00\x03a/b\x00\x07hi");
        let mut ack = Vec::new();
        puback(0x0102, &mut ack);
        assert_eq!(ack, b"\x40\x02\x01\x02");
        assert_eq!(first(&ack), Ok(Some((Packet::Other(4, &[1, 2]), 4))));
    }
}
