//! The diagnosis as text for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::check::{Check, Severity, grouped};
use super::{Diagnosis, Role};

/// Version of the JSON; it grows when a name changes its meaning or goes.
const JSON_VERSION: u32 = 1;

/// Exit code of a diagnosis: 0 ok or notes, 1 warnings, 3 errors. 2 is for wrong arguments.
pub fn exit_code(severity: Severity) -> u8 {
    match severity {
        Severity::Ok | Severity::Note => 0,
        Severity::Warning => 1,
        Severity::Error => 3,
    }
}

/// The table, what fixes each line below it, and the ceiling.
pub fn text(diagnosis: &Diagnosis) -> String {
    let question = &diagnosis.question;
    let role = match question.role {
        Role::Server => "a server",
        Role::LoadGenerator => "a load generator",
    };
    let whose = match question.pid {
        Some(pid) => format!("the limits of process {pid}"),
        None => "the limits of this shell".into(),
    };
    let connections = grouped(question.connections);
    let mut out = format!("{connections} connections on {role}, with {whose}\n\n");
    let widths = [
        width(diagnosis, |check| check.name.len()),
        width(diagnosis, |check| check.current.len()),
        width(diagnosis, |check| check.wanted.len()),
    ];
    for check in &diagnosis.checks {
        row(&mut out, check, widths);
    }
    out.push('\n');
    out.push_str(&summary(diagnosis));
    out
}

fn width(diagnosis: &Diagnosis, of: fn(&Check) -> usize) -> usize {
    // A longer value pushes its own line only.
    diagnosis.checks.iter().map(of).filter(|length| *length <= 34).max().unwrap_or(0)
}

fn row(out: &mut String, check: &Check, [name, current, wanted]: [usize; 3]) {
    let line = format!(
        "{:<7}  {:<name$}  {:<current$}  {:<wanted$}  {}",
        check.severity.name(),
        check.name,
        check.current,
        check.wanted,
        check.limits_to
    );
    out.push_str(line.trim_end());
    out.push('\n');
    for (label, fix) in [("now", &check.fix_now), ("lasting", &check.fix_lasting)] {
        if let Some(fix) = fix {
            out.push_str(&format!("{:9}{label:<8} {fix}\n", ""));
        }
    }
}

fn summary(diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    if let Some((check, connections)) = diagnosis.ceiling() {
        let connections = grouped(connections);
        write_line(&mut out, format_args!("ceiling: {connections} connections, by {}", check.name));
    }
    let count = |severity| diagnosis.checks.iter().filter(|c| c.severity == severity).count();
    write_line(
        &mut out,
        format_args!(
            "errors {}, warnings {}, notes {}, ok {}",
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Note),
            count(Severity::Ok)
        ),
    );
    if diagnosis.severity() > Severity::Ok {
        out.push_str(
            "`odin-ws doctor --fix` with the same options prints a script that fixes it\n",
        );
    }
    out
}

fn write_line(out: &mut String, line: std::fmt::Arguments) {
    // Writing to a String does not fail.
    writeln!(out, "{line}").unwrap_or_default();
}

/// The same for programs. Names are stable; counts are numbers, values of the machine are texts.
pub fn json(diagnosis: &Diagnosis) -> Value {
    let question = &diagnosis.question;
    let severity = diagnosis.severity();
    json!({
        "version": JSON_VERSION,
        "role": question.role.name(),
        "connections": question.connections,
        "source_addresses": question.source_addresses,
        "pid": question.pid,
        "severity": severity,
        "exit_code": exit_code(severity),
        "ceiling": diagnosis.ceiling().map(|(check, connections)| {
            json!({ "connections": connections, "by": check.name })
        }),
        "checks": diagnosis.checks,
    })
}
