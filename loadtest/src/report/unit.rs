//! Numbers with their unit, for people.

use crate::data::Percentiles;

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
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

/// A rate or another quantity: three digits below a thousand, whole above.
pub fn quantity(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "-".into(),
        size if size >= 100.0 => count(value.round() as u64),
        size if size >= 10.0 => trimmed(format!("{value:.1}")),
        size if size > 0.0 && size < 0.01 => format!("{value:.4}"),
        _ => trimmed(format!("{value:.2}")),
    }
}

fn trimmed(text: String) -> String {
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() { "0".into() } else { text.to_owned() }
}

/// Microseconds in the unit that suits them.
pub fn time_us(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", quantity(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", quantity(us / 1e3)),
        us => format!("{} µs", quantity(us)),
    }
}

/// Median, 99th percentile and maximum.
pub fn short_percentiles(latency: &Percentiles) -> [String; 3] {
    [latency.p50_us, latency.p99_us, latency.max_us].map(|us| time_us(us as f64))
}

/// Bytes in powers of 1,024, as memory is counted.
pub fn memory(bytes: f64) -> String {
    scaled(bytes, 1_024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Bytes in powers of 1,000, as traffic is billed.
pub fn traffic(bytes: f64) -> String {
    scaled(bytes, 1_000.0, &["B", "KB", "MB", "GB", "TB", "PB"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    format!("{} {}", quantity(value), units[unit])
}

/// A time since the start: `1:05`, `2:01:05`.
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// A moment in UTC: `2026-11-21 07:20:00 UTC`.
pub fn moment(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    // Days since 0000-03-01, so that a leap day ends its year; 400 years have 146,097 days.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let cases = [
            (count(1_234_567), "1,234,567"),
            (quantity(0.0), "0"),
            (quantity(0.5), "0.5"),
            (quantity(12.34), "12.3"),
            (quantity(120_000.4), "120,000"),
            (quantity(f64::NAN), "-"),
            (time_us(950.0), "950 µs"),
            (time_us(1_500.0), "1.5 ms"),
            (time_us(2e6), "2 s"),
            (memory(1_536.0), "1.5 KiB"),
            (traffic(6.9e12), "6.9 TB"),
            (clock(65.0), "1:05"),
            (clock(7_265.0), "2:01:05"),
            (moment(0), "1970-01-01 00:00:00 UTC"),
            (moment(951_782_400_000), "2000-02-29 00:00:00 UTC"),
            (moment(1_795_244_400_000), "2026-11-21 07:00:00 UTC"),
        ];
        for (found, wanted) in cases {
            assert_eq!(found, wanted);
        }
    }
}
