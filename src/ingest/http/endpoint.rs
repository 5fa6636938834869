//! PURE: the address that is asked, and the address with a cursor.
//!
//! Bounds: [`URL_BYTES_MAX`] for the address; with a cursor of at most [`CURSOR_BYTES_MAX`] bytes
//! it stays below what servers take (RFC 9110, section 4.1, asks for 8,000 bytes at least).

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::answer::{CURSOR_BYTES_MAX, Cursor};
use crate::secret::redacted_http_url;

/// The longest address without the cursor, in bytes.
const URL_BYTES_MAX: usize = 4_096;

/// The parameter that carries the cursor.
const PARAMETER: &str = "since";

// What `Uri` takes: each byte of a cursor becomes three at most.
const _: () = assert!(URL_BYTES_MAX + PARAMETER.len() + 2 + 3 * CURSOR_BYTES_MAX < 65_534);

/// An address that cannot be asked; shown without user, password and query.
#[derive(Debug, thiserror::Error)]
#[error(
    "HTTP_SOURCE_URL (--http-source-url) is {url:?}, which cannot be used ({reason}): write \
     http://host:port/path or https://host/path"
)]
pub struct EndpointError {
    /// The URL without credentials.
    url: String,
    /// What is wrong with it.
    reason: String,
}

/// A valid address without a cursor.
#[derive(Clone)]
pub(super) struct Endpoint {
    uri: Uri,
    shown: String,
}

impl Endpoint {
    /// Parses an `http://` or `https://` URL, which may have a query.
    ///
    /// # Errors
    /// Why the address cannot be asked.
    pub(super) fn parse(text: &str) -> Result<Self, EndpointError> {
        let shown = redacted_http_url(text);
        let invalid =
            |reason: &str| EndpointError { url: shown.clone(), reason: reason.to_owned() };
        if text.len() > URL_BYTES_MAX {
            return Err(invalid("it is longer than 4096 bytes"));
        }
        if text.contains('#') {
            return Err(invalid(
                "it has a fragment, which is never sent: leave out # and the rest",
            ));
        }
        let uri: Uri = text.parse().map_err(|_| invalid("it is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(invalid("it does not begin with http:// or https://"));
        }
        let authority = uri.authority().map_or("", Authority::as_str);
        if authority.contains('@') {
            return Err(invalid("it holds a user or password: use HTTP_SOURCE_TOKEN"));
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(invalid("it names no host"));
        }
        if authority.len() > host.len() && uri.port_u16().is_none() {
            return Err(invalid("its port is not a number up to 65535"));
        }
        let mut parameters = uri.query().unwrap_or_default().split('&');
        if parameters.any(|pair| pair.split('=').next() == Some(PARAMETER)) {
            return Err(invalid("its query has `since` already, which is for the cursor"));
        }
        Ok(Self { uri, shown })
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The address for the log.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The address with the cursor, or without one.
    pub(super) fn at(&self, cursor: Option<&Cursor>) -> Uri {
        let Some(cursor) = cursor else { return self.uri.clone() };
        let mut parts = self.uri.clone().into_parts();
        let before = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
        let joint = match self.uri.query() {
            None => "?",
            Some("") => "",
            Some(_) => "&",
        };
        let value = utf8_percent_encode(cursor.as_str(), NON_ALPHANUMERIC);
        let path = PathAndQuery::try_from(format!("{before}{joint}{PARAMETER}={value}"));
        parts.path_and_query =
            Some(path.expect("letters, digits and % behind a valid path, and not too long"));
        Uri::from_parts(parts).expect("scheme and host are there, and the path is not empty")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_joins_the_query_that_is_there() {
        let cases = [
            ("http://h", "7", "http://h/?since=7"),
            ("http://h:81/a/b", "7", "http://h:81/a/b?since=7"),
            ("https://h/a?", "7", "https://h/a?since=7"),
            ("https://h/a?x=1&y=2", "7", "https://h/a?x=1&y=2&since=7"),
            ("http://[::1]:8/a", "a b&c=+/?#%é", {
                "http://[::1]:8/a?since=a%20b%26c%3D%2B%2F%3F%23%25%C3%A9"
            }),
        ];
        for (url, cursor, expected) in cases {
            let endpoint = Endpoint::parse(url).unwrap();
            let cursor = Cursor::new(cursor.to_owned()).unwrap();
            assert_eq!(endpoint.at(Some(&cursor)).to_string(), expected);
            let without = endpoint.at(None).to_string();
            assert!(without.trim_end_matches('/') == url.trim_end_matches('/'), "{without}");
        }
    }

    #[test]
    fn the_longest_address_takes_the_longest_cursor() {
        let url = format!("http://h/{}", "x".repeat(URL_BYTES_MAX - "http://h/".len()));
        let cursor = Cursor::new("é".repeat(CURSOR_BYTES_MAX / 2)).unwrap();
        let asked = Endpoint::parse(&url).unwrap().at(Some(&cursor)).to_string();
        assert_eq!(asked.len(), URL_BYTES_MAX + "?since=".len() + 3 * CURSOR_BYTES_MAX);
    }

    #[test]
    fn what_cannot_be_asked_is_named_without_secrets() {
        let long = format!("http://h/{}", "x".repeat(URL_BYTES_MAX));
        let cases = [
            ("here", "does not begin with http://"),
            ("ftp://h/a", "does not begin with http://"),
            ("http://", "is not a URL"),
            ("http://h h/", "is not a URL"),
            ("http://h:99999/", "port is not a number"),
            ("http://[::1]:/", "port is not a number"),
            ("http://bob:hunter2@h/", "use HTTP_SOURCE_TOKEN"),
            ("http://bob:hunter2@h/?key=hunter2", "use HTTP_SOURCE_TOKEN"),
            ("http://h/?key=hunter2#a", "fragment"),
            ("http://h/?key=hunter2&since=3", "has `since` already"),
            (&long, "longer than 4096"),
        ];
        for (url, expected) in cases {
            let Err(error) = Endpoint::parse(url) else { panic!("{url} was taken") };
            let text = error.to_string();
            assert!(text.contains(expected) && !text.contains("hunter2"), "{url}: {text}");
        }
        let endpoint = Endpoint::parse("http://h/a?key=hunter2").unwrap();
        assert_eq!(endpoint.shown(), "http://h/a?***");
        assert!(!endpoint.is_https());
    }
}
