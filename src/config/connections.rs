//! How connections are accepted, and how many.

use super::context::Machine;
use super::kinds::Number;
use super::setting::{Scope, Section, Setting};
use super::values::Values;

pub(super) const LISTEN_BACKLOG: Setting<Number<i32>> =
    Setting::new("WS_LISTEN_BACKLOG", "listen-backlog", Scope::Server, Number::new(1, 1 << 20))
        .default("8192")
        .unit("connections")
        .help("connections per shard that the kernel holds until they are accepted");

pub(super) const SEND_BUFFER_BYTES: Setting<Number<usize>> = Setting::new(
    "WS_SEND_BUFFER_BYTES",
    "send-buffer-bytes",
    Scope::Server,
    Number::new(4_096, 1 << 24),
)
.default("65536")
.unit("bytes")
.help("SO_SNDBUF of a connection, in bytes");

pub(super) const MAX_CONNECTIONS: Setting<Number<u64>> = Setting::new(
    "WS_MAX_CONNECTIONS",
    "max-connections",
    Scope::Server,
    Number::new(1, 100_000_000),
)
.computed("what the descriptors allow")
.unit("connections")
.help("open connections of this instance");

pub(super) const SECTION: Section = Section {
    name: "connections",
    title: "Connections",
    settings: &[&LISTEN_BACKLOG, &SEND_BUFFER_BYTES, &MAX_CONNECTIONS],
};

/// Descriptors that are not for connections: executors, the broker, listeners, standard streams.
const DESCRIPTORS_RESERVED: u64 = 128;

/// Sockets beyond the connection limit, for handshakes, probes and refusals: a share of the
/// limit, between two bounds.
const HANDSHAKES_MIN: u64 = 16;
const HANDSHAKES_MAX: u64 = 1_024;

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
pub(super) fn connection_bounds(values: &mut Values, machine: &Machine) -> (u64, u64) {
    let (possible, handshakes) = connections_allowed(machine.descriptors);
    let wanted = values.optional(&MAX_CONNECTIONS).unwrap_or(possible);
    if wanted > possible || possible == 0 {
        let problem = format!(
            "needs {} descriptors, and this process may open {}: raise it with `ulimit -n \
             200000`, LimitNOFILE= in the systemd unit, or `--ulimit nofile=200000` for a container",
            wanted.max(1) + handshakes + DESCRIPTORS_RESERVED,
            machine.descriptors
        );
        values.refuse(&MAX_CONNECTIONS, problem);
    }
    (wanted, wanted + handshakes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_needed_allow_the_connections() {
        for connections in [1, 14, 15, 240, 1_000, 10_000, 15_359, 15_360, 18_848, 1_000_000] {
            let (allowed, _) = connections_allowed(descriptors_needed(connections));
            assert!((connections..=connections + 1).contains(&allowed), "{connections} {allowed}");
        }
        assert_eq!(connections_allowed(20_000).0, 18_848);
    }
}
