//! The shards' and the source's reports as Prometheus' text, made anew at each scrape: between
//! scrapes nothing is kept in two places.

use std::time::Instant;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    CounterVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::state::AdminState;
use crate::event::payload_bytes;
use crate::feed::SourceStatus;
use crate::ingest::{Counter as ReportCounter, SourceReport};
use crate::protocol::message::ResumeRefusal;
use crate::shard::{ShardReport, Stats};

/// A counter of a shard: its name, help and where it is in the report.
type Counter = (&'static str, &'static str, fn(&Stats) -> u64);

const COUNTERS: [Counter; 14] = [
    ("ws_connections_accepted_total", "Sockets accepted", |stats| stats.accepted),
    ("ws_connections_upgraded_total", "Connections upgraded", |stats| stats.upgraded),
    ("ws_connections_refused_total", "Requests refused before the upgrade", |stats| stats.refused),
    ("ws_events_total", "Events taken from the source", |stats| stats.events),
    ("ws_deliveries_total", "Events given to connections", |stats| stats.deliveries),
    ("ws_messages_postponed_total", "Events that found a full queue", |stats| stats.postponed),
    ("ws_messages_dropped_total", "Events that closed clients were not sent", |stats| {
        stats.dropped
    }),
    ("ws_resumed_messages_total", "Missed events that resumes brought", |stats| {
        stats.resumed_messages
    }),
    ("ws_sends_total", "Sends, each one system call", |stats| stats.sends),
    ("ws_sent_bytes_total", "Bytes sent to clients", |stats| stats.bytes),
    ("ws_slow_client_disconnects_total", "Clients closed because they read too slowly", |stats| {
        stats.slow_closed
    }),
    ("ws_over_budget_disconnects_total", "Clients closed over their memory budget", |stats| {
        stats.budget_closed
    }),
    ("ws_drain_disconnects_total", "Clients closed before the server ends", |stats| {
        stats.drain_closed
    }),
    ("ws_age_disconnects_total", "Clients closed because their connection was old", |stats| {
        stats.age_closed
    }),
];

/// A counter of the source: its name, help and where it is in the report.
type SourceCounter = (&'static str, &'static str, fn(&SourceReport) -> &ReportCounter);

const SOURCE_COUNTERS: [SourceCounter; 11] = [
    ("ws_source_messages_total", "Messages taken from the broker", |source| &source.messages),
    ("ws_source_events_total", "Events handed to the shards", |source| &source.events),
    ("ws_source_repeats_total", "Messages that had been handled before", |source| &source.repeats),
    ("ws_source_refused_total", "Messages whose subject is no channel", |source| &source.refused),
    ("ws_source_connections_total", "Connections made to the broker", |source| &source.connections),
    ("ws_source_consumers_total", "Consumers that were read", |source| &source.consumers),
    ("ws_source_epochs_total", "Epochs announced: the first, and each that began anew", |source| {
        &source.epochs
    }),
    ("ws_source_losses_total", "Times that messages may have been lost", |source| &source.losses),
    ("ws_source_notices_total", "Times that clients were told of losses", |source| &source.notices),
    ("ws_source_newest_reads_total", "Times that the newest messages were read again", |source| {
        &source.newest_reads
    }),
    ("ws_shard_overruns_total", "Shards given up because they took nothing", |source| {
        &source.overruns
    }),
];

/// All metrics as text.
///
/// # Errors
/// A name that Prometheus does not take: our own mistake.
pub(super) fn render(state: &AdminState) -> prometheus::Result<String> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let reports: Vec<ShardReport> = state.census.reports().collect();
    for (name, help, value) in COUNTERS {
        let counter = IntCounterVec::new(Opts::new(name, help), &["shard"])?;
        for (shard, report) in reports.iter().enumerate() {
            counter.with_label_values(&[shard.to_string()]).inc_by(value(&report.stats));
        }
        registry.register(Box::new(counter))?;
    }
    per_shard(
        &registry,
        "ws_connections_current",
        "Upgraded connections",
        state.census.open().map(|open| open as usize),
    )?;
    per_shard(
        &registry,
        "ws_subscriptions_current",
        "Subscriptions of all connections",
        reports.iter().map(|report| report.subscriptions),
    )?;
    per_shard(
        &registry,
        "ws_draining",
        "1 while the server is about to end",
        reports.iter().map(|report| usize::from(report.is_draining)),
    )?;
    resumes(&registry, &reports)?;
    memory(&registry, state, &reports)?;
    source(&registry, &state.source)?;
    TextEncoder::new().encode_to_string(&registry.gather())
}

fn resumes(registry: &Registry, reports: &[ShardReport]) -> prometheus::Result<()> {
    let help = "Resumes by outcome: recovered, or why not";
    let counter = IntCounterVec::new(Opts::new("ws_resumes_total", help), &["shard", "outcome"])?;
    for (shard, report) in reports.iter().enumerate() {
        let shard = &shard.to_string();
        counter.with_label_values(&[shard, "recovered"]).inc_by(report.stats.resumed);
        for (reason, count) in ResumeRefusal::ALL.iter().zip(report.stats.not_resumed) {
            counter.with_label_values(&[shard, reason.name()]).inc_by(count);
        }
    }
    registry.register(Box::new(counter))
}

fn source(registry: &Registry, report: &SourceReport) -> prometheus::Result<()> {
    for (name, help, counter) in SOURCE_COUNTERS {
        let metric = IntCounter::new(name, help)?;
        metric.inc_by(counter(report).total());
        registry.register(Box::new(metric))?;
    }
    let status = Opts::new("ws_source_status", "How the source is doing: 1 for the one that holds");
    let status = IntGaugeVec::new(status, &["status"])?;
    for known in SourceStatus::ALL {
        let holds = i64::from(known == report.status());
        status.with_label_values(&[known.as_str()]).set(holds);
    }
    registry.register(Box::new(status))?;
    let pauses = Opts::new("ws_source_paused_seconds_total", "Time without pulling, by its cause");
    let pauses = CounterVec::new(pauses, &["cause"])?;
    for (cause, elapsed) in [
        ("nats_rate", &report.nats_rate_pause),
        ("broadcast_rate", &report.broadcast_rate_pause),
        ("memory", &report.memory_pause),
        ("cpu", &report.cpu_pause),
        ("shard", &report.shard_pause),
    ] {
        pauses.with_label_values(&[cause]).inc_by(elapsed.seconds());
    }
    registry.register(Box::new(pauses))
}

fn memory(
    registry: &Registry,
    state: &AdminState,
    reports: &[ShardReport],
) -> prometheus::Result<()> {
    let by_class = IntGaugeVec::new(
        Opts::new(
            "ws_shard_memory_bytes",
            "Memory of a shard by class; kernel_send is the kernel's",
        ),
        &["shard", "class"],
    )?;
    for (shard, report) in reports.iter().enumerate() {
        for (class, bytes) in report.memory.classes() {
            by_class.with_label_values(&[&shard.to_string(), class]).set(bytes as i64);
        }
    }
    registry.register(Box::new(by_class))?;
    let of_connections = |report: &ShardReport| {
        let memory = &report.memory;
        let shared = memory.log + memory.fixed;
        memory.user_bytes() + memory.kernel_send - shared
    };
    let connections: usize = reports.iter().map(|report| report.connections).sum();
    let bytes: usize = reports.iter().map(of_connections).sum();
    let average = bytes.checked_div(connections).unwrap_or(0);
    let heap = state.memory.heap_bytes(Instant::now());
    let gauges = [
        ("ws_payload_bytes", "Events held, each counted once in the process", payload_bytes()),
        ("ws_connection_memory_bytes_average", "Memory of connections, divided by them", average),
        (
            "ws_connection_budget_bytes",
            "Memory that one connection may take",
            state.connection_budget_bytes,
        ),
        ("ws_heap_bytes", "Heap in use as the allocator says, a minute old at most", heap),
    ];
    for (name, help, value) in gauges {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(value as i64);
        registry.register(Box::new(gauge))?;
    }
    Ok(())
}

fn per_shard(
    registry: &Registry,
    name: &str,
    help: &str,
    values: impl Iterator<Item = usize>,
) -> prometheus::Result<()> {
    let gauge = IntGaugeVec::new(Opts::new(name, help), &["shard"])?;
    for (shard, value) in values.enumerate() {
        gauge.with_label_values(&[shard.to_string()]).set(value as i64);
    }
    registry.register(Box::new(gauge))
}
