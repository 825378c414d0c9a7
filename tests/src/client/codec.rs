//! The MQTT packets that a client and a scripted broker need, for 3.1.1 and 5. Knows no connection and no session.

use std::io::{self, Read};

use super::Protocol;
use super::message::{Message, Properties};

/// Property identifiers (MQTT 5 §2.2.2.2).
mod property {
    pub const PAYLOAD_FORMAT: u8 = 1;
    pub const MESSAGE_EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 11;
    pub const SESSION_EXPIRY: u8 = 17;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const MAXIMUM_QOS: u8 = 36;
    pub const RETAIN_AVAILABLE: u8 = 37;
    pub const MAXIMUM_PACKET_SIZE: u8 = 39;
    pub const TOPIC_ALIAS: u8 = 35;
    pub const USER: u8 = 38;
}

/// What a broker sends.
pub enum Packet {
    /// 0 is success.
    ConnAck {
        /// Return or reason code.
        code: u8,
    },
    /// A message.
    Publish {
        /// The message.
        message: Message,
        /// 0 at QoS 0.
        id: u16,
    },
    /// QoS 1 is done.
    PubAck {
        /// Packet identifier.
        id: u16,
    },
    /// QoS 2, first answer.
    PubRec {
        /// Packet identifier.
        id: u16,
    },
    /// QoS 2, the broker's release.
    PubRel {
        /// Packet identifier.
        id: u16,
    },
    /// QoS 2 is done.
    PubComp {
        /// Packet identifier.
        id: u16,
    },
    /// The answer to SUBSCRIBE.
    SubAck {
        /// Packet identifier.
        id: u16,
        /// A granted QoS, or a refusal from 0x80.
        codes: Vec<u8>,
    },
    /// The answer to PINGREQ.
    PingResp,
    /// Protocol 5: the broker ends the connection.
    Disconnect {
        /// Reason code.
        reason: u8,
    },
}

/// What CONNECT says.
pub struct Connect<'a> {
    /// Client identifier.
    pub id: &'a str,
    /// Not a clean session; the broker keeps it for ever.
    pub keep_session: bool,
    /// User name and password.
    pub login: Option<(&'a str, &'a str)>,
}

/// What a broker of protocol 5 tells in its CONNACK beside success.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Seconds; 0 switches the keep alive off (MQTT 5 §3.2.2.3.14).
    pub keep_alive: Option<u16>,
    /// Unacknowledged publishes that it takes.
    pub receive_maximum: Option<u16>,
    /// The highest QoS that it takes, unless that is 2.
    pub max_qos: Option<u8>,
    /// It takes no retained messages.
    pub no_retain: bool,
    /// Bytes of the largest packet that it takes.
    pub max_packet: Option<u32>,
}

impl Limits {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(seconds) = self.keep_alive {
            bytes.push(property::SERVER_KEEP_ALIVE);
            bytes.extend(seconds.to_be_bytes());
        }
        if let Some(count) = self.receive_maximum {
            bytes.push(property::RECEIVE_MAXIMUM);
            bytes.extend(count.to_be_bytes());
        }
        if let Some(qos) = self.max_qos {
            bytes.extend([property::MAXIMUM_QOS, qos]);
        }
        if self.no_retain {
            bytes.extend([property::RETAIN_AVAILABLE, 0]);
        }
        if let Some(size) = self.max_packet {
            bytes.push(property::MAXIMUM_PACKET_SIZE);
            bytes.extend(size.to_be_bytes());
        }
        bytes
    }
}

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// The first packet.
    Connect,
    /// A message; its identifier is 0 at QoS 0.
    Publish(Message, u16),
    /// QoS 1 is done.
    PubAck(u16),
    /// Filters with the wanted QoS.
    Subscribe(u16, Vec<(String, u8)>),
    /// Filters that the client no longer wants.
    Unsubscribe(u16, Vec<String>),
    /// Wants PINGRESP.
    Ping,
    /// The client goes.
    Disconnect,
}

/// CONNECT without keep alive and will.
pub fn connect(protocol: Protocol, connect: &Connect<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, "MQTT");
    let login = if connect.login.is_some() { 0b1100_0000 } else { 0 };
    let clean = if connect.keep_session { 0 } else { 0b10 };
    body.extend([if protocol == Protocol::V5 { 5 } else { 4 }, login | clean, 0, 0]);
    if protocol == Protocol::V5 {
        let expiry = if connect.keep_session { u32::MAX } else { 0 };
        body.extend([5, property::SESSION_EXPIRY]);
        body.extend(expiry.to_be_bytes());
    }
    string(&mut body, connect.id);
    if let Some((user, password)) = connect.login {
        string(&mut body, user);
        string(&mut body, password);
    }
    packet(0x10, &body)
}

/// PUBLISH; `id` counts only from QoS 1.
pub fn publish(protocol: Protocol, id: u16, message: &Message) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.payload.len() + message.topic.len() + 16);
    string(&mut body, &message.topic);
    if message.qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if protocol == Protocol::V5 {
        let properties = encode(&message.properties);
        variable(&mut body, properties.len());
        body.extend(properties);
    }
    body.extend(&message.payload);
    packet(0x30 | message.qos << 1 | u8::from(message.retain), &body)
}

/// SUBSCRIBE with one filter.
pub fn subscribe(protocol: Protocol, id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if protocol == Protocol::V5 {
        body.push(0);
    }
    string(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

/// PUBACK: success.
pub fn puback(id: u16) -> Vec<u8> {
    packet(0x40, &id.to_be_bytes())
}

/// PUBREC: success.
pub fn pubrec(id: u16) -> Vec<u8> {
    packet(0x50, &id.to_be_bytes())
}

/// PUBREL: success.
pub fn pubrel(id: u16) -> Vec<u8> {
    packet(0x62, &id.to_be_bytes())
}

/// PUBCOMP: success.
pub fn pubcomp(id: u16) -> Vec<u8> {
    packet(0x70, &id.to_be_bytes())
}

/// PINGREQ.
pub fn pingreq() -> Vec<u8> {
    packet(0xc0, &[])
}

/// DISCONNECT: normal.
pub fn disconnect() -> Vec<u8> {
    packet(0xe0, &[])
}

/// CONNACK: success, on protocol 5 with these limits.
pub fn connack(protocol: Protocol, session_present: bool, limits: &Limits) -> Vec<u8> {
    let mut body = vec![u8::from(session_present), 0];
    if protocol == Protocol::V5 {
        let limits = limits.encode();
        variable(&mut body, limits.len());
        body.extend(limits);
    }
    packet(0x20, &body)
}

/// UNSUBACK of so many filters: success.
pub fn unsuback(protocol: Protocol, id: u16, filters: usize) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if protocol == Protocol::V5 {
        body.resize(body.len() + 1 + filters, 0);
    }
    packet(0xb0, &body)
}

/// SUBACK with a granted QoS, or a refusal from 0x80, for each filter.
pub fn suback(protocol: Protocol, id: u16, granted: &[u8]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if protocol == Protocol::V5 {
        body.push(0);
    }
    body.extend(granted);
    packet(0x90, &body)
}

/// PUBACK of protocol 5 with a reason code.
pub fn puback_because(id: u16, reason: u8) -> Vec<u8> {
    packet(0x40, &[id.to_be_bytes().as_slice(), &[reason]].concat())
}

/// PINGRESP.
pub fn pingresp() -> Vec<u8> {
    packet(0xd0, &[])
}

/// DISCONNECT of a broker, on protocol 5, as mosquitto sends it: without properties their length is left out (MQTT 5 §3.14.2.2.1).
pub fn disconnect_because(reason: u8) -> Vec<u8> {
    packet(0xe0, &[reason])
}

/// Reads one packet of a client.
///
/// # Errors
/// The connection ended, or what came is not a packet that a client without QoS 2 sends.
pub fn read_request(stream: &mut impl Read, protocol: Protocol) -> io::Result<Request> {
    let (first, body) = read_packet(stream)?;
    let mut body = Cursor { rest: &body };
    parse_request(first, &mut body, protocol).ok_or_else(|| malformed(&format!("packet of kind {first:#04x}")))
}

fn parse_request(first: u8, body: &mut Cursor<'_>, protocol: Protocol) -> Option<Request> {
    Some(match first >> 4 {
        1 => Request::Connect,
        3 => match parse_publish(first, body, protocol)? {
            Packet::Publish { message, id } => Request::Publish(message, id),
            _ => return None,
        },
        4 => Request::PubAck(body.u16()?),
        8 => {
            let id = body.u16()?;
            if protocol == Protocol::V5 {
                let length = body.variable()?;
                body.bytes(length)?;
            }
            let mut filters = Vec::new();
            while !body.rest.is_empty() {
                filters.push((body.string()?, body.u8()? & 3));
            }
            Request::Subscribe(id, filters)
        }
        10 => {
            let id = body.u16()?;
            if protocol == Protocol::V5 {
                let length = body.variable()?;
                body.bytes(length)?;
            }
            let mut filters = Vec::new();
            while !body.rest.is_empty() {
                filters.push(body.string()?);
            }
            Request::Unsubscribe(id, filters)
        }
        12 => Request::Ping,
        14 => Request::Disconnect,
        _ => return None,
    })
}

/// Reads one packet of a broker.
///
/// # Errors
/// The connection ended, or what came is not a packet that a broker sends to such a client.
pub fn read(stream: &mut impl Read, protocol: Protocol) -> io::Result<Packet> {
    let (first, body) = read_packet(stream)?;
    let mut body = Cursor { rest: &body };
    parse(first, &mut body, protocol).ok_or_else(|| malformed(&format!("packet of kind {first:#04x}")))
}

fn parse(first: u8, body: &mut Cursor<'_>, protocol: Protocol) -> Option<Packet> {
    Some(match first >> 4 {
        2 => Packet::ConnAck { code: body.bytes(2)?[1] },
        3 => parse_publish(first, body, protocol)?,
        4 => Packet::PubAck { id: body.u16()? },
        5 => Packet::PubRec { id: body.u16()? },
        6 => Packet::PubRel { id: body.u16()? },
        7 => Packet::PubComp { id: body.u16()? },
        9 => {
            let id = body.u16()?;
            if protocol == Protocol::V5 {
                let length = body.variable()?;
                body.bytes(length)?;
            }
            Packet::SubAck { id, codes: body.rest.to_vec() }
        }
        13 => Packet::PingResp,
        14 => Packet::Disconnect { reason: body.u8().unwrap_or(0) },
        _ => return None,
    })
}

fn parse_publish(first: u8, body: &mut Cursor<'_>, protocol: Protocol) -> Option<Packet> {
    let qos = first >> 1 & 3;
    let topic = body.string()?;
    let id = if qos > 0 { body.u16()? } else { 0 };
    let properties = if protocol == Protocol::V5 {
        let length = body.variable()?;
        decode(&mut Cursor { rest: body.bytes(length)? })?
    } else {
        Properties::default()
    };
    let message = Message { topic, payload: body.rest.to_vec(), qos, retain: first & 1 == 1, properties };
    Some(Packet::Publish { message, id })
}

fn encode(properties: &Properties) -> Vec<u8> {
    let mut bytes = Vec::new();
    if properties.utf8_payload {
        bytes.extend([property::PAYLOAD_FORMAT, 1]);
    }
    if let Some(seconds) = properties.message_expiry {
        bytes.push(property::MESSAGE_EXPIRY);
        bytes.extend(seconds.to_be_bytes());
    }
    if let Some(kind) = &properties.content_type {
        bytes.push(property::CONTENT_TYPE);
        string(&mut bytes, kind);
    }
    if let Some(topic) = &properties.response_topic {
        bytes.push(property::RESPONSE_TOPIC);
        string(&mut bytes, topic);
    }
    if let Some(correlation) = &properties.correlation_data {
        bytes.push(property::CORRELATION_DATA);
        binary(&mut bytes, correlation);
    }
    for (key, value) in &properties.user {
        bytes.push(property::USER);
        string(&mut bytes, key);
        string(&mut bytes, value);
    }
    bytes
}

fn decode(bytes: &mut Cursor<'_>) -> Option<Properties> {
    let mut properties = Properties::default();
    while !bytes.rest.is_empty() {
        match bytes.u8()? {
            property::PAYLOAD_FORMAT => properties.utf8_payload = bytes.u8()? == 1,
            property::MESSAGE_EXPIRY => properties.message_expiry = Some(bytes.u32()?),
            property::CONTENT_TYPE => properties.content_type = Some(bytes.string()?),
            property::RESPONSE_TOPIC => properties.response_topic = Some(bytes.string()?),
            property::CORRELATION_DATA => {
                let length = bytes.u16()?;
                properties.correlation_data = Some(bytes.bytes(usize::from(length))?.to_vec());
            }
            property::SUBSCRIPTION_IDENTIFIER => drop(bytes.variable()?),
            property::TOPIC_ALIAS => drop(bytes.u16()?),
            property::USER => properties.user.push((bytes.string()?, bytes.string()?)),
            _ => return None,
        }
    }
    Some(properties)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    variable(&mut bytes, body.len());
    bytes.extend(body);
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    binary(bytes, text.as_bytes());
}

fn binary(bytes: &mut Vec<u8>, data: &[u8]) {
    let length = u16::try_from(data.len()).expect("shorter than 64 KiB");
    bytes.extend(length.to_be_bytes());
    bytes.extend(data);
}

fn variable(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number % 128).expect("below 128");
        number /= 128;
        bytes.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return;
        }
    }
}

/// The first byte and the body of the next packet.
fn read_packet(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let mut body = vec![0; read_length(stream)?];
    stream.read_exact(&mut body)?;
    Ok((first[0], body))
}

fn read_length(stream: &mut impl Read) -> io::Result<usize> {
    let mut length = 0;
    for place in 0..4 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << (7 * place);
        if byte[0] & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(malformed("remaining length"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed or unexpected {what}"))
}

/// The unread part of a packet.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn string(&mut self) -> Option<String> {
        let length = self.u16()?;
        String::from_utf8(self.bytes(usize::from(length))?.to_vec()).ok()
    }

    fn variable(&mut self) -> Option<usize> {
        let mut reader = self.rest;
        let number = read_length(&mut reader).ok()?;
        self.rest = reader;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_reads_back_on_both_protocols() {
        let properties = Properties {
            utf8_payload: true,
            message_expiry: Some(70_000),
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("a/b".to_owned()),
            correlation_data: Some(vec![0, 255]),
            user: vec![("k".to_owned(), "v".to_owned()), ("k".to_owned(), "w".to_owned())],
        };
        let plain = Message::new("some/topic", vec![7; 300]).qos(2).retained();
        for (protocol, message) in [(Protocol::V311, plain.clone()), (Protocol::V5, plain.with(properties))] {
            let bytes = publish(protocol, 513, &message);
            match read(&mut bytes.as_slice(), protocol) {
                Ok(Packet::Publish { message: read, id: 513 }) => assert_eq!(read, message),
                _ => panic!("not a PUBLISH with its identifier"),
            }
        }
    }
}
