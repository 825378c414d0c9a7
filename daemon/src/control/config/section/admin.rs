//! `[admin]`: where the admin plane is reached, and with which token.
//!
//! Rules: an address that others reach needs a token, a Unix socket's path has little room. What is in the token file
//! counts at each request, and is read there; here it is only warned of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::path;
use crate::control::admin::token::{self, TokenFileError};
use crate::control::config::model::Admin;
use crate::control::config::reader::{Table, Value};

/// The port that remedies recommend for `listen`.
const USUAL_PORT: u16 = 9883;

/// `socket` unless given, in the state directory.
const SOCKET: &str = "admin.sock";

/// Rights of others than the owner.
const OTHERS: u32 = 0o077;

/// What `[admin]` says; all of it has defaults.
pub(super) fn read(value: Option<&Value<'_>>, state_dir: &Path) -> Admin {
    let given = value.and_then(|value| value.table("[admin]", |table| keys(table, state_dir)));
    given.unwrap_or_else(|| Admin { socket: state_dir.join(SOCKET), listen: None, token_file: None })
}

fn keys(table: &Table<'_>, state_dir: &Path) -> Admin {
    let token_file = table.get("token-file");
    let listens = table.get("listen");
    if let (Some(token_file), None) = (&token_file, &listens) {
        token_file.warn("nothing asks for a token: the socket needs none", "remove it, or add listen");
    }
    Admin {
        socket: table.get("socket").and_then(|value| socket(&value)).unwrap_or_else(|| state_dir.join(SOCKET)),
        listen: listens.and_then(|value| listen(&value, token_file.is_some())),
        token_file: token_file.and_then(|value| token_path(&value)),
    }
}

fn socket(value: &Value<'_>) -> Option<PathBuf> {
    let path = path(value)?;
    if std::os::unix::net::SocketAddr::from_pathname(&path).is_err() {
        let bytes = path.as_os_str().len();
        value.error(
            format!("a path of {bytes} bytes: more than the address of a Unix socket can hold"),
            "use a shorter one, such as \"/run/tidegate/admin.sock\"",
        );
        return None;
    }
    Some(path)
}

fn token_path(value: &Value<'_>) -> Option<PathBuf> {
    let path = path(value)?;
    // No errors: the right content may be written later, since it is read at each request.
    match token::read(&path) {
        Ok(_) => {}
        Err(TokenFileError::Unreadable(_)) => value.warn(
            "cannot be read: no token opens the admin plane",
            format!("write a token of at least {} characters into it, readable for the daemon", token::LEAST),
        ),
        Err(TokenFileError::NoToken) => value.warn(
            "holds no token: none opens the admin plane",
            format!("write one line of {} to {} visible ASCII characters into it", token::LEAST, token::MOST),
        ),
    }
    if path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & OTHERS != 0) {
        value.warn("others than its owner may read or change it", "make it private (chmod 600)");
    }
    Some(path)
}

fn listen(value: &Value<'_>, has_token: bool) -> Option<SocketAddr> {
    if value.as_written().is_none() {
        value.wrong_type("a string", format!("use \"127.0.0.1:{USUAL_PORT}\""));
        return None;
    }
    let text = value.text()?;
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        let port = text.value.rsplit(':').next().filter(|_| !text.hidden);
        let port = port.and_then(|port| port.parse::<u16>().ok()).unwrap_or(USUAL_PORT);
        value.error("not an IP address with a port", format!("use \"127.0.0.1:{port}\""));
        return None;
    };
    if !address.ip().to_canonical().is_loopback() && !has_token {
        let port = if text.hidden { USUAL_PORT } else { address.port() };
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        value.error(
            "not a loopback address: whoever reaches it needs no token",
            format!("use \"{local}\", or add token-file"),
        );
        return None;
    }
    Some(address)
}
