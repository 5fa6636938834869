//! The run for programs. A name ends in its unit (`_ms`, `_us`, `_bytes`, `_per_s`, `_percent`);
//! what was not measured is null. [`VERSION`] grows when a name changes its meaning or goes; new
//! names may come at any time. docs/loadtest-report.md lists them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use serde_json::{Value, json};

use super::figures::figures;
use crate::data::RunData;

/// Version of the names.
const VERSION: u32 = 2;

/// Steps per halving of the distance to 100 % in the list of percentiles.
const TICKS_PER_HALF: u32 = 2;

/// The whole run.
pub fn json(data: &RunData) -> Value {
    let settings: serde_json::Map<String, Value> =
        data.settings.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    json!({
        "version": VERSION,
        "scenario": data.scenario,
        "passed": data.verdict.is_empty(),
        "interrupted": data.is_interrupted,
        "verdict": data.verdict,
        "started_unix_ms": data.started_unix_ms,
        "elapsed_ms": data.elapsed_ms,
        "settings": settings,
        "machine": data.machine,
        "totals": data.totals,
        "figures": figures(data),
        "connect": histogram(&data.connect_us),
        "delivery": histogram(&data.delivery_us),
        "publish_late": histogram(&data.publish_late_us),
        "failures": data.failures,
        "steps": data.steps,
        "storm": data.storm,
        "floor": data.floor,
        "loris": data.loris,
        "preflight": data.preflight,
        "samples": data.samples,
    })
}

/// Null if it is empty: a latency of 0 was not measured.
fn histogram(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let at = |quantile: f64| histogram.value_at_quantile(quantile);
    let percentiles: Vec<Value> = histogram
        .iter_quantiles(TICKS_PER_HALF)
        .map(|step| {
            json!({ "percentile": step.quantile_iterated_to() * 100.0,
                    "us": step.value_iterated_to(), "count": step.count_since_last_iteration() })
        })
        .collect();
    let mut bytes = Vec::new();
    // A Vec takes all it is given; the counts fit, for the histogram holds them.
    let is_written = V2Serializer::new().serialize(histogram, &mut bytes).is_ok();
    json!({
        "count": histogram.len(),
        "min_us": histogram.min(),
        "mean_us": histogram.mean(),
        "p50_us": at(0.5),
        "p90_us": at(0.9),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "p9999_us": at(0.9999),
        "max_us": histogram.max(),
        "percentiles": percentiles,
        "hdr_v2_base64": is_written.then(|| STANDARD.encode(&bytes)),
    })
}
