//! Every setting once: its environment variable, flag, default and help. The command line, the
//! printed configuration and the warning about unknown variables are made from this table.

/// The commands that take settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `serve` only.
    Serve,
    /// `serve` and `echo`.
    Server,
    /// `serve` and `simulate`.
    Broker,
    /// Every command.
    All,
}

impl Scope {
    /// Whether `command` takes settings of this scope.
    pub fn includes(self, command: &str) -> bool {
        match self {
            Self::Serve => command == "serve",
            Self::Server => matches!(command, "serve" | "echo"),
            Self::Broker => matches!(command, "serve" | "simulate"),
            Self::All => true,
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The environment variable, which also names it in errors.
    pub env: &'static str,
    /// The flag, without dashes.
    pub flag: &'static str,
    /// The default as text; `None` if it is computed or there is none.
    pub default: Option<&'static str>,
    /// What it is, with its unit.
    pub help: &'static str,
    /// Who takes it.
    pub scope: Scope,
    /// Whether its value must never be shown.
    pub is_secret: bool,
}

const fn setting(
    env: &'static str,
    flag: &'static str,
    default: &'static str,
    scope: Scope,
    help: &'static str,
) -> Setting {
    let default = if default.is_empty() { None } else { Some(default) };
    Setting { env, flag, default, help, scope, is_secret: false }
}

const fn secret(env: &'static str, flag: &'static str, help: &'static str) -> Setting {
    Setting { env, flag, default: None, help, scope: Scope::Broker, is_secret: true }
}

use Scope::{All, Broker, Serve, Server};

/// All settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    setting("WS_ADDR", "addr", "0.0.0.0:3002", Server, "address to listen on"),
    setting(
        "WS_ADMIN_ADDR",
        "admin-addr",
        "127.0.0.1:9302",
        Serve,
        "address of the admin port with /metrics, or `off`",
    ),
    setting("WS_SHARDS", "shards", "", Server, "shards, one core each [default: cores available]"),
    setting("WS_INSTANCE", "instance", "", All, "name of this instance [default: host name]"),
    setting(
        "WS_SOURCE",
        "source",
        "",
        Serve,
        "where messages come from: sim, jetstream, core or http [default: jetstream if NATS_URL is \
         set, else http if HTTP_SOURCE_URL is, else sim]",
    ),
    setting(
        "WS_LISTEN_BACKLOG",
        "listen-backlog",
        "8192",
        Server,
        "connections per shard that the kernel holds until they are accepted",
    ),
    setting(
        "WS_SEND_BUFFER_BYTES",
        "send-buffer-bytes",
        "65536",
        Server,
        "SO_SNDBUF of a connection, in bytes",
    ),
    setting(
        "WS_MAX_CONNECTIONS",
        "max-connections",
        "",
        Server,
        "open connections of this instance [default: what the descriptors allow]",
    ),
    setting(
        "WS_HANDSHAKE_TIMEOUT_SECONDS",
        "handshake-timeout-seconds",
        "10",
        Server,
        "from accept to a complete request",
    ),
    setting(
        "WS_HEARTBEAT_SECONDS",
        "heartbeat-seconds",
        "25",
        Server,
        "silence after which a sign of life is sent: a pong, or a ping before the idle timeout",
    ),
    setting(
        "WS_IDLE_TIMEOUT_SECONDS",
        "idle-timeout-seconds",
        "60",
        Server,
        "silence after which a connection is closed",
    ),
    setting(
        "WS_DRAIN_SECONDS",
        "drain-seconds",
        "10",
        Serve,
        "from SIGTERM to the close of the last client, each told to connect again at a moment of \
         its own; 0 closes all at once",
    ),
    setting(
        "WS_DRAIN_READY_DELAY_SECONDS",
        "drain-ready-delay-seconds",
        "0",
        Serve,
        "how much of it passes, with /ready failing, before the listener closes",
    ),
    setting(
        "WS_MAX_CONNECTION_AGE",
        "max-connection-age",
        "0",
        Serve,
        "age, give or take a fifth, at which a client is asked to connect again: 30m, 2h; 0: none",
    ),
    setting(
        "WS_MAX_MESSAGE_BYTES",
        "max-message-bytes",
        "65536",
        Server,
        "longest message from a client, compressed ones inflated; `echo` takes 16777216 unless it is \
         set",
    ),
    setting(
        "WS_MAX_COMMANDS_PER_SECOND",
        "max-commands-per-second",
        "50",
        Serve,
        "commands per second of a connection, and its burst",
    ),
    setting("WS_MAX_CHANNELS", "max-channels", "1024", Serve, "subscriptions of a connection"),
    setting(
        "WS_MAX_CHANNEL_BYTES",
        "max-channel-bytes",
        "256",
        Serve,
        "longest channel name or pattern",
    ),
    setting(
        "WS_REPLAY_MESSAGES",
        "replay-messages",
        "100",
        Serve,
        "newest events of each connection that replay can send again",
    ),
    setting(
        "WS_QUEUE_MESSAGES",
        "queue-messages",
        "256",
        Serve,
        "events that wait for a slow connection",
    ),
    setting(
        "WS_RESUME_MESSAGES",
        "resume-messages",
        "6000",
        Serve,
        "missed events that one resume may bring; more are refused, and the client loads anew",
    ),
    setting(
        "WS_CONN_BUDGET_BYTES",
        "conn-budget-bytes",
        "716800",
        Server,
        "memory that one connection may take in all; over it the connection is closed",
    ),
    setting(
        "WS_QUEUE_BYTES",
        "queue-bytes",
        "262144",
        Serve,
        "bytes of events that wait for a slow connection",
    ),
    setting(
        "WS_BATCH_MS",
        "batch-ms",
        "0",
        Serve,
        "milliseconds between two sends of events to a connection, 0 to 1000; 0 sends at once",
    ),
    setting(
        "WS_COMPRESSION",
        "compression",
        "auto",
        Server,
        "auto: permessage-deflate with clients that offer it; off: never",
    ),
    setting(
        "WS_COMPRESSION_MIN_BYTES",
        "compression-min-bytes",
        "128",
        Serve,
        "bytes that an event has at least to be compressed",
    ),
    setting(
        "WS_INFLATE_RATIO_MAX",
        "inflate-ratio-max",
        "200",
        Server,
        "times its bytes that a client's message over 4 KiB may inflate to",
    ),
    setting("WS_LOG_SECONDS", "log-seconds", "120", Serve, "age of a shard's recent log"),
    setting("WS_LOG_MESSAGES", "log-messages", "100000", Serve, "messages in a shard's recent log"),
    setting("WS_LOG_BYTES", "log-bytes", "52428800", Serve, "bytes in a shard's recent log"),
    setting("NATS_URL", "nats-url", "", Broker, "NATS servers, comma-separated"),
    setting("NATS_CREDS_FILE", "nats-creds-file", "", Broker, ".creds file for NATS"),
    setting("NATS_USER", "nats-user", "", Broker, "user name for NATS"),
    secret("NATS_PASSWORD", "nats-password", "password for NATS"),
    secret("NATS_TOKEN", "nats-token", "token for NATS"),
    setting(
        "NATS_CA_FILE",
        "nats-ca-file",
        "",
        Broker,
        "PEM file of the CA that NATS is signed by",
    ),
    setting(
        "NATS_SUBJECTS",
        "nats-subjects",
        "",
        Broker,
        "subjects served, comma-separated [default: odin.token.>,odin.global.>; for the core \
         source also the older hierarchies]",
    ),
    setting(
        "WS_MAX_NATS_RATE",
        "max-nats-rate",
        "0",
        Serve,
        "messages a second taken from NATS, at most; 0: no limit",
    ),
    setting(
        "WS_MAX_BROADCAST_RATE",
        "max-broadcast-rate",
        "0",
        Serve,
        "events a second handed to the shards, at most, whatever their source; 0: no limit",
    ),
    setting(
        "WS_MEMORY_LIMIT",
        "memory-limit",
        "0",
        Serve,
        "bytes of memory; near the limit the server takes in less: at 85 % ingest pauses; \
         0: no limit",
    ),
    setting(
        "WS_CPU_LIMIT",
        "cpu-limit",
        "0",
        Serve,
        "percent of the CPUs that the process may use, 1 to 100, at which it takes in less: \
         ingest pauses; 0: no limit",
    ),
    setting("JS_STREAM_NAME", "js-stream-name", "ODIN_TOKENS", Broker, "JetStream stream"),
    setting("JS_STREAM_MAX_AGE", "js-stream-max-age", "30s", Broker, "age kept: 30s, 5m, 1h"),
    setting("JS_STREAM_MAX_MSGS", "js-stream-max-msgs", "100000", Broker, "messages kept"),
    setting("JS_STREAM_MAX_BYTES", "js-stream-max-bytes", "52428800", Broker, "bytes kept"),
    setting("JS_STREAM_REPLICAS", "js-stream-replicas", "1", Broker, "replicas, 1 to 5"),
    setting(
        "JS_STREAM_UPDATE",
        "js-stream-update",
        "false",
        Broker,
        "change an existing stream to these settings",
    ),
    setting(
        "JS_CONSUMER_MODE",
        "js-consumer-mode",
        "ordered",
        Serve,
        "ordered: an ephemeral consumer; durable: a named one with acknowledgements",
    ),
    setting(
        "JS_CONSUMER_NAME",
        "js-consumer-name",
        "odin-ws",
        Serve,
        "first part of the durable consumer's name; the instance is the second",
    ),
    setting(
        "JS_CONSUMER_INACTIVE_THRESHOLD",
        "js-consumer-inactive-threshold",
        "5m",
        Serve,
        "time without a reader after which NATS removes the durable consumer: 30s or more",
    ),
    setting(
        "HTTP_SOURCE_URL",
        "http-source-url",
        "",
        Serve,
        "backend that the http source polls: GET {url}?since={cursor}",
    ),
    setting(
        "HTTP_SOURCE_INTERVAL_MS",
        "http-source-interval-ms",
        "100",
        Serve,
        "milliseconds from one request to the next",
    ),
    setting(
        "HTTP_SOURCE_TIMEOUT_MS",
        "http-source-timeout-ms",
        "2000",
        Serve,
        "milliseconds that a request may take, the whole answer included",
    ),
    setting(
        "HTTP_SOURCE_MAX_BODY_BYTES",
        "http-source-max-body-bytes",
        "8388608",
        Serve,
        "longest answer of the backend",
    ),
    Setting {
        scope: Serve,
        ..secret("HTTP_SOURCE_TOKEN", "http-source-token", "bearer token for the backend")
    },
    setting(
        "HTTP_SOURCE_TOKEN_FILE",
        "http-source-token-file",
        "",
        Serve,
        "file with the bearer token, read again when the backend answers 401",
    ),
    setting(
        "HTTP_SOURCE_CA_FILE",
        "http-source-ca-file",
        "",
        Serve,
        "PEM file of the CA that the backend is signed by [default: the system's]",
    ),
    setting("SIM_TOKENS", "sim-tokens", "10", Broker, "tokens of the simulator"),
    setting(
        "SIM_RATE",
        "sim-rate",
        "0",
        Broker,
        "events per second of the simulator; 0: each token at its own rhythm of 1 to 5 s",
    ),
    setting("LOG_LEVEL", "log-level", "info", All, "error, warn, info, debug or trace"),
    setting(
        "LOG_FORMAT",
        "log-format",
        "",
        All,
        "text or json [default: text on a terminal, else json]",
    ),
];

/// The predecessor's variables that have no meaning here: accepted, and said to be unused.
pub const UNUSED: &[&str] = &["WS_WORKER_POOL_SIZE", "WS_WORKER_QUEUE_SIZE", "WS_MAX_GOROUTINES"];

/// The setting of an environment variable.
pub fn find(env: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.env == env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[index + 1..] {
                assert_ne!(setting.env, other.env);
                assert_ne!(setting.flag, other.flag);
            }
        }
    }
}
