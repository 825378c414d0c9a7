//! The admin plane: the HTTP API, and the pages for machines that watch the daemon.
//!
//! ```text
//! socket, server ──> gate (access, token) ──> api (operations, streams), pages
//! ```
//! Fed by requests on the Unix socket and over TCP; feeds the gateway's operations. It owns no state of the gateway, and what
//! its clients may take is bounded (`limits`).

mod access;
pub mod api;
mod extract;
mod gate;
pub mod limits;
mod pace;
mod pages;
mod problem;
pub mod received;
pub mod resource;
mod server;
mod socket;
mod stall;
#[cfg(test)]
mod tests;
pub(in crate::control) mod token;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::api::Api;
use self::gate::Gate;
pub use self::pages::Pages;
use self::problem::HttpError;
use self::server::Server;
use self::socket::AdminSocket;
pub use self::socket::SocketError;
use crate::control::config::model;

/// Why the admin plane cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken or not ours.
    #[error("admin.listen = {address} cannot be used, choose another port")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The socket is taken, or cannot be made.
    #[error("admin.socket = {} cannot be used", .path.display())]
    Socket {
        /// As configured.
        path: PathBuf,
        /// What is in the way.
        source: SocketError,
    },
}

/// The server, bound and not yet serving.
pub struct Admin {
    socket: AdminSocket,
    tcp: Option<(TcpListener, SocketAddr)>,
    token_file: Option<PathBuf>,
}

impl Admin {
    /// Takes the socket and the address, so that a start fails where one is in use.
    ///
    /// # Errors
    /// One of the two cannot be bound.
    pub async fn bind(config: &model::Admin) -> Result<Admin, AdminError> {
        let refused = |source| AdminError::Socket { path: config.socket.clone(), source };
        let socket = AdminSocket::bind(&config.socket).await.map_err(refused)?;
        let tcp = match config.listen {
            None => None,
            Some(address) => {
                let refused = |source| AdminError::Listen { address, source };
                let listener = TcpListener::bind(address).await.map_err(refused)?;
                let bound = listener.local_addr().map_err(refused)?;
                Some((listener, bound))
            }
        };
        Ok(Admin { socket, tcp, token_file: config.token_file.clone() })
    }

    /// The bound TCP address, with the port that the system chose where port 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, address)| *address)
    }

    /// Serves until `stop`, then finishes the requests that it has begun.
    pub async fn serve(self, pages: Pages, api: Api, stop: CancellationToken) {
        let gate = Gate::new(self.token_file.as_deref(), pages.metrics.admin());
        let app = gated(pages.routes().merge(api.routes()), gate);
        Server::new(app, stop).serve(self.socket, self.tcp.map(|(listener, _)| listener)).await;
    }
}

/// The routes behind the gate; what they do not know is told as a problem too.
fn gated(routes: Router, gate: Gate) -> Router {
    routes
        .fallback(|| async { HttpError::NoPath })
        .method_not_allowed_fallback(|| async { HttpError::Method })
        .layer(from_fn_with_state(Arc::new(gate), gate::pass))
}
