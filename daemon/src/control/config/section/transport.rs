//! `tls` and `transport` of a broker: how its bytes travel.
//!
//! Looks at the files that `tls` names: one that is not there yet is a warning, since it is read at each connect; one whose
//! content can never work is an error.

use std::num::NonZeroU16;
use std::path::Path;

use rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::path;
use crate::control::config::certificates::{CertificateFileError, PemFile, Role, certified_key, host_in_certificates};
use crate::control::config::model::{Identity, Tls, Transport};
use crate::control::config::reader::{Table, Value};

/// The registered ports of MQTT, without and with TLS.
const PLAIN_PORT: NonZeroU16 = NonZeroU16::new(1883).expect("not zero");
const TLS_PORT: NonZeroU16 = NonZeroU16::new(8883).expect("not zero");

/// Path of a WebSocket, where most brokers have it.
const PATH: &str = "/mqtt";

/// Longest name of a protocol (RFC 7301 §3.1: a one-byte length).
const MAX_ALPN: usize = 255;

const TLS_EXAMPLE: &str = "true, or { ca = \"FILE\", … }";
const TRANSPORT_EXAMPLE: &str = "{ kind = \"websocket\", path = \"/mqtt\" }";

/// How a broker is reached.
pub(super) struct Reach {
    pub(super) port: NonZeroU16,
    pub(super) tls: Option<Tls>,
    pub(super) transport: Transport,
}

/// Reads `port`, `tls` and `transport`, whose defaults and meanings depend on each other.
pub(super) fn read(table: &Table<'_>, port: Option<NonZeroU16>, address: Option<&str>) -> Reach {
    let tls = table.get("tls").and_then(|value| tls(&value, address));
    let transport = table.get("transport").map_or(Transport::Tcp, |value| transport(&value));
    // Also where its value is wrong, so that one mistake is told once.
    let wanted = table.get("tls").is_some_and(|value| !matches!(value.raw(), DeValue::Boolean(false)));
    let usual = if wanted { TLS_PORT } else { PLAIN_PORT };
    match (table.get("port"), table.get("transport")) {
        (Some(value), _) if wanted && port == Some(PLAIN_PORT) => {
            value.warn("the usual port without TLS, and tls is on", "use 8883, or remove tls");
        }
        (Some(value), _) if !wanted && port == Some(TLS_PORT) => {
            value.warn("the usual port with TLS, and tls is off", "add tls = true");
        }
        (None, Some(value)) if transport != Transport::Tcp => value.warn(
            format!("no port is given, and the default, {usual}, is rarely a WebSocket's"),
            "add port = NUMBER, the broker's port for WebSocket",
        ),
        _ => {}
    }
    Reach { port: port.unwrap_or(usual), tls, transport }
}

/// `true`, `false` or a table, which turns it on.
fn tls(value: &Value<'_>, address: Option<&str>) -> Option<Tls> {
    let tls = match value.raw() {
        DeValue::Boolean(_) => value.boolean()?.then(Tls::default)?,
        DeValue::Table(_) => value.table(TLS_EXAMPLE, tls_table)?,
        _ => {
            value.wrong_type("a boolean or a table", format!("use {TLS_EXAMPLE}"));
            return None;
        }
    };
    let verifiable = |address: &str| ServerName::try_from(host_in_certificates(address)).is_ok();
    if tls.server_name.is_none() && !address.is_none_or(verifiable) {
        value.error("the address is no name that a certificate can have", "add server-name = \"NAME\" to tls");
    }
    Some(tls)
}

fn tls_table(table: &Table<'_>) -> Tls {
    let server_name = table.get("server-name").and_then(|value| server_name(&value));
    let insecure = table.get("insecure-skip-verify");
    let insecure_skip_verify = insecure.as_ref().and_then(Value::boolean).unwrap_or(false);
    if let Some(value) = insecure.filter(|_| insecure_skip_verify) {
        value.warn(
            "nobody verifies that this is the broker: who can intercept the connection can read and change everything",
            "remove it, and name the CA that signed the broker's certificate in ca",
        );
    }
    Tls {
        ca: table.get("ca").and_then(|value| {
            let path = path(&value)?;
            pem_file(&value, Role::Ca, &path).map(|file| told(&value, file.certificates()));
            Some(path)
        }),
        identity: identity(table),
        alpn: table.get("alpn").map(|value| alpn(&value)).unwrap_or_default(),
        server_name,
        insecure_skip_verify,
    }
}

/// `certificate` and `key`: both or neither.
fn identity(table: &Table<'_>) -> Option<Identity> {
    let (certificate, key) = match (table.get("certificate"), table.get("key")) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(certificate), None) => {
            certificate.error("a certificate without its key", "add key = \"FILE\"");
            return None;
        }
        (None, Some(key)) => {
            key.error("a key without its certificate", "add certificate = \"FILE\"");
            return None;
        }
        (None, None) => return None,
    };
    let identity = Identity { certificate: path(&certificate)?, key: path(&key)? };
    let files =
        (pem_file(&certificate, Role::Certificate, &identity.certificate), pem_file(&key, Role::Key, &identity.key));
    let chain_is_good = files.0.as_ref().is_some_and(|file| told(&certificate, file.certificates()).is_some());
    let key_is_good = files.1.as_ref().is_some_and(|file| told(&key, file.key()).is_some());
    if let (Some(chain_file), Some(key_file), true, true) = (&files.0, &files.1, chain_is_good, key_is_good) {
        told(&key, certified_key(chain_file, key_file));
    }
    Some(identity)
}

/// A file that can be read now. One that cannot may be written later, or be readable for the daemon's user alone.
fn pem_file(value: &Value<'_>, role: Role, path: &Path) -> Option<PemFile> {
    if !path.exists() {
        value.warn("there is no such file yet", "write it before the daemon connects");
        return None;
    }
    match PemFile::read(role, path) {
        Ok(file) => Some(file),
        Err(CertificateFileError::Unreadable { cause, .. }) => {
            value.warn(format!("the file cannot be read now: {cause}"), "let the daemon's user read it");
            None
        }
        Err(other) => told(value, Err(other)),
    }
}

/// Reports a bad file.
fn told<T>(value: &Value<'_>, result: Result<T, CertificateFileError>) -> Option<T> {
    let report = |error: CertificateFileError| match error {
        // The value is the path already.
        CertificateFileError::Content { fault, .. } => value.error_told(&format!("the file {fault}")),
        unreadable => value.error_told(&unreadable.to_string()),
    };
    result.map_err(report).ok()
}

fn server_name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?.value;
    if ServerName::try_from(text.as_str()).is_err() {
        value.error("not a host name or IP address", "use a name that the broker's certificate has");
        return None;
    }
    Some(text)
}

fn alpn(value: &Value<'_>) -> Vec<String> {
    let items = value.items("[\"mqtt\"]").unwrap_or_default();
    let names = items.iter().filter_map(|item| {
        let name = item.text()?.value;
        if !(1..=MAX_ALPN).contains(&name.len()) {
            item.error(format!("must have 1 to {MAX_ALPN} bytes (RFC 7301 §3.1)"), "use a name such as \"mqtt\"");
            return None;
        }
        Some(name)
    });
    names.collect()
}

/// `"tcp"`, `"websocket"` or a table.
fn transport(value: &Value<'_>) -> Transport {
    let kind = |value: &Value<'_>| value.choice(&[("tcp", Kind::Tcp), ("websocket", Kind::WebSocket)]);
    if !matches!(value.raw(), DeValue::Table(_)) {
        return match kind(value) {
            Some(Kind::WebSocket) => Transport::WebSocket { path: PATH.to_owned() },
            Some(Kind::Tcp) | None => Transport::Tcp,
        };
    }
    let read = |table: &Table<'_>| {
        let kind = table.require("kind", || "add kind = \"websocket\"".to_owned()).and_then(|value| kind(&value));
        let path = table.get("path");
        match (kind, path) {
            (Some(Kind::WebSocket), path) => {
                let path = path.and_then(|value| web_socket_path(&value));
                Transport::WebSocket { path: path.unwrap_or_else(|| PATH.to_owned()) }
            }
            (Some(Kind::Tcp), Some(path)) => {
                path.error("only a WebSocket has a path", "remove it, or use kind = \"websocket\"");
                Transport::Tcp
            }
            _ => Transport::Tcp,
        }
    };
    value.table(TRANSPORT_EXAMPLE, read).unwrap_or(Transport::Tcp)
}

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    WebSocket,
}

/// The part of a URL after host and port (RFC 3986 §3.3 and §3.4), which goes into an HTTP request as it is.
fn web_socket_path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?.value;
    if !text.starts_with('/') {
        value.error("does not begin with \"/\"", "use the path alone, such as \"/mqtt\"");
        return None;
    }
    if !text
        .chars()
        .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' | '#'))
    {
        value.error("has a character that a URL cannot have", "write it as %XX, its bytes in hexadecimal");
        return None;
    }
    Some(text)
}
