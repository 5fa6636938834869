//! Secrets of the configuration, which cannot reach a log by accident.
//!
//! A [`Secret`] formats as `***`; only [`Secret::expose`] shows its text. URLs lose what may be
//! secret in them before they are shown.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A password or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL, valid or not, without what may be credentials: all before the last `@`.
pub(crate) fn redacted_url(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else { return text.to_owned() };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://***@{host}"),
        None => format!("***@{host}"),
    }
}

/// A URL, valid or not, without what may be secret: user, password and the query.
pub(crate) fn redacted_http_url(text: &str) -> String {
    match text.split_once('?') {
        None => redacted_url(text),
        Some((before, "")) => redacted_url(before),
        Some((before, _)) => format!("{}?***", redacted_url(before)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatting_hides_the_text() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }
}
