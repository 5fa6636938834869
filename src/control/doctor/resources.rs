//! What the machine is made of: kernel, io_uring, cores, memory, and the cgroup's share of them.

use std::path::Path;

use super::check::{Check, Severity, bytes, grouped};
use super::kernel::{KERNEL_BYTES, SEND_BUFFER_BYTES, STALLED_SHARE};
use super::{Context, Role};
use crate::control::machine::UringError;

/// The oldest kernel.
const KERNEL_MIN: (u64, u64) = (5, 13);

/// The process without connections, bytes.
const PROCESS_BYTES: u64 = 64 << 20;

/// A shard's recent log when it is full, bytes: LIMITS.md.
const LOG_BYTES: u64 = 52_428_800;

/// A connection that is served: 1.4 KB of state, 800 bytes of replay ring, the kernel's share and
/// one page on its way.
const CONNECTION_BYTES: u64 = 1_400 + 800 + KERNEL_BYTES + 4_096;

/// What a stalled connection holds beyond that: its queue and its send buffer, both full.
const STALLED_BYTES: u64 = 262_144 + SEND_BUFFER_BYTES;

/// Up to so many cores the shards compete with the broker and with local clients for them.
const FEW_CORES_MAX: u64 = 3;

/// Directories between a cgroup and the root.
const CGROUP_DEPTH_MAX: usize = 32;

/// The kernel's version.
pub fn kernel(context: &Context) -> Check {
    let release = context.root.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(['.', '-']).map(|part| part.parse::<u64>());
    let version = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    let (severity, text) = match version {
        Some(version) if version >= KERNEL_MIN => (Severity::Ok, "io_uring as it is needed"),
        Some(_) if context.question.role == Role::LoadGenerator => (Severity::Ok, "nothing"),
        Some(_) => (Severity::Error, "the server does not start: io_uring is too old"),
        None => (Severity::Note, "unknown"),
    };
    Check::ok("kernel", release)
        .wanted(format!("{}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1))
        .limits_to(text)
        .judged(severity, "", "install a newer kernel and start it")
}

/// What came of using io_uring.
pub fn io_uring(outcome: &Result<(), UringError>) -> Check {
    let check = Check::ok("io_uring", "works").wanted("works").limits_to("nothing");
    let Err(error) = outcome else { return check };
    let (current, now, lasting) = match error {
        UringError::Sysctl { .. } => (
            "switched off",
            "sysctl -w kernel.io_uring_disabled=0",
            "/etc/sysctl.d/90-odin-ws-server.conf",
        ),
        UringError::Seccomp => (
            "blocked",
            "docker run --security-opt seccomp=unconfined ...",
            "a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register",
        ),
        UringError::Missing => ("missing", "", "a kernel of 5.13 or newer"),
        UringError::Memlock => ("too little memory may be locked", "ulimit -l 65536", "ulimits/"),
        UringError::Descriptors => ("too few descriptors", "ulimit -n 200000", "ulimits/"),
        UringError::Other(_) => ("does not work", "", ""),
    };
    Check { current: current.into(), ..check }
        .limits_to(format!("the server does not start: {error}"))
        .judged(Severity::Error, now, lasting)
}

/// Cores that the process may run on.
pub fn cores(context: &Context) -> u64 {
    let status = context.process_file("status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = list.unwrap_or_default().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some((last + 1).saturating_sub(first))
    });
    ranges.sum()
}

/// Cores, shards and memory.
pub fn checks(context: &Context) -> Vec<Check> {
    let mut checks = vec![cpu(context)];
    checks.extend(shards(context));
    checks.push(memory(context));
    checks
}

fn cpu(context: &Context) -> Check {
    let cores = context.cores;
    let quota = cgroup_files(context, "cpu.max").iter().filter_map(|text| quota(text)).min();
    let unread = is_cgroup_v1(context);
    let name = match context.question.role {
        Role::Server => "shard",
        Role::LoadGenerator => "core",
    };
    let text = format!("{} {name}{}", grouped(cores), if cores == 1 { "" } else { "s" });
    let check = Check::ok("cpu", format!("{cores} cores")).wanted("no quota below the cores");
    match quota {
        Some(hundredths) if hundredths < cores * 100 => {
            let whole = (hundredths / 100).max(1);
            let text = format!(
                "{text} that together get {}.{:02} cores and then pause until the next 0.1 s",
                hundredths / 100,
                hundredths % 100
            );
            let current =
                format!("{cores} cores, quota {}.{:02}", hundredths / 100, hundredths % 100);
            Check { current, ..check }.limits_to(text).judged(
                Severity::Warning,
                &format!("WS_SHARDS={whole} odin-ws serve"),
                "the container's CPU limit (cpu.max), in whole cores",
            )
        }
        _ if unread => check.limits_to(format!("{text}; a quota of cgroup v1 is not looked at")),
        _ => check.limits_to(text),
    }
}

/// `cpu.max` in hundredths of a core.
fn quota(text: &str) -> Option<u64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.trim().parse().ok()?);
    (quota * 100).checked_div(period)
}

/// What the number of shards changes where cores are few. It is a choice, not a fault: one core
/// leaves none, and with many cores one shard per core is right.
fn shards(context: &Context) -> Option<Check> {
    let cores = context.cores;
    if context.question.role != Role::Server || !(2..=FEW_CORES_MAX).contains(&cores) {
        return None;
    }
    let text = "WS_SHARDS=1 saves CPU, more shards shorten delays; measured on 2 cores that also \
                run the clients: 9.4 to 10.3 us per delivery with 1 shard and 13.4 us with 2, p99 \
                at peak 17 to 18 ms with 1 shard and 12.8 ms with 2";
    let check = Check::ok("shards", format!("{cores} unless WS_SHARDS is set"));
    Some(check.wanted(format!("1 to {cores}")).limits_to(text))
}

fn memory(context: &Context) -> Check {
    let table = context.root.text("proc/meminfo").unwrap_or_default();
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let Some(available) = kib.map(|kib| kib * 1_024) else {
        return Check::ok("memory", "not readable").judged(Severity::Note, "", "");
    };
    let left = cgroup_memory_left(context);
    let usable = left.map_or(available, |left| left.min(available));
    let connections = context.question.connections;
    let (fixed, stalled) = match context.question.role {
        Role::Server => {
            let stalled = (connections / STALLED_SHARE).saturating_mul(STALLED_BYTES);
            (PROCESS_BYTES + context.cores * LOG_BYTES, stalled)
        }
        // It keeps less of each connection than the server does; the server's figure is safe.
        Role::LoadGenerator => (PROCESS_BYTES, 0),
    };
    let most = usable.saturating_sub(fixed) / CONNECTION_BYTES;
    let needed = fixed + connections.saturating_mul(CONNECTION_BYTES);
    let severity = match usable {
        usable if usable < needed => Severity::Error,
        usable if usable < needed.saturating_add(stalled) => Severity::Warning,
        _ => Severity::Ok,
    };
    let current = match left {
        Some(left) if left < available => format!("{} left in the cgroup", bytes(left)),
        _ => format!("{} available", bytes(available)),
    };
    let (most_text, each) = (grouped(most), grouped(CONNECTION_BYTES));
    let text = format!("at most {most_text} connections at {each} bytes each");
    Check::ok("memory", current)
        .wanted(bytes(needed.saturating_add(stalled)))
        .limits_to(match stalled {
            0 => text,
            _ => format!("{text}, and {} more with one in ten stalled", bytes(stalled)),
        })
        .bounds(most)
        .judged(severity, "", "a machine, or a container's memory limit, of that size")
}

fn cgroup_memory_left(context: &Context) -> Option<u64> {
    // A limit and the use below it belong to the same directory, so the two lists are in step.
    let limits = cgroup_files(context, "memory.max");
    let used = cgroup_files(context, "memory.current");
    let pairs = limits.iter().zip(&used);
    let left = pairs.filter_map(|(limit, used)| {
        Some(limit.parse::<u64>().ok()?.saturating_sub(used.parse().ok()?))
    });
    left.min()
}

fn is_cgroup_v1(context: &Context) -> bool {
    !context.root.has("sys/fs/cgroup/cgroup.controllers") && context.root.has("sys/fs/cgroup/cpu")
}

/// A file of the process's cgroup (v2) and of all above it; a limit of each holds.
fn cgroup_files(context: &Context, name: &str) -> Vec<String> {
    let table = context.process_file("cgroup").unwrap_or_default();
    let path = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // `..` is the cgroup of another namespace: not visible from here.
    let path = if path.contains("..") { "" } else { path };
    Path::new(path)
        .ancestors()
        .take(CGROUP_DEPTH_MAX)
        .filter_map(|path| {
            let path = Path::new("sys/fs/cgroup").join(path).join(name);
            context.root.text(path.to_str()?)
        })
        .collect()
}
