//! Where NATS is, how to log in, and what is taken from it.

use std::sync::Arc;

use super::context::Machine;
use super::kinds::{FilePath, List, SecretText, Text};
use super::server::instance;
use super::setting::{Scope, Section, Setting};
use super::values::Values;
use crate::channel::Pattern;
use crate::ingest::{NatsSettings, SUBJECT_BYTES_MAX};
use crate::secret::redacted_url;

/// The default of [`SUBJECTS`] for every source but `core`.
pub(super) const SUBJECTS_DEFAULT: &[&str] = &["odin.token.>", "odin.global.>"];

pub(super) const URL: Setting<List> = Setting::new("NATS_URL", "nats-url", Scope::Broker, List)
    .redacted(redacted_urls)
    .help("NATS servers, comma-separated");

pub(super) const CREDS_FILE: Setting<FilePath> =
    Setting::new("NATS_CREDS_FILE", "nats-creds-file", Scope::Broker, FilePath)
        .help(".creds file for NATS");

pub(super) const USER: Setting<Text> =
    Setting::new("NATS_USER", "nats-user", Scope::Broker, Text).help("user name for NATS");

pub(super) const PASSWORD: Setting<SecretText> =
    Setting::new("NATS_PASSWORD", "nats-password", Scope::Broker, SecretText)
        .secret()
        .help("password for NATS");

pub(super) const TOKEN: Setting<SecretText> =
    Setting::new("NATS_TOKEN", "nats-token", Scope::Broker, SecretText)
        .secret()
        .help("token for NATS");

pub(super) const CA_FILE: Setting<FilePath> =
    Setting::new("NATS_CA_FILE", "nats-ca-file", Scope::Broker, FilePath)
        .help("PEM file of the CA that NATS is signed by");

pub(super) const SUBJECTS: Setting<List> =
    Setting::new("NATS_SUBJECTS", "nats-subjects", Scope::Broker, List)
        .computed("odin.token.>,odin.global.>; for the core source also the older hierarchies")
        .help("subjects served, comma-separated");

pub(super) const SECTION: Section = Section {
    name: "nats",
    title: "NATS",
    settings: &[&URL, &CREDS_FILE, &USER, &PASSWORD, &TOKEN, &CA_FILE, &SUBJECTS],
};

/// Reads where NATS is and how to log in. The rate is the caller's to set.
pub(super) fn nats_settings(values: &mut Values, machine: &Machine) -> NatsSettings {
    let settings = NatsSettings {
        urls: values.optional(&URL).unwrap_or_default(),
        creds_file: values.optional(&CREDS_FILE),
        user: values.optional(&USER),
        password: values.optional(&PASSWORD),
        token: values.optional(&TOKEN),
        ca_file: values.optional(&CA_FILE),
        name: instance(values, machine).to_string(),
        rate_max: 0,
    };
    if values.has(&URL) && settings.urls.is_empty() {
        values.refuse(&URL, "holds no address: write nats://host:4222".into());
    }
    settings
}

/// The patterns of [`SUBJECTS`], or these defaults.
pub(super) fn subjects(values: &mut Values, defaults: &[&str]) -> Arc<[Pattern]> {
    let mut texts = values.optional(&SUBJECTS).unwrap_or_default();
    if texts.is_empty() {
        texts = defaults.iter().map(|text| (*text).to_owned()).collect();
    }
    let mut patterns = Vec::new();
    for text in texts {
        match Pattern::parse(&text, SUBJECT_BYTES_MAX) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => values.refuse(&SUBJECTS, format!("{text:?}: {error}")),
        }
    }
    patterns.into()
}

/// Patterns as texts.
pub(super) fn texts(patterns: &[Pattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

/// A list of NATS URLs without the users and passwords that they may hold.
fn redacted_urls(urls: &str) -> String {
    urls.split(',').map(redacted_url).collect::<Vec<_>>().join(",")
}
