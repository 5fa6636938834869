//! One request at a time to the backend, and what came of it.
//!
//! It knows neither channels nor positions. Bounds: a request with its answer takes at most the
//! configured time-out, after which its connection is closed; an answer has at most the configured
//! bytes; one connection is kept between requests. Redirects are not followed: they would carry
//! the token to wherever they point.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

use super::answer::{AnswerError, Cursor};
use super::endpoint::Endpoint;
use super::headers::{Validators, retry_after};
use super::settings::{HttpSettings, HttpSettingsError};

/// What the backend sees in its log.
const NAME: &str = concat!("odin-ws/", env!("CARGO_PKG_VERSION"));

/// Where the next request goes on.
#[derive(Default)]
pub(super) struct Place {
    /// `None`: from now.
    pub(super) cursor: Option<Cursor>,
    /// Of the answer to the same request, if it was sent before.
    pub(super) validators: Validators,
}

/// What the backend said.
pub(super) enum Reply {
    /// 304: what the last answer said still holds.
    Unchanged,
    /// 200.
    Answer {
        /// The whole body.
        body: Bytes,
        /// For the same request again.
        validators: Validators,
    },
}

/// No usable answer. The network's or the backend's fault, or of a setting that only the backend
/// can judge.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    /// No connection, or one that broke.
    #[error("the request failed: {0}")]
    Request(String),
    /// Too slow.
    #[error("no complete answer within {0:?}: check the backend, or raise HTTP_SOURCE_TIMEOUT_MS")]
    TimeOut(Duration),
    /// A status other than 200 and 304.
    #[error("the backend answers {status}{}", hint(*status, *had_cursor))]
    Status {
        /// The status.
        status: StatusCode,
        /// Whether the request went on from a cursor.
        had_cursor: bool,
        /// The wait that the backend asks for.
        retry_after: Option<Duration>,
    },
    /// Longer than allowed.
    #[error(
        "the answer has more than {limit} bytes: raise HTTP_SOURCE_MAX_BODY_BYTES, or let the \
         backend answer in parts"
    )]
    TooLong {
        /// The bytes allowed.
        limit: usize,
    },
    /// Not as documented.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl PollError {
    /// Whether the cursor is of no use any more: the backend refuses it, or has more after it
    /// than can be taken.
    pub(super) fn loses_cursor(&self) -> bool {
        match self {
            Self::Status { status, had_cursor, .. } => *had_cursor && is_refusal(*status),
            Self::TooLong { .. } => true,
            _ => false,
        }
    }

    /// Whether the token may have been replaced.
    pub(super) fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::UNAUTHORIZED, .. })
    }

    /// The wait that the backend asks for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::GONE | StatusCode::BAD_REQUEST)
}

fn hint(status: StatusCode, had_cursor: bool) -> &'static str {
    match status {
        _ if had_cursor && is_refusal(status) => ": it refuses the cursor",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ": check HTTP_SOURCE_TOKEN or HTTP_SOURCE_TOKEN_FILE"
        }
        StatusCode::NOT_FOUND => ": check HTTP_SOURCE_URL",
        StatusCode::NOT_MODIFIED => " to a request that sets no condition",
        _ if status.is_redirection() => {
            ": redirects are not followed, set HTTP_SOURCE_URL to the final address"
        }
        _ => "",
    }
}

/// The backend, and the connection to it.
pub(super) struct Backend {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    settings: HttpSettings,
    endpoint: Endpoint,
    authorization: Option<HeaderValue>,
}

impl Backend {
    /// Checks the settings and reads the files that they point to. It opens no connection.
    ///
    /// # Errors
    /// The first mistake.
    pub(super) fn new(settings: HttpSettings) -> Result<Self, HttpSettingsError> {
        let endpoint = settings.endpoint()?;
        let authorization = settings.authorization()?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(&endpoint, settings.authorities()?)?)
            .https_or_http()
            .enable_http1()
            .build();
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Ok(Self { client, settings, endpoint, authorization })
    }

    /// The address for the log.
    pub(super) fn shown(&self) -> &str {
        self.endpoint.shown()
    }

    /// Asks for what came after `place`. To be dropped half-way is no harm: the connection ends.
    ///
    /// # Errors
    /// No usable answer.
    pub(super) async fn poll(&self, place: &Place) -> Result<Reply, PollError> {
        let timeout = self.settings.timeout;
        let exchange = tokio::time::timeout(timeout, self.exchange(place)).await;
        exchange.unwrap_or(Err(PollError::TimeOut(timeout)))
    }

    /// Reads the token file again.
    ///
    /// # Errors
    /// A file that cannot be used now; the token stays as it was.
    pub(super) fn reload_token(&mut self) -> Result<(), HttpSettingsError> {
        self.authorization = self.settings.authorization()?;
        Ok(())
    }

    async fn exchange(&self, place: &Place) -> Result<Reply, PollError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.endpoint.at(place.cursor.as_ref());
        self.put_headers(place, request.headers_mut());
        let failed = |error: &dyn Error| PollError::Request(with_causes(error));
        let response = self.client.request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED && !place.validators.is_empty() {
            return Ok(Reply::Unchanged);
        }
        if status != StatusCode::OK {
            let retry_after = retry_after(response.headers(), SystemTime::now());
            let had_cursor = place.cursor.is_some();
            return Err(PollError::Status { status, had_cursor, retry_after });
        }
        let validators = Validators::of(response.headers());
        let limit = self.settings.body_bytes_max;
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => PollError::TooLong { limit },
            false => failed(&*error),
        })?;
        Ok(Reply::Answer { body: body.to_bytes(), validators })
    }

    fn put_headers(&self, place: &Place, headers: &mut HeaderMap) {
        headers.insert(USER_AGENT, HeaderValue::from_static(NAME));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        place.validators.apply(headers);
    }
}

/// TLS with the authorities given, or the system's; with none if the address needs none.
fn tls(
    endpoint: &Endpoint,
    authorities: Option<RootCertStore>,
) -> Result<ClientConfig, HttpSettingsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3");
    let builder = match authorities {
        Some(roots) => builder.with_root_certificates(roots),
        None if endpoint.is_https() => builder
            .with_native_roots()
            .map_err(|reason| HttpSettingsError::NoAuthorities { reason })?,
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}

/// An error with what caused it, which names the system's or TLS' own reason.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, had_cursor: bool) -> PollError {
        let status = StatusCode::from_u16(code).unwrap();
        PollError::Status { status, had_cursor, retry_after: None }
    }

    #[test]
    fn only_a_refused_or_overlong_history_loses_the_cursor() {
        let cases = [
            (status(410, true), true),
            (status(400, true), true),
            (status(400, false), false),
            (status(410, false), false),
            (status(404, true), false),
            (status(429, true), false),
            (status(503, true), false),
            (PollError::TooLong { limit: 1 }, true),
            (PollError::TimeOut(Duration::ZERO), false),
            (PollError::Request(String::new()), false),
            (AnswerError::NoCursor.into(), false),
        ];
        for (error, expected) in cases {
            assert_eq!(error.loses_cursor(), expected, "{error}");
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let cases = [
            (status(401, true), "HTTP_SOURCE_TOKEN"),
            (status(404, true), "HTTP_SOURCE_URL"),
            (status(302, true), "redirects are not followed"),
            (status(410, true), "refuses the cursor"),
            (status(304, true), "sets no condition"),
            (status(500, true), "500 Internal Server Error"),
            (PollError::TimeOut(Duration::from_millis(150)), "within 150ms"),
            (PollError::TooLong { limit: 9 }, "HTTP_SOURCE_MAX_BODY_BYTES"),
        ];
        for (error, expected) in cases {
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
