//! TLS on a connected stream.
//!
//! Owns: the configuration of rustls for one session, kept between its connections and made anew when a file or the system's
//! store has changed; and what the handshake shows. Fed by the `tls` table; gives an encrypted stream. It names its
//! cryptography explicitly, whatever other crates of the program prefer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::certificate::{Facts, Holder, authority_expiry};
use super::failure::{TlsSituation, TransportFailure};
use crate::control::config::certificates::{
    CertificateFileError, PemFile, Role, certified_key, crypto_provider, host_in_certificates,
};
use crate::control::config::model::Tls;
use crate::path::session::failure::{Failure, shortened};

/// The TLS of one session.
pub(super) struct TlsLayer {
    settings: Tls,
    /// The name that the broker's certificate must have; wrong ones are told at each attempt.
    name: String,
    /// Written by each connect; never held while anything is waited for.
    prepared: Mutex<Option<Arc<Prepared>>>,
}

/// What the files gave.
pub(super) struct Prepared {
    /// Of all that was read: as long as it stays, so does the rest, and TLS sessions can be resumed.
    fingerprint: [u8; 32],
    config: Arc<ClientConfig>,
    presented: Arc<Presented>,
    client_expires: Option<SystemTime>,
    /// Of `tls.ca`.
    authorities: Vec<Facts>,
}

impl TlsLayer {
    /// Reads nothing yet.
    pub(super) fn new(settings: &Tls, address: &str) -> TlsLayer {
        let name = settings.server_name.as_deref().unwrap_or_else(|| host_in_certificates(address)).to_owned();
        TlsLayer { settings: settings.clone(), name, prepared: Mutex::new(None) }
    }

    /// Reads the files again, and makes a new configuration if one has changed.
    ///
    /// # Errors
    /// A file cannot be used, or there is no authority to trust.
    pub(super) async fn prepare(&self) -> Result<Arc<Prepared>, Failure> {
        let before = self.latest();
        let settings = self.settings.clone();
        // Reading a file may take long, on a network file system for instance.
        let prepared = tokio::task::spawn_blocking(move || Prepared::refresh(&settings, before));
        let prepared = prepared.await.map_err(|_| Failure::Defect)??;
        *self.prepared.lock().expect("nothing panics with the lock") = Some(Arc::clone(&prepared));
        Ok(prepared)
    }

    /// Encrypts a stream.
    ///
    /// # Errors
    /// Either side refuses the other.
    pub(super) async fn connect(
        &self,
        prepared: &Prepared,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, std::io::Error> {
        prepared.presented.asked.store(false, Ordering::Relaxed);
        let name = ServerName::try_from(self.name.clone()).map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::clone(&prepared.config)).connect(name, stream).await
    }

    /// What decides what an error of the connection that was made last means.
    pub(super) fn situation(&self, connecting: bool) -> TlsSituation {
        let asked = self.latest().is_some_and(|prepared| prepared.presented.asked.load(Ordering::Relaxed));
        let (own_ca, identity) = (self.settings.ca.is_some(), self.settings.identity.is_some());
        TlsSituation { own_ca, identity, asked, connecting }
    }

    fn latest(&self) -> Option<Arc<Prepared>> {
        self.prepared.lock().expect("nothing panics with the lock").clone()
    }
}

impl Prepared {
    /// When the certificates of a connection expire, by holder.
    pub(super) fn expiry(&self, stream: &TlsStream<TcpStream>) -> [Option<SystemTime>; Holder::ALL.len()] {
        let (_, connection) = stream.get_ref();
        let chain: Vec<Facts> = connection.peer_certificates().into_iter().flatten().filter_map(Facts::read).collect();
        [chain.first().map(|leaf| leaf.expires), self.client_expires, authority_expiry(&self.authorities, &chain)]
    }

    /// The same again as long as nothing has changed.
    fn refresh(settings: &Tls, before: Option<Arc<Prepared>>) -> Result<Arc<Prepared>, TransportFailure> {
        let material = Material::read(settings)?;
        let fingerprint = material.fingerprint();
        match before {
            Some(before) if before.fingerprint == fingerprint => Ok(before),
            _ => Ok(Arc::new(material.prepare(settings, fingerprint)?)),
        }
    }
}

/// What lies on the disk.
struct Material {
    /// `tls.ca`.
    ca: Option<PemFile>,
    /// Where `tls.ca` is not given, and anything is verified at all.
    system: Vec<CertificateDer<'static>>,
    /// The certificate and its key.
    identity: Option<(PemFile, PemFile)>,
}

impl Material {
    fn read(settings: &Tls) -> Result<Material, CertificateFileError> {
        let ca = settings.ca.as_deref().map(|path| PemFile::read(Role::Ca, path)).transpose()?;
        let system = if ca.is_some() || settings.insecure_skip_verify { Vec::new() } else { system_store() };
        let identity = settings.identity.as_ref().map(|identity| {
            let certificate = PemFile::read(Role::Certificate, &identity.certificate)?;
            Ok((certificate, PemFile::read(Role::Key, &identity.key)?))
        });
        Ok(Material { ca, system, identity: identity.transpose()? })
    }

    /// A digest rather than the contents, so that no second copy of the key stays in memory.
    fn fingerprint(&self) -> [u8; 32] {
        let files = self.ca.iter().chain(self.identity.iter().flat_map(|(certificate, key)| [certificate, key]));
        let contents = files.map(PemFile::bytes).chain(self.system.iter().map(AsRef::as_ref));
        let mut digest = Sha256::new();
        for content in contents {
            digest.update((content.len() as u64).to_be_bytes());
            digest.update(content);
        }
        digest.finalize().into()
    }

    fn prepare(&self, settings: &Tls, fingerprint: [u8; 32]) -> Result<Prepared, TransportFailure> {
        let authorities = self.ca.as_ref().map(PemFile::certificates).transpose()?.unwrap_or_default();
        let identity = self.identity.as_ref().map(|(certificate, key)| certified_key(certificate, key)).transpose()?;
        let client_expires = identity.as_ref().and_then(|key| Some(Facts::read(key.cert.first()?)?.expires));
        let presented = Arc::new(Presented { key: identity.map(Arc::new), asked: AtomicBool::new(false) });
        let provider = crypto_provider();
        let verifier: Arc<dyn ServerCertVerifier> = if settings.insecure_skip_verify {
            Arc::new(Unverified(Arc::clone(&provider)))
        } else {
            let roots = Arc::new(self.roots(&authorities)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            verifier.map_err(|error| TransportFailure::Tls(shortened(&error.to_string())))?
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need");
        let mut config = config
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::clone(&presented) as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols = settings.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        let authorities = authorities.iter().filter_map(Facts::read).collect();
        Ok(Prepared { fingerprint, config: Arc::new(config), presented, client_expires, authorities })
    }

    fn roots(&self, authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TransportFailure> {
        let mut roots = RootCertStore::empty();
        let certificates = if self.ca.is_some() { authorities } else { &self.system };
        let (_, ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
        if ignored > 0 {
            debug!(ignored, "CA certificates that cannot be read are passed over");
        }
        // A file was found to have one.
        if roots.is_empty() { Err(TransportFailure::NoSystemCa) } else { Ok(roots) }
    }
}

/// The authorities that the system trusts, or those that SSL_CERT_FILE and SSL_CERT_DIR name.
fn system_store() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        debug!(%error, "a part of the system's store of certificates cannot be read");
    }
    found.certs
}

/// The client's certificate, if there is one. Unlike rustls' own it remembers whether the broker asked: some brokers only
/// close the connection when none comes.
#[derive(Debug)]
struct Presented {
    key: Option<Arc<CertifiedKey>>,
    /// On the connection that was made last. Written in its handshake.
    asked: AtomicBool,
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// Takes every certificate: `insecure-skip-verify = true`. That the broker has its key is checked all the same.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
