//! One check per sysctl of the files in `sysctl/`. The wanted values are the files'; what a value
//! means for the wanted connections is here.

use super::check::{Check, Severity, bytes, grouped};
use super::kit::{self, Wanted};
use super::{Context, Role};

/// Kernel memory of an idle connection, bytes, measured: LIMITS.md.
pub(super) const KERNEL_BYTES: u64 = 4_400;

/// A connection's full send buffer: WS_SEND_BUFFER_BYTES, doubled by the kernel.
pub(super) const SEND_BUFFER_BYTES: u64 = 131_072;

/// One connection in this many is taken to be stalled, with a full send buffer.
pub(super) const STALLED_SHARE: u64 = 10;

/// The default of WS_SEND_BUFFER_BYTES.
const SEND_BUFFER_SETTING: u64 = 65_536;

/// How the present values compare to the wanted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// Each is at least the wanted one.
    AtLeast,
    /// The last is at most the wanted one.
    AtMost,
    /// Each is the wanted one.
    Exactly,
    /// A range, at least as wide.
    Wide,
}

impl Relation {
    fn holds(self, values: &[u64], wanted: &[u64]) -> bool {
        let mut pairs = values.iter().zip(wanted);
        values.len() == wanted.len()
            && match self {
                Self::AtLeast => pairs.all(|(value, wanted)| value >= wanted),
                Self::AtMost => values.last() <= wanted.last(),
                Self::Exactly => values == wanted,
                Self::Wide => width(values) >= width(wanted),
            }
    }

    fn words(self) -> &'static str {
        match self {
            Self::AtLeast => " or more",
            Self::AtMost => " or less",
            Self::Exactly => "",
            Self::Wide => " or wider",
        }
    }
}

/// What a value means.
struct Meaning {
    /// [`Severity::Ok`] if the wanted connections do not meet the limit.
    severity: Severity,
    limits_to: String,
    connections_max: Option<u64>,
}

impl Meaning {
    fn new(severity: Severity, limits_to: String) -> Self {
        Self { severity, limits_to, connections_max: None }
    }

    fn bounded(severity: Severity, limits_to: String, connections_max: u64) -> Self {
        Self { severity, limits_to, connections_max: Some(connections_max) }
    }
}

/// A sysctl that is understood. `mean` sees as many values as are wanted.
struct Rule {
    key: &'static str,
    relation: Relation,
    mean: fn(&Context, &[u64]) -> Meaning,
}

const fn rule(
    key: &'static str,
    relation: Relation,
    mean: fn(&Context, &[u64]) -> Meaning,
) -> Rule {
    Rule { key, relation, mean }
}

const RULES: [Rule; 15] = [
    rule("net.core.somaxconn", Relation::AtLeast, accept_queue),
    rule("net.ipv4.tcp_max_syn_backlog", Relation::AtLeast, syn_queue),
    rule("net.ipv4.tcp_syncookies", Relation::Exactly, syn_cookies),
    rule("net.ipv4.ip_local_port_range", Relation::Wide, local_ports),
    rule("net.ipv4.tcp_tw_reuse", Relation::Exactly, time_wait),
    rule("net.ipv4.tcp_fin_timeout", Relation::AtMost, fin_timeout),
    rule("net.netfilter.nf_conntrack_max", Relation::AtLeast, conntrack),
    rule("net.ipv4.tcp_mem", Relation::AtLeast, tcp_memory),
    rule("net.ipv4.tcp_wmem", Relation::AtLeast, send_buffers),
    rule("net.ipv4.tcp_rmem", Relation::AtMost, receive_buffers),
    rule("net.core.wmem_max", Relation::AtLeast, send_buffer_max),
    rule("net.core.netdev_max_backlog", Relation::AtLeast, packet_queue),
    rule("fs.file-max", Relation::AtLeast, open_files),
    rule("fs.nr_open", Relation::AtLeast, descriptors),
    rule("kernel.io_uring_disabled", Relation::AtMost, io_uring_switch),
];

/// The checks of the role's file, in its order.
pub(super) fn checks(context: &Context) -> Vec<Check> {
    let wanted = kit::wanted(context.question.role);
    wanted.iter().filter_map(|wanted| Some(check(context, wanted, find(wanted.key)?))).collect()
}

/// Whether the machine already has more than `wanted` sets, so that setting it would take away.
pub(super) fn is_exceeded(context: &Context, wanted: &Wanted) -> bool {
    let values = context.root.sysctl(wanted.key).unwrap_or_default();
    let rule = find(wanted.key).filter(|rule| rule.relation.holds(&values, &wanted.values));
    rule.is_some_and(|rule| match rule.relation {
        Relation::AtMost => values.last() < wanted.values.last(),
        _ => values != wanted.values,
    })
}

fn find(key: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.key == key)
}

fn check(context: &Context, wanted: &Wanted, rule: &Rule) -> Check {
    let set = joined(&wanted.values);
    let check = Check::ok(wanted.key, "").wanted(if set == "0" {
        set.clone()
    } else {
        set.clone() + rule.relation.words()
    });
    let Some(values) = context.root.sysctl(wanted.key).filter(|v| v.len() == wanted.values.len())
    else {
        return missing(check, wanted);
    };
    let meaning = (rule.mean)(context, &values);
    let severity = match meaning.severity {
        Severity::Ok if !rule.relation.holds(&values, &wanted.values) => Severity::Note,
        severity => severity,
    };
    let now = match values.len() {
        1 => format!("sysctl -w {}={set}", wanted.key),
        _ => format!("sysctl -w {}='{set}'", wanted.key),
    };
    // More than the kit sets is wanted for so many connections: the file would not help.
    let (now, lasting) = if rule.relation.holds(&values, &wanted.values) {
        (beyond(wanted.key), String::new())
    } else {
        (now, kit::sysctl_path(context.question.role).to_owned())
    };
    Check {
        current: joined(&values),
        connections_max: meaning.connections_max,
        ..check.limits_to(meaning.limits_to).judged(severity, &now, &lasting)
    }
}

fn beyond(key: &str) -> String {
    match key {
        "net.ipv4.ip_local_port_range" => {
            "connect from more addresses (--source-addresses here, SOURCE_IPS there)".into()
        }
        _ => format!("raise {key} beyond what the kit sets, or spread the connections"),
    }
}

fn missing(check: Check, wanted: &Wanted) -> Check {
    let (severity, current) = match wanted.is_optional {
        true => (Severity::Ok, "not in this kernel"),
        false => (Severity::Note, "not readable"),
    };
    let meaning = match (wanted.is_optional, wanted.key) {
        (true, "net.netfilter.nf_conntrack_max") => "no limit: connections are not tracked",
        (true, _) => "no limit",
        _ => "unknown",
    };
    Check { current: current.into(), ..check.limits_to(meaning).judged(severity, "", "") }
}

fn joined(values: &[u64]) -> String {
    values.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

fn width(range: &[u64]) -> u64 {
    match range {
        [first, last] if first <= last => last - first + 1,
        _ => 0,
    }
}

/// Connections that reach one listener when all come back at once.
fn storm_per_listener(context: &Context) -> u64 {
    context.question.connections.div_ceil(context.cores)
}

fn least(value: u64, needed: u64, severity: Severity) -> Severity {
    if value < needed { severity } else { Severity::Ok }
}

fn accept_queue(context: &Context, values: &[u64]) -> Meaning {
    // WS_LISTEN_BACKLOG's default, beyond which a larger value does not help.
    let needed = storm_per_listener(context).min(8_192);
    let text = format!(
        "at most {} connections waiting to be accepted per shard, {} in all",
        grouped(values[0]),
        grouped(values[0].saturating_mul(context.cores))
    );
    Meaning::new(least(values[0], needed, Severity::Warning), text)
}

fn syn_queue(context: &Context, values: &[u64]) -> Meaning {
    let cookies = context.root.sysctl("net.ipv4.tcp_syncookies");
    if cookies.is_some_and(|cookies| cookies[0] > 0) {
        let text = "no loss: SYN cookies answer what does not fit, and the accept queue binds";
        return Meaning::new(Severity::Ok, text.into());
    }
    // Without cookies the kernel keeps the last quarter for addresses that it knows.
    let places = values[0] / 4 * 3;
    let needed = storm_per_listener(context).min(6_144);
    let text = format!("at most {} half-open handshakes per listener", grouped(places));
    Meaning::new(least(places, needed, Severity::Warning), text)
}

fn syn_cookies(_: &Context, values: &[u64]) -> Meaning {
    match values[0] {
        0 => Meaning::new(
            Severity::Warning,
            "a full SYN queue drops clients, and a flood shuts everybody out".into(),
        ),
        1 => Meaning::new(Severity::Ok, "cookies only when the SYN queue is full".into()),
        _ => Meaning::new(
            Severity::Warning,
            "cookies for every connection: for tests of the kernel, not for service".into(),
        ),
    }
}

fn local_ports(context: &Context, values: &[u64]) -> Meaning {
    let reserved = context.root.text("proc/sys/net/ipv4/ip_local_reserved_ports");
    let reserved = reserved.map_or(0, |text| reserved_within(&text, values[0], values[1]));
    let ports = width(values).saturating_sub(reserved);
    match context.question.role {
        Role::Server => {
            let text = format!(
                "at most {} connections from here to one address and port (NATS); clients are not \
                 bounded by it",
                grouped(ports)
            );
            Meaning::new(least(ports, 1, Severity::Error), text)
        }
        Role::LoadGenerator => {
            let addresses = context.question.source_addresses;
            let most = ports.saturating_mul(addresses);
            let severity = least(most, context.question.connections, Severity::Error);
            let text = format!(
                "at most {} connections to one server: {} ports x {} source address{}",
                grouped(most),
                grouped(ports),
                grouped(addresses),
                if addresses == 1 { "" } else { "es" }
            );
            Meaning::bounded(severity, text, most)
        }
    }
}

/// How many ports of a list such as `8080,9000-9100` are between two ports.
fn reserved_within(list: &str, first: u64, last: u64) -> u64 {
    let ranges = list.split(',').filter_map(|range| {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        Some((
            low.trim().parse::<u64>().ok()?.max(first),
            high.trim().parse::<u64>().ok()?.min(last),
        ))
    });
    ranges.map(|(low, high)| width(&[low, high])).sum()
}

fn time_wait(context: &Context, values: &[u64]) -> Meaning {
    let text = match values[0] {
        0 => "a port is free again 60 s after its connection",
        1 => "a port is free again 1 s after its connection",
        _ => "a port is free again after 60 s, after 1 s on the loopback",
    };
    let is_loadgen = context.question.role == Role::LoadGenerator;
    let severity = if is_loadgen && values[0] == 0 { Severity::Warning } else { Severity::Ok };
    Meaning::new(severity, text.into())
}

fn fin_timeout(_: &Context, values: &[u64]) -> Meaning {
    let text = format!("a half-closed socket without an owner is held for {} s", values[0]);
    Meaning::new(Severity::Ok, text)
}

fn conntrack(context: &Context, values: &[u64]) -> Meaning {
    let used = context.root.number("proc/sys/net/netfilter/nf_conntrack_count").unwrap_or(0);
    let (most, connections) = (values[0], context.question.connections);
    let severity = if most < connections {
        Severity::Error
    } else if most.saturating_sub(used) < connections || most < connections.saturating_mul(2) {
        Severity::Warning
    } else {
        Severity::Ok
    };
    let text = format!(
        "at most {} tracked connections, closed ones for 120 s; {} are now",
        grouped(most),
        grouped(used)
    );
    Meaning::bounded(severity, text, most)
}

fn tcp_memory(context: &Context, values: &[u64]) -> Meaning {
    let page = page_bytes(context);
    let (pressure, most) = (values[1].saturating_mul(page), values[2].saturating_mul(page));
    let each = KERNEL_BYTES + page;
    let (sockets, stalled) = (most / each, most / SEND_BUFFER_BYTES);
    let connections = context.question.connections;
    let severity = if sockets < connections {
        Severity::Error
    } else if stalled < connections / STALLED_SHARE || pressure / each < connections {
        Severity::Warning
    } else {
        Severity::Ok
    };
    let text = format!(
        "{} of queues: at most {} sockets with a page queued, {} with a full send buffer",
        bytes(most),
        grouped(sockets),
        grouped(stalled)
    );
    Meaning::bounded(severity, text, sockets)
}

fn page_bytes(context: &Context) -> u64 {
    let maps = context.root.text("proc/self/smaps").unwrap_or_default();
    let line = maps.lines().find_map(|line| line.strip_prefix("KernelPageSize:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(4_096, |kib| kib * 1_024)
}

fn send_buffers(_: &Context, values: &[u64]) -> Meaning {
    let text = format!("at most {} of send buffer where a program sets none", bytes(values[2]));
    Meaning::new(least(values[2], SEND_BUFFER_SETTING, Severity::Warning), text)
}

fn receive_buffers(_: &Context, values: &[u64]) -> Meaning {
    let text = format!("at most {} of receive buffer per connection", bytes(values[2]));
    // A message of WS_MAX_MESSAGE_BYTES arrives in two parts below that, and slowly far below.
    Meaning::new(least(values[2], 16_384, Severity::Warning), text)
}

fn send_buffer_max(_: &Context, values: &[u64]) -> Meaning {
    let text = format!("WS_SEND_BUFFER_BYTES up to {}", grouped(values[0]));
    Meaning::new(least(values[0], SEND_BUFFER_SETTING, Severity::Warning), text)
}

fn packet_queue(context: &Context, values: &[u64]) -> Meaning {
    let text = format!("at most {} packets waiting per core", grouped(values[0]));
    let needed = storm_per_listener(context).min(16_384);
    let severity = match context.question.role {
        // What arrives at a server is spread over a round trip; at the other end it is one burst.
        Role::Server => Severity::Ok,
        Role::LoadGenerator => least(values[0], needed, Severity::Warning),
    };
    Meaning::new(severity, text)
}

fn open_files(context: &Context, values: &[u64]) -> Meaning {
    let used = context.root.number("proc/sys/fs/file-nr").unwrap_or(0);
    let free = values[0].saturating_sub(used);
    let most = context.connections_allowed(free);
    let severity = least(free, context.descriptors_needed(), Severity::Error);
    let text = format!(
        "at most {} files of all processes; {} are open",
        grouped(values[0]),
        grouped(used)
    );
    Meaning::bounded(severity, text, most)
}

fn descriptors(context: &Context, values: &[u64]) -> Meaning {
    let text = format!("nofile limits up to {}", grouped(values[0]));
    let severity = least(values[0], context.descriptors_needed(), Severity::Error);
    Meaning::bounded(severity, text, context.connections_allowed(values[0]))
}

fn io_uring_switch(_: &Context, values: &[u64]) -> Meaning {
    match values[0] {
        0 => Meaning::new(Severity::Ok, "every process may use io_uring".into()),
        1 => Meaning::new(
            Severity::Warning,
            "only root and the group kernel.io_uring_group may use io_uring".into(),
        ),
        _ => Meaning::new(Severity::Error, "the server does not start: io_uring is off".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_files_and_the_checks_are_in_step() {
        let rules: BTreeSet<&str> = RULES.iter().map(|rule| rule.key).collect();
        let mut set = BTreeSet::new();
        for role in [Role::Server, Role::LoadGenerator] {
            for wanted in kit::wanted(role) {
                assert!(rules.contains(wanted.key), "{} is set and not checked", wanted.key);
                set.insert(wanted.key);
            }
        }
        assert_eq!(rules, set, "every check is in a file");
        assert_eq!(rules.len(), RULES.len(), "one rule per sysctl");
    }

    #[test]
    fn reserved_ports_are_not_counted() {
        assert_eq!(reserved_within("", 1_024, 65_535), 0);
        assert_eq!(reserved_within("80,3002,4222-4223,65000-70000", 1_024, 65_535), 539);
    }

    #[test]
    fn relations() {
        let cases = [
            (Relation::AtLeast, &[2, 3][..], &[2, 2][..], true),
            (Relation::AtLeast, &[3, 1], &[2, 2], false),
            (Relation::AtLeast, &[3], &[2, 2], false),
            (Relation::AtMost, &[9, 2], &[1, 2], true),
            (Relation::AtMost, &[0, 3], &[1, 2], false),
            (Relation::Exactly, &[2], &[1], false),
            (Relation::Wide, &[0, 99], &[100, 199], true),
            (Relation::Wide, &[99, 0], &[100, 199], false),
        ];
        for (relation, values, wanted, holds) in cases {
            assert_eq!(relation.holds(values, wanted), holds, "{relation:?} {values:?} {wanted:?}");
        }
    }
}
