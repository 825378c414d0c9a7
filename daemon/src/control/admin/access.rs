//! Who may do what: the decision about one request.
//!
//! Pure: `gate.rs` collects the facts, and this decides. The Unix socket's file mode is its access rule, so whoever gets in
//! there may do everything; over TCP a token decides, and without one only programs on this machine may read. A browser on this
//! machine is such a program, which pages from elsewhere must not be able to use: neither through a name that leads here
//! (DNS rebinding) nor by sending requests here from another site.

use std::net::IpAddr;

use super::problem::HttpError;

/// What counts about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The way it came.
    pub from: From,
    /// It changes nothing: GET or HEAD.
    pub reads: bool,
    /// It asks only whether the daemon lives.
    pub liveness: bool,
    /// The token that it brings.
    pub token: Token,
    /// The host that the client believes to speak to, with its port.
    pub host: Option<&'a str>,
    /// `Origin`: the page that makes a browser send it.
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site`: what the browser says about that page.
    pub site: Option<&'a str>,
}

/// The way a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The Unix socket.
    Socket,
    /// TCP, straight from a program on this machine.
    Loopback,
    /// TCP, from another machine or through a proxy, which may speak for another machine.
    Elsewhere,
}

/// What a request brings to prove that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// There is no token to bring: `admin.token-file` is not set.
    Unknown,
    /// It brings none.
    Missing,
    /// The right one.
    Right,
    /// Another one.
    Wrong,
}

/// Permits the request, or says why not.
///
/// # Errors
/// It is refused, with what to do.
pub fn decide(asked: &Asked<'_>) -> Result<(), HttpError> {
    if asked.liveness && asked.reads {
        return Ok(());
    }
    if !same_site(asked) {
        return Err(HttpError::CrossSite);
    }
    if asked.from == From::Socket || asked.token == Token::Right {
        return Ok(());
    }
    if asked.token == Token::Wrong {
        return Err(HttpError::WrongToken);
    }
    match (asked.from, asked.reads, asked.token) {
        (From::Loopback, true, _) if asked.host.is_some_and(is_address) => Ok(()),
        (From::Loopback, true, _) => Err(HttpError::StrangeHost),
        (_, _, Token::Missing) => Err(HttpError::TokenMissing),
        (From::Loopback, false, _) => Err(HttpError::ReadOnly),
        (_, _, _) => Err(HttpError::OnlyLocal),
    }
}

/// Whether no page of another site is behind the request. Programs that are no browsers send neither header.
fn same_site(asked: &Asked<'_>) -> bool {
    // `none`: the user typed the address.
    let site = asked.site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    let origin = asked.origin.is_none_or(|origin| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.zip(asked.host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
    });
    site && origin
}

/// Whether the host is an IP address or `localhost`: names that nobody else can make lead here.
fn is_address(host: &str) -> bool {
    let port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    let name = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok() && rest.strip_prefix(':').map_or(rest.is_empty(), port);
    } else if let Some((name, number)) = host.split_once(':') {
        if !port(number) {
            return false;
        }
        name
    } else {
        host
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Asked<'_> = Asked {
        from: From::Loopback,
        reads: true,
        liveness: false,
        token: Token::Unknown,
        host: Some("127.0.0.1:9883"),
        origin: None,
        site: None,
    };
    const CHANGE: Asked<'_> = Asked { reads: false, ..READ };

    #[track_caller]
    fn check(asked: Asked<'_>, expected: Result<(), HttpError>) {
        assert_eq!(decide(&asked), expected, "{asked:?}");
    }

    #[test]
    fn every_way_with_every_token() {
        use HttpError::{OnlyLocal, ReadOnly, TokenMissing, WrongToken};
        let table = [
            (From::Socket, Token::Unknown, Ok(()), Ok(())),
            (From::Socket, Token::Missing, Ok(()), Ok(())),
            (From::Socket, Token::Wrong, Ok(()), Ok(())),
            (From::Socket, Token::Right, Ok(()), Ok(())),
            (From::Loopback, Token::Unknown, Ok(()), Err(ReadOnly)),
            (From::Loopback, Token::Missing, Ok(()), Err(TokenMissing)),
            (From::Loopback, Token::Wrong, Err(WrongToken), Err(WrongToken)),
            (From::Loopback, Token::Right, Ok(()), Ok(())),
            (From::Elsewhere, Token::Unknown, Err(OnlyLocal), Err(OnlyLocal)),
            (From::Elsewhere, Token::Missing, Err(TokenMissing), Err(TokenMissing)),
            (From::Elsewhere, Token::Wrong, Err(WrongToken), Err(WrongToken)),
            (From::Elsewhere, Token::Right, Ok(()), Ok(())),
        ];
        for (from, token, read, change) in table {
            check(Asked { from, token, ..READ }, read);
            check(Asked { from, token, ..CHANGE }, change);
        }
    }

    #[test]
    fn whether_it_lives_is_told_to_everybody() {
        let strange = Asked { host: Some("gateway.example"), origin: Some("null"), from: From::Elsewhere, ..READ };
        for token in [Token::Unknown, Token::Missing, Token::Wrong] {
            check(Asked { liveness: true, token, ..strange }, Ok(()));
        }
        check(Asked { liveness: true, reads: false, ..strange }, Err(HttpError::CrossSite));
    }

    #[test]
    fn without_a_token_the_host_is_an_address() {
        let good = [
            "127.0.0.1",
            "127.0.0.1:9883",
            "localhost",
            "LOCALHOST:80",
            "[::1]",
            "[::1]:9883",
            "192.168.88.1:80",
            "127.0.0.1:",
        ];
        let bad = [
            "gateway.example",
            "localhost.example",
            "127.0.0.1.example:9883",
            "127.0.0.1:x",
            "127.0.0.1:99999",
            "",
            ":80",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "127.0.0.1@evil.example",
            "localhost:80:80",
            "127.1",
        ];
        for host in good {
            check(Asked { host: Some(host), ..READ }, Ok(()));
        }
        for host in bad {
            check(Asked { host: Some(host), ..READ }, Err(HttpError::StrangeHost));
            check(Asked { host: Some(host), token: Token::Right, ..CHANGE }, Ok(()));
            check(Asked { host: Some(host), from: From::Socket, ..CHANGE }, Ok(()));
        }
        check(Asked { host: None, ..READ }, Err(HttpError::StrangeHost));
    }

    #[test]
    fn no_other_site_gets_in_anywhere() {
        let everywhere = [
            READ,
            Asked { from: From::Socket, ..CHANGE },
            Asked { from: From::Elsewhere, token: Token::Right, ..CHANGE },
        ];
        for asked in everywhere {
            let with = |origin, site| Asked { origin, site, ..asked };
            check(with(None, None), Ok(()));
            check(with(Some("http://127.0.0.1:9883"), None), Ok(()));
            check(with(Some("https://127.0.0.1:9883"), Some("same-origin")), Ok(()));
            check(with(None, Some("none")), Ok(()));
            for origin in
                ["null", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:9884", "127.0.0.1:9883", ""]
            {
                check(with(Some(origin), None), Err(HttpError::CrossSite));
                check(with(Some(origin), Some("same-origin")), Err(HttpError::CrossSite));
            }
            for site in ["cross-site", "same-site", "unheard-of"] {
                check(with(None, Some(site)), Err(HttpError::CrossSite));
            }
            check(Asked { host: None, ..with(Some("http://127.0.0.1:9883"), None) }, Err(HttpError::CrossSite));
        }
    }
}
