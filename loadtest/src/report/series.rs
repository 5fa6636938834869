//! The samples as the lines of charts, thinned out to what a chart can show.

use hdrhistogram::Histogram;

use super::chart::{Axis, Chart, Line, POINTS_MAX, Scale};
use super::unit;
use crate::data::{Percentiles, RunData, Sample};

/// Steps per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 8;

/// How the samples of one point become one value.
#[derive(Clone, Copy)]
enum Merge {
    /// The largest: gauges and latencies, whose peaks must stay.
    Max,
    /// Their mean, weighted by seconds: rates.
    Mean,
}

/// The charts of a run, in their order on the page.
pub fn charts(data: &RunData) -> Vec<Chart> {
    let samples = &data.samples;
    let rate = |value: fn(&Sample) -> Option<f64>| thinned(samples, Merge::Mean, value);
    let peak = |value: fn(&Sample) -> Option<f64>| thinned(samples, Merge::Max, value);
    let timed = |id, title, y_label, show, lines: Vec<(&'static str, Points)>| Chart {
        id,
        title,
        y_label,
        scale: Scale::Linear,
        axis: Axis::Time,
        show,
        lines: lines.into_iter().map(|(name, points)| Line { name, points }).collect(),
    };
    let latency = Chart {
        scale: Scale::Log,
        ..timed("latency", "Delivery latency", "latency (log)", unit::time_us, latencies(samples))
    };
    let resident = peak(|sample| sample.server.map(|server| server.rss_bytes as f64));
    let memory = Chart {
        scale: Scale::Bytes,
        ..timed(
            "memory",
            "Server memory",
            "resident",
            unit::memory,
            vec![("resident memory", resident)],
        )
    };
    vec![
        timed(
            "connections",
            "Connections",
            "connections",
            unit::quantity,
            vec![
                ("open", peak(|sample| Some(sample.connected as f64))),
                ("connecting", peak(|sample| Some(sample.connecting as f64))),
                ("failed per second", rate(|sample| each_second(sample, sample.failed))),
            ],
        ),
        timed(
            "deliveries",
            "Deliveries",
            "per second",
            unit::quantity,
            vec![("deliveries", rate(|sample| each_second(sample, sample.deliveries)))],
        ),
        latency,
        percentile_curve(&data.delivery_us, &data.connect_us),
        timed(
            "cpu",
            "CPU",
            "% of a core",
            |cpu| format!("{} %", unit::quantity(cpu)),
            vec![
                ("server", rate(|sample| cpu(sample, sample.server?.cpu_us))),
                ("load generator", rate(|sample| cpu(sample, sample.client_cpu_us))),
            ],
        ),
        memory,
    ]
}

type Points = Vec<(f64, Option<f64>)>;

fn each_second(sample: &Sample, count: u64) -> Option<f64> {
    (sample.seconds > 0).then(|| count as f64 / f64::from(sample.seconds))
}

fn cpu(sample: &Sample, us: u64) -> Option<f64> {
    each_second(sample, us).map(|us| us / 1e4)
}

fn latencies(samples: &[Sample]) -> Vec<(&'static str, Points)> {
    type Pick = fn(&Percentiles) -> u64;
    let picks: [(&'static str, Pick); 5] = [
        ("p50", |latency| latency.p50_us),
        ("p90", |latency| latency.p90_us),
        ("p99", |latency| latency.p99_us),
        ("p99.9", |latency| latency.p999_us),
        ("max", |latency| latency.max_us),
    ];
    let of = |pick: Pick| {
        thinned(samples, Merge::Max, move |sample| sample.latency.as_ref().map(|l| pick(l) as f64))
    };
    picks.into_iter().map(|(name, pick)| (name, of(pick))).collect()
}

/// One point per group of neighbours, at the end of the group.
fn thinned(samples: &[Sample], merge: Merge, value: impl Fn(&Sample) -> Option<f64>) -> Points {
    let group = samples.len().div_ceil(POINTS_MAX).max(1);
    let point = |group: &[Sample]| {
        let known = group.iter().filter_map(|s| Some((value(s)?, f64::from(s.seconds.max(1)))));
        let merged = match merge {
            Merge::Max => known.map(|(value, _)| value).reduce(f64::max),
            Merge::Mean => known
                .map(|(value, weight)| (value * weight, weight))
                .reduce(|a, b| (a.0 + b.0, a.1 + b.1))
                .map(|(sum, weight)| sum / weight),
        };
        let at_ms = group.last().map_or(0, |sample| sample.at_ms);
        (at_ms as f64 / 1e3, merged)
    };
    samples.chunks(group).map(point).collect()
}

fn percentile_curve(delivery: &Histogram<u64>, connect: &Histogram<u64>) -> Chart {
    Chart {
        id: "percentiles",
        title: "Latency by percentile",
        y_label: "latency (log)",
        scale: Scale::Log,
        axis: Axis::Nines,
        show: unit::time_us,
        lines: vec![
            Line { name: "delivery", points: curve(delivery) },
            Line { name: "connect", points: curve(connect) },
        ],
    }
}

/// At the same nines for every histogram, up to its largest value.
fn curve(histogram: &Histogram<u64>) -> Points {
    if histogram.is_empty() {
        return Vec::new();
    }
    let last = (histogram.len() as f64).log10().max(1.0);
    let steps = (last * f64::from(TICKS_PER_HALF) * 10f64.log2()).ceil() as usize;
    let at = |step: usize| {
        let nines = (step as f64 / (f64::from(TICKS_PER_HALF) * 10f64.log2())).min(last);
        let value = histogram.value_at_quantile(1.0 - 10f64.powf(-nines));
        (nines, Some(value as f64))
    };
    (0..=steps.min(POINTS_MAX - 1)).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, deliveries: u64) -> Sample {
        Sample { at_ms: at * 1_000, seconds: 1, deliveries, connected: at, ..Sample::default() }
    }

    #[test]
    fn four_hours_are_a_thousand_points_and_keep_their_peak() {
        let samples: Vec<Sample> =
            (1..=14_400).map(|at| sample(at, if at == 7_000 { 99 } else { 1 })).collect();
        let value = |sample: &Sample| Some(sample.deliveries as f64);
        let peaks = thinned(&samples, Merge::Max, value);
        assert!(peaks.len() <= POINTS_MAX && peaks.len() > POINTS_MAX / 2, "{}", peaks.len());
        assert_eq!(peaks.iter().filter(|(_, value)| *value == Some(99.0)).count(), 1);
        let means = thinned(&samples, Merge::Mean, value);
        let group = samples.len().div_ceil(POINTS_MAX) as f64;
        let sum: f64 = means.iter().filter_map(|(_, value)| *value).map(|mean| mean * group).sum();
        assert!((sum - (14_400.0 + 98.0)).abs() < 1e-6, "{sum}");
        assert_eq!(peaks.last().map(|(at, _)| *at), Some(14_400.0));
    }

    #[test]
    fn nothing_measured_is_no_point() {
        assert!(thinned(&[], Merge::Max, |_| Some(1.0)).is_empty());
        assert_eq!(thinned(&[sample(1, 1)], Merge::Mean, |_| None), [(1.0, None)]);
    }
}
