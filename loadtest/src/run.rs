//! A run: clients and publisher together, sampled once a second.
//!
//! Bounds: samples as in `data`; after the publisher's end the last events are waited for
//! [`DRAIN_SECONDS`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use crate::clients::{Clients, Now, subscriptions};
use crate::data::{Percentiles, Ramp, RunData, Sample, ServerSample, Step, Totals};
use crate::engine::Command;
use crate::engine::shared::{Counts, histogram};
use crate::preflight::Checked;
use crate::progress;
use crate::publish::Publisher;
use crate::samples::{percentiles, push};
use crate::settings::{Scenario, Settings};
use crate::verdict::verdict;
use crate::watch::{self, Server, Usage};

/// How long the last events may take after the publisher has ended.
const DRAIN_SECONDS: u32 = 10;

/// A ramp ends after this many seconds without a new connection.
const STALLED_SECONDS: u32 = 15;

/// Set by ctrl-C: the run ends with the report so far.
pub static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A run under way.
#[derive(Debug)]
pub struct Run<'a> {
    settings: &'a Settings,
    /// Clients wanted.
    pub clients: usize,
    all: Clients,
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
    /// Prepares a run with `clients` clients and starts the engines; no client connects yet.
    ///
    /// # Errors
    /// Why it cannot begin.
    pub fn prepare(
        settings: &'a Settings,
        clients: usize,
        checked: Checked,
    ) -> Result<Self, String> {
        let arguments = &settings.arguments;
        let Checked { machine, findings } = checked;
        let server = match (arguments.server_pid, &arguments.metrics_url) {
            (Some(pid), _) => Some(Server::Process(pid)),
            (None, Some(url)) => Some(Server::from_metrics_url(url)?),
            (None, None) => None,
        };
        let usage = server.as_ref().map(|server| {
            server.usage().ok_or_else(|| "the server's CPU and memory cannot be read".to_owned())
        });
        let began = Instant::now();
        let all = Clients::start(settings, clients, began)?;
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
            floor: None,
            loris: None,
            preflight: findings,
            verdict: Vec::new(),
        };
        Ok(Self {
            settings,
            clients,
            all,
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

    /// Tells the clients something.
    pub fn tell(&self, command: Command) {
        self.all.tell(command);
    }

    /// The gauges of this moment.
    pub fn now(&self) -> Now {
        self.all.now()
    }

    /// Milliseconds until each client was back after a storm, in order.
    pub fn back_ms(&self) -> Vec<u32> {
        self.all.back_ms()
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
        let (counts, interval) = self.all.take();
        self.counts = counts;
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

    /// Connects at the rate until every client is subscribed or has given up, or no new connection
    /// succeeds; false if ctrl-C was pressed.
    pub fn ramp(&mut self, rate: f64) -> bool {
        self.tell(Command::Ramp { clients: self.clients, rate });
        let goes_on = self.connect();
        self.end_ramp();
        goes_on
    }

    fn connect(&mut self) -> bool {
        let mut best = 0;
        let mut stalled_seconds = 0;
        loop {
            if !self.second() {
                return false;
            }
            let now = self.now();
            if now.subscribed + now.given_up >= self.clients as u64 {
                return true;
            }
            stalled_seconds = if now.subscribed > best { 0 } else { stalled_seconds + 1 };
            best = best.max(now.subscribed);
            if stalled_seconds > STALLED_SECONDS {
                return true;
            }
        }
    }

    /// Ends the ramp: what was measured so far belongs to it, and the CPU totals begin here.
    fn end_ramp(&mut self) {
        let totals = &mut self.data.totals;
        totals.ramp = Ramp {
            elapsed_ms: self.began.elapsed().as_millis() as u64,
            deliveries: self.counts.deliveries,
            client_cpu_us: std::mem::take(&mut totals.client_cpu_us),
            server_cpu_us: totals.server_cpu_us.take(),
        };
    }

    /// Lets the run go on for `duration`, or until no client is left that tries; false if ctrl-C
    /// was pressed.
    pub fn hold(&mut self, duration: Duration) -> bool {
        for _ in 0..duration.as_secs() {
            if !self.second() {
                return false;
            }
            if self.now().given_up >= self.clients as u64 {
                break;
            }
        }
        true
    }

    /// Counts and CPU up to the newest sample, to compare two moments of a run.
    pub fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            counts: self.counts,
            delivery: self.data.delivery_us.clone(),
            client_cpu_us: self.data.totals.client_cpu_us,
            server_cpu_us: self.data.totals.server_cpu_us,
            server: self.usage,
        }
    }

    /// Stops publishing and waits until every client that reads has had all its events, or no more
    /// come. Events that are then missing count as gaps.
    pub fn drain(&mut self) {
        let Some(mut publisher) = self.publisher.take() else { return };
        publisher.stop();
        self.data.publish_late_us = publisher.late_us();
        let published = publisher.published();
        self.published = self.published.min(published);
        self.wait_for(self.expected(published));
        self.data.totals.published = published;
    }

    /// Waits until `expected` events have come, or no more come. Events that are then missing count
    /// as gaps, if the number is known.
    pub fn wait_for(&mut self, expected: Option<u64>) {
        for _ in 0..DRAIN_SECONDS {
            let before = self.counts;
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
    }

    fn full_deliveries(&self) -> u64 {
        self.counts.deliveries - self.counts.slow_deliveries - self.counts.repeated
    }

    /// Deliveries that `published` events should have caused; `None` if connections were lost
    /// without resuming, or if some clients read slowly.
    fn expected(&self, published: u64) -> Option<u64> {
        let arguments = &self.settings.arguments;
        let now = self.now();
        let is_whole = now.subscribed == self.clients as u64
            && self.counts.opened == self.clients as u64 + self.counts.recovered
            && arguments.scenario != Scenario::Slow;
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
        let (failures, connect_us) = self.all.end();
        let data = &mut self.data;
        data.elapsed_ms = self.began.elapsed().as_millis() as u64;
        data.is_interrupted = is_interrupted();
        data.failures = failures.list();
        data.connect_us = connect_us;
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
}

/// A moment of a run.
#[derive(Debug)]
pub struct Mark {
    /// The time.
    pub at: Instant,
    /// The sums at that time.
    pub counts: Counts,
    delivery: Histogram<u64>,
    /// CPU time of the clients' threads until then.
    pub client_cpu_us: u64,
    /// CPU time of the server until then.
    pub server_cpu_us: Option<u64>,
    /// The server's process then.
    pub server: Option<Usage>,
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
