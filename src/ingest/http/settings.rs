//! Where the backend is and how to prove who we are: settings, and what is checked at start.
//!
//! A mistake that an operator has to put right is found here and named with its fix. Nothing
//! shows the token, nor the URL's query, which may hold a key. It opens no connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::RootCertStore;

use super::endpoint::{Endpoint, EndpointError};
use crate::channel::Pattern;
use crate::ingest::authorities::{AuthoritiesError, read_authorities};
use crate::secret::Secret;

/// The settings of the polling source.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The `http://` or `https://` address that is asked. Its query may hold a key, so it is kept
    /// like one.
    pub url: Secret,
    /// From the beginning of one request to that of the next.
    pub interval: Duration,
    /// How long a request may take, connecting and the whole answer included.
    pub timeout: Duration,
    /// A bearer token (RFC 6750).
    pub token: Option<Secret>,
    /// A file that holds the token; read again when the backend refuses it.
    pub token_file: Option<PathBuf>,
    /// PEM certificates of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The longest answer, in bytes.
    pub body_bytes_max: usize,
    /// What clients may subscribe to; changes of other channels are left out.
    pub served: Arc<[Pattern]>,
}

/// What the operator has to put right.
#[derive(Debug, thiserror::Error)]
pub enum HttpSettingsError {
    /// No address.
    #[error(
        "HTTP_SOURCE_URL (--http-source-url) is missing: the http source needs it, such as \
         https://host/changes"
    )]
    NoUrl,
    /// An address that cannot be asked.
    #[error(transparent)]
    Url(#[from] EndpointError),
    /// A token and a file with one.
    #[error("HTTP_SOURCE_TOKEN and HTTP_SOURCE_TOKEN_FILE are both set: keep one of them")]
    TwoTokens,
    /// A token that cannot stand in a header. It is not shown.
    #[error(
        "the token of {setting} cannot be sent: it must be one line of letters, digits and signs \
         without spaces"
    )]
    TokenMalformed {
        /// The environment variable that it comes from.
        setting: &'static str,
    },
    /// A file with a token that cannot be read.
    #[error(
        "the token file {path} cannot be read ({reason}): check HTTP_SOURCE_TOKEN_FILE and the \
         file's permissions"
    )]
    TokenUnreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// The file of authorities.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// `https://` on a system without certificates.
    #[error(
        "the system has no CA certificates to check https:// with ({reason}): install them (the \
         package is usually ca-certificates), or name a file with HTTP_SOURCE_CA_FILE"
    )]
    NoAuthorities {
        /// What was looked for.
        reason: std::io::Error,
    },
}

impl HttpSettings {
    /// Everything that can be found wrong without the backend.
    pub fn mistakes(&self) -> Vec<HttpSettingsError> {
        let found = [
            self.endpoint().err(),
            self.authorization().err(),
            self.authorities().err().map(HttpSettingsError::from),
        ];
        found.into_iter().flatten().collect()
    }

    /// The parsed address.
    ///
    /// # Errors
    /// None is given, or it cannot be asked.
    pub(super) fn endpoint(&self) -> Result<Endpoint, HttpSettingsError> {
        if self.url.expose().is_empty() {
            return Err(HttpSettingsError::NoUrl);
        }
        Ok(Endpoint::parse(self.url.expose())?)
    }

    /// The `Authorization` header, if there is a token. Reads the token file.
    ///
    /// # Errors
    /// A token that cannot be had or sent.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, HttpSettingsError> {
        match (&self.token, &self.token_file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(HttpSettingsError::TwoTokens),
            (Some(token), None) => bearer(token.expose(), "HTTP_SOURCE_TOKEN").map(Some),
            (None, Some(path)) => {
                let token = read_token(path)?;
                bearer(token.expose().trim(), "HTTP_SOURCE_TOKEN_FILE").map(Some)
            }
        }
    }

    /// The authorities of the file, if there is one.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub(super) fn authorities(&self) -> Result<Option<RootCertStore>, AuthoritiesError> {
        let read = |path: &PathBuf| read_authorities(path, "HTTP_SOURCE_CA_FILE");
        self.ca_file.as_ref().map(read).transpose()
    }
}

fn read_token(path: &Path) -> Result<Secret, HttpSettingsError> {
    let unreadable = |reason| HttpSettingsError::TokenUnreadable { path: path.to_owned(), reason };
    std::fs::read_to_string(path).map(Secret::from).map_err(unreadable)
}

fn bearer(token: &str, setting: &'static str) -> Result<HeaderValue, HttpSettingsError> {
    let malformed = || HttpSettingsError::TokenMalformed { setting };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed());
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| malformed())?;
    value.set_sensitive(true);
    Ok(value)
}
