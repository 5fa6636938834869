//! Flags and environment to one validated [`Config`]; all errors are told at once.
//!
//! ```text
//! settings  the table of all settings
//! cli       the command line, made from the table
//! values    texts with their origin -> types
//! drain     how the server ends, and how long connections live
//! source    what the source and the simulator need
//! secret    a text that is never shown
//! ```

pub mod cli;
mod drain;
pub mod settings;
mod source;
pub mod values;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::net::ListenSettings;
use crate::protocol::command::BATCH_MS_MAX;
use crate::protocol::extension::Compression;
use crate::secret::{redacted_http_url, redacted_url};
use crate::shard::ClientLimits;
use crate::shard::Limits;
pub use drain::DrainConfig;
use settings::SETTINGS;
pub use source::{broadcast_rate_max, pressure_limits, simulate_settings, source};
use values::{Origin, Values};

/// The longest close handshake and the longest linger of a refused request.
const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// What a ping and its pong need at least: two ticks of the timer wheel and a slow network.
const PONG_TIME_MS: u64 = 3_000;

/// The longest message of `echo`: what conformance tools send.
const ECHO_MESSAGE_BYTES: usize = 16 << 20;

/// Descriptors that are not for connections: executors, the broker, listeners, standard streams.
const DESCRIPTORS_RESERVED: u64 = 128;

/// Sockets beyond the connection limit, for handshakes, probes and refusals: a share of the
/// limit, between two bounds.
const HANDSHAKES_MIN: u64 = 16;
const HANDSHAKES_MAX: u64 = 1_024;

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: tracing::Level,
    /// JSON lines instead of text for people.
    pub is_json: bool,
}

/// What `serve` and `echo` have in common.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The instance's name.
    pub instance: Arc<str>,
    /// Shards.
    pub shards: usize,
    /// How to listen.
    pub listen: ListenSettings,
    /// The bounds of a shard.
    pub limits: Limits,
    /// Sockets of the instance, in any state.
    pub sockets_max: u64,
    /// Where the admin port is, if anywhere.
    pub admin_addr: Option<SocketAddr>,
    /// How the clients leave at the end.
    pub drain: DrainConfig,
}

/// What the machine offers, found out before the configuration is validated.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Cores that this process may run on.
    pub cores: usize,
    /// The limit of open descriptors (RLIMIT_NOFILE), already raised as far as it goes.
    pub descriptors: u64,
    /// The host's name.
    pub host_name: String,
    /// Whether standard error is a terminal.
    pub is_terminal: bool,
}

/// Reads the settings of logging.
pub fn log_config(values: &mut Values, machine: &Machine) -> LogConfig {
    let level = values.optional("LOG_LEVEL").and_then(|text| text.parse().ok());
    if level.is_none() {
        values.refuse("LOG_LEVEL", "must be error, warn, info, debug or trace".into());
    }
    let is_json = match values.optional("LOG_FORMAT").as_deref() {
        Some(format) => format == "json",
        None => !machine.is_terminal,
    };
    LogConfig { level: level.unwrap_or(tracing::Level::INFO), is_json }
}

/// Reads the settings of `serve` and `echo`; `is_echo` says which.
pub fn server_config(values: &mut Values, machine: &Machine, kind: ServerKind) -> ServerConfig {
    let instance = instance(values, machine);
    let shards = match values.optional("WS_SHARDS") {
        None => machine.cores,
        Some(_) => values.number("WS_SHARDS", 1, 1_024) as usize,
    };
    let addr = values.optional("WS_ADDR").and_then(|text| text.parse::<SocketAddr>().ok());
    if addr.is_none() {
        values.refuse("WS_ADDR", "must be an IP address and a port, such as 0.0.0.0:3002".into());
    }
    let listen = ListenSettings {
        addr: addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        backlog: values.number("WS_LISTEN_BACKLOG", 1, 1 << 20) as i32,
        send_buffer_bytes: values.number("WS_SEND_BUFFER_BYTES", 4_096, 1 << 24) as usize,
    };
    let (connections_max, sockets_max) = connection_bounds(values, machine);
    let client = client_limits(values, kind);
    let connection_budget_bytes = budget(values, &client, &listen, kind);
    let limits = Limits {
        client,
        connection_budget_bytes,
        connections_max,
        compression: compression(values),
        deflate_bytes_min: values.number("WS_COMPRESSION_MIN_BYTES", 0, 1 << 24) as usize,
        inflate_ratio_max: values.number("WS_INFLATE_RATIO_MAX", 1, 1_032) as usize,
        handshake_timeout_ms: 1_000 * values.number("WS_HANDSHAKE_TIMEOUT_SECONDS", 1, 3_600),
        heartbeat_interval_ms: 1_000 * values.number("WS_HEARTBEAT_SECONDS", 1, 86_400),
        idle_timeout_ms: 1_000 * values.number("WS_IDLE_TIMEOUT_SECONDS", 2, 86_400),
        connection_age_ms: drain::connection_age_ms(values, kind),
        close_timeout_ms: CLOSE_TIMEOUT_MS,
        log_messages: values.number("WS_LOG_MESSAGES", 1, 10_000_000) as usize,
        log_bytes: values.number("WS_LOG_BYTES", 1_024, 1 << 36) as usize,
        log_ms: 1_000 * values.number("WS_LOG_SECONDS", 1, 86_400),
    };
    if limits.idle_timeout_ms < limits.heartbeat_interval_ms + PONG_TIME_MS {
        let problem = "must be at least 3 s longer than WS_HEARTBEAT_SECONDS, or clients are \
                       closed before they can answer a ping";
        values.refuse("WS_IDLE_TIMEOUT_SECONDS", problem.into());
    }
    let admin_addr = match kind {
        ServerKind::Serve => admin_addr(values),
        ServerKind::Echo => None,
    };
    let drain = drain::drain(values, kind);
    ServerConfig { instance, shards, listen, limits, sockets_max, admin_addr, drain }
}

fn admin_addr(values: &mut Values) -> Option<SocketAddr> {
    let text = values.optional("WS_ADMIN_ADDR")?;
    if text == "off" {
        return None;
    }
    let addr = text.parse().ok();
    if addr.is_none() {
        let problem = "must be an IP address and a port, such as 127.0.0.1:9302, or `off`";
        values.refuse("WS_ADMIN_ADDR", problem.into());
    }
    addr
}

fn compression(values: &mut Values) -> Compression {
    match values.optional("WS_COMPRESSION").as_deref() {
        Some("auto") | None => Compression::Deflate,
        Some("off") => Compression::Off,
        Some(_) => {
            values.refuse("WS_COMPRESSION", "must be auto or off".into());
            Compression::Off
        }
    }
}

/// Which server is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Channels.
    Serve,
    /// Echo.
    Echo,
}

fn client_limits(values: &mut Values, kind: ServerKind) -> ClientLimits {
    let message_bytes = values.number("WS_MAX_MESSAGE_BYTES", 128, 1 << 24) as usize;
    let origin = values.text("WS_MAX_MESSAGE_BYTES").map(|(_, origin)| origin);
    let is_default = origin == Some(Origin::Default);
    ClientLimits {
        message_bytes: match (kind, is_default) {
            (ServerKind::Echo, true) => ECHO_MESSAGE_BYTES,
            _ => message_bytes,
        },
        commands_per_second: values.number("WS_MAX_COMMANDS_PER_SECOND", 1, 1_000_000) as u32,
        channels: values.number("WS_MAX_CHANNELS", 1, 65_536) as usize,
        channel_bytes: values.number("WS_MAX_CHANNEL_BYTES", 1, 4_096) as usize,
        replay_messages: values.number("WS_REPLAY_MESSAGES", 32, 100_000) as usize,
        queue_messages: values.number("WS_QUEUE_MESSAGES", 32, 1_000_000) as usize,
        queue_bytes: values.number("WS_QUEUE_BYTES", 1_024, 1 << 30) as usize,
        batch_ms: values.number("WS_BATCH_MS", 0, u64::from(BATCH_MS_MAX)) as u16,
        resume_messages: values.number("WS_RESUME_MESSAGES", 0, 1_000_000) as usize,
    }
}

/// The memory budget of a connection. The bounds of its parts must fit into it, or clients that
/// keep within each would be closed.
fn budget(
    values: &mut Values,
    client: &ClientLimits,
    listen: &ListenSettings,
    kind: ServerKind,
) -> usize {
    let budget = values.number("WS_CONN_BUDGET_BYTES", 16_384, 1 << 36) as usize;
    if kind == ServerKind::Echo {
        // Conformance tools send the longest messages one behind the other and read later.
        return budget.max(8 * client.message_bytes);
    }
    let parts = Limits::budget_needed(client) + 2 * listen.send_buffer_bytes;
    if budget < parts {
        let problem = format!(
            "must be at least {parts}, the sum of what WS_QUEUE_BYTES, WS_QUEUE_MESSAGES, \
             WS_MAX_MESSAGE_BYTES, WS_SEND_BUFFER_BYTES, WS_MAX_CHANNELS, WS_REPLAY_MESSAGES and \
             WS_RESUME_MESSAGES allow: raise it, or lower one of them"
        );
        values.refuse("WS_CONN_BUDGET_BYTES", problem);
    }
    budget
}

/// Connections that so many descriptors allow, and the handshakes beside them.
pub fn connections_allowed(descriptors: u64) -> (u64, u64) {
    let available = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    let handshakes = (available / 16).clamp(HANDSHAKES_MIN, HANDSHAKES_MAX);
    (available.saturating_sub(handshakes), handshakes)
}

/// Descriptors that allow so many connections.
pub fn descriptors_needed(connections: u64) -> u64 {
    // A sixteenth of all is a fifteenth of the rest.
    let handshakes = (connections / 15 + 1).clamp(HANDSHAKES_MIN, HANDSHAKES_MAX);
    connections.saturating_add(handshakes + DESCRIPTORS_RESERVED)
}

/// Open connections and sockets that the descriptors allow.
fn connection_bounds(values: &mut Values, machine: &Machine) -> (u64, u64) {
    let (possible, handshakes) = connections_allowed(machine.descriptors);
    let fix = "raise it with `ulimit -n 200000`, LimitNOFILE= in the systemd unit, or \
               `--ulimit nofile=200000` for a container";
    let wanted = match values.optional("WS_MAX_CONNECTIONS") {
        None => possible,
        Some(_) => values.number("WS_MAX_CONNECTIONS", 1, 100_000_000),
    };
    if wanted > possible || possible == 0 {
        let descriptors = machine.descriptors;
        let problem = format!(
            "needs {} descriptors, and this process may open {descriptors}: {fix}",
            wanted.max(1) + handshakes + DESCRIPTORS_RESERVED
        );
        values.refuse("WS_MAX_CONNECTIONS", problem);
    }
    (wanted, wanted + handshakes)
}

/// The instance's name.
pub fn instance(values: &mut Values, machine: &Machine) -> Arc<str> {
    let name = values.optional("WS_INSTANCE").unwrap_or_else(|| machine.host_name.clone());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
        let problem = "must be 1 to 64 letters, digits, dots, dashes or underscores";
        values.refuse("WS_INSTANCE", problem.into());
    }
    name.into()
}

/// The effective settings of `command` as `NAME=value` lines with their origin, secrets hidden.
pub fn print(values: &Values, command: &str) -> String {
    let mut out = String::new();
    for setting in SETTINGS.iter().filter(|setting| setting.scope.includes(command)) {
        let line = match values.text(setting.env) {
            None => format!("# {}= (computed, or not set)", setting.env),
            Some((text, origin)) => {
                let shown = match setting.env {
                    _ if setting.is_secret => "***".to_owned(),
                    "NATS_URL" => hide_user_info(text),
                    "HTTP_SOURCE_URL" => redacted_http_url(text),
                    _ => text.to_owned(),
                };
                let origin = match origin {
                    Origin::Flag => "flag",
                    Origin::Environment => "environment",
                    Origin::Default => "default",
                };
                format!("{}={shown} # {origin}", setting.env)
            }
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// A list of NATS URLs without the users and passwords that they may hold.
fn hide_user_info(urls: &str) -> String {
    urls.split(',').map(redacted_url).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let host_name = "host-1".into();
        Machine { cores: 2, descriptors: 20_000, host_name, is_terminal: false }
    }

    fn values(pairs: &[(&str, &str)]) -> Values {
        let mut values = Values::default();
        for (env, text) in pairs {
            let setting = settings::find(env).unwrap();
            values.set(setting, (*text).to_owned(), Origin::Environment);
        }
        values
    }

    #[test]
    fn the_defaults_are_valid() {
        let mut values = values(&[]);
        let config = server_config(&mut values, &machine(), ServerKind::Serve);
        assert_eq!(values.finish(), Ok(()));
        assert_eq!((config.shards, &*config.instance), (2, "host-1"));
        assert_eq!(config.limits.connections_max, 20_000 - 128 - 1_024);
        assert_eq!(config.sockets_max, 20_000 - 128);
    }

    #[test]
    fn the_descriptors_needed_allow_the_connections() {
        for connections in [1, 14, 15, 240, 1_000, 10_000, 15_359, 15_360, 18_848, 1_000_000] {
            let (allowed, _) = connections_allowed(descriptors_needed(connections));
            assert!((connections..=connections + 1).contains(&allowed), "{connections} {allowed}");
        }
        assert_eq!(connections_allowed(20_000).0, 18_848);
    }

    #[test]
    fn all_errors_are_told_at_once_with_name_value_and_fix() {
        let mut values = values(&[
            ("WS_ADDR", "here"),
            ("WS_SHARDS", "0"),
            ("WS_IDLE_TIMEOUT_SECONDS", "27"),
            ("WS_MAX_CONNECTIONS", "50000"),
            ("WS_INSTANCE", "a b"),
            ("LOG_LEVEL", "loud"),
        ]);
        server_config(&mut values, &machine(), ServerKind::Serve);
        log_config(&mut values, &machine());
        let text = values.finish().unwrap_err().to_string();
        for part in [
            "6 settings are wrong",
            "WS_ADDR (--addr) is \"here\"",
            "WS_SHARDS (--shards) is \"0\": must be a whole number from 1 to 1024",
            "WS_IDLE_TIMEOUT_SECONDS",
            "WS_MAX_CONNECTIONS (--max-connections) is \"50000\": needs 51152 descriptors",
            "ulimit -n",
            "WS_INSTANCE",
            "LOG_LEVEL",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn consumers_that_nats_would_refuse_are_told_of() {
        let broker = ("NATS_URL", "nats://127.0.0.1");
        let durable = ("JS_CONSUMER_MODE", "durable");
        let cases = [
            (("JS_CONSUMER_MODE", "shared"), "must be ordered or durable"),
            (("JS_CONSUMER_NAME", "a.b"), "the consumer name \"a.b\" is not valid"),
            (("JS_CONSUMER_INACTIVE_THRESHOLD", "5s"), "an inactive threshold of 5s is too short"),
        ];
        for (wrong, expected) in cases {
            let mut values = values(&[broker, durable, wrong]);
            source(&mut values, &machine());
            let text = values.finish().unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let values = values(&[
            ("NATS_PASSWORD", "hunter2"),
            ("NATS_TOKEN", "hunter2"),
            ("NATS_URL", "nats://bob:hunter2@a:4222,b:4222,tls://hunter2@c"),
            ("HTTP_SOURCE_URL", "http://bob:hunter2@a/b?key=hunter2"),
            ("HTTP_SOURCE_TOKEN", "hunter2"),
        ]);
        let text = print(&values, "serve");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("NATS_URL=nats://***@a:4222,b:4222,tls://***@c # environment"));
        assert!(text.contains("HTTP_SOURCE_URL=http://***@a/b?*** # environment"));
        assert!(text.contains("WS_ADDR=0.0.0.0:3002 # default"));
    }
}
