//! What a run has measured. Every report is made from these values. This file knows neither how
//! they were measured nor how they are shown.
//!
//! Bound: one [`Sample`] per second, at most [`SAMPLES_MAX`] of them; a longer run (soak) merges
//! neighbours, so that a sample then stands for several seconds.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Samples of a run: four hours of seconds.
pub const SAMPLES_MAX: usize = 14_400;

/// A run from its start to its end, or to ctrl-C.
#[derive(Debug, Clone)]
pub struct RunData {
    /// `capacity`, `sustained`, `fanout`, `slow`, `storm`, `soak`, `floor` or `loris`.
    pub scenario: &'static str,
    /// The effective settings, name and value, in the order of the command line's help.
    pub settings: Vec<(String, String)>,
    /// When the run began, milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
    /// How long it took, milliseconds.
    pub elapsed_ms: u64,
    /// Whether ctrl-C ended it before its time.
    pub is_interrupted: bool,
    /// The machine that made the load.
    pub machine: MachineData,
    /// One per second, oldest first.
    pub samples: Vec<Sample>,
    /// From connect to the end of the WebSocket upgrade, microseconds.
    pub connect_us: Histogram<u64>,
    /// From the intended publish time to the message in the client's hands, microseconds.
    pub delivery_us: Histogram<u64>,
    /// The time from when an event was due until the publisher had handed it to the kernel,
    /// microseconds.
    pub publish_late_us: Histogram<u64>,
    /// Sums over the run.
    pub totals: Totals,
    /// By cause, most frequent first.
    pub failures: Vec<FailureCount>,
    /// The rates that were tried one after the other; empty if there was only one.
    pub steps: Vec<Step>,
    /// The drop and return of all connections; only `storm` has it.
    pub storm: Option<StormData>,
    /// The server beside a bare sender; only `floor` has it.
    pub floor: Option<FloorData>,
    /// Hostile clients beside the others; only `loris` has it.
    pub loris: Option<LorisData>,
    /// What the self-check found before the run.
    pub preflight: Vec<PreflightFinding>,
    /// Why the exit code is not zero; empty if it is.
    pub verdict: Vec<String>,
}

/// The load generator's machine.
#[derive(Debug, Clone, Serialize)]
pub struct MachineData {
    /// Kernel release.
    pub kernel: String,
    /// Cores that the load generator may use.
    pub cores: usize,
    /// RLIMIT_NOFILE after it was raised.
    pub descriptors: u64,
}

/// One second of a run. Counts are of that second; gauges are of its end.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    /// Milliseconds since the start, at the sample's end.
    pub at_ms: u64,
    /// Seconds that the sample stands for.
    pub seconds: u32,
    /// Gauge: upgraded connections.
    pub connected: u64,
    /// Gauge: connections on their way to the upgrade.
    pub connecting: u64,
    /// Count: connections upgraded.
    pub opened: u64,
    /// Count: attempts and connections that failed.
    pub failed: u64,
    /// Count: events published by this run.
    pub published: u64,
    /// Count: events received by all clients.
    pub deliveries: u64,
    /// Count: bytes received, as they were on the wire, without TCP/IP headers.
    pub received_bytes: u64,
    /// Count: events missing by seq or pos.
    pub gaps: u64,
    /// Count: events received twice.
    pub duplicates: u64,
    /// Delivery latency of this second, if anything was measured.
    pub latency: Option<Percentiles>,
    /// Count: CPU time of the load generator, microseconds.
    pub client_cpu_us: u64,
    /// The server, if it is watched.
    pub server: Option<ServerSample>,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// The largest.
    pub max_us: u64,
}

/// The watched server in one second.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct ServerSample {
    /// Count: its CPU time, microseconds.
    pub cpu_us: u64,
    /// Gauge: its resident memory, bytes.
    pub rss_bytes: u64,
}

/// Sums over a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Connections wanted.
    pub target: u64,
    /// Clients that reached an upgraded connection, after retries.
    pub succeeded: u64,
    /// The most connections open at once.
    pub connected_max: u64,
    /// Attempts, retries included.
    pub attempts: u64,
    /// Connections that the run wanted to keep and that were lost after the upgrade.
    pub lost: u64,
    /// Events published by this run.
    pub published: u64,
    /// Events received.
    pub deliveries: u64,
    /// Bytes received on the wire.
    pub received_bytes: u64,
    /// Bytes of event messages received, after decompression.
    pub message_bytes: u64,
    /// Events missing by seq or pos.
    pub gaps: u64,
    /// Events received twice.
    pub duplicates: u64,
    /// Events out of order.
    pub disordered: u64,
    /// CPU time of the load generator after the ramp, microseconds.
    pub client_cpu_us: u64,
    /// CPU time of the server after the ramp, microseconds, if it was watched.
    pub server_cpu_us: Option<u64>,
    /// The time until all clients were connected.
    pub ramp: Ramp,
}

/// The cost of connecting.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Ramp {
    /// How long, milliseconds.
    pub elapsed_ms: u64,
    /// Events received meanwhile.
    pub deliveries: u64,
    /// CPU time of the load generator, microseconds.
    pub client_cpu_us: u64,
    /// CPU time of the server, microseconds, if it was watched.
    pub server_cpu_us: Option<u64>,
}

/// One cause of failure.
#[derive(Debug, Clone, Serialize)]
pub struct FailureCount {
    /// Stable name: `emfile`, `ports_exhausted`, `connect_timeout`, `refused_http_503`, ...
    pub cause: String,
    /// How often.
    pub count: u64,
    /// When first, milliseconds since the start.
    pub first_ms: u64,
    /// The connections that were open then.
    pub connected_then: u64,
    /// Its meaning, one sentence.
    pub meaning: String,
    /// The command or setting that fixes it.
    pub fix: String,
}

/// One rate of a stepped run.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Events published per second, intended.
    pub rate: f64,
    /// Deliveries per second that this should cause.
    pub deliveries_wanted_per_s: f64,
    /// Deliveries per second received.
    pub deliveries_per_s: f64,
    /// Delivery latency.
    pub latency: Percentiles,
    /// Events missing.
    pub gaps: u64,
    /// Server CPU per delivery, microseconds.
    pub server_us_per_delivery: Option<f64>,
    /// Client CPU per delivery, microseconds.
    pub client_us_per_delivery: f64,
    /// Whether the step held: nothing missing, latency in bounds, rate reached.
    pub held: bool,
}

/// A reconnect storm.
#[derive(Debug, Clone, Serialize)]
pub struct StormData {
    /// Connections dropped.
    pub dropped: u64,
    /// Connections that were back and subscribed at the end.
    pub returned: u64,
    /// Returned connections to which the server promised what they had missed.
    pub recovered: u64,
    /// The events that these connections had missed.
    pub recovered_events: u64,
    /// Returned connections that asked to resume and were refused.
    pub not_recovered: u64,
    /// The time until the last connection was back, milliseconds.
    pub all_back_ms: Option<u64>,
    /// The time until half, 90 % and 99 % of them were back, milliseconds.
    pub back_ms: [Option<u64>; 3],
}

/// The server's CPU beside that of a bare sender.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FloorData {
    /// One per rate.
    pub rates: Vec<FloorRate>,
}

/// One rate.
#[derive(Debug, Clone, Serialize)]
pub struct FloorRate {
    /// Deliveries per second that were wanted.
    pub deliveries_wanted_per_s: f64,
    /// Alternating: the server, then the bare sender.
    pub rounds: Vec<FloorRound>,
    /// CPU per delivery of the server, microseconds, median of the rounds.
    pub server_us_per_delivery: f64,
    /// CPU per delivery of the bare sender, microseconds, median of the rounds.
    pub bare_us_per_delivery: f64,
    /// The server's CPU divided by the bare sender's.
    pub server_to_bare: f64,
}

/// The server and then the bare sender, each measured for the same time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FloorRound {
    /// The server.
    pub server: FloorSide,
    /// The bare sender.
    pub bare: FloorSide,
}

/// One side of a round.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct FloorSide {
    /// How long was measured, milliseconds.
    pub elapsed_ms: u64,
    /// Events received.
    pub deliveries: u64,
    /// Bytes of a frame, header included, mean.
    pub frame_bytes: f64,
    /// User and system time of the process, /proc/PID/stat, microseconds.
    pub cpu_us: u64,
    /// The same by the scheduler, /proc/PID/task/*/schedstat, nanoseconds.
    pub sched_ns: Option<u64>,
    /// CPU per delivery, microseconds: from schedstat, or from stat where schedstat is missing.
    pub us_per_delivery: f64,
    /// CPU of the load generator's clients per delivery, microseconds.
    pub client_us_per_delivery: f64,
    /// Delivery latency.
    pub latency: Percentiles,
}

/// Hostile clients, and the latency of the others.
#[derive(Debug, Clone, Serialize)]
pub struct LorisData {
    /// What became of each kind.
    pub kinds: Vec<LorisKind>,
    /// Delivery latency of the ordinary clients before there were hostile ones.
    pub latency_without: Percentiles,
    /// Delivery latency of the ordinary clients beside the hostile ones, over the same time.
    pub latency_with: Percentiles,
}

/// One kind of hostile client.
#[derive(Debug, Clone, Serialize)]
pub struct LorisKind {
    /// What it does.
    pub kind: &'static str,
    /// How many there were.
    pub connections: u64,
    /// How many the server ended.
    pub ended: u64,
    /// How the server ended them, by close code or HTTP status where it sent one.
    pub ends: Vec<LorisEnd>,
    /// The time from connect to the end.
    pub after: Option<LorisTimes>,
}

/// One way to end.
#[derive(Debug, Clone, Serialize)]
pub struct LorisEnd {
    /// `http_408`, `close_1008`, `closed`, `reset` or `protocol_error`.
    pub how: String,
    /// How often.
    pub count: u64,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LorisTimes {
    /// Median.
    pub p50_ms: u64,
    /// 90th percentile.
    pub p90_ms: u64,
    /// 99th percentile.
    pub p99_ms: u64,
    /// The largest.
    pub max_ms: u64,
}

/// One line of the self-check.
#[derive(Debug, Clone, Serialize)]
pub struct PreflightFinding {
    /// What was looked at, such as `nofile`.
    pub name: String,
    /// `ok`, `warning` or `error`.
    pub severity: &'static str,
    /// What it allows, in words.
    pub finding: String,
    /// The command that fixes it; empty if nothing needs fixing.
    pub fix: String,
}
