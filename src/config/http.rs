//! The source that polls a backend over HTTP.

use std::time::Duration;

use super::kinds::{FilePath, Number, SecretText};
use super::setting::{Scope, Section, Setting};
use super::values::Values;
use crate::ingest::HttpSettings;
use crate::secret::redacted_http_url;

/// The longest interval and the longest timeout.
const MS_MAX: u64 = 60_000;

pub(super) const URL: Setting<SecretText> =
    Setting::new("HTTP_SOURCE_URL", "http-source-url", Scope::Serve, SecretText)
        .redacted(redacted_http_url)
        .help("backend that the http source polls: GET {url}?since={cursor}");

pub(super) const INTERVAL_MS: Setting<Number<u64>> = Setting::new(
    "HTTP_SOURCE_INTERVAL_MS",
    "http-source-interval-ms",
    Scope::Serve,
    Number::new(10, MS_MAX),
)
.default("100")
.unit("milliseconds")
.help("milliseconds from one request to the next");

pub(super) const TIMEOUT_MS: Setting<Number<u64>> = Setting::new(
    "HTTP_SOURCE_TIMEOUT_MS",
    "http-source-timeout-ms",
    Scope::Serve,
    Number::new(100, MS_MAX),
)
.default("2000")
.unit("milliseconds")
.help("milliseconds that a request may take, the whole answer included");

pub(super) const MAX_BODY_BYTES: Setting<Number<usize>> = Setting::new(
    "HTTP_SOURCE_MAX_BODY_BYTES",
    "http-source-max-body-bytes",
    Scope::Serve,
    Number::new(1_024, 1 << 30),
)
.default("8388608")
.unit("bytes")
.help("longest answer of the backend");

pub(super) const TOKEN: Setting<SecretText> =
    Setting::new("HTTP_SOURCE_TOKEN", "http-source-token", Scope::Serve, SecretText)
        .secret()
        .help("bearer token for the backend");

pub(super) const TOKEN_FILE: Setting<FilePath> =
    Setting::new("HTTP_SOURCE_TOKEN_FILE", "http-source-token-file", Scope::Serve, FilePath)
        .help("file with the bearer token, read again when the backend answers 401");

pub(super) const CA_FILE: Setting<FilePath> =
    Setting::new("HTTP_SOURCE_CA_FILE", "http-source-ca-file", Scope::Serve, FilePath)
        .computed("the system's")
        .help("PEM file of the CA that the backend is signed by");

pub(super) const SECTION: Section = Section {
    name: "http",
    title: "HTTP source",
    settings: &[&URL, &INTERVAL_MS, &TIMEOUT_MS, &MAX_BODY_BYTES, &TOKEN, &TOKEN_FILE, &CA_FILE],
};

/// Reads the settings of the polling source, without what is served: that is the caller's to set.
pub(super) fn http_settings(values: &mut Values) -> HttpSettings {
    HttpSettings {
        url: values.optional(&URL).unwrap_or_else(|| String::new().into()),
        interval: Duration::from_millis(values.read(&INTERVAL_MS)),
        timeout: Duration::from_millis(values.read(&TIMEOUT_MS)),
        token: values.optional(&TOKEN),
        token_file: values.optional(&TOKEN_FILE),
        ca_file: values.optional(&CA_FILE),
        body_bytes_max: values.read(&MAX_BODY_BYTES),
        served: [].into(),
    }
}
