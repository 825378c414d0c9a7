//! Where the daemon is: the options that every command which needs it has, and what they mean.
//!
//! The command line comes before the environment, and both before the configuration.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Uri;
use hyper::http::uri::Scheme;

use super::Failure;
use crate::control::config::{self, secret::Secret};

/// The port of `http://HOST`.
const HTTP_PORT: u16 = 80;

const SOCKET: &str = "TIDEGATE_SOCKET";
const URL: &str = "TIDEGATE_URL";
const TOKEN_FILE: &str = "TIDEGATE_TOKEN_FILE";

/// Where the help tells these options.
const HEADING: &str = "Reaching the daemon";

/// How the daemon is reached, without the configuration that tells it.
#[derive(Args, Clone, Debug, Default)]
pub struct Place {
    /// Its Unix socket [env: TIDEGATE_SOCKET] [default: the one of its configuration]
    #[arg(long, value_name = "PATH", global = true, help_heading = HEADING)]
    socket: Option<PathBuf>,
    /// Its HTTP address, such as http://127.0.0.1:9883 [env: TIDEGATE_URL]
    #[arg(long, value_name = "URL", global = true, help_heading = HEADING)]
    url: Option<String>,
    /// The file with the token that changes over HTTP need [env: TIDEGATE_TOKEN_FILE]
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    token_file: Option<PathBuf>,
}

/// How the daemon is reached.
#[derive(Args, Clone, Debug, Default)]
pub struct Connection {
    #[command(flatten)]
    place: Place,
    /// Its configuration file, for its socket [default: ./tidegate.toml, then /etc/tidegate/tidegate.toml]
    #[arg(short = 'c', value_name = "FILE", global = true, help_heading = HEADING)]
    daemon_config: Option<PathBuf>,
}

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Socket(PathBuf),
    /// TCP.
    Http {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// As the URL has them, for the Host header.
        authority: String,
        /// What `--token-file` holds.
        token: Option<Secret>,
    },
}

impl Place {
    /// Whether an option tells it.
    pub fn is_named(&self) -> bool {
        self.socket.is_some() || self.url.is_some()
    }

    /// With what else tells it by default.
    pub fn connection(&self) -> Connection {
        Connection { place: self.clone(), daemon_config: None }
    }
}

impl Connection {
    /// Where the daemon is, by these options, else by the environment, else by the configuration.
    ///
    /// # Errors
    /// Two places are named, the URL cannot be used, the token file cannot be read, or no configuration tells the socket.
    pub fn endpoint(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Endpoint, Failure> {
        let token_file =
            || self.place.token_file.clone().or_else(|| variable(environment, TOKEN_FILE).map(PathBuf::from));
        match (&self.place.socket, &self.place.url) {
            (Some(_), Some(_)) => return wrong("--socket and --url name two places; give one of them"),
            (Some(socket), None) => return Ok(Endpoint::Socket(socket.clone())),
            (None, Some(url)) => return http("--url", url, token_file()),
            (None, None) => {}
        }
        if self.daemon_config.is_none() {
            match (variable(environment, SOCKET), variable(environment, URL)) {
                (Some(_), Some(_)) => return wrong(format!("{SOCKET} and {URL} name two places; unset one of them")),
                (Some(socket), None) => return Ok(Endpoint::Socket(socket.into())),
                (None, Some(url)) => return http(URL, &url.to_string_lossy(), token_file()),
                (None, None) => {}
            }
        }
        configured(self.daemon_config.as_deref()).map(Endpoint::Socket)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Socket(path) => write!(f, "{}", path.display()),
            Endpoint::Http { authority, .. } => write!(f, "http://{authority}"),
        }
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::WrongUse(text.into()))
}

/// A variable that is set to something.
fn variable(environment: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Option<OsString> {
    environment(name).filter(|value| !value.is_empty())
}

/// The socket of a daemon that runs with this configuration.
fn configured(named: Option<&Path>) -> Result<PathBuf, Failure> {
    match named {
        // A mistake in it is no reason not to talk to a daemon that runs, but a wrong name is.
        Some(file) if !file.exists() => {
            wrong(format!("-c {}: there is no such file; name the daemon's", file.display()))
        }
        Some(file) => Ok(config::socket(file)),
        None => Ok(config::socket(&config::default_file())),
    }
}

fn http(option: &str, url: &str, token_file: Option<PathBuf>) -> Result<Endpoint, Failure> {
    const EXAMPLE: &str = "use http://HOST:PORT";
    let Ok(uri) = url.parse::<Uri>() else { return wrong(format!("{option} {url:?} is not a URL; {EXAMPLE}")) };
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return wrong(format!("{option} {url:?} is not complete; {EXAMPLE}"));
    };
    if *scheme == Scheme::HTTPS {
        return wrong(format!(
            "{option} {url:?}: TLS is not spoken here; forward a port of this machine to the daemon's, as with \
             `ssh -L 9883:127.0.0.1:9883 HOST`, and use http://127.0.0.1:9883"
        ));
    }
    if *scheme != Scheme::HTTP {
        return wrong(format!("{option} {url:?} is not HTTP; {EXAMPLE}"));
    }
    if authority.as_str().contains('@') {
        return wrong(format!("{option} has a user in it; {EXAMPLE}, and give the token with --token-file"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return wrong(format!("{option} {url:?} has a path; {EXAMPLE}"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(HTTP_PORT);
    let token = token_file.map(|file| token(&file)).transpose()?;
    Ok(Endpoint::Http { host, port, authority: authority.to_string(), token })
}

/// The token in a file, without the newline at its end.
fn token(file: &Path) -> Result<Secret, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::WrongUse(format!("the token file {}: {error}; name a file that you may read", file.display()))
    })?;
    let token = text.trim_end_matches(['\n', '\r']);
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        // The content is a secret, so it is not repeated.
        return wrong(format!(
            "the token file {} holds no token: one line of visible ASCII characters; name the daemon's admin.token-file",
            file.display()
        ));
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(socket: Option<&str>, url: Option<&str>) -> Connection {
        let place = Place { socket: socket.map(PathBuf::from), url: url.map(str::to_owned), token_file: None };
        Connection { place, daemon_config: None }
    }

    fn told(found: Result<Endpoint, Failure>) -> String {
        match found {
            Ok(endpoint) => format!("{endpoint}"),
            Err(failure) => failure.lines().join("\n"),
        }
    }

    #[track_caller]
    fn check(connection: &Connection, variables: &[(&str, &str)], expected: &str) {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        assert_eq!(told(connection.endpoint(&environment)), expected);
    }

    #[test]
    fn the_command_line_comes_before_the_environment() {
        check(&connection(Some("/a"), None), &[(SOCKET, "/b"), (URL, "http://c:1")], "/a");
        check(&connection(None, Some("http://c:1")), &[(SOCKET, "/b")], "http://c:1");
        check(&connection(None, None), &[(SOCKET, "/b")], "/b");
        check(&connection(None, None), &[(SOCKET, ""), (URL, "http://c:1/")], "http://c:1");
        let both = "error: TIDEGATE_SOCKET and TIDEGATE_URL name two places; unset one of them";
        check(&connection(None, None), &[(SOCKET, "/b"), (URL, "http://c:1")], both);
        let both = "error: --socket and --url name two places; give one of them";
        check(&connection(Some("/a"), Some("http://c:1")), &[], both);
    }

    #[test]
    fn a_url_that_cannot_be_used_says_what_to_write() {
        let refused = |url: &str, reason: &str| check(&connection(None, Some(url)), &[], &format!("error: {reason}"));
        refused(
            "https://a:1",
            "--url \"https://a:1\": TLS is not spoken here; forward a port of this machine to the daemon's, as with `ssh -L \
             9883:127.0.0.1:9883 HOST`, and use http://127.0.0.1:9883",
        );
        refused("a:1", "--url \"a:1\" is not complete; use http://HOST:PORT");
        refused("http://", "--url \"http://\" is not a URL; use http://HOST:PORT");
        refused("mqtt://a:1", "--url \"mqtt://a:1\" is not HTTP; use http://HOST:PORT");
        refused("http://a:1/x", "--url \"http://a:1/x\" has a path; use http://HOST:PORT");
        refused(
            "http://u:secret@a:1",
            "--url has a user in it; use http://HOST:PORT, and give the token with --token-file",
        );
    }

    #[test]
    fn addresses_of_version_6_lose_their_brackets() {
        let found = connection(None, Some("http://[::1]:9883")).endpoint(&|_| None).expect("a URL");
        let expected = Endpoint::Http { host: "::1".into(), port: 9883, authority: "[::1]:9883".into(), token: None };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_token_file_is_read_and_never_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let mut with_token = connection(None, Some("http://a:1"));
        with_token.place.token_file = Some(file.clone());
        let endpoint = || with_token.endpoint(&|_| None);
        assert!(told(endpoint()).contains("name a file that you may read"), "{}", told(endpoint()));

        fs::write(&file, "0123456789abcdef\n").expect("our folder");
        let Endpoint::Http { token, .. } = endpoint().expect("a token") else { panic!("not HTTP") };
        assert_eq!(token.as_ref().map(Secret::expose), Some("0123456789abcdef"));

        fs::write(&file, "secret one\nsecret two\n").expect("our folder");
        let said = told(endpoint());
        assert!(said.contains("holds no token") && !said.contains("secret"), "{said}");
    }

    #[test]
    fn a_configuration_tells_the_socket() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tidegate.toml");
        let configured = Connection { daemon_config: Some(file.clone()), ..Connection::default() };
        let check_socket = |text: &str, expected: &str| {
            fs::write(&file, text).expect("our folder");
            let expected = folder.path().join(expected).display().to_string();
            check(&configured, &[(SOCKET, "/elsewhere")], &expected);
        };
        check_socket("state-dir = \"state\"\n[brokers.a]\naddress = \"127.0.0.1\"\n", "state/admin.sock");
        check_socket("[admin]\nsocket = \"s\"\n[brokers.a]\naddress = 1\nnonsense = 2\n", "s");

        fs::remove_file(&file).expect("was written");
        let missing = format!("error: -c {}: there is no such file; name the daemon's", file.display());
        check(&configured, &[], &missing);
    }
}
