//! The certificate files of a broker: read, parsed, and their faults told.
//!
//! Owns: what `tls.ca`, `tls.certificate` and `tls.key` may hold. Fed by paths; feeds the check of the configuration, and
//! a session, which reads the files again at each connect so that renewed ones take effect without a restart. It verifies
//! nobody's certificate, and never shows what is in a key.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, RootCertStore};

use super::secret::regular_file;

/// Longest file in bytes: the bundle of all public authorities has a quarter of it.
const MAX_FILE: u64 = 1024 * 1024;

/// What every connection computes with, and the check of keys too. Chosen here, once: without a choice rustls panics as soon
/// as two crates of one program prefer different ones.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// An address as certificates know it: without the zone of an IPv6 address and the last dot of a complete name.
pub fn host_in_certificates(address: &str) -> &str {
    let address = address.split('%').next().unwrap_or(address);
    address.strip_suffix('.').unwrap_or(address)
}

/// The content of a certificate file, before it is looked at.
pub struct PemFile {
    role: Role,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl PemFile {
    /// Reads a small file: call it where a short wait for the disk is allowed.
    ///
    /// # Errors
    /// It is missing, may not be read, is no file, or is far too long.
    pub fn read(role: Role, path: &Path) -> Result<PemFile, CertificateFileError> {
        let unreadable = |cause| CertificateFileError::Unreadable { role, path: path.to_owned(), cause };
        let mut bytes = Vec::new();
        regular_file(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(|error| unreadable(told(&error)))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(unreadable("it has more than 1 MiB".to_owned()));
        }
        Ok(PemFile { role, path: path.to_owned(), bytes })
    }

    /// The bytes, to compare them with those of another time.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The certificates in it, at least one of which is well-formed: a bundle of many may have one that is odd.
    ///
    /// # Errors
    /// It is not PEM, is damaged, or has no certificate.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CertificateFileError> {
        self.require_pem()?;
        let certificates = CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, PemError>>();
        let certificates = certificates.map_err(|_| self.fault(Fault::Damaged))?;
        if certificates.is_empty() {
            return Err(self.fault(Fault::NoCertificate));
        }
        if RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned()).0 == 0 {
            return Err(self.fault(Fault::Damaged));
        }
        Ok(certificates)
    }

    /// The private key in it: PKCS#8, PKCS#1 (RSA) or SEC1 (elliptic curve).
    ///
    /// # Errors
    /// It is not PEM, is damaged or encrypted, or has no key.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, CertificateFileError> {
        self.require_pem()?;
        if self.contains("ENCRYPTED") {
            return Err(self.fault(Fault::EncryptedKey));
        }
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            PemError::NoItemsFound => self.fault(Fault::NoKey),
            _ => self.fault(Fault::Damaged),
        })
    }

    fn require_pem(&self) -> Result<(), CertificateFileError> {
        if self.contains("-----BEGIN ") {
            return Ok(());
        }
        let empty = self.bytes.iter().all(u8::is_ascii_whitespace);
        Err(self.fault(if empty { Fault::Empty } else { Fault::NotPem }))
    }

    fn contains(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn fault(&self, fault: Fault) -> CertificateFileError {
        CertificateFileError::Content { role: self.role, path: self.path.clone(), fault }
    }
}

/// The client's certificate with its key.
///
/// # Errors
/// One of the two files is bad, or the key is another certificate's.
pub fn certified_key(certificate: &PemFile, key: &PemFile) -> Result<CertifiedKey, CertificateFileError> {
    let provider = crypto_provider();
    let (chain, private_key) = (certificate.certificates()?, key.key()?);
    CertifiedKey::from_der(chain, private_key, &provider).map_err(|error| {
        key.fault(match error {
            TlsError::InconsistentKeys(_) => Fault::OtherCertificatesKey,
            _ => Fault::UnsupportedKey,
        })
    })
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `ca`.
    Ca,
    /// `certificate`.
    Certificate,
    /// `key`.
    Key,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Ca => "CA file",
            Role::Certificate => "certificate file",
            Role::Key => "key file",
        })
    }
}

/// What is wrong with a file's content. Each tells its remedy after a semicolon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing in it: it is being written, perhaps.
    #[error("is empty; write it")]
    Empty,
    /// DER or PKCS#12, most likely.
    #[error("is not PEM; convert it, with `openssl x509 -inform der` or `openssl pkcs12` for instance")]
    NotPem,
    /// Broken base64, a missing end, or no certificate in spite of its label.
    #[error("is damaged: a section of it cannot be decoded; copy it again")]
    Damaged,
    /// Only a key, most likely.
    #[error("has no certificate inside; name the file that begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// Only certificates, most likely.
    #[error("has no private key inside; name the file with -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// PKCS#8 or the older form.
    #[error("is encrypted; decrypt it with `openssl pkey -in FILE -out DECRYPTED`, readable by the daemon alone")]
    EncryptedKey,
    /// An algorithm or a length.
    #[error("has a key of an unsupported kind; use ECDSA P-256 or P-384, Ed25519, or RSA with 2048 to 8192 bits")]
    UnsupportedKey,
    /// The public keys differ.
    #[error("does not fit the certificate: its key is another certificate's; use the pair that was issued together")]
    OtherCertificatesKey,
}

/// Why a certificate file cannot be used. Worth another attempt: the file may be about to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFileError {
    /// The system does not give it.
    #[error("the {role} {} cannot be read: {cause}", .path.display())]
    Unreadable {
        /// What it is for.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// It holds something else than it should.
    #[error("the {role} {} {fault}", .path.display())]
    Content {
        /// What it is for.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: Fault,
    },
}

/// An error of the file system without its number.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn file(role: Role, content: impl Into<Vec<u8>>) -> PemFile {
        PemFile { role, path: "gw.pem".into(), bytes: content.into() }
    }

    /// A certificate and its key, PEM.
    fn pair(key: &KeyPair) -> (String, String) {
        let parameters = CertificateParams::new(vec!["gw".to_owned()]).expect("a host name");
        (parameters.self_signed(key).expect("signs").pem(), key.serialize_pem())
    }

    fn fault_of<T>(result: Result<T, CertificateFileError>) -> Option<Fault> {
        match result {
            Err(CertificateFileError::Content { fault, .. }) => Some(fault),
            Err(other) => panic!("{other}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn certificates_are_found_wherever_they_stand_in_a_file() {
        let (certificate, key) = pair(&KeyPair::generate().expect("a key"));
        let check = |content: String, expected: Result<usize, Fault>| {
            let found = file(Role::Certificate, content.as_str()).certificates();
            let found = match found {
                Ok(certificates) => Ok(certificates.len()),
                Err(error) => Err(fault_of(Err::<(), _>(error)).expect("an error")),
            };
            assert_eq!(found, expected, "{content}");
        };
        check(certificate.clone(), Ok(1));
        check(format!("subject=CN = gw\r\n{key}\n{certificate}{}", certificate.replace('\n', "\r\n")), Ok(2));
        check(key, Err(Fault::NoCertificate));
        check("\n".to_owned(), Err(Fault::Empty));
        check("0\u{82}\u{1}".to_owned(), Err(Fault::NotPem));
        check(certificate.replace("MII", "M!I"), Err(Fault::Damaged));
        check(certificate.replace("-----END CERTIFICATE-----", ""), Err(Fault::Damaged));
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(odd.to_owned(), Err(Fault::Damaged));
        check(format!("{odd}{certificate}"), Ok(2));
    }

    #[test]
    fn keys_of_each_curve_fit_their_certificates_alone() {
        let default = KeyPair::generate().expect("a key");
        let (other_certificate, _) = pair(&KeyPair::generate().expect("a key"));
        for algorithm in [default.algorithm(), &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let (certificate, key) = pair(&KeyPair::generate_for(algorithm).expect("a key"));
            let fits = |certificate: &str| {
                certified_key(&file(Role::Certificate, certificate), &file(Role::Key, key.as_str()))
            };
            assert_eq!(fault_of(fits(&certificate)), None, "{algorithm:?}");
            assert_eq!(fault_of(fits(&other_certificate)), Some(Fault::OtherCertificatesKey), "{algorithm:?}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_is_told_with_the_reason() {
        let (certificate, key) = pair(&KeyPair::generate().expect("a key"));
        let check = |content: &str, expected: Fault| {
            let found = certified_key(&file(Role::Certificate, certificate.as_str()), &file(Role::Key, content));
            assert_eq!(fault_of(found), Some(expected), "{content}");
        };
        check(&certificate, Fault::NoKey);
        check(&key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), Fault::EncryptedKey);
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        check(old, Fault::EncryptedKey);
        check("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", Fault::UnsupportedKey);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_its_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        let check = |expected: &str| {
            let error = PemFile::read(Role::Ca, &path).err().expect("it cannot be read");
            assert_eq!(error.to_string(), format!("the CA file {} cannot be read: {expected}", path.display()));
        };
        check("it does not exist");
        std::fs::write(&path, vec![b'\n'; 1024 * 1024 + 1]).expect("writes");
        check("it has more than 1 MiB");
        std::fs::remove_file(&path).expect("removes");
        std::fs::create_dir(&path).expect("creates");
        check("it is a directory");
    }
}
