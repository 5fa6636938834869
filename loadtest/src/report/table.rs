//! The text at the end of a run, the verdict first.

use hdrhistogram::Histogram;

use super::figures::{Figures, figures};
use super::grid::Grid;
use super::{floor, loris, unit};
use crate::data::{FailureCount, Ramp, RunData, Step, StormData};

/// The report for a terminal.
pub fn table(data: &RunData) -> String {
    let computed = figures(data);
    let mut out = verdict(data);
    section(&mut out, "connections", &connections(data, &computed));
    section(&mut out, "deliveries", &deliveries(data, &computed));
    section(&mut out, "cost", &cost(data, &computed));
    storm(&mut out, data.storm.as_ref());
    steps(&mut out, &data.steps);
    grids(data).iter().for_each(|grid| out.push_str(&grid.text()));
    failures(&mut out, &data.failures);
    preflight(&mut out, data);
    out
}

/// The tables that only some scenarios have.
pub fn grids(data: &RunData) -> Vec<Grid> {
    let floor = data.floor.as_ref().map(floor::grid);
    floor.into_iter().chain(data.loris.as_ref().map(loris::grid)).collect()
}

/// What the run was and how it ended.
pub fn headline(data: &RunData) -> String {
    let end = match (data.verdict.is_empty(), data.is_interrupted) {
        (false, _) => "failed",
        (true, true) => "interrupted",
        (true, false) => "passed",
    };
    let elapsed = unit::clock(data.elapsed_ms as f64 / 1e3);
    format!("{} {end} after {elapsed}", data.scenario)
}

fn verdict(data: &RunData) -> String {
    let mut out = format!("\n{}\n", headline(data));
    for reason in &data.verdict {
        out.push_str(&format!("  - {reason}\n"));
    }
    if data.is_interrupted && !data.verdict.is_empty() {
        out.push_str("  interrupted: the figures are those so far\n");
    }
    out
}

type Rows = Vec<(&'static str, String)>;

fn section(out: &mut String, title: &str, rows: &Rows) {
    out.push_str(&format!("\n{title}\n"));
    for (name, value) in rows {
        out.push_str(&format!("  {name:<22}{value}\n"));
    }
}

/// The rows about connections.
pub fn connections(data: &RunData, computed: &Figures) -> Rows {
    let totals = &data.totals;
    let rate = computed.success_rate.map_or("-".into(), percent);
    vec![
        (
            "success",
            format!(
                "{rate} ({} of {}, {} attempts)",
                unit::count(totals.succeeded),
                unit::count(totals.target),
                unit::count(totals.attempts)
            ),
        ),
        ("open at most", unit::count(totals.connected_max)),
        ("lost", unit::count(totals.lost)),
        ("time to connect", percentiles(&data.connect_us)),
    ]
}

/// A share, never rounded up to 100 %.
pub fn percent(share: f64) -> String {
    let text = format!("{:.2}", (share * 1e4 + 1e-6).floor() / 1e2);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The rows about deliveries.
pub fn deliveries(data: &RunData, computed: &Figures) -> Rows {
    let totals = &data.totals;
    vec![
        ("published", unit::count(totals.published)),
        (
            "received",
            format!(
                "{}, {} per second",
                unit::count(totals.deliveries),
                unit::quantity(computed.deliveries_per_s)
            ),
        ),
        (
            "wrong",
            format!(
                "{} missing, {} twice, {} out of order",
                unit::count(totals.gaps),
                unit::count(totals.duplicates),
                unit::count(totals.disordered)
            ),
        ),
        ("latency", percentiles(&data.delivery_us)),
        ("publisher late", percentiles(&data.publish_late_us)),
    ]
}

/// The rows about CPU and memory.
pub fn cost(data: &RunData, computed: &Figures) -> Rows {
    let each = |us: Option<f64>| {
        us.map_or(String::new(), |us| format!(", {} per delivery", unit::time_us(us)))
    };
    let server = match computed.server_cpu_percent {
        None => "not watched (--server-pid)".into(),
        Some(cpu) => {
            format!("{} % of a core{}", unit::quantity(cpu), each(computed.server_us_per_delivery))
        }
    };
    let client = computed
        .client_to_server_cpu
        .map_or(String::new(), |share| format!(", {} of the server's", percent(share)));
    let mut rows = vec![
        ("server CPU", server),
        (
            "client CPU",
            format!(
                "{} % of a core{}{client}",
                unit::quantity(computed.client_cpu_percent),
                each(computed.client_us_per_delivery)
            ),
        ),
    ];
    rows.push(("CPU of the ramp", ramp(&data.totals.ramp)));
    if let Some(rss) = computed.server_rss_bytes_max {
        let connection = computed
            .server_rss_bytes_per_connection
            .map_or(String::new(), |bytes| format!(", {} per connection", signed_memory(bytes)));
        rows.push(("server memory", format!("{} at most{connection}", unit::memory(rss as f64))));
    }
    if let Some(bytes) = computed.bytes_per_delivery {
        rows.push((
            "bytes per delivery",
            format!("{} without TCP/IP headers", unit::quantity(bytes)),
        ));
    }
    for egress in &computed.egress {
        let name = match egress.connections {
            20_000 => "egress at 20,000",
            40_000 => "egress at 40,000",
            _ => "egress at 100,000",
        };
        rows.push((name, format!("{} a month (computed)", unit::traffic(egress.bytes_per_month))));
    }
    rows
}

fn ramp(ramp: &Ramp) -> String {
    let seconds = |us: u64| unit::time_us(us as f64);
    let server = ramp.server_cpu_us.map_or(String::new(), |us| format!("server {}, ", seconds(us)));
    let elapsed = unit::time_us(ramp.elapsed_ms as f64 * 1e3);
    format!("{server}clients {} in {elapsed}, not contained above", seconds(ramp.client_cpu_us))
}

/// A difference of memory.
pub fn signed_memory(bytes: f64) -> String {
    let sign = if bytes < 0.0 { "-" } else { "" };
    format!("{sign}{}", unit::memory(bytes.abs()))
}

fn percentiles(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "not measured".into();
    }
    let at = |quantile: f64| unit::time_us(histogram.value_at_quantile(quantile) as f64);
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        unit::time_us(histogram.max() as f64)
    )
}

fn storm(out: &mut String, storm: Option<&StormData>) {
    if let Some(storm) = storm {
        section(out, "reconnect storm", &storm_rows(storm));
    }
}

/// The rows about a storm.
pub fn storm_rows(storm: &StormData) -> Vec<(&'static str, String)> {
    vec![
        ("back", format!("{} of {}", unit::count(storm.returned), unit::count(storm.dropped))),
        ("half, 90 %, 99 %", storm.back_ms.map(since).join(", ")),
        ("all", since(storm.all_back_ms)),
        (
            "resumed",
            format!(
                "{} with {} missed events, {} refused",
                unit::count(storm.recovered),
                unit::count(storm.recovered_events),
                unit::count(storm.not_recovered)
            ),
        ),
    ]
}

/// A time after the drop.
fn since(ms: Option<u64>) -> String {
    ms.map_or("never".into(), |ms| unit::time_us(ms as f64 * 1e3))
}

fn steps(out: &mut String, steps: &[Step]) {
    if steps.is_empty() {
        return;
    }
    out.push_str(&format!(
        "\nsteps\n  {:>9}  {:>12}  {:>12}  {:>9}  {:>9}  {:>9}  {:>8}  held\n",
        "published", "wanted/s", "received/s", "p50", "p99", "server", "missing"
    ));
    for step in steps {
        let [p50, p99, _] = unit::short_percentiles(&step.latency);
        out.push_str(&format!(
            "  {:>9}  {:>12}  {:>12}  {p50:>9}  {p99:>9}  {:>9}  {:>8}  {}\n",
            format!("{}/s", unit::quantity(step.rate)),
            unit::quantity(step.deliveries_wanted_per_s),
            unit::quantity(step.deliveries_per_s),
            step.server_us_per_delivery.map_or("-".into(), unit::time_us),
            unit::count(step.gaps),
            if step.held { "yes" } else { "no" },
        ));
    }
}

fn failures(out: &mut String, failures: &[FailureCount]) {
    if failures.is_empty() {
        return;
    }
    out.push_str("\nfailures\n");
    for failure in failures {
        out.push_str(&format!(
            "  {} x {}, first after {} with {} connections open\n    {}\n    fix: {}\n",
            unit::count(failure.count),
            failure.cause,
            unit::clock(failure.first_ms as f64 / 1e3),
            unit::count(failure.connected_then),
            failure.meaning,
            failure.fix
        ));
    }
}

fn preflight(out: &mut String, data: &RunData) {
    let findings = data.preflight.iter().filter(|finding| finding.severity != "ok");
    for (at, finding) in findings.enumerate() {
        if at == 0 {
            out.push_str("\nthis machine\n");
        }
        out.push_str(&format!("  {:<8}{}: {}\n", finding.severity, finding.name, finding.finding));
        if !finding.fix.is_empty() {
            out.push_str(&format!("    fix: {}\n", finding.fix));
        }
    }
}
