//! The proxy checked: each of its faults, between two sockets of this test.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// How long a test looks for bytes that must not come.
const SILENCE: Duration = Duration::from_millis(100);

/// A proxied connection: the proxy, and both ends.
fn connected() -> (Proxy, TcpListener, TcpStream, TcpStream) {
    let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let proxy = Proxy::start(broker.local_addr().expect("it is bound").port(), Protocol::V5);
    let (up, down) = connect(&proxy, &broker);
    (proxy, broker, up, down)
}

fn connect(proxy: &Proxy, broker: &TcpListener) -> (TcpStream, TcpStream) {
    let before = proxy.counts().connections;
    let up = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).expect("the proxy listens");
    let (down, _) = broker.accept().expect("the proxy connects");
    proxy.wait(PATIENCE, "it is connected through", |counts| counts.connections > before);
    for side in [&up, &down] {
        side.set_read_timeout(Some(PATIENCE)).expect("is a socket");
    }
    (up, down)
}

/// So many PINGREQ: bytes that the tap takes for packets.
fn pings(count: usize) -> Vec<u8> {
    [0xc0, 0].repeat(count)
}

fn receive(mut side: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    side.read_exact(&mut bytes).expect("the bytes come");
    bytes
}

/// Everything until the end, and whether that was a reset.
fn rest(mut side: &TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    match side.read_to_end(&mut bytes) {
        Ok(_) => (bytes, false),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, true),
        Err(error) => panic!("no end: {error}"),
    }
}

#[track_caller]
fn is_silent(mut side: &TcpStream) {
    side.set_read_timeout(Some(SILENCE)).expect("is a socket");
    let read = side.read(&mut [0]);
    assert!(matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock), "{read:?}");
    side.set_read_timeout(Some(PATIENCE)).expect("is a socket");
}

#[test]
fn bytes_pass_and_an_end_passes_after_them() {
    let (proxy, _broker, mut up, mut down) = connected();
    up.write_all(&pings(50_000)).expect("there is room");
    down.write_all(&[0xd0, 0]).expect("there is room");
    assert_eq!(receive(&down, 100_000), pings(50_000));
    assert_eq!(receive(&up, 2), [0xd0, 0]);
    down.write_all(&[0xd0, 0]).expect("there is room");
    drop(down);
    assert_eq!(rest(&up), (vec![0xd0, 0], false));
    drop(up);
    wait::until_true("the connection has ended", || proxy.connected() == 0);
    let expected = Counts { connections: 1, ..Counts::default() };
    assert_eq!(proxy.counts(), expected);
}

#[test]
fn a_cut_falls_after_exactly_so_many_bytes() {
    for (how, reset) in [(Cut::Close, false), (Cut::Reset, true)] {
        let (proxy, broker, mut up, down) = connected();
        proxy.cut_after(Direction::Up, 7, how);
        up.write_all(&pings(2)).expect("there is room");
        assert_eq!(receive(&down, 4), pings(2));
        up.write_all(&pings(10)).expect("there is room");
        // A reset may take the three bytes with it.
        let (bytes, was_reset) = rest(&down);
        assert_eq!(was_reset, reset);
        assert!(reset || bytes == pings(2)[..3], "{bytes:?}");
        assert_eq!(rest(&up), (vec![], reset));
        wait::until_true("the connection has ended", || proxy.connected() == 0);
        assert_eq!(proxy.counts().cuts, 1);
        // The next connection lives.
        let (mut up, down) = connect(&proxy, &broker);
        up.write_all(&pings(10)).expect("there is room");
        assert_eq!(receive(&down, 20), pings(10));
    }
}

#[test]
fn a_cut_now_ends_all_connections_that_stand() {
    let (proxy, broker, up, down) = connected();
    let (other_up, other_down) = connect(&proxy, &broker);
    assert_eq!(proxy.cut(Cut::Close), 2);
    for side in [up, down, other_up, other_down] {
        assert_eq!(rest(&side), (vec![], false));
    }
    assert_eq!(proxy.cut(Cut::Close), 0);
    assert_eq!(proxy.counts().cuts, 2);
}

#[test]
fn a_stalled_direction_holds_and_then_passes_everything() {
    let (proxy, _broker, mut up, mut down) = connected();
    proxy.set(Direction::Up, Mode::Stall);
    up.write_all(&pings(100)).expect("there is room");
    is_silent(&down);
    down.write_all(&[0xd0, 0]).expect("there is room");
    assert_eq!(receive(&up, 2), [0xd0, 0], "the other direction passes");
    proxy.set(Direction::Up, Mode::Pass);
    assert_eq!(receive(&down, 200), pings(100));
}

#[test]
fn a_stalled_direction_fills_the_sender_s_window() {
    let (proxy, _broker, mut up, _down) = connected();
    proxy.set(Direction::Up, Mode::Stall);
    up.set_write_timeout(Some(SILENCE)).expect("is a socket");
    let chunk = pings(1 << 19);
    let full = (0..64).any(|_| up.write(&chunk).is_err());
    assert!(full, "the sender could write without end");
    assert_eq!(proxy.cut(Cut::Reset), 1, "and can be cut all the same");
}

#[test]
fn a_stall_spares_new_connections_unless_it_is_for_all() {
    let (proxy, broker, _up, _down) = connected();
    proxy.set(Direction::Up, Mode::Stall);
    let (mut up, down) = connect(&proxy, &broker);
    up.write_all(&pings(1)).expect("there is room");
    assert_eq!(receive(&down, 2), pings(1));
    proxy.set_all(Direction::Up, Mode::Stall);
    let (mut up, down) = connect(&proxy, &broker);
    up.write_all(&pings(1)).expect("there is room");
    is_silent(&down);
}

#[test]
fn a_discarded_direction_reads_and_passes_nothing() {
    let (proxy, _broker, mut up, down) = connected();
    proxy.set(Direction::Up, Mode::Discard);
    up.set_write_timeout(Some(PATIENCE)).expect("is a socket");
    up.write_all(&pings(10 << 20)).expect("the proxy reads");
    is_silent(&down);
    drop(up);
    assert_eq!(rest(&down), (vec![], false));
}

#[test]
fn a_delayed_direction_passes_later() {
    let (proxy, _broker, mut up, down) = connected();
    proxy.set(Direction::Up, Mode::Delay(SILENCE));
    let start = Instant::now();
    up.write_all(&pings(1)).expect("there is room");
    assert_eq!(receive(&down, 2), pings(1));
    assert!(start.elapsed() >= SILENCE);
}

#[test]
fn connections_are_turned_away_as_told_or_when_nobody_listens() {
    let (proxy, broker, _up, _down) = connected();
    let turned_away = |count| {
        let up = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).expect("the proxy listens");
        assert!(rest(&up).0.is_empty());
        proxy.wait(PATIENCE, "it is turned away", |counts| counts.turned_away == count);
    };
    proxy.turn_away(true);
    turned_away(1);
    proxy.turn_away(false);
    drop(broker);
    turned_away(2);
    assert_eq!(proxy.counts().connections, 1);
}

#[test]
fn messages_in_flight_at_the_end_are_counted_and_what_was_delivered_is_known() {
    use crate::client::codec;
    let (proxy, broker, mut up, mut down) = connected();
    let message = Message::new("in/a", "x");
    down.write_all(&codec::publish(Protocol::V5, 9, &message)).expect("there is room");
    let size = codec::publish(Protocol::V5, 9, &message).len();
    drop(receive(&up, size));
    wait::until_true("it is open", || proxy.open() == 1);
    up.write_all(&codec::puback(9)).expect("there is room");
    drop(receive(&down, 4));
    assert_eq!((proxy.open(), proxy.counts().acknowledged), (0, 1));
    drop((up, down));
    wait::until_true("the connection has ended", || proxy.connected() == 0);
    assert_eq!(proxy.counts().interrupted, 0);

    let (up, mut down) = connect(&proxy, &broker);
    down.write_all(&codec::publish(Protocol::V5, 1, &message)).expect("there is room");
    drop(receive(&up, size));
    drop(down);
    assert_eq!(rest(&up), (vec![], false));
    drop(up);
    wait::until_true("the connection has ended", || proxy.connected() == 0);
    assert_eq!(proxy.counts().interrupted, 1);
    assert_eq!(proxy.delivered(), [message.clone(), message]);
    assert_eq!(proxy.counts().acknowledged, 1);
    assert_eq!(proxy.violations(), Vec::<String>::new());
}
