//! What limits have left behind since boot, and surroundings that surprise.

use super::check::{Check, Severity, grouped};
use super::{Context, Role};

/// The checks of this file.
pub(super) fn checks(context: &Context) -> Vec<Check> {
    let mut checks = Vec::new();
    if context.question.role == Role::Server {
        checks.push(accept_overflows(context));
    }
    checks.extend([packet_drops(context), memory_pressure(context), huge_pages(context)]);
    checks.extend(container(context));
    checks
}

fn count(name: &str, seen: u64, meaning: &str, look_at: &str) -> Check {
    let severity = if seen == 0 { Severity::Ok } else { Severity::Note };
    let limits_to = if seen == 0 { "nothing so far" } else { meaning };
    Check::ok(name, format!("{} since boot", grouped(seen)))
        .wanted("0")
        .limits_to(limits_to)
        .judged(severity, look_at, "")
}

fn accept_overflows(context: &Context) -> Check {
    let seen = counter(context, "ListenOverflows");
    let meaning = "a listener's queue was full and clients waited for a second try";
    count("accept queue overflows", seen, meaning, "nstat -az TcpExtListenOverflows")
}

fn packet_drops(context: &Context) -> Check {
    let table = context.root.text("proc/net/softnet_stat").unwrap_or_default();
    let column = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    let seen = table.lines().filter_map(column).sum();
    let meaning = "packets found no place in a core's queue (netdev_max_backlog)";
    count("packets dropped per core", seen, meaning, "cat /proc/net/softnet_stat")
}

fn memory_pressure(context: &Context) -> Check {
    let seen = counter(context, "TCPMemoryPressures");
    let meaning = "TCP ran into the second value of tcp_mem and shrank buffers";
    count("TCP memory pressure", seen, meaning, "nstat -az TcpExtTCPMemoryPressures")
}

/// A counter of `/proc/net/netstat`: a line of names, then a line of values.
fn counter(context: &Context, name: &str) -> u64 {
    let table = context.root.text("proc/net/netstat").unwrap_or_default();
    let lines: Vec<&str> = table.lines().collect();
    let pairs = lines.chunks_exact(2).find_map(|pair| {
        let at = pair[0].split_whitespace().position(|word| word == name)?;
        pair[1].split_whitespace().nth(at)?.parse().ok()
    });
    pairs.unwrap_or(0)
}

fn huge_pages(context: &Context) -> Check {
    let text = context.root.text("sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = text.split(['[', ']']).nth(1).unwrap_or("not in this kernel").to_owned();
    let check = Check::ok("transparent huge pages", chosen.clone()).wanted("madvise");
    if chosen != "always" {
        return check.limits_to("nothing");
    }
    check.limits_to("resident memory may be larger than what is used, by whole 2 MiB pages").judged(
        Severity::Note,
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        "transparent_hugepage=madvise on the kernel's command line",
    )
}

fn container(context: &Context) -> Option<Check> {
    let marks = [".dockerenv", "run/.containerenv"];
    marks.iter().any(|mark| context.root.has(mark)).then(|| {
        Check::ok("container", "yes")
            .wanted("its own net.* settings")
            .limits_to("net.* settings of the host do not reach into a container's own network")
            .judged(
                Severity::Note,
                "docker run --sysctl net.core.somaxconn=8192 ...",
                "ulimits/compose.yaml",
            )
    })
}
