//! What every request passes: the limit of its time, the decision whether it may, and the headers of its answer.
//!
//! Collects the facts for `access.rs`, which decides; reads the token file for those that bring a token.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::{Asked, From, Token, decide};
use super::problem::HttpError;
use super::{limits, token};
use crate::telemetry::metrics::{AdminMeters, AdminRefusal};
use crate::telemetry::occasional::Occasional;

/// Where a connection comes from; each of its requests carries it.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// The Unix socket.
    Socket,
    /// TCP, from this address.
    Tcp(SocketAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Socket => f.write_str("socket"),
            Peer::Tcp(address) => address.fmt(f),
        }
    }
}

/// Between two warnings of refused requests with the same reason: whoever tries tokens, or a program without one, tries often.
const REFUSAL_SAID: Duration = Duration::from_secs(60);

/// Characters of a refused request's path that are logged: its sender decides how long it is.
const PATH_SAID: usize = 100;

/// Where a proxy says whom it speaks for.
const FORWARDED: [HeaderName; 4] =
    [header::FORWARDED, header::VIA, HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-real-ip")];

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The daemon's token, and what is said of those that are refused.
pub struct Gate {
    token_file: Option<Arc<Path>>,
    /// The token file was of no use when it was last read; that was said.
    useless: AtomicBool,
    meters: AdminMeters,
    /// By [`AdminRefusal`].
    said: [Occasional; AdminRefusal::ALL.len()],
}

impl Gate {
    /// The gate whose token is in this file.
    pub fn new(token_file: Option<&Path>, meters: AdminMeters) -> Gate {
        let said = AdminRefusal::ALL.map(|_| Occasional::every(REFUSAL_SAID));
        Gate { token_file: token_file.map(Arc::from), useless: AtomicBool::new(false), meters, said }
    }

    /// Counts a request that may not, and says so now and then.
    fn refused(&self, peer: Peer, request: &Parts, error: &HttpError) {
        let Some(reason) = reason(error) else { return };
        self.meters.refused(reason);
        if let Some(unsaid) = self.said[reason as usize].due() {
            let path: String = request.uri.path().chars().take(PATH_SAID).collect();
            let (method, reason) = (&request.method, reason.label());
            tracing::warn!(%peer, %method, path, reason, unsaid, "a request was refused");
        }
    }

    /// What the request brings, held against the file as it is now.
    async fn token(&self, headers: &HeaderMap) -> Result<Token, HttpError> {
        let Some(file) = &self.token_file else { return Ok(Token::Unknown) };
        let Some(authorization) = single(headers, &header::AUTHORIZATION) else { return Ok(Token::Missing) };
        let Some((scheme, brought)) = authorization.split_once(' ') else { return Ok(Token::Wrong) };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Token::Wrong);
        }
        let path = Arc::clone(file);
        let read = tokio::task::spawn_blocking(move || token::read(&path)).await;
        match read.map_err(|error| HttpError::Defect(error.to_string()))? {
            Ok(expected) => {
                self.useless.store(false, Ordering::Relaxed);
                let right = token::same(&expected, brought.trim_start().as_bytes());
                Ok(if right { Token::Right } else { Token::Wrong })
            }
            Err(error) => {
                if !self.useless.swap(true, Ordering::Relaxed) {
                    tracing::error!(file = %file.display(), %error, "admin.token-file is of no use");
                }
                Err(HttpError::TokenFile)
            }
        }
    }

    async fn admit(&self, peer: Peer, request: &Parts) -> Result<(), HttpError> {
        let headers = &request.headers;
        let from = match peer {
            Peer::Socket => From::Socket,
            Peer::Tcp(address) => {
                let local = address.ip().to_canonical().is_loopback();
                let direct = !FORWARDED.iter().any(|name| headers.contains_key(name));
                if local && direct { From::Loopback } else { From::Elsewhere }
            }
        };
        let token = match from {
            From::Socket => Token::Unknown,
            From::Loopback | From::Elsewhere => self.token(headers).await?,
        };
        // The request's target counts where it names the host (RFC 9112 §3.2.2).
        let authority = request.uri.authority().map(|authority| authority.as_str());
        decide(&Asked {
            from,
            reads: matches!(request.method, Method::GET | Method::HEAD),
            liveness: request.uri.path() == "/healthz",
            token,
            host: authority.or_else(|| single(headers, &header::HOST)),
            origin: single(headers, &header::ORIGIN),
            site: single(headers, &SITE),
        })
    }
}

/// Why a request may not; none where something else is in its way.
fn reason(error: &HttpError) -> Option<AdminRefusal> {
    match error {
        HttpError::WrongToken => Some(AdminRefusal::WrongToken),
        HttpError::TokenMissing => Some(AdminRefusal::TokenMissing),
        HttpError::ReadOnly | HttpError::OnlyLocal => Some(AdminRefusal::NoToken),
        HttpError::CrossSite => Some(AdminRefusal::CrossSite),
        HttpError::StrangeHost => Some(AdminRefusal::Host),
        _ => None,
    }
}

/// A header's value; empty, which no header that is looked at here may be, where there are several or it is no text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    match values.next() {
        None => Some(first.to_str().unwrap_or_default()),
        Some(_) => Some(""),
    }
}

/// Lets a request through, or answers in its place.
pub async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let answer = async {
        let Some(peer) = request.extensions().get::<Peer>().copied() else {
            return HttpError::Defect("a connection of unknown origin".to_owned()).into_response();
        };
        let (parts, body) = request.into_parts();
        match gate.admit(peer, &parts).await {
            Ok(()) => next.run(Request::from_parts(parts, body)).await,
            Err(error) => {
                gate.refused(peer, &parts, &error);
                error.into_response()
            }
        }
    };
    let mut response = match tokio::time::timeout(limits::REQUEST_TIME, answer).await {
        Ok(response) => response,
        Err(_) => HttpError::TooSlow.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
