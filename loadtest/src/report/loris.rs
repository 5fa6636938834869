//! What became of hostile clients, and what ordinary ones noticed.

use super::grid::Grid;
use super::unit;
use crate::data::{LorisData, LorisKind};

/// A row per kind.
pub fn grid(loris: &LorisData) -> Grid {
    let [p50, p99, max] = unit::short_percentiles(&loris.latency_without);
    let [p50_with, p99_with, max_with] = unit::short_percentiles(&loris.latency_with);
    Grid {
        title: "hostile clients",
        columns: vec!["kind", "connections", "ended", "p50", "p99", "max", "how"],
        rows: loris.kinds.iter().map(row).collect(),
        note: format!(
            "ordinary clients: p50 {p50}, p99 {p99}, max {max} without them; p50 {p50_with}, \
             p99 {p99_with}, max {max_with} with them"
        ),
    }
}

fn row(kind: &LorisKind) -> Vec<String> {
    let after = |ms: Option<u64>| ms.map_or("-".into(), |ms| unit::time_us(ms as f64 * 1e3));
    let ends: Vec<String> =
        kind.ends.iter().map(|end| format!("{} x {}", unit::count(end.count), end.how)).collect();
    vec![
        kind.kind.to_owned(),
        unit::count(kind.connections),
        unit::count(kind.ended),
        after(kind.after.map(|after| after.p50_ms)),
        after(kind.after.map(|after| after.p99_ms)),
        after(kind.after.map(|after| after.max_ms)),
        ends.join(", "),
    ]
}
