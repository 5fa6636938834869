//! The self-check before a run: what this machine's limits allow, and how to raise them.
//! `odin-ws doctor --role loadgen` checks more.

use std::fs;
use std::path::Path;

use crate::data::{MachineData, PreflightFinding};
use crate::settings::Settings;

/// Descriptors that are not connections: epoll, threads' pipes, files, the broker.
const DESCRIPTORS_RESERVED: u64 = 64;

/// User and kernel memory of an idle connection on this side, bytes: measured with 10,000.
const CONNECTION_BYTES: u64 = 6_000;

/// What a run wants of the machine.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Connections.
    connections: u64,
    /// Addresses to connect from, at least 1.
    source_addresses: u64,
    /// New connections per second.
    ramp_rate: f64,
    /// Whether the server is on this machine.
    is_local: bool,
}

/// This machine, with the soft limit of descriptors raised to the hard one.
fn machine() -> MachineData {
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    MachineData { kernel: kernel.trim().to_owned(), cores, descriptors }
}

/// A machine that has been examined.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The machine.
    pub machine: MachineData,
    /// What was found.
    pub findings: Vec<PreflightFinding>,
}

/// Examines this machine and prints each limit that is too low.
///
/// # Errors
/// The limits rule the target out, and `--force` is not given.
pub fn examine(settings: &Settings, clients: usize) -> Result<Checked, String> {
    let arguments = &settings.arguments;
    let machine = machine();
    let wanted = Wanted {
        connections: clients as u64,
        source_addresses: arguments.source_ips.len().max(1) as u64,
        ramp_rate: arguments.ramp_rate,
        is_local: settings.addr.ip().is_loopback(),
    };
    let findings = check(&wanted, &machine, Path::new("/"));
    for finding in findings.iter().filter(|finding| finding.severity != "ok") {
        let (severity, name) = (finding.severity, &finding.name);
        eprintln!("{severity}: {name}: {}; fix: {}", finding.finding, finding.fix);
    }
    if is_hopeless(&findings) && !arguments.force {
        return Err(format!(
            "{clients} connections cannot be reached (--force tries all the same)"
        ));
    }
    Ok(Checked { machine, findings })
}

/// What the limits allow. `root` is `/`, or a directory that stands for it in tests.
fn check(wanted: &Wanted, machine: &MachineData, root: &Path) -> Vec<PreflightFinding> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let number = |path: &str| read(path).and_then(|text| text.trim().parse::<u64>().ok());
    let mut findings = vec![nofile(wanted, machine.descriptors)];
    if let Some(range) = read("proc/sys/net/ipv4/ip_local_port_range") {
        findings.push(ports(wanted, &range));
    }
    if let Some(max) = number("proc/sys/net/netfilter/nf_conntrack_max") {
        // A connection to this machine itself is tracked once.
        findings.push(at_most(
            "conntrack",
            wanted.connections,
            max,
            "tracked connections",
            "sysctl -w net.netfilter.nf_conntrack_max=262144",
        ));
    }
    if wanted.is_local {
        for (name, path) in [
            ("somaxconn", "proc/sys/net/core/somaxconn"),
            ("tcp_max_syn_backlog", "proc/sys/net/ipv4/tcp_max_syn_backlog"),
        ] {
            if let Some(value) = number(path) {
                findings.push(queue(wanted, name, value));
            }
        }
    }
    if let Some(available) = read("proc/meminfo").as_deref().and_then(available_bytes) {
        let fits = available / CONNECTION_BYTES;
        findings.push(at_most("memory", wanted.connections, fits, "connections", "add memory"));
    }
    findings
}

/// Whether a limit rules the target out.
fn is_hopeless(findings: &[PreflightFinding]) -> bool {
    findings.iter().any(|finding| finding.severity == "error")
}

fn nofile(wanted: &Wanted, descriptors: u64) -> PreflightFinding {
    let allowed = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    at_most("nofile", wanted.connections, allowed, "connections", "ulimit -n 200000")
}

fn ports(wanted: &Wanted, range: &str) -> PreflightFinding {
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u64>().ok());
    let (first, last) = (ends.next().unwrap_or(32_768), ends.next().unwrap_or(60_999));
    let ports = (last + 1).saturating_sub(first) * wanted.source_addresses;
    let fix = "sysctl -w net.ipv4.ip_local_port_range='1024 65535', or --source-ips with more \
               addresses";
    let mut finding = at_most("ports", wanted.connections, ports, "connections to one server", fix);
    if finding.severity == "ok" && wanted.connections > ports / 2 {
        // connect(2) takes ports of one parity first and then searches the others one by one.
        finding.severity = "warning";
        finding.finding.push_str("; beyond half of them the kernel searches long for each");
        finding.fix = fix.to_owned();
    }
    finding
}

/// A queue that fills when connections come faster than the server accepts.
fn queue(wanted: &Wanted, name: &str, value: u64) -> PreflightFinding {
    let is_short = (value as f64) < wanted.ramp_rate;
    PreflightFinding {
        name: name.to_owned(),
        severity: if is_short { "warning" } else { "ok" },
        finding: format!("{value} connections may wait until the server takes them"),
        fix: if is_short { format!("sysctl -w {}=8192", sysctl_of(name)) } else { String::new() },
    }
}

fn sysctl_of(name: &str) -> String {
    match name {
        "somaxconn" => "net.core.somaxconn".to_owned(),
        other => format!("net.ipv4.{other}"),
    }
}

fn at_most(name: &str, wanted: u64, allowed: u64, unit: &str, fix: &str) -> PreflightFinding {
    let is_enough = allowed >= wanted;
    PreflightFinding {
        name: name.to_owned(),
        severity: if is_enough { "ok" } else { "error" },
        finding: format!("at most {allowed} {unit}"),
        fix: if is_enough { String::new() } else { fix.to_owned() },
    }
}

fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(connections: u64, source_addresses: u64) -> Vec<PreflightFinding> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
            ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable: 1000000 kB\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let wanted = Wanted { connections, source_addresses, ramp_rate: 1_000.0, is_local: true };
        let machine = MachineData { kernel: String::new(), cores: 2, descriptors: 100_000 };
        check(&wanted, &machine, root.path())
    }

    fn bad(findings: &[PreflightFinding], severity: &str) -> Vec<String> {
        let bad = findings.iter().filter(|finding| finding.severity == severity);
        bad.map(|finding| finding.name.clone()).collect()
    }

    #[test]
    fn each_limit_is_named_when_it_is_too_low() {
        let fine = findings(10_000, 1);
        assert_eq!((fine.len(), is_hopeless(&fine)), (6, false));
        assert_eq!(bad(&fine, "warning"), ["somaxconn"]);
        assert_eq!(bad(&findings(18_000, 1), "warning"), ["ports", "somaxconn"]);
        assert_eq!(bad(&findings(40_000, 1), "error"), ["ports"]);
        assert!(!is_hopeless(&findings(40_000, 2)), "two addresses have twice the ports");
        let hopeless = findings(500_000, 100);
        assert_eq!(bad(&hopeless, "error"), ["nofile", "conntrack", "memory"]);
        assert!(hopeless.iter().all(|it| (it.severity == "ok") == it.fix.is_empty()));
    }
}
