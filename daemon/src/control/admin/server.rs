//! Connections of the admin plane: how many, how long, and their end.
//!
//! Owns: the tasks that accept and serve, and the limits that need a socket to be held. HTTP/1.1 by hyper itself, whose server
//! takes these limits. Knows nothing of what is served.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::gate::Peer;
use super::limits;
use super::pace::Pace;
use super::socket::AdminSocket;
use super::stall::Stalling;

/// After a failed accept, where the system has no more sockets: until the next one.
const PAUSE: Duration = Duration::from_millis(100);

/// A client's socket of either kind.
type Stream = Either<UnixStream, TcpStream>;

/// Where clients come in.
enum Listener {
    Socket(AdminSocket),
    Tcp(TcpListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Socket(socket) => {
                let (stream, _) = socket.listener().accept().await?;
                Ok((Either::Left(stream), Peer::Socket))
            }
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Either::Right(stream), Peer::Tcp(address)))
            }
        }
    }
}

/// What is served, and until when.
#[derive(Clone)]
pub(super) struct Server {
    app: Router,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    pub(super) fn new(app: Router, stop: CancellationToken) -> Server {
        Server { app, connections: TaskTracker::new(), stop }
    }

    /// Serves both listeners until the stop, and then until the requests that have begun are answered.
    pub(super) async fn serve(self, socket: AdminSocket, tcp: Option<TcpListener>) {
        let local = self.listen(limits::SOCKET_CONNECTIONS, Listener::Socket(socket));
        let remote = async {
            if let Some(tcp) = tcp {
                self.listen(limits::TCP_CONNECTIONS, Listener::Tcp(tcp)).await;
            }
        };
        // Each listener is closed at its end, so that the next daemon finds neither in use.
        tokio::join!(local, remote);
        self.connections.close();
        self.connections.wait().await;
    }

    /// Accepts connections, at most so many at the same time, until the stop.
    async fn listen(&self, most: usize, listener: Listener) {
        let slots = Arc::new(Semaphore::new(most));
        let mut failing = false;
        loop {
            // A slot first: what cannot be served is not accepted.
            let accepting = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                accepted = accepting => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    failing = false;
                    let server = self.clone();
                    self.connections.spawn(async move {
                        server.connection(stream, peer).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "a connection to the admin plane cannot be accepted");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves one connection.
    async fn connection(&self, stream: Stream, peer: Peer) {
        let app = TowerToHyperService::new(self.app.clone());
        let pace = Pace::new();
        let answers = pace.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(answers.clone());
            app.call(request)
        });
        let stream = TokioIo::new(Stalling::new(stream, limits::STALL_TIME));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEADER_TIME)
            .max_buf_size(limits::HEADER_BYTES)
            .serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        let serving = async {
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = self.stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        let ended = tokio::select! {
            ended = serving => ended,
            () = pace.overrun() => {
                tracing::debug!(?peer, "a client of the admin plane takes its answer too slowly");
                return;
            }
        };
        if let Err(error) = ended {
            // Clients go whenever they like, and send what they like.
            tracing::debug!(?peer, %error, "a connection to the admin plane has ended");
        }
    }
}
