//! One line of the answer. It knows nothing of where the values came from.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As wanted.
    Ok,
    /// Not as the kit sets it, without a consequence for the wanted connections.
    Note,
    /// The connections are possible; bursts, floods or stalled clients meet this limit.
    Warning,
    /// The server cannot run or the connections cannot be reached.
    Error,
}

impl Severity {
    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name; that of the sysctl if it is one.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// The present value.
    pub current: String,
    /// What it should be.
    pub wanted: String,
    /// What the machine is limited to by it, a clause.
    pub limits_to: String,
    /// The connections that it allows, if it bounds them.
    pub connections_max: Option<u64>,
    /// The command that fixes it now.
    pub fix_now: Option<String>,
    /// The file, or the setting, that makes it lasting.
    pub fix_lasting: Option<String>,
}

impl Check {
    /// A check that found nothing wrong.
    pub fn ok(name: impl Into<String>, current: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            severity: Severity::Ok,
            current: current.into(),
            wanted: String::new(),
            limits_to: String::new(),
            connections_max: None,
            fix_now: None,
            fix_lasting: None,
        }
    }

    /// With what it should be.
    pub fn wanted(mut self, wanted: impl Into<String>) -> Self {
        self.wanted = wanted.into();
        self
    }

    /// With what it limits the machine to.
    pub fn limits_to(mut self, limits_to: impl Into<String>) -> Self {
        self.limits_to = limits_to.into();
        self
    }

    /// With the connections that it allows.
    pub fn bounds(mut self, connections_max: u64) -> Self {
        self.connections_max = Some(connections_max);
        self
    }

    /// With its severity and, unless it is ok, the fix.
    pub fn judged(mut self, severity: Severity, now: &str, lasting: &str) -> Self {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        self.severity = severity;
        if severity > Severity::Ok {
            (self.fix_now, self.fix_lasting) = (said(now), said(lasting));
        }
        self
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the largest unit that keeps a digit: `512 KiB`, `1.5 GiB`.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1_024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (18_848, "18,848")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        let cases = [(512, "512 B"), (65_536, "64 KiB"), (1_610_612_736, "1.5 GiB")];
        for (number, text) in cases {
            assert_eq!(bytes(number), text);
        }
    }
}
