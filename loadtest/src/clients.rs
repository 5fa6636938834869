//! All clients of a run. Several engines share them; this file commands and asks them as one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::engine::client::Pace;
use crate::engine::shared::{Counts, Shared, histogram};
use crate::engine::{Command, EngineSettings, Handle, Subscriptions, Waiting};
use crate::failure::Failures;
use crate::settings::{Scenario, Settings};
use crate::ws::tls::TlsConfig;

/// SO_RCVBUF of clients that read slowly. It imitates a slow phone, not a slow network with deep
/// buffers.
const SLOW_RECEIVE_BYTES: usize = 16_384;

/// All gauges of all engines at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Connections that are upgraded.
    pub connected: u64,
    /// Connections that are upgraded and whose subscription is acknowledged.
    pub subscribed: u64,
    /// Connections under way.
    pub connecting: u64,
    /// Clients that have used all their attempts.
    pub given_up: u64,
    /// Clients that were subscribed at least once.
    pub succeeded: u64,
}

/// The engines.
#[derive(Debug)]
pub struct Clients {
    engines: Vec<Handle>,
}

impl Clients {
    /// Starts the engines; nobody connects yet.
    ///
    /// # Errors
    /// Why they cannot be started.
    pub fn start(settings: &Settings, clients: usize, began: Instant) -> Result<Self, String> {
        Ok(Self { engines: start_engines(settings, clients, began)? })
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

    /// The sums so far, and the latencies since the last take.
    pub fn take(&self) -> (Counts, Histogram<u64>) {
        let mut counts = Counts::default();
        let mut interval = histogram();
        for engine in &self.engines {
            engine.shared.with(|measured| {
                counts.add(measured.counts);
                // All have the bounds of `histogram`.
                interval.add(&measured.interval_us).unwrap_or_default();
                measured.interval_us.reset();
            });
        }
        (counts, interval)
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

    /// Closes everything. Returns why connections failed, and how long connecting took.
    pub fn end(self) -> (Failures, Histogram<u64>) {
        let mut failures = Failures::default();
        let mut connect_us = histogram();
        for engine in &self.engines {
            engine.shared.with(|measured| {
                failures.merge(&measured.failures);
                connect_us.add(&measured.connect_us).unwrap_or_default();
            });
        }
        self.engines.into_iter().for_each(Handle::join);
        (failures, connect_us)
    }
}

/// Who subscribes to what.
pub fn subscriptions(settings: &Settings) -> Subscriptions {
    let channels = settings.channels.clone();
    Subscriptions { channels, per_client: settings.subscriptions }
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
        sends_heartbeats: arguments.heartbeat,
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

/// Slow clients are spread evenly among the others.
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
