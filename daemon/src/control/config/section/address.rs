//! `address`: an IP address or a host name, and what to write instead of the many other ways to name a broker.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::control::config::reader::Value;

/// Longest host name (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;

/// Longest label of a host name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// Checks an address.
pub(super) fn read(value: &Value<'_>) -> Option<String> {
    // A user name may have a password behind it.
    let value =
        if value.as_written().is_some_and(|text| text.contains('@')) { value.clone().secret() } else { value.clone() };
    let text = value.text()?;
    match check(&text.value) {
        Ok(()) => Some(text.value),
        Err((message, remedy)) => {
            // What came from outside the file is not repeated.
            value
                .error(message, if text.hidden { "use a host name or an IP address alone".to_owned() } else { remedy });
            None
        }
    }
}

type Mistake = (&'static str, String);

fn check(text: &str) -> Result<(), Mistake> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(prefixed(scheme, rest));
    }
    if text.is_empty() {
        return Err(("must not be empty", "use a host name or an IP address".to_owned()));
    }
    if text.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) || text.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    let (host, port) = split(text);
    if text.starts_with('[') {
        return Err(("has brackets", written(host, port)));
    }
    if let Some((_, host)) = text.rsplit_once('@') {
        return Err(("has a user name", format!("use \"{}\" and username = \"…\"", split(host).0)));
    }
    if let Some((host, _)) = text.split_once('/') {
        return Err(("has a path", format!("use \"{}\"", split(host).0)));
    }
    if port.is_some() {
        return Err(("has a port", written(host, port)));
    }
    check_host(text)
}

/// Why `SCHEME://REST` is wrong.
fn prefixed(scheme: &str, rest: &str) -> Mistake {
    let authority = rest.split('/').next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = split(authority);
    const MESSAGE: &str = "must not have a prefix: a name or address alone";
    let also = match scheme.to_ascii_lowercase().as_str() {
        "ssl" | "tls" | "mqtts" => &["tls = true"][..],
        "ws" | "http" => &["transport = \"websocket\""],
        "wss" | "https" => &["tls = true", "transport = \"websocket\""],
        _ => &[],
    };
    let port = port.map(|port| format!("port = {port}"));
    let keys: Vec<&str> = port.as_deref().into_iter().chain(also.iter().copied()).collect();
    let remedy = match keys.as_slice() {
        [] => format!("use \"{host}\""),
        [one] => format!("use \"{host}\" and {one}"),
        [others @ .., last] => format!("use \"{host}\", {} and {last}", others.join(", ")),
    };
    (MESSAGE, remedy)
}

fn written(host: &str, port: Option<&str>) -> String {
    match port {
        Some(port) => format!("use \"{host}\" and port = {port}"),
        None => format!("use \"{host}\""),
    }
}

/// Host and port of `HOST`, `HOST:PORT`, `[IPV6]` and `[IPV6]:PORT`.
fn split(text: &str) -> (&str, Option<&str>) {
    let numeric = |port: &&str| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').filter(numeric));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && numeric(&port) => (host, Some(port)),
        _ => (text, None),
    }
}

fn check_host(host: &str) -> Result<(), Mistake> {
    const REMEDY: &str = "use a host name such as \"mqtt.example\" or an IP address";
    if !host.is_ascii() {
        return Err(("not a host name in ASCII", "use its form with \"xn--\"".to_owned()));
    }
    if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(("not an IPv4 address", "use four numbers from 0 to 255, such as \"192.0.2.1\"".to_owned()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.chars().all(allowed);
    // A dot at the end marks a name that is not to be searched for in the local domain.
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > MAX_HOST || !name.split('.').all(label) {
        return Err(("not a host name or IP address", REMEDY.to_owned()));
    }
    Ok(())
}
