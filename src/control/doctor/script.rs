//! The shell script that fixes what was found. It is printed, never run from here.

use super::check::{Check, Severity};
use super::kit::{self, Wanted};
use super::{Context, Diagnosis, Role, Root, kernel};

const HEAD: &str = r#"set -u

[ "$(id -u)" -eq 0 ] || { echo "run this as root" >&2; exit 1; }
failed=0

# set_now KEY VALUES
set_now() {
    if sysctl -q -w "$1=$2"; then echo "set $1 = $2"; else
        echo "could not set $1: a container takes it from its host or from --sysctl" >&2
        failed=1
    fi
}

# install_file PATH, with the content on standard input
install_file() {
    if mkdir -p "$(dirname "$1")" && cat > "$1"; then echo "wrote $1"; else
        echo "could not write $1" >&2
        failed=1
    fi
}
"#;

/// A POSIX shell script, for root, that sets what is not as wanted now and installs the lines that
/// make it lasting. Running it twice does the same as once, and nothing that the machine has more
/// of is taken away.
pub fn script(root: &Root, diagnosis: &Diagnosis) -> String {
    let question = &diagnosis.question;
    let context = Context { root, question, cores: 1 };
    let mut out = format!(
        "#!/bin/sh\n# Printed by `odin-ws doctor --role {} --connections {} --fix`.\n\
         # Read it, then run it as root. What and why is in the file that it writes.\n",
        question.role.name(),
        question.connections
    );
    out.push_str(HEAD);
    sysctls(&mut out, &context, diagnosis);
    limits(&mut out, diagnosis);
    by_hand(&mut out, diagnosis);
    out.push_str("\nexit \"$failed\"\n");
    out
}

fn sysctls(out: &mut String, context: &Context, diagnosis: &Diagnosis) {
    let role = diagnosis.question.role;
    let wanted = kit::wanted(role);
    let off: Vec<(&Check, &Wanted)> = diagnosis
        .checks
        .iter()
        .filter(|check| check.fix_lasting.as_deref() == Some(kit::sysctl_path(role)))
        .filter_map(|check| Some((check, wanted.iter().find(|w| w.key == check.name)?)))
        .collect();
    if off.is_empty() {
        return;
    }
    out.push_str("\n# Now.\n");
    for (check, wanted) in off {
        let values: Vec<String> = wanted.values.iter().map(u64::to_string).collect();
        let (limits_to, values) = (plain(&check.limits_to), values.join(" "));
        out.push_str(&format!("# {}: {limits_to}\n", check.severity.name()));
        out.push_str(&format!("set_now {} '{values}'\n", wanted.key));
    }
    out.push_str("\n# After the next boot.\n");
    out.push_str(&format!("install_file {} <<'END_OF_FILE'\n", kit::sysctl_path(role)));
    for line in kit::sysctl_file(role).lines() {
        match wanted.iter().find(|wanted| wanted.line == line) {
            Some(wanted) if kernel::is_exceeded(context, wanted) => {
                out.push_str(&format!("# left out, this machine has more: {line}\n"));
            }
            _ => out.push_str(&format!("{line}\n")),
        }
    }
    out.push_str("END_OF_FILE\n");
}

fn limits(out: &mut String, diagnosis: &Diagnosis) {
    let is_off = |check: &Check| {
        check.severity > Severity::Ok && matches!(check.name.as_str(), "nofile" | "memlock")
    };
    if !diagnosis.checks.iter().any(is_off) {
        return;
    }
    out.push_str("\n# Limits of processes. They hold from the next login and the next start.\n");
    out.push_str(&format!("install_file {} <<'END_OF_FILE'\n", kit::LIMITS_PATH));
    out.push_str(kit::LIMITS);
    out.push_str("END_OF_FILE\n");
    if diagnosis.question.role == Role::Server {
        out.push_str("if command -v systemctl >/dev/null; then\n");
        out.push_str(&format!("install_file {} <<'END_OF_FILE'\n", kit::SERVICE_PATH));
        out.push_str(kit::SERVICE);
        out.push_str("END_OF_FILE\n");
        out.push_str("systemctl daemon-reload || failed=1\nfi\n");
    }
}

/// What a script should not do for an operator.
fn by_hand(out: &mut String, diagnosis: &Diagnosis) {
    let role = diagnosis.question.role;
    let rest = diagnosis.checks.iter().filter(|check| {
        check.severity > Severity::Note
            && check.fix_lasting.as_deref() != Some(kit::sysctl_path(role))
    });
    let mut is_first = true;
    for check in rest {
        if std::mem::take(&mut is_first) {
            out.push_str("\n# Left to you:\n");
        }
        let fixes = [&check.fix_now, &check.fix_lasting];
        let fixes: Vec<String> = fixes.into_iter().flatten().map(|fix| plain(fix)).collect();
        let (name, limits_to) = (plain(&check.name), plain(&check.limits_to));
        out.push_str(&format!("#   {name}: {limits_to}\n"));
        for fix in fixes {
            out.push_str(&format!("#     {fix}\n"));
        }
    }
}

/// A text that stays within its line of comment, whatever the machine put into it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
