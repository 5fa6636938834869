//! What is computed from the measured values, once for all reports.

use serde::Serialize;

use crate::data::RunData;

/// Connections that the egress is computed for.
const EGRESS_CONNECTIONS: [u64; 3] = [20_000, 40_000, 100_000];

/// A month of 30 days, seconds.
const MONTH_SECONDS: f64 = 30.0 * 86_400.0;

/// Connections between two samples below which memory per connection is noise.
const CONNECTIONS_APART_MIN: u64 = 100;

/// Computed values. `None` is what nothing was measured for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Clients that connected, of those wanted, 0 to 1.
    pub success_rate: Option<f64>,
    /// Deliveries per second, mean of the time after the ramp.
    pub deliveries_per_s: f64,
    /// CPU of the load generator, percent of one core, mean of the time after the ramp.
    pub client_cpu_percent: f64,
    /// CPU of the server, percent of one core, mean of the time after the ramp.
    pub server_cpu_percent: Option<f64>,
    /// CPU of the load generator per delivery after the ramp, microseconds.
    pub client_us_per_delivery: Option<f64>,
    /// CPU of the server per delivery after the ramp, microseconds.
    pub server_us_per_delivery: Option<f64>,
    /// The load generator's CPU as a share of the server's.
    pub client_to_server_cpu: Option<f64>,
    /// The most resident memory of the server, bytes.
    pub server_rss_bytes_max: Option<u64>,
    /// Growth of the server's resident memory per connection, bytes.
    pub server_rss_bytes_per_connection: Option<f64>,
    /// Bytes on the wire per delivery, without TCP/IP headers.
    pub bytes_per_delivery: Option<f64>,
    /// Bytes on the wire per connection and second, without TCP/IP headers.
    pub bytes_per_connection_s: Option<f64>,
    /// What a month of this traffic is.
    pub egress: Vec<Egress>,
}

/// Traffic of a month of 30 days.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Egress {
    /// Open connections, all month.
    pub connections: u64,
    /// Bytes of the month.
    pub bytes_per_month: f64,
}

/// Computes the figures of a run.
pub fn figures(data: &RunData) -> Figures {
    let totals = &data.totals;
    let ramp = &totals.ramp;
    let seconds = data.elapsed_ms.saturating_sub(ramp.elapsed_ms) as f64 / 1e3;
    let deliveries = totals.deliveries.saturating_sub(ramp.deliveries) as f64;
    let per_delivery = |amount: u64| ratio(amount as f64, deliveries);
    let client_us = totals.client_cpu_us as f64;
    let server_us = totals.server_cpu_us.map(|us| us as f64);
    let open: f64 = data.samples.iter().map(|s| s.connected as f64 * f64::from(s.seconds)).sum();
    let bytes_per_connection_s = ratio(totals.received_bytes as f64, open);
    let egress = bytes_per_connection_s.map(|bytes| {
        let month = |connections: &u64| Egress {
            connections: *connections,
            bytes_per_month: *connections as f64 * bytes * MONTH_SECONDS,
        };
        EGRESS_CONNECTIONS.iter().map(month).collect()
    });
    Figures {
        success_rate: ratio(totals.succeeded as f64, totals.target as f64),
        deliveries_per_s: ratio(deliveries, seconds).unwrap_or(0.0),
        client_cpu_percent: ratio(client_us / 1e4, seconds).unwrap_or(0.0),
        server_cpu_percent: server_us.and_then(|us| ratio(us / 1e4, seconds)),
        client_us_per_delivery: per_delivery(totals.client_cpu_us),
        server_us_per_delivery: totals.server_cpu_us.and_then(per_delivery),
        client_to_server_cpu: server_us.and_then(|us| ratio(client_us, us)),
        server_rss_bytes_max: servers(data).map(|(_, rss)| rss).max(),
        server_rss_bytes_per_connection: rss_per_connection(data),
        bytes_per_delivery: ratio(totals.received_bytes as f64, totals.deliveries as f64),
        bytes_per_connection_s,
        egress: egress.unwrap_or_default(),
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// Connections and resident memory of each sample that has both.
fn servers(data: &RunData) -> impl Iterator<Item = (u64, u64)> + '_ {
    data.samples.iter().filter_map(|sample| Some((sample.connected, sample.server?.rss_bytes)))
}

/// Between the first sample and the first of those with the most connections.
fn rss_per_connection(data: &RunData) -> Option<f64> {
    let (connected_first, rss_first) = servers(data).next()?;
    let most = servers(data).map(|(connected, _)| connected).max()?;
    let (_, rss) = servers(data).find(|(connected, _)| *connected == most)?;
    let apart =
        most.checked_sub(connected_first).filter(|apart| *apart >= CONNECTIONS_APART_MIN)?;
    ratio(rss as f64 - rss_first as f64, apart as f64)
}
