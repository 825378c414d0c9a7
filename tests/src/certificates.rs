//! Certificates made for one scenario: an authority, and what it signs, as files that brokers and daemons read.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PKCS_RSA_SHA256,
};
use tempfile::TempDir;

pub use rcgen::{CertificateParams as Parameters, ExtendedKeyUsagePurpose, SanType, date_time_ymd};

/// The name that every certificate has beside those of its own: where brokers of scenarios listen.
const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Authorities so far: each has a name of its own. Written by every scenario.
static COUNT: AtomicU32 = AtomicU32::new(1);

/// An authority and the folder of its files. Gone when dropped.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The algorithm of a key, and the form of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA P-256, PKCS#8.
    P256,
    /// ECDSA P-256, SEC1: `BEGIN EC PRIVATE KEY`.
    P256Sec1,
    /// Ed25519, PKCS#8.
    Ed25519,
    /// RSA with 2048 bits, PKCS#8.
    Rsa,
    /// RSA with 2048 bits, PKCS#1: `BEGIN RSA PRIVATE KEY`.
    RsaPkcs1,
}

impl KeyKind {
    /// All of them.
    pub const ALL: [KeyKind; 5] = [KeyKind::P256, KeyKind::P256Sec1, KeyKind::Ed25519, KeyKind::Rsa, KeyKind::RsaPkcs1];

    /// How its file begins.
    pub fn label(self) -> &'static str {
        match self {
            KeyKind::P256 | KeyKind::Ed25519 | KeyKind::Rsa => "-----BEGIN PRIVATE KEY-----",
            KeyKind::P256Sec1 => "-----BEGIN EC PRIVATE KEY-----",
            KeyKind::RsaPkcs1 => "-----BEGIN RSA PRIVATE KEY-----",
        }
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    /// A new authority, which nobody trusts yet.
    pub fn new() -> Authority {
        Authority::with(|_| {})
    }

    /// A new authority whose certificate is changed before it is signed.
    pub fn with(change: impl FnOnce(&mut Parameters)) -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        parameters.distinguished_name.push(DnType::CommonName, format!("Tidegate scenario authority {number}"));
        change(&mut parameters);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("signs");
        let folder = tempfile::Builder::new().prefix("tidegate-certificates-").tempdir().expect("a temporary folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder is ours");
        Authority { issuer, folder }
    }

    /// Its certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A pair for a broker at 127.0.0.1.
    pub fn server(&self) -> Pair {
        self.issue("server", KeyKind::P256, |_| {})
    }

    /// A pair for a client of this name. A pair of the same name is overwritten.
    pub fn client(&self, name: &str) -> Pair {
        self.issue(name, KeyKind::P256, |_| {})
    }

    /// A pair with this common name, good for servers at 127.0.0.1 and for clients, unless `change` says otherwise. A pair of
    /// the same name is overwritten.
    ///
    /// # Panics
    /// The command `openssl` is missing, which other keys than P-256 in PKCS#8 need.
    pub fn issue(&self, name: &str, kind: KeyKind, change: impl FnOnce(&mut Parameters)) -> Pair {
        let mut parameters = CertificateParams::new(vec![ADDRESS.to_string()]).expect("an address");
        parameters.distinguished_name.push(DnType::CommonName, name);
        change(&mut parameters);
        let (pair, text) = make_key(kind);
        assert!(text.starts_with(kind.label()), "{kind:?}");
        let files = self.pair(name);
        fs::write(&files.certificate, parameters.signed_by(&pair, &self.issuer).expect("signs").pem())
            .expect("the folder is ours");
        fs::write(&files.key, text).expect("the folder is ours");
        files
    }

    /// Where the pair of this name is.
    pub fn pair(&self, name: &str) -> Pair {
        let file = |extension: &str| self.folder.path().join(format!("{name}.{extension}"));
        Pair { certificate: file("pem"), key: file("key") }
    }

    /// Keys of a broker that trust this authority.
    pub fn tls(&self) -> String {
        format!("tls = {{ ca = \"{}\" }}", self.file().display())
    }

    /// Keys of a broker that trust this authority and present this pair.
    pub fn tls_as(&self, pair: &Pair) -> String {
        let (ca, certificate, key) = (self.file(), pair.certificate.display(), pair.key.display());
        format!("tls = {{ ca = \"{}\", certificate = \"{certificate}\", key = \"{key}\" }}", ca.display())
    }
}

/// A key, and the text of its file.
fn make_key(kind: KeyKind) -> (KeyPair, String) {
    let generated = |algorithm| KeyPair::generate_for(algorithm).expect("a key");
    match kind {
        KeyKind::P256 => {
            let pair = generated(&PKCS_ECDSA_P256_SHA256);
            let text = pair.serialize_pem();
            (pair, text)
        }
        KeyKind::Ed25519 => {
            // rcgen's own form, with the public key in it, is one that OpenSSL 3.0 does not read.
            let text = openssl(&["genpkey", "-algorithm", "ED25519"], "");
            (KeyPair::from_pem_and_sign_algo(&text, &PKCS_ED25519).expect("an Ed25519 key"), text)
        }
        KeyKind::P256Sec1 => {
            let pair = generated(&PKCS_ECDSA_P256_SHA256);
            let text = openssl(&["ec"], &pair.serialize_pem());
            (pair, text)
        }
        KeyKind::Rsa | KeyKind::RsaPkcs1 => {
            let text = openssl(&["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "");
            let pair = KeyPair::from_pem_and_sign_algo(&text, &PKCS_RSA_SHA256).expect("an RSA key");
            let text = if kind == KeyKind::Rsa { text } else { openssl(&["rsa", "-traditional"], &text) };
            (pair, text)
        }
    }
}

/// What `openssl` makes of a text.
fn openssl(arguments: &[&str], input: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), input).expect("is ours");
    let mut command = Command::new("openssl");
    command.args(arguments);
    if !input.is_empty() {
        command.arg("-in").arg(file.path());
    }
    let output = command.output().unwrap_or_else(|error| panic!("openssl: {error}: run `cargo xtask test`"));
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("PEM is ASCII")
}
