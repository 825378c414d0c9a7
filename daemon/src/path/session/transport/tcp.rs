//! A TCP connection to a host name or address.
//!
//! Owns: the look-up of the name and the race of its addresses. Fed by the configured address; gives a connected socket.
//! A dead address, an IPv6 one without a route for instance, delays the next by a fraction of a second only: each is
//! tried beside those before it (RFC 8305), and the first that answers is taken.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::path::session::failure::{Failure, shortened};

/// How long the look-up and the addresses may take together: the rest of the connect deadline is for what follows.
pub(super) const TCP_DEADLINE: Duration = Duration::from_secs(10);

/// How long an address has before the next is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first address of `host` that answers, without Nagle's algorithm.
///
/// # Errors
/// The name is not found, or none of its addresses answers within [`TCP_DEADLINE`].
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, Failure> {
    let deadline = Instant::now() + TCP_DEADLINE;
    let not_found = |detail: &str| Failure::HostNotFound { host: host.to_owned(), detail: shortened(detail) };
    let addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            // The standard library's words before the resolver's own.
            let text = error.to_string();
            return Err(not_found(text.strip_prefix("failed to lookup address information: ").unwrap_or(&text)));
        }
        Err(_) => return Err(not_found(&format!("no answer to the look-up within {} s", TCP_DEADLINE.as_secs()))),
    };
    if addresses.is_empty() {
        return Err(not_found("it has no address"));
    }
    let stream = match timeout_at(deadline, race(addresses)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(told(&error)),
        Err(_) => return Err(Failure::Unreachable(format!("no answer within {} s", TCP_DEADLINE.as_secs()))),
    };
    stream.set_nodelay(true).map_err(|error| told(&error))?;
    Ok(stream)
}

/// The first connection that comes about; the others are given up. Cancellation safe.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failed: Option<io::Error> = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let ended = tokio::select! {
            Some(ended) = attempts.join_next() => ended,
            () = sleep(HEAD_START), if waiting.len() > 0 => continue,
            else => return Err(failed.unwrap_or_else(|| ErrorKind::NotFound.into())),
        };
        match ended.map_err(io::Error::other).flatten() {
            Ok(stream) => return Ok(stream),
            // An address without a route says less than one whose host has answered.
            Err(error) if failed.as_ref().is_none_or(is_unreachable) => failed = Some(error),
            Err(_) => {}
        }
    }
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::TimedOut
            // The kernel has no IPv6.
            | ErrorKind::Unsupported
    )
}

/// Why a socket has no connection.
fn told(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::ConnectionRefused,
        _ if is_unreachable(error) => Failure::Unreachable(shortened(&error.to_string())),
        _ => Failure::Network(shortened(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        (listener, address)
    }

    /// An address that nothing listens on, and that nobody else gets before the test's end.
    fn closed() -> (tokio::net::TcpSocket, SocketAddr) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback has a free port");
        let address = socket.local_addr().expect("it is bound");
        (socket, address)
    }

    #[tokio::test]
    async fn a_name_and_an_address_are_connected_without_delay_of_small_packets() {
        let (_listener, address) = listener();
        for host in ["127.0.0.1", "localhost"] {
            let stream = connect(host, address.port()).await.expect("it listens");
            assert!(stream.nodelay().expect("an open socket"), "{host}");
        }
    }

    #[tokio::test]
    async fn an_ipv6_literal_is_connected() {
        let listener = TcpListener::bind("[::1]:0").expect("loopback has a free port");
        connect("::1", listener.local_addr().expect("it is bound").port()).await.expect("it listens");
    }

    #[tokio::test]
    async fn a_closed_port_and_an_unknown_name_are_told_apart() {
        let (_held, address) = closed();
        assert_eq!(connect("127.0.0.1", address.port()).await.err(), Some(Failure::ConnectionRefused));
        let failure = connect("no-such-host.invalid", 1883).await.err();
        assert!(
            matches!(&failure, Some(Failure::HostNotFound { host, detail })
            if host == "no-such-host.invalid" && !detail.contains("failed to lookup")),
            "{failure:?}"
        );
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next_at_once() {
        let ((_held, refusing), (_listener, good)) = (closed(), listener());
        let begun = Instant::now();
        let mut addresses = vec![refusing; 100];
        addresses.push(good);
        let stream = race(addresses).await.expect("the last one listens");
        assert_eq!(stream.peer_addr().expect("is connected"), good);
        assert!(begun.elapsed() < HEAD_START * 20, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn an_address_that_never_answers_delays_the_next_by_its_head_start_only() {
        // A listener whose queue is full leaves SYN packets unanswered.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback has a free port");
        let deaf = socket.listen(1).expect("it is bound");
        let silent = deaf.local_addr().expect("it is bound");
        let mut fillers = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(HEAD_START * 4, TcpStream::connect(silent)).await {
            fillers.push(stream);
        }
        let (_listener, good) = listener();
        let stream = tokio::time::timeout(TCP_DEADLINE, race(vec![silent, good])).await.expect("in time");
        assert_eq!(stream.expect("the second one listens").peer_addr().expect("is connected"), good);
    }

    #[tokio::test]
    async fn of_several_failures_the_one_that_says_most_is_told() {
        let (_held, refusing) = closed();
        // Port 0 of the multicast range has no host behind it.
        let unreachable: SocketAddr = "[ff05::1]:1".parse().expect("an address");
        for order in [vec![unreachable, refusing], vec![refusing, unreachable]] {
            assert_eq!(race(order).await.expect_err("nothing listens").kind(), ErrorKind::ConnectionRefused);
        }
    }
}
