//! Keeps the samples of a run within their bound, however long it runs.

use hdrhistogram::Histogram;

use crate::data::{Percentiles, SAMPLES_MAX, Sample, ServerSample};

/// Appends a sample. If there are too many, each pair of neighbours is merged.
pub fn push(samples: &mut Vec<Sample>, sample: Sample) {
    samples.push(sample);
    if samples.len() < SAMPLES_MAX {
        return;
    }
    let merged = samples.chunks(2).map(|pair| match pair {
        [first, second] => merge(first, second),
        _ => pair[0].clone(),
    });
    *samples = merged.collect();
}

fn merge(first: &Sample, second: &Sample) -> Sample {
    let worse = |first: Percentiles, second: Percentiles| {
        if first.p99_us > second.p99_us { first } else { second }
    };
    Sample {
        seconds: first.seconds + second.seconds,
        opened: first.opened + second.opened,
        failed: first.failed + second.failed,
        published: first.published + second.published,
        deliveries: first.deliveries + second.deliveries,
        received_bytes: first.received_bytes + second.received_bytes,
        gaps: first.gaps + second.gaps,
        duplicates: first.duplicates + second.duplicates,
        latency: match (first.latency, second.latency) {
            (Some(first), Some(second)) => Some(worse(first, second)),
            (first, second) => first.or(second),
        },
        client_cpu_us: first.client_cpu_us + second.client_cpu_us,
        server: match (first.server, second.server) {
            (Some(first), Some(second)) => {
                Some(ServerSample { cpu_us: first.cpu_us + second.cpu_us, ..second })
            }
            (first, second) => second.or(first),
        },
        ..second.clone()
    }
}

/// The percentiles of a histogram.
pub fn percentiles(times: &Histogram<u64>) -> Percentiles {
    Percentiles {
        p50_us: times.value_at_quantile(0.5),
        p90_us: times.value_at_quantile(0.9),
        p99_us: times.value_at_quantile(0.99),
        p999_us: times.value_at_quantile(0.999),
        max_us: times.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_merges_neighbours() {
        let mut samples = Vec::new();
        for at_ms in 0..2 * SAMPLES_MAX as u64 {
            push(&mut samples, Sample { at_ms, seconds: 1, deliveries: 1, ..Sample::default() });
        }
        assert!(samples.len() < SAMPLES_MAX);
        let sum: u64 = samples.iter().map(|sample| sample.deliveries).sum();
        assert_eq!(sum, 2 * SAMPLES_MAX as u64);
        assert_eq!(samples.last().unwrap().at_ms, 2 * SAMPLES_MAX as u64 - 1);
    }
}
