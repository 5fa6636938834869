//! The line of each second.

use crate::data::Sample;

/// `  12 s  connected 9,800/10,000  +1,000/s  failed 0  12,345 deliveries/s  p99 3.2 ms`
pub fn line(sample: &Sample, target: u64) -> String {
    let latency = match &sample.latency {
        None => String::new(),
        Some(latency) => format!("  p99 {:.1} ms", latency.p99_us as f64 / 1_000.0),
    };
    let bad = match (sample.gaps, sample.duplicates) {
        (0, 0) => String::new(),
        (gaps, duplicates) => format!("  GAPS {gaps} DUPLICATES {duplicates}"),
    };
    format!(
        "{:>5} s  connected {}/{target}  +{}/s  failed {}  {} deliveries/s{latency}{bad}",
        sample.at_ms.div_ceil(1_000),
        sample.connected,
        sample.opened,
        sample.failed,
        sample.deliveries,
    )
}
