//! What is of interest in a certificate that others have verified: whose it is, who signed it and when it expires.
//!
//! Owns: the memory of when the certificates of a session expire, and when that was said. Fed by the TLS layer after each
//! handshake; feeds a metric and a warning. Pure but for the reading of DER.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_cert::der::{Decode as _, Encode as _};

/// How long before its end a certificate is warned of: time to renew it by hand.
const WARN_AHEAD: Duration = Duration::from_secs(14 * 86_400);

/// How often the warning is repeated.
const REPEAT: Duration = Duration::from_secs(86_400);

/// Whose a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The broker.
    Server,
    /// This gateway.
    Client,
    /// The authority in `tls.ca` that signed the broker's.
    Ca,
}

impl Holder {
    /// All of them, in the order of their numbers.
    pub const ALL: [Holder; 3] = [Holder::Server, Holder::Client, Holder::Ca];

    /// The value of the label `certificate`.
    pub fn label(self) -> &'static str {
        match self {
            Holder::Server => "server",
            Holder::Client => "client",
            Holder::Ca => "ca",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A certificate's facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whose it is, DER.
    subject: Vec<u8>,
    /// Who signed it, DER.
    issuer: Vec<u8>,
    /// Its last second.
    pub(super) expires: SystemTime,
}

impl Facts {
    /// Reads a certificate; none if it is too odd to be read, which is nothing to refuse a connection for.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<Facts> {
        let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
        let body = certificate.tbs_certificate();
        Some(Facts {
            subject: body.subject().to_der().ok()?,
            issuer: body.issuer().to_der().ok()?,
            expires: SystemTime::UNIX_EPOCH + body.validity().not_after.to_unix_duration(),
        })
    }
}

/// When the authority expires that vouches for a chain: of several with its name the one that lasts longest, since an old
/// one may stay beside its successor.
pub(super) fn authority_expiry(authorities: &[Facts], chain: &[Facts]) -> Option<SystemTime> {
    let signs = |authority: &&Facts| chain.iter().any(|certificate| certificate.issuer == authority.subject);
    authorities.iter().filter(signs).map(|authority| authority.expires).max()
}

/// What of one session's certificates is known and was said.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// By [`Holder`].
    known: [Option<SystemTime>; Holder::ALL.len()],
    /// By [`Holder`]: which end was warned of, and when.
    said: [Option<(SystemTime, SystemTime)>; Holder::ALL.len()],
}

impl Expiry {
    /// A handshake showed these certificates.
    pub(super) fn seen(&mut self, known: [Option<SystemTime>; Holder::ALL.len()]) {
        self.known = known;
    }

    /// The certificates to warn of now: each once a day, and at once when another takes its place.
    pub(super) fn due(&mut self, now: SystemTime) -> Vec<(Holder, SystemTime)> {
        let mut due = Vec::new();
        for holder in Holder::ALL {
            let Some(expires) = self.known[holder as usize] else { continue };
            if expires > now + WARN_AHEAD {
                continue;
            }
            let repeated = self.said[holder as usize].is_some_and(|(end, said)| {
                // A clock that was set back must not silence the warning.
                end == expires && said <= now && now < said + REPEAT
            });
            if !repeated {
                self.said[holder as usize] = Some((expires, now));
                due.push((holder, expires));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn day(number: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * (20_000 + number)
    }

    #[test]
    fn a_certificate_is_warned_of_from_fourteen_days_before_its_end_once_a_day() {
        let mut expiry = Expiry::default();
        assert_eq!(expiry.due(day(0)), []);
        expiry.seen([Some(day(20)), None, Some(day(100))]);
        let mut check = |now: SystemTime, expected: &[(Holder, SystemTime)]| {
            expiry.seen([Some(day(20)), None, Some(day(100))]);
            assert_eq!(expiry.due(now), expected, "{now:?}");
        };
        let server = [(Holder::Server, day(20))];
        check(day(6) - Duration::from_secs(1), &[]);
        check(day(6), &server);
        check(day(6), &[]);
        check(day(7) - Duration::from_secs(1), &[]);
        check(day(7), &server);
        check(day(30), &server);
        check(day(30) + DAY / 2, &[]);
        check(day(8), &server);
    }

    #[test]
    fn another_certificate_is_warned_of_at_once_and_a_good_one_never() {
        let mut expiry = Expiry::default();
        expiry.seen([Some(day(1)), Some(day(2)), None]);
        assert_eq!(expiry.due(day(0)), [(Holder::Server, day(1)), (Holder::Client, day(2))]);
        expiry.seen([Some(day(3)), Some(day(90)), None]);
        assert_eq!(expiry.due(day(0)), [(Holder::Server, day(3))]);
    }

    #[test]
    fn the_authority_of_a_chain_is_found_by_its_name() {
        let facts = |subject: &str, issuer: &str, end| Facts {
            subject: subject.into(),
            issuer: issuer.into(),
            expires: day(end),
        };
        let authorities =
            [facts("old", "old", 1), facts("root", "root", 5), facts("root", "root", 9), facts("else", "else", 99)];
        let chain = [facts("leaf", "between", 2), facts("between", "root", 3)];
        assert_eq!(authority_expiry(&authorities, &chain), Some(day(9)));
        assert_eq!(authority_expiry(&authorities, &chain[..1]), None);
    }

    #[test]
    fn a_certificate_tells_its_names_and_its_end() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(vec!["gw".to_owned()]).expect("a host name");
        parameters.not_after = rcgen::date_time_ymd(2051, 2, 3);
        let certificate = parameters.self_signed(&key).expect("signs");
        let facts = Facts::read(certificate.der()).expect("it is well-formed");
        assert_eq!(facts.subject, facts.issuer);
        assert_eq!(humantime::format_rfc3339_seconds(facts.expires).to_string(), "2051-02-03T00:00:00Z");
        assert_eq!(Facts::read(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
