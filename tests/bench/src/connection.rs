//! A connection to the broker, up to its CONNACK.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::packets::{self, CONNACK, Packet, SUBACK};

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects with a clean session.
///
/// # Errors
/// The broker does not accept it in time.
pub fn connect(port: u16, client: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("the broker does not accept a connection")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&packets::connect(client))?;
    let answer = answer(&mut stream, CONNACK).context("the broker does not answer CONNECT")?;
    ensure!(answer.get(1) == Some(&0), "the broker refused the connection: {answer:?}");
    Ok(stream)
}

/// Subscribes at QoS 1.
///
/// # Errors
/// The broker refuses, or does not answer in time.
pub fn subscribe(stream: &mut TcpStream, filter: &str) -> Result<()> {
    stream.write_all(&packets::subscribe(filter))?;
    let answer = answer(stream, SUBACK).context("the broker does not answer SUBSCRIBE")?;
    ensure!(answer.get(2) == Some(&1), "the broker refused the subscription: {answer:?}");
    Ok(())
}

/// What follows the fixed header of the next packet, which must be of this type and the last that comes.
fn answer(stream: &mut TcpStream, wanted: u8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut some = [0; 64];
        let read = stream.read(&mut some)?;
        ensure!(read > 0, "it closed the connection");
        bytes.extend_from_slice(&some[..read]);
        match packets::first(&bytes) {
            Ok(None) => {}
            Ok(Some((Packet::Other(kind, body), length))) if kind == wanted && length == bytes.len() => {
                return Ok(body.to_vec());
            }
            other => bail!("it sent something else: {other:?}"),
        }
    }
}
