//! Where a server listens and who it is; and the whole of what `serve` and `echo` need.

use std::net::SocketAddr;
use std::sync::Arc;

use super::client::{budget, client_limits};
use super::compression::{COMPRESSION, COMPRESSION_MIN_BYTES, INFLATE_RATIO_MAX};
use super::connections::{LISTEN_BACKLOG, SEND_BUFFER_BYTES, connection_bounds};
use super::context::{Machine, ServerKind};
use super::drain::{DrainConfig, connection_age_ms, drain};
use super::kinds::{Address, Number, OrOff};
use super::recent_log::{LOG_BYTES, LOG_MESSAGES, LOG_SECONDS};
use super::setting::{Kind, Scope, Section, Setting};
use super::timeouts::timeouts;
use super::values::Values;
use crate::net::ListenSettings;
use crate::shard::Limits;

pub(super) const ADDR: Setting<Address> =
    Setting::new("WS_ADDR", "addr", Scope::Server, Address { example: "0.0.0.0:3002" })
        .default("0.0.0.0:3002")
        .help("address to listen on");

pub(super) const ADMIN_ADDR: Setting<OrOff<Address>> = Setting::new(
    "WS_ADMIN_ADDR",
    "admin-addr",
    Scope::Serve,
    OrOff(Address { example: "127.0.0.1:9302" }),
)
.default("127.0.0.1:9302")
.help("address of the admin port with /metrics, or `off`");

pub(super) const SHARDS: Setting<Number<usize>> =
    Setting::new("WS_SHARDS", "shards", Scope::Server, Number::new(1, 1_024))
        .computed("cores available")
        .unit("shards")
        .help("shards, one core each");

pub(super) const INSTANCE: Setting<InstanceName> =
    Setting::new("WS_INSTANCE", "instance", Scope::All, InstanceName)
        .computed("host name")
        .help("name of this instance");

pub(super) const SECTION: Section = Section {
    name: "server",
    title: "Server",
    settings: &[&ADDR, &ADMIN_ADDR, &SHARDS, &INSTANCE],
};

/// The longest close handshake and the longest linger of a refused request.
const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// The longest name of an instance.
const INSTANCE_BYTES_MAX: usize = 64;

/// The name of an instance, which appears in metrics and in the names of consumers.
#[derive(Debug, Clone, Copy)]
pub(super) struct InstanceName;

impl Kind for InstanceName {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_name = (1..=INSTANCE_BYTES_MAX).contains(&text.len()) && text.chars().all(is_plain);
        if is_name { Ok(text.to_owned()) } else { Err(self.expected()) }
    }

    fn expected(&self) -> String {
        format!("1 to {INSTANCE_BYTES_MAX} letters, digits, dots, dashes or underscores")
    }

    fn fallback(&self) -> String {
        String::new()
    }
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

/// Reads the settings of `serve` or `echo`; `kind` says which.
pub fn server_config(values: &mut Values, machine: &Machine, kind: ServerKind) -> ServerConfig {
    let instance = instance(values, machine);
    let shards = values.optional(&SHARDS).unwrap_or(machine.cores);
    let listen = ListenSettings {
        addr: values.read(&ADDR),
        backlog: values.read(&LISTEN_BACKLOG),
        send_buffer_bytes: values.read(&SEND_BUFFER_BYTES),
    };
    let (connections_max, sockets_max) = connection_bounds(values, machine);
    let client = client_limits(values, kind);
    let connection_budget_bytes = budget(values, &client, listen.send_buffer_bytes, kind);
    let compression = values.read(&COMPRESSION);
    let deflate_bytes_min = values.read(&COMPRESSION_MIN_BYTES);
    let inflate_ratio_max = values.read(&INFLATE_RATIO_MAX);
    let timeouts = timeouts(values);
    let limits = Limits {
        client,
        connection_budget_bytes,
        connections_max,
        compression,
        deflate_bytes_min,
        inflate_ratio_max,
        handshake_timeout_ms: timeouts.handshake_ms,
        heartbeat_interval_ms: timeouts.heartbeat_ms,
        idle_timeout_ms: timeouts.idle_ms,
        connection_age_ms: connection_age_ms(values, kind),
        close_timeout_ms: CLOSE_TIMEOUT_MS,
        log_messages: values.read(&LOG_MESSAGES),
        log_bytes: values.read(&LOG_BYTES),
        log_ms: 1_000 * values.read(&LOG_SECONDS),
    };
    let admin_addr = match kind {
        ServerKind::Serve => values.read(&ADMIN_ADDR),
        ServerKind::Echo => None,
    };
    let drain = drain(values, kind);
    ServerConfig { instance, shards, listen, limits, sockets_max, admin_addr, drain }
}

/// The instance's name. That of the host must do as well as one that somebody chose.
pub(super) fn instance(values: &mut Values, machine: &Machine) -> Arc<str> {
    let chosen = values.optional(&INSTANCE);
    let name = chosen.unwrap_or_else(|| {
        InstanceName.parse(&machine.host_name).unwrap_or_else(|expected| {
            values.refuse(&INSTANCE, format!("must be {expected}"));
            InstanceName.fallback()
        })
    });
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::logging::log_config;
    use super::super::settings;
    use super::super::values::Origin;
    use super::*;

    fn machine() -> Machine {
        let host_name = "host-1".into();
        Machine { cores: 2, descriptors: 20_000, host_name, is_terminal: false }
    }

    fn values(pairs: &[(&str, &str)]) -> Values {
        let mut values = Values::default();
        for (env, text) in pairs {
            let row = settings::find(env).unwrap();
            values.set(row, (*text).to_owned(), Origin::Environment);
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
    fn a_host_name_that_is_no_instance_name_is_refused() {
        let mut values = values(&[]);
        let machine = Machine { host_name: "a b".into(), ..machine() };
        server_config(&mut values, &machine, ServerKind::Echo);
        let text = values.finish().unwrap_err().to_string();
        assert!(text.contains("WS_INSTANCE (--instance): must be 1 to 64 letters"), "{text}");
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
}
