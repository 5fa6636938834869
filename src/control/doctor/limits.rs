//! Limits of the process: descriptors and locked memory.

use super::check::{Check, Severity, bytes, grouped};
use super::{Context, kit};

/// Descriptors of a load generator that are not connections.
pub(super) const LOADGEN_DESCRIPTORS_RESERVED: u64 = 64;

/// The least that may be locked for an io_uring executor to start, bytes.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1_024;

const LASTING: &str = "ulimits/: limits.d for shells, a drop-in for systemd, Docker's files";

/// A soft and a hard limit; `u64::MAX` is none.
#[derive(Debug, Clone, Copy)]
struct Limit {
    soft: u64,
    hard: u64,
}

/// The checks of this file.
pub(super) fn checks(context: &Context) -> Vec<Check> {
    let table = context.process_file("limits").unwrap_or_default();
    vec![
        open_files(context, limit(&table, "Max open files")),
        locked_memory(context, limit(&table, "Max locked memory")),
    ]
}

/// A row of `/proc/PID/limits`.
fn limit(table: &str, name: &str) -> Option<Limit> {
    let row = table.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = row.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        _ => word.parse().ok(),
    });
    Some(Limit { soft: words.next()??, hard: words.next()?? })
}

fn shown(value: u64) -> String {
    if value == u64::MAX { "unlimited".into() } else { grouped(value) }
}

fn unreadable(name: &str) -> Check {
    let limits_to = "unknown: is the process there, and may you look at it?";
    Check::ok(name, "not readable").limits_to(limits_to).judged(Severity::Warning, "", "")
}

fn open_files(context: &Context, limit: Option<Limit>) -> Check {
    let Some(limit) = limit else { return unreadable("nofile") };
    let (wanted, needed) = (kit::limit("nofile"), context.descriptors_needed());
    // Both programs raise the soft limit to the hard one when they start.
    let most = context.connections_allowed(limit.hard);
    let severity = match limit.hard {
        hard if hard < needed => Severity::Error,
        hard if hard < wanted => Severity::Note,
        _ => Severity::Ok,
    };
    let wanted = wanted.max(needed);
    let text = match limit.hard {
        u64::MAX => "no limit but fs.nr_open".into(),
        _ => format!("at most {} connections", grouped(most)),
    };
    Check::ok("nofile", format!("{} soft, {} hard", shown(limit.soft), shown(limit.hard)))
        .wanted(format!("{} hard", grouped(wanted)))
        .limits_to(text)
        .bounds(most)
        .judged(
            severity,
            &format!("ulimit -n {wanted}  # as root, in the shell that starts it"),
            LASTING,
        )
}

fn locked_memory(context: &Context, limit: Option<Limit>) -> Check {
    let Some(limit) = limit else { return unreadable("memlock") };
    let wanted = kit::limit("memlock");
    let is_server = context.question.role == super::Role::Server;
    let (severity, text) = match limit.soft {
        soft if soft >= wanted => (Severity::Ok, "room for io_uring's rings"),
        _ if !is_server => (Severity::Ok, "nothing: a load generator locks no memory"),
        soft if soft >= MEMLOCK_BYTES_MIN => {
            (Severity::Note, "enough for io_uring since Linux 5.12; before, rings count, too")
        }
        _ => (Severity::Error, "the server does not start: io_uring needs 512 KiB"),
    };
    let size = |value: u64| if value == u64::MAX { "unlimited".into() } else { bytes(value) };
    Check::ok("memlock", format!("{} soft, {} hard", size(limit.soft), size(limit.hard)))
        .wanted(bytes(wanted))
        .limits_to(text)
        .judged(severity, &format!("ulimit -l {}", wanted / 1_024), LASTING)
}
