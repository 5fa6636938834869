//! A PEM file of certificate authorities to trust instead of the system's.
//!
//! What an operator has to put right about it is found at start and named with the setting that
//! points to the file. It opens no connection.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A file of authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// It cannot be read.
    #[error(
        "the CA file {path} cannot be read ({reason}): check {setting} and the file's permissions"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The environment variable that names it.
        setting: &'static str,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// It holds no usable certificate.
    #[error(
        "the CA file {path} holds no usable certificate ({reason}): it must be PEM, beginning \
         with -----BEGIN CERTIFICATE-----; check {setting}"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The environment variable that names it.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the authorities of the file that `setting` names; every certificate can be a root.
///
/// # Errors
/// A file that cannot be read, holds no certificate, or one that is not valid.
pub(super) fn read_authorities(
    path: &Path,
    setting: &'static str,
) -> Result<RootCertStore, AuthoritiesError> {
    let pem = std::fs::read(path).map_err(|reason| AuthoritiesError::Unreadable {
        path: path.to_owned(),
        setting,
        reason,
    })?;
    let malformed =
        |reason: String| AuthoritiesError::Malformed { path: path.to_owned(), setting, reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| malformed(e.to_string()))?;
        roots.add(certificate).map_err(|e| malformed(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(malformed("no certificate found".into()));
    }
    Ok(roots)
}
