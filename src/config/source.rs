//! The settings of the source, of NATS and of the simulator.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Machine;
use super::instance;
use super::values::Values;
use crate::channel::Pattern;
use crate::ingest::{
    CORE_SUBJECTS_DEFAULT, ConsumerMode, CoreSettings, DurableSettings, HttpSettings,
    JetStreamSettings, NatsSettings, RATE_MAX, SUBJECT_BYTES_MAX, SimSettings, SimulateSettings,
    Source, StreamSettings,
};
use crate::load::PressureLimits;
use crate::secret::Secret;

const SUBJECTS: &[&str] = &["odin.token.>", "odin.global.>"];

/// Publishes of `simulate` that wait for their acknowledgement.
const SIMULATE_OUTSTANDING_MAX: usize = 4_096;

/// The highest memory limit: a pebibyte, more than a machine has.
const MEMORY_LIMIT_MAX: u64 = 1 << 50;

/// The longest interval and the longest time-out of the polling source.
const HTTP_SOURCE_MS_MAX: u64 = 60_000;

/// The source that `serve` is to use, and the patterns that cover what it serves.
pub fn source(values: &mut Values, machine: &Machine) -> (Source, Arc<[Pattern]>) {
    let has_broker = values.optional("NATS_URL").is_some();
    let default = match values.optional("HTTP_SOURCE_URL") {
        _ if has_broker => "jetstream",
        Some(_) => "http",
        None => "sim",
    };
    let name = values.optional("WS_SOURCE").unwrap_or_else(|| default.to_owned());
    if !matches!(name.as_str(), "sim" | "jetstream" | "core" | "http") {
        values.refuse("WS_SOURCE", "must be sim, jetstream, core or http".into());
    } else if matches!(name.as_str(), "jetstream" | "core") && !has_broker {
        let problem = format!("is missing: the {name} source needs it, such as nats://host:4222");
        values.refuse("NATS_URL", problem);
    }
    let mode = consumer_mode(values);
    let sim = sim_settings(values);
    let stream = stream_settings(values);
    let rate_max = rate(values, "WS_MAX_NATS_RATE");
    let nats = NatsSettings { rate_max, ..nats_settings(values, machine) };
    let http = http_settings(values);
    let (source, allowed) = match name.as_str() {
        "core" => {
            let patterns = subjects(values, &CORE_SUBJECTS_DEFAULT);
            (Source::Core(CoreSettings { nats, subjects: texts(&patterns) }), patterns)
        }
        "jetstream" => {
            let settings = JetStreamSettings { nats, stream, mode };
            (Source::JetStream(settings), subjects(values, SUBJECTS))
        }
        "http" => {
            let served = subjects(values, SUBJECTS);
            (Source::Http(HttpSettings { served: Arc::clone(&served), ..http }), served)
        }
        _ => (Source::Sim(sim), subjects(values, SUBJECTS)),
    };
    match &source {
        Source::Http(settings) => {
            settings.mistakes().iter().for_each(|mistake| values.refuse_all(mistake));
        }
        // Without an address there is nothing more to check.
        _ if has_broker => source.check().unwrap_or_else(|error| values.refuse_all(&error)),
        _ => {}
    }
    (source, allowed)
}

/// Events a second that are handed to the shards, at most; 0 is no limit.
pub fn broadcast_rate_max(values: &mut Values) -> u32 {
    rate(values, "WS_MAX_BROADCAST_RATE")
}

/// At what use of memory and CPU the server takes in less.
pub fn pressure_limits(values: &mut Values) -> PressureLimits {
    PressureLimits {
        memory_bytes: values.number("WS_MEMORY_LIMIT", 0, MEMORY_LIMIT_MAX),
        cpu_percent: values.number("WS_CPU_LIMIT", 0, 100) as u32,
    }
}

fn rate(values: &mut Values, env: &'static str) -> u32 {
    values.number(env, 0, u64::from(RATE_MAX)) as u32
}

fn consumer_mode(values: &mut Values) -> ConsumerMode {
    let name = values.optional("JS_CONSUMER_NAME").unwrap_or_default();
    let inactive_threshold = values.duration("JS_CONSUMER_INACTIVE_THRESHOLD");
    let durable = DurableSettings { name, inactive_threshold };
    match values.optional("JS_CONSUMER_MODE").as_deref() {
        Some("ordered") | None => ConsumerMode::Ordered,
        Some("durable") => ConsumerMode::Durable(durable),
        Some(_) => {
            values.refuse("JS_CONSUMER_MODE", "must be ordered or durable".into());
            ConsumerMode::Ordered
        }
    }
}

/// The settings of `simulate`; what ends it comes from the command line alone.
pub fn simulate_settings(values: &mut Values, machine: &Machine) -> SimulateSettings {
    if values.optional("NATS_URL").is_none() {
        let problem = "is missing: simulate publishes to NATS, such as nats://127.0.0.1:4222";
        values.refuse("NATS_URL", problem.into());
    }
    SimulateSettings {
        nats: nats_settings(values, machine),
        stream: stream_settings(values),
        model: sim_settings(values),
        outstanding_max: SIMULATE_OUTSTANDING_MAX,
        count: None,
        duration: None,
    }
}

fn sim_settings(values: &mut Values) -> SimSettings {
    let tokens = values.number("SIM_TOKENS", 1, 100_000) as usize;
    let rate = values.number("SIM_RATE", 0, 100_000) as u32;
    SimSettings { tokens, events_per_second: (rate > 0).then_some(rate), seed: rand::random() }
}

fn nats_settings(values: &mut Values, machine: &Machine) -> NatsSettings {
    let secret = |values: &Values, env| values.optional(env).map(Secret::from);
    let settings = NatsSettings {
        urls: values.list("NATS_URL"),
        creds_file: values.optional("NATS_CREDS_FILE").map(PathBuf::from),
        user: values.optional("NATS_USER"),
        password: secret(values, "NATS_PASSWORD"),
        token: secret(values, "NATS_TOKEN"),
        ca_file: values.optional("NATS_CA_FILE").map(PathBuf::from),
        name: instance(values, machine).to_string(),
        rate_max: 0,
    };
    if values.optional("NATS_URL").is_some() && settings.urls.is_empty() {
        values.refuse("NATS_URL", "holds no address: write nats://host:4222".into());
    }
    settings
}

/// The settings of the polling source, but for what is served.
fn http_settings(values: &mut Values) -> HttpSettings {
    let path = |values: &Values, env| values.optional(env).map(PathBuf::from);
    let milliseconds = |values: &mut Values, env, min| {
        Duration::from_millis(values.number(env, min, HTTP_SOURCE_MS_MAX))
    };
    HttpSettings {
        url: values.optional("HTTP_SOURCE_URL").unwrap_or_default().into(),
        interval: milliseconds(values, "HTTP_SOURCE_INTERVAL_MS", 10),
        timeout: milliseconds(values, "HTTP_SOURCE_TIMEOUT_MS", 100),
        token: values.optional("HTTP_SOURCE_TOKEN").map(Secret::from),
        token_file: path(values, "HTTP_SOURCE_TOKEN_FILE"),
        ca_file: path(values, "HTTP_SOURCE_CA_FILE"),
        body_bytes_max: values.number("HTTP_SOURCE_MAX_BODY_BYTES", 1_024, 1 << 30) as usize,
        served: [].into(),
    }
}

fn stream_settings(values: &mut Values) -> StreamSettings {
    let name = values.optional("JS_STREAM_NAME").unwrap_or_default();
    let max_age = values.duration("JS_STREAM_MAX_AGE");
    let count_max = i64::MAX as u64;
    StreamSettings {
        name,
        subjects: texts(&subjects(values, SUBJECTS)),
        max_age,
        max_msgs: values.number("JS_STREAM_MAX_MSGS", 1, count_max) as i64,
        max_bytes: values.number("JS_STREAM_MAX_BYTES", 1_024, count_max) as i64,
        replicas: values.number("JS_STREAM_REPLICAS", 1, 5) as usize,
        update: values.flag("JS_STREAM_UPDATE"),
    }
}

fn texts(patterns: &[Pattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

/// The patterns of NATS_SUBJECTS, or these defaults.
fn subjects(values: &mut Values, defaults: &[&str]) -> Arc<[Pattern]> {
    let mut texts = values.list("NATS_SUBJECTS");
    if texts.is_empty() {
        texts = defaults.iter().map(|text| (*text).to_owned()).collect();
    }
    let mut patterns = Vec::new();
    for text in texts {
        match Pattern::parse(&text, SUBJECT_BYTES_MAX) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => values.refuse("NATS_SUBJECTS", format!("{text:?}: {error}")),
        }
    }
    patterns.into()
}
