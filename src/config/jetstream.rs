//! The JetStream stream, and the consumer that reads it.

use std::time::Duration;

use super::kinds::{Choice, Number, Span, Switch, Text};
use super::nats::{SUBJECTS_DEFAULT, subjects, texts};
use super::setting::{Scope, Section, Setting};
use super::values::Values;
use crate::ingest::{ConsumerMode, DurableSettings, STREAM_MAX_AGE_MIN, StreamSettings};

pub(super) const STREAM_NAME: Setting<Text> =
    Setting::new("JS_STREAM_NAME", "js-stream-name", Scope::Broker, Text)
        .default("ODIN_TOKENS")
        .help("JetStream stream");

/// NATS refuses a stream with a shorter age than 100 ms; 0 is its word for no limit.
pub(super) const STREAM_MAX_AGE: Setting<Span> = Setting::new(
    "JS_STREAM_MAX_AGE",
    "js-stream-max-age",
    Scope::Broker,
    Span::zero_or(STREAM_MAX_AGE_MIN, Duration::MAX, "0 (no limit) or at least 100ms"),
)
.default("30s")
.unit("duration")
.help("age kept: 30s, 5m, 1h");

pub(super) const STREAM_MAX_MSGS: Setting<Number<i64>> = Setting::new(
    "JS_STREAM_MAX_MSGS",
    "js-stream-max-msgs",
    Scope::Broker,
    Number::new(1, i64::MAX),
)
.default("100000")
.unit("messages")
.help("messages kept");

pub(super) const STREAM_MAX_BYTES: Setting<Number<i64>> = Setting::new(
    "JS_STREAM_MAX_BYTES",
    "js-stream-max-bytes",
    Scope::Broker,
    Number::new(1_024, i64::MAX),
)
.default("52428800")
.unit("bytes")
.help("bytes kept");

pub(super) const STREAM_REPLICAS: Setting<Number<usize>> =
    Setting::new("JS_STREAM_REPLICAS", "js-stream-replicas", Scope::Broker, Number::new(1, 5))
        .default("1")
        .unit("replicas")
        .help("replicas, 1 to 5");

pub(super) const STREAM_UPDATE: Setting<Switch> =
    Setting::new("JS_STREAM_UPDATE", "js-stream-update", Scope::Broker, Switch)
        .default("false")
        .help("change an existing stream to these settings");

pub(super) const CONSUMER_MODE: Setting<Choice<Mode>> =
    Setting::new("JS_CONSUMER_MODE", "js-consumer-mode", Scope::Serve, Choice::new(MODES))
        .default("ordered")
        .help("ordered: an ephemeral consumer; durable: a named one with acknowledgements");

pub(super) const CONSUMER_NAME: Setting<Text> =
    Setting::new("JS_CONSUMER_NAME", "js-consumer-name", Scope::Serve, Text)
        .default("odin-ws")
        .help("first part of the durable consumer's name; the instance is the second");

/// The bound is the durable mode's own, which checks it.
pub(super) const CONSUMER_INACTIVE_THRESHOLD: Setting<Span> = Setting::new(
    "JS_CONSUMER_INACTIVE_THRESHOLD",
    "js-consumer-inactive-threshold",
    Scope::Serve,
    Span::any("in durable mode 30s or more"),
)
.default("5m")
.unit("duration")
.help(
    "time without a reader after which NATS removes the durable consumer; in durable mode 30s or \
     more",
);

pub(super) const SECTION: Section = Section {
    name: "jetstream",
    title: "JetStream",
    settings: &[
        &STREAM_NAME,
        &STREAM_MAX_AGE,
        &STREAM_MAX_MSGS,
        &STREAM_MAX_BYTES,
        &STREAM_REPLICAS,
        &STREAM_UPDATE,
        &CONSUMER_MODE,
        &CONSUMER_NAME,
        &CONSUMER_INACTIVE_THRESHOLD,
    ],
};

const MODES: &[(&str, Mode)] = &[("ordered", Mode::Ordered), ("durable", Mode::Durable)];

/// Which consumer reads the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// An ephemeral one, made anew at each start.
    Ordered,
    /// One with a name, which the broker remembers.
    Durable,
}

/// Reads which consumer to use.
pub(super) fn consumer_mode(values: &mut Values) -> ConsumerMode {
    let name = values.read(&CONSUMER_NAME);
    let inactive_threshold = values.read(&CONSUMER_INACTIVE_THRESHOLD);
    match values.read(&CONSUMER_MODE) {
        Mode::Ordered => ConsumerMode::Ordered,
        Mode::Durable => ConsumerMode::Durable(DurableSettings { name, inactive_threshold }),
    }
}

/// Reads what the stream is to be like.
pub(super) fn stream_settings(values: &mut Values) -> StreamSettings {
    StreamSettings {
        name: values.read(&STREAM_NAME),
        max_age: values.read(&STREAM_MAX_AGE),
        subjects: texts(&subjects(values, SUBJECTS_DEFAULT)),
        max_msgs: values.read(&STREAM_MAX_MSGS),
        max_bytes: values.read(&STREAM_MAX_BYTES),
        replicas: values.read(&STREAM_REPLICAS),
        update: values.read(&STREAM_UPDATE),
    }
}
