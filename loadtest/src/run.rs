//! A run: clients and publisher together, sampled once a second.
//!
//! Bounds: samples as in `data`; after the publisher's end the last events are waited for
//! [`DRAIN_SECONDS`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use crate::data::{Percentiles, Ramp, RunData, Sample, ServerSample, Step, Totals};
use crate::engine::client::Pace;
use crate::engine::shared::{Counts, Shared, histogram};
use crate::engine::{Command, EngineSettings, Handle, Subscriptions, Waiting};
use crate::failure::Failures;
use crate::preflight::{self, Wanted};
use crate::progress;
use crate::publish::Publisher;
use crate::samples::{percentiles, push};
use crate::settings::{Scenario, Settings};
use crate::watch::{self, Server, Usage};
use crate::ws::tls::TlsConfig;

/// How long the last events may take after the publisher has ended.
const DRAIN_SECONDS: u32 = 10;

/// SO_RCVBUF of clients that read slowly: a slow phone, not a slow network with deep buffers.
const SLOW_RECEIVE_BYTES: usize = 16_384;

/// Set by ctrl-C: the run ends with the report so far.
pub static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// All gauges of all engines at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Upgraded.
    pub connected: u64,
    /// Upgraded and acknowledged.
    pub subscribed: u64,
    /// Under way.
    pub connecting: u64,
    /// Tried often enough.
    pub given_up: u64,
    /// Subscribed at least once.
    pub succeeded: u64,
}

/// A run under way.
#[derive(Debug)]
pub struct Run<'a> {
    settings: &'a Settings,
    /// Clients wanted.
    pub clients: usize,
    engines: Vec<Handle>,
    /// The publisher, once it has begun.
    pub publisher: Option<Publisher>,
    server: Option<Server>,
    began: Instant,
    next_second: Instant,
    counts: Counts,
    published: u64,
    cpu_us: u64,
    usage: Option<Usage>,
    data: RunData,
}

impl<'a> Run<'a> {
    /// Prepares a run with so many clients and starts the engines; nobody connects yet.
    ///
    /// # Errors
    /// Why it cannot begin.
    pub fn prepare(settings: &'a Settings, clients: usize) -> Result<Self, String> {
        let arguments = &settings.arguments;
        let machine = preflight::machine();
        let wanted = Wanted {
            connections: clients as u64,
            source_addresses: arguments.source_ips.len().max(1) as u64,
            ramp_rate: arguments.ramp_rate,
            is_local: settings.addr.ip().is_loopback(),
        };
        let findings = preflight::check(&wanted, &machine, Path::new("/"));
        for finding in findings.iter().filter(|finding| finding.severity != "ok") {
            let (severity, name) = (finding.severity, &finding.name);
            eprintln!("{severity}: {name}: {}; fix: {}", finding.finding, finding.fix);
        }
        if preflight::is_hopeless(&findings) && !arguments.force {
            return Err(format!(
                "{clients} connections cannot be reached (--force tries all the same)"
            ));
        }
        let server = match (arguments.server_pid, &arguments.metrics_url) {
            (Some(pid), _) => Some(Server::Process(pid)),
            (None, Some(url)) => Some(Server::from_metrics_url(url)?),
            (None, None) => None,
        };
        let usage = server.as_ref().map(|server| {
            server.usage().ok_or_else(|| "the server's CPU and memory cannot be read".to_owned())
        });
        let began = Instant::now();
        let engines = start_engines(settings, clients, began)?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let data = RunData {
            scenario: arguments.scenario.name(),
            settings: settings.list(clients),
            started_unix_ms: since_epoch.as_millis() as u64,
            elapsed_ms: 0,
            is_interrupted: false,
            machine,
            samples: Vec::new(),
            connect_us: histogram(),
            delivery_us: histogram(),
            publish_late_us: histogram(),
            totals: Totals { target: clients as u64, ..Totals::default() },
            failures: Vec::new(),
            steps: Vec::new(),
            storm: None,
            preflight: findings,
            verdict: Vec::new(),
        };
        Ok(Self {
            settings,
            clients,
            engines,
            publisher: None,
            server,
            began,
            next_second: began + Duration::from_secs(1),
            counts: Counts::default(),
            published: 0,
            cpu_us: watch::own_threads_cpu_us("clients"),
            usage: usage.transpose()?,
            data,
        })
    }

    /// Tells every engine something; a ramp is divided among them.
    pub fn tell(&self, command: Command) {
        let count = self.engines.len();
        for (number, engine) in self.engines.iter().enumerate() {
            engine.tell(match command {
                Command::Ramp { clients, rate } => Command::Ramp {
                    clients: share(clients, number, count),
                    rate: rate / count as f64,
                },
                other => other,
            });
        }
    }

    /// The gauges of this moment.
    pub fn now(&self) -> Now {
        let sum = |gauge: fn(&Shared) -> &std::sync::atomic::AtomicU64| {
            self.engines.iter().map(|engine| Shared::read(gauge(&engine.shared))).sum()
        };
        Now {
            connected: sum(|shared| &shared.connected),
            subscribed: sum(|shared| &shared.subscribed),
            connecting: sum(|shared| &shared.connecting),
            given_up: sum(|shared| &shared.given_up),
            succeeded: sum(|shared| &shared.succeeded),
        }
    }

    /// Starts publishing, if the run does.
    ///
    /// # Errors
    /// If NATS cannot be reached.
    pub fn start_publisher(&mut self) -> Result<(), String> {
        let arguments = &self.settings.arguments;
        if let Some(url) = &arguments.nats_url {
            let channels = self.settings.channels.clone();
            let (rate, bytes) = (arguments.rate, arguments.payload_bytes);
            self.publisher = Some(Publisher::start(url, channels, rate, bytes)?);
        }
        Ok(())
    }

    /// Waits for the end of this second and samples it; false if ctrl-C was pressed.
    pub fn second(&mut self) -> bool {
        while Instant::now() < self.next_second && !is_interrupted() {
            let left = self.next_second.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        self.next_second += Duration::from_secs(1);
        let sample = self.sample();
        if !self.settings.arguments.quiet {
            eprintln!("{}", progress::line(&sample, self.clients as u64));
        }
        push(&mut self.data.samples, sample);
        !is_interrupted()
    }

    fn sample(&mut self) -> Sample {
        let before = self.counts;
        self.counts = Counts::default();
        let mut interval = histogram();
        for engine in &self.engines {
            engine.shared.with(|measured| {
                self.counts.add(measured.counts);
                // All have the bounds of `histogram`.
                interval.add(&measured.interval_us).unwrap_or_default();
                measured.interval_us.reset();
            });
        }
        self.data.delivery_us.add(&interval).unwrap_or_default();
        let grown = self.counts.since(before);
        let published = self.publisher.as_ref().map_or(self.published, Publisher::published);
        let cpu_us = watch::own_threads_cpu_us("clients");
        let now = self.now();
        let sample = Sample {
            at_ms: self.began.elapsed().as_millis() as u64,
            seconds: 1,
            connected: now.connected,
            connecting: now.connecting,
            opened: grown.opened,
            failed: grown.failed,
            published: published - self.published,
            deliveries: grown.deliveries,
            received_bytes: grown.received_bytes,
            gaps: grown.gaps,
            duplicates: grown.duplicates,
            latency: (!interval.is_empty()).then(|| percentiles(&interval)),
            client_cpu_us: cpu_us.saturating_sub(self.cpu_us),
            server: self.sample_server(),
        };
        self.cpu_us = cpu_us;
        self.published = published;
        let totals = &mut self.data.totals;
        totals.client_cpu_us += sample.client_cpu_us;
        totals.connected_max = totals.connected_max.max(sample.connected);
        if let Some(server) = &sample.server {
            *totals.server_cpu_us.get_or_insert(0) += server.cpu_us;
        }
        sample
    }

    fn sample_server(&mut self) -> Option<ServerSample> {
        let newest = self.server.as_ref()?.usage()?;
        let before = self.usage.replace(newest).unwrap_or(newest);
        let cpu_us = newest.cpu_us.saturating_sub(before.cpu_us);
        Some(ServerSample { cpu_us, rss_bytes: newest.rss_bytes })
    }

    /// What was measured so far was the ramp; the totals of CPU begin here.
    pub fn end_ramp(&mut self) {
        let totals = &mut self.data.totals;
        totals.ramp = Ramp {
            elapsed_ms: self.began.elapsed().as_millis() as u64,
            deliveries: self.counts.deliveries,
            client_cpu_us: std::mem::take(&mut totals.client_cpu_us),
            server_cpu_us: totals.server_cpu_us.take(),
        };
    }

    /// Counts and CPU up to the newest sample, to compare two moments of a run.
    pub fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            counts: self.counts,
            delivery: self.data.delivery_us.clone(),
            client_cpu_us: self.data.totals.client_cpu_us,
            server_cpu_us: self.data.totals.server_cpu_us,
        }
    }

    /// Stops publishing and waits for what is on its way: until every client that reads has had
    /// what it should, or nothing comes any more. What is missing then counts as gaps.
    pub fn drain(&mut self) {
        let Some(mut publisher) = self.publisher.take() else { return };
        publisher.stop();
        self.data.publish_late_us = publisher.late_us();
        let published = publisher.published();
        let expected = self.expected(published);
        for _ in 0..DRAIN_SECONDS {
            let before = self.counts;
            self.published = self.published.min(published);
            let goes_on = self.second();
            let is_there = expected.is_some_and(|expected| self.full_deliveries() >= expected);
            if is_there || !goes_on || self.counts.deliveries == before.deliveries {
                break;
            }
        }
        if let Some(expected) = expected {
            let missing = expected.saturating_sub(self.full_deliveries() + self.counts.gaps);
            self.data.totals.gaps += missing;
        }
        self.data.totals.published = published;
    }

    fn full_deliveries(&self) -> u64 {
        self.counts.deliveries - self.counts.slow_deliveries
    }

    /// What the clients that read should have received of so many events; `None` if connections
    /// came and went meanwhile, or not all read.
    fn expected(&self, published: u64) -> Option<u64> {
        let arguments = &self.settings.arguments;
        let now = self.now();
        let is_whole = now.subscribed == self.clients as u64
            && self.counts.opened == self.clients as u64
            && !matches!(arguments.scenario, Scenario::Slow | Scenario::Storm);
        if !is_whole {
            return None;
        }
        let channels = self.settings.channels.len();
        let subscriptions = subscriptions(self.settings);
        let of_channel = |channel: usize| {
            let events = published / channels as u64
                + u64::from((channel as u64) < published % channels as u64);
            events * subscriptions.subscribers(channel, self.clients) as u64
        };
        Some((0..channels).map(of_channel).sum())
    }

    /// Adds a step of a stepped run.
    pub fn push_step(&mut self, step: Step) {
        self.data.steps.push(step);
    }

    /// Ends the run: closes everything and adds up.
    pub fn finish(mut self, storm: Option<crate::data::StormData>) -> RunData {
        let now = self.now();
        let mut failures = Failures::default();
        for engine in &self.engines {
            engine.shared.with(|measured| {
                failures.merge(&measured.failures);
                self.data.connect_us.add(&measured.connect_us).unwrap_or_default();
            });
        }
        for engine in self.engines.drain(..) {
            engine.join();
        }
        let data = &mut self.data;
        data.elapsed_ms = self.began.elapsed().as_millis() as u64;
        data.is_interrupted = is_interrupted();
        data.failures = failures.list();
        data.storm = storm;
        let counts = self.counts;
        let totals = &mut data.totals;
        totals.succeeded = now.succeeded;
        totals.attempts = counts.attempts;
        totals.lost = counts.lost;
        totals.deliveries = counts.deliveries;
        totals.received_bytes = counts.received_bytes;
        totals.message_bytes = counts.message_bytes;
        totals.gaps += counts.gaps;
        totals.duplicates = counts.duplicates;
        totals.disordered = counts.disordered;
        self.data.verdict = verdict(&self.data, self.settings.arguments.min_success);
        self.data
    }

    /// Milliseconds until each client was back after a storm, in order.
    pub fn back_ms(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for engine in &self.engines {
            engine.shared.with(|measured| all.extend_from_slice(&measured.back_ms));
        }
        all.sort_unstable();
        all
    }
}

/// A moment of a run.
#[derive(Debug)]
pub struct Mark {
    /// When.
    pub at: Instant,
    /// The sums then.
    pub counts: Counts,
    delivery: Histogram<u64>,
    /// CPU time of the clients' threads by then.
    pub client_cpu_us: u64,
    /// CPU time of the server by then.
    pub server_cpu_us: Option<u64>,
}

impl Mark {
    /// The latencies from `self` to `later`.
    pub fn latency_until(&self, later: &Self) -> Percentiles {
        let mut between = later.delivery.clone();
        // Both have the bounds of `histogram`, and the later one holds the earlier.
        between.subtract(&self.delivery).unwrap_or_default();
        percentiles(&between)
    }
}

/// Whether ctrl-C was pressed.
pub fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Ordering::Relaxed)
}

fn subscriptions(settings: &Settings) -> Subscriptions {
    let channels = settings.channels.clone();
    Subscriptions { channels, per_client: settings.arguments.subscriptions }
}

fn start_engines(
    settings: &Settings,
    clients: usize,
    began: Instant,
) -> Result<Vec<Handle>, String> {
    let arguments = &settings.arguments;
    let tls = match settings.target.is_tls {
        true => Some(
            TlsConfig::new(settings.ca_pem.as_deref(), arguments.insecure)
                .map_err(|error| format!("--ca-file: {error}"))?,
        ),
        false => None,
    };
    let engine = Arc::new(EngineSettings {
        target: settings.target.clone(),
        addr: settings.addr,
        source_ips: arguments.source_ips.clone(),
        offers_deflate: arguments.compress,
        tls,
        bearer: arguments.bearer.clone(),
        subscriptions: subscriptions(settings),
        timeout: Duration::from_secs(arguments.timeout),
        attempts_max: arguments.attempts,
        slow_receive_bytes: SLOW_RECEIVE_BYTES,
        waiting: match arguments.poll_interval_us {
            _ if arguments.poll => Waiting::Spinning,
            0 => Waiting::Sleeping,
            us => Waiting::Pausing(Duration::from_micros(us)),
        },
        began,
    });
    let threads = arguments.threads.min(clients);
    let start = |thread: usize| {
        let own = (0..share(clients, thread, threads)).map(|it| thread + it * threads);
        let pace = own.map(|client| pace(settings, client)).collect();
        Handle::start(Arc::clone(&engine), pace, (thread, threads))
            .map_err(|error| format!("the system refused a thread: {error}"))
    };
    (0..threads).map(start).collect()
}

/// Every so-manieth client is slow, so that slow ones are everywhere.
fn pace(settings: &Settings, client: usize) -> Pace {
    let arguments = &settings.arguments;
    let share = arguments.slow_share / 100.0;
    let is_slow = ((client + 1) as f64 * share) as usize > (client as f64 * share) as usize;
    match (arguments.scenario, arguments.slow_bytes_per_second) {
        (Scenario::Slow, 0) if is_slow => Pace::Stalled,
        (Scenario::Slow, bytes) if is_slow => Pace::Slow((bytes / 10).max(1)),
        _ => Pace::Full,
    }
}

/// The share of `whole` that part `number` of `count` has.
fn share(whole: usize, number: usize, count: usize) -> usize {
    whole / count + usize::from(number < whole % count)
}

/// Why the exit code is not zero.
fn verdict(data: &RunData, min_success: f64) -> Vec<String> {
    let totals = &data.totals;
    let mut verdict = Vec::new();
    let success = 100.0 * totals.succeeded as f64 / totals.target.max(1) as f64;
    if success < min_success && !data.is_interrupted {
        verdict.push(format!("{success:.2} % of the clients succeeded, {min_success} % must"));
    }
    for (count, what) in [
        (totals.gaps, "events are missing"),
        (totals.duplicates, "events came twice"),
        (totals.disordered, "events came out of order"),
        (totals.lost, "connections were lost"),
    ] {
        if count > 0 {
            verdict.push(format!("{count} {what}"));
        }
    }
    if let Some(storm) = data.storm.as_ref().filter(|storm| storm.returned < storm.dropped) {
        verdict.push(format!("{} of {} clients came back", storm.returned, storm.dropped));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (whole, count) in [(10, 3), (2, 2), (7, 1), (1, 4)] {
            assert_eq!((0..count).map(|number| share(whole, number, count)).sum::<usize>(), whole);
        }
    }
}
