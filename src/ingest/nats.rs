//! Where NATS is and how to prove who we are: settings, and what is checked before a connection.
//!
//! A mistake that an operator has to put right (a URL that cannot be parsed, a file that is not
//! there) is found here, at start, and named with its fix. Credentials are taken out of URLs, so
//! that no log line, of ours or of the client library, can contain them. It opens no connection.

use std::fmt;
use std::path::PathBuf;

use async_nats::{ConnectOptions, ServerAddr};

use super::authorities::{AuthoritiesError, read_authorities};
use crate::secret::{Secret, redacted_url};

/// How to reach NATS.
#[derive(Clone, Default)]
pub struct NatsSettings {
    /// `nats://` or `tls://` URLs, tried in turn; user and password, or a token, may be in them.
    pub urls: Vec<String>,
    /// A `.creds` file, as a managed NATS service issues them. It is read at every connection.
    pub creds_file: Option<PathBuf>,
    /// The user; it goes before one in a URL.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A token; it goes before one in a URL.
    pub token: Option<Secret>,
    /// PEM certificates of the authorities to trust instead of the system's. Once given, a
    /// server that offers no TLS is refused.
    pub ca_file: Option<PathBuf>,
    /// The name under which the server lists this client: the instance.
    pub name: String,
    /// Messages taken from the broker in a second, at most; 0 is no limit.
    pub rate_max: u32,
}

/// What the operator has to put right.
#[derive(Debug, thiserror::Error)]
pub enum NatsSettingsError {
    /// An empty list.
    #[error("no NATS URL is given: set NATS_URL, for example nats://127.0.0.1:4222")]
    NoUrl,
    /// A URL that cannot be parsed, or has no host; shown without credentials.
    #[error(
        "the NATS URL {url:?} is not valid ({reason}): write nats://host:port or tls://host:port"
    )]
    Url {
        /// The URL without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A password without the user that it belongs to.
    #[error("a NATS password is given without a user: set NATS_USER as well")]
    PasswordWithoutUser,
    /// A credentials file that cannot be read.
    #[error(
        "the credentials file {path} cannot be read ({reason}): check NATS_CREDS_FILE and the \
             file's permissions"
    )]
    CredsUnreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// A credentials file without a JWT and a seed.
    #[error(
        "the credentials file {path} is not a NATS .creds file ({reason}): it must hold the \
             user JWT and the NKEY seed, as `nsc generate creds` writes them"
    )]
    CredsMalformed {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: std::io::Error,
    },
    /// The file of authorities.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
}

/// One server of the list, its credentials apart from its address.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: ServerAddr,
    login: Login,
}

/// The credentials that a URL carried.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Login {
    None,
    Token(Secret),
    User(String, Secret),
}

impl fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| redacted_url(url)).collect();
        f.debug_struct("NatsSettings")
            .field("urls", &urls)
            .field("creds_file", &self.creds_file)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("token", &self.token)
            .field("ca_file", &self.ca_file)
            .field("name", &self.name)
            .field("rate_max", &self.rate_max)
            .finish()
    }
}

impl NatsSettings {
    /// Checks everything that can be checked without a broker, and returns the servers.
    ///
    /// # Errors
    /// The first mistake.
    pub(crate) fn check(&self) -> Result<Vec<Server>, NatsSettingsError> {
        let servers =
            self.urls.iter().map(|url| Server::parse(url)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = servers.first() else { return Err(NatsSettingsError::NoUrl) };
        if let Some(path) = &self.ca_file {
            read_authorities(path, "NATS_CA_FILE")?;
        }
        self.options(first)?;
        Ok(servers)
    }

    /// The options of a connection to `server`. Reads the credentials file.
    ///
    /// # Errors
    /// A file that cannot be used, a password without a user.
    pub(crate) fn options(&self, server: &Server) -> Result<ConnectOptions, NatsSettingsError> {
        let mut options = ConnectOptions::new().name(&self.name);
        match &server.login {
            Login::None => {}
            Login::Token(token) => options = options.token(token.expose().to_owned()),
            Login::User(user, password) => {
                options = options.user_and_password(user.clone(), password.expose().to_owned());
            }
        }
        match (&self.user, &self.password) {
            (Some(user), password) => {
                let password = password.as_ref().map_or("", Secret::expose);
                options = options.user_and_password(user.clone(), password.to_owned());
            }
            (None, Some(_)) => return Err(NatsSettingsError::PasswordWithoutUser),
            (None, None) => {}
        }
        if let Some(token) = &self.token {
            options = options.token(token.expose().to_owned());
        }
        if let Some(path) = &self.ca_file {
            options = options.require_tls(true).add_root_certificates(path.clone());
        }
        if let Some(path) = &self.creds_file {
            let creds = std::fs::read_to_string(path).map_err(|reason| {
                NatsSettingsError::CredsUnreadable { path: path.clone(), reason }
            })?;
            options = options.credentials(&creds).map_err(|reason| {
                NatsSettingsError::CredsMalformed { path: path.clone(), reason }
            })?;
        }
        Ok(options)
    }
}

impl Server {
    /// Parses a URL: `host`, `host:port`, `nats://…` or `tls://…`, with or without credentials.
    ///
    /// # Errors
    /// [`NatsSettingsError::Url`].
    pub(crate) fn parse(text: &str) -> Result<Self, NatsSettingsError> {
        let invalid = |reason: String| NatsSettingsError::Url { url: redacted_url(text), reason };
        let parsed: ServerAddr = text.trim().parse().map_err(|e: std::io::Error| {
            // The parser's message does not repeat the URL.
            invalid(e.to_string())
        })?;
        if !matches!(parsed.scheme(), "nats" | "tls") {
            return Err(invalid(format!("the scheme {} is not supported", parsed.scheme())));
        }
        if parsed.host().is_empty() {
            return Err(invalid("it names no host".into()));
        }
        let login = match (parsed.username(), parsed.password()) {
            (Some(user), Some(password)) => {
                Login::User(percent_decoded(user), Secret::from(percent_decoded(password)))
            }
            (Some(token), None) => Login::Token(Secret::from(percent_decoded(token))),
            (None, _) => Login::None,
        };
        let mut url = parsed.into_inner();
        let is_stripped = url.set_username("").is_ok() && url.set_password(None).is_ok();
        let address = ServerAddr::from_url(url).map_err(|e| invalid(e.to_string()))?;
        if !is_stripped {
            return Err(invalid("its credentials cannot be separated".into()));
        }
        Ok(Self { address, login })
    }

    /// The address without credentials.
    pub(crate) fn address(&self) -> &ServerAddr {
        &self.address
    }

    /// The URL without credentials.
    pub(crate) fn url(&self) -> &str {
        self.address.as_url_str()
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1); what is not a valid escape stays as it is.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_urls() {
        let user = |name: &str, password: &str| {
            Login::User(name.to_owned(), Secret::from(password.to_owned()))
        };
        let cases = [
            ("127.0.0.1:4222", "nats://127.0.0.1:4222", Login::None),
            ("tls://broker", "tls://broker", Login::None),
            ("nats://u:p%40ss@broker:4222", "nats://broker:4222", user("u", "p@ss")),
            (
                "nats://s3cret@broker",
                "nats://broker",
                Login::Token(Secret::from("s3cret".to_owned())),
            ),
        ];
        for (text, url, login) in cases {
            let server = Server::parse(text).unwrap();
            assert_eq!((server.url(), &server.login), (url, &login), "{text}");
            assert!(!format!("{server:?}").contains("s3cret"));
        }
        let urls = vec!["nats://u:s3cret@a".to_owned(), "s3cret@b".to_owned()];
        let settings = NatsSettings { urls, ..Default::default() };
        assert!(format!("{settings:?}").contains(r#"["nats://***@a", "***@b"]"#), "{settings:?}");
    }

    #[test]
    fn bad_urls_are_named_without_their_credentials() {
        for text in
            ["ws://u:s3cret@host", "nats://u:s3cret@host:99999", "http://s3cret@host", "nats://"]
        {
            let error = Server::parse(text).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
            assert!(error.contains("nats://host:port"), "{error}");
        }
    }

    #[test]
    fn percent_decoding_leaves_what_is_no_escape() {
        let cases = [("a%20b", "a b"), ("100%", "100%"), ("%zz", "%zz"), ("%C3%A9", "é"), ("", "")];
        for (text, expected) in cases {
            assert_eq!(percent_decoded(text), expected);
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let base = NatsSettings { urls: vec!["nats://localhost".into()], ..Default::default() };
        let missing = Some(PathBuf::from("/does/not/exist"));
        let not_creds = Some(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
        let password = Some(Secret::from("p".to_owned()));
        let cases = [
            (NatsSettings { urls: Vec::new(), ..base.clone() }, "NATS_URL"),
            (NatsSettings { creds_file: missing.clone(), ..base.clone() }, "/does/not/exist"),
            (NatsSettings { creds_file: not_creds.clone(), ..base.clone() }, "Cargo.toml"),
            (NatsSettings { ca_file: missing, ..base.clone() }, "/does/not/exist"),
            (NatsSettings { ca_file: not_creds, ..base.clone() }, "BEGIN CERTIFICATE"),
            (NatsSettings { password, ..base.clone() }, "NATS_USER"),
        ];
        for (settings, expected) in cases {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(base.check().unwrap().len(), 1);
    }
}
