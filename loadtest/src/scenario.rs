//! What each scenario does, second by second.

use std::time::Duration;

use crate::data::{LorisData, RunData, Step, StormData};
use crate::engine::Command;
use crate::loris::Loris;
use crate::run::{Mark, Run};
use crate::settings::{Scenario, Settings};
use crate::{floor, preflight};

/// Seconds that a storm may take.
const STORM_SECONDS: u32 = 60;

/// The share of the wanted deliveries that must arrive for a step to hold.
const HELD_SHARE: f64 = 0.98;

/// Steps of one run: from 1 to a million events per second by doubling needs 20.
const STEPS_MAX: usize = 200;

/// Runs the scenario with `clients` clients.
///
/// # Errors
/// Why it could not begin.
pub fn run(settings: &Settings, clients: usize) -> Result<RunData, String> {
    match settings.arguments.scenario {
        Scenario::Floor => floor::run(settings, clients),
        _ => run_one(settings, clients),
    }
}

fn run_one(settings: &Settings, clients: usize) -> Result<RunData, String> {
    let hostile = match settings.arguments.scenario {
        Scenario::Loris => settings.arguments.loris,
        _ => 0,
    };
    let checked = preflight::examine(settings, clients + hostile)?;
    let mut run = Run::prepare(settings, clients, checked)?;
    let mut goes_on = run.ramp(settings.arguments.ramp_rate);
    let (mut storm, mut loris) = (None, None);
    if goes_on && settings.arguments.scenario != Scenario::Capacity {
        run.start_publisher()?;
    }
    match (settings.arguments.scenario, settings.arguments.step_factor) {
        (Scenario::Fanout, Some(factor)) if goes_on => steps(&mut run, settings, factor),
        (Scenario::Storm, _) if goes_on => {
            // Deliveries before the storm, so that resuming has a position to start from.
            goes_on = run.hold(Duration::from_secs(3));
            if goes_on {
                let (data, went_on) = storm_of(&mut run, settings);
                storm = Some(data);
                goes_on = went_on;
            }
            if goes_on {
                run.hold(settings.duration);
            }
        }
        (Scenario::Loris, _) if goes_on => loris = Some(loris_of(&mut run, settings)?),
        _ if goes_on => {
            run.hold(settings.duration);
        }
        _ => {}
    }
    run.drain();
    let mut data = run.finish(storm);
    data.loris = loris;
    Ok(data)
}

/// Raises the rate until a step does not hold.
fn steps(run: &mut Run<'_>, settings: &Settings, factor: f64) {
    let arguments = &settings.arguments;
    let mut rate = arguments.rate;
    for _ in 0..STEPS_MAX {
        if let Some(publisher) = &run.publisher {
            publisher.set_rate(rate);
        }
        // The first second still belongs to the previous step.
        if !run.second() {
            return;
        }
        let before = run.mark();
        if !run.hold(Duration::from_secs(arguments.step_seconds)) {
            return;
        }
        let step = step(&before, &run.mark(), settings, (rate, run.clients));
        let held = step.held;
        run.push_step(step);
        if !held {
            return;
        }
        rate *= factor;
    }
}

fn step(before: &Mark, after: &Mark, settings: &Settings, (rate, clients): (f64, usize)) -> Step {
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let counts = after.counts.since(before.counts);
    let subscriptions = clients * settings.subscriptions.min(settings.channels.len());
    let per_event = subscriptions as f64 / settings.channels.len() as f64;
    let deliveries_wanted_per_s = rate * per_event;
    let deliveries_per_s = counts.deliveries as f64 / seconds;
    let latency = before.latency_until(after);
    let per_delivery = |us: u64| us as f64 / counts.deliveries.max(1) as f64;
    let server_us = after.server_cpu_us.map(|us| us - before.server_cpu_us.unwrap_or(0));
    Step {
        rate,
        deliveries_wanted_per_s,
        deliveries_per_s,
        latency,
        gaps: counts.gaps,
        server_us_per_delivery: server_us.map(per_delivery),
        client_us_per_delivery: per_delivery(after.client_cpu_us - before.client_cpu_us),
        held: counts.gaps == 0
            && counts.lost == 0
            && latency.p99_us <= settings.arguments.p99_max_ms * 1_000
            && deliveries_per_s >= HELD_SHARE * deliveries_wanted_per_s,
    }
}

/// Measures the ordinary clients alone, then beside hostile ones.
fn loris_of(run: &mut Run<'_>, settings: &Settings) -> Result<LorisData, String> {
    let began = run.mark();
    let goes_on = run.hold(settings.duration);
    let alone = run.mark();
    let mut kinds = Vec::new();
    if goes_on {
        let loris = Loris::start(settings)?;
        run.hold(settings.duration);
        kinds = loris.end();
    }
    let latency_without = began.latency_until(&alone);
    Ok(LorisData { kinds, latency_without, latency_with: alone.latency_until(&run.mark()) })
}

/// Drops all connections and waits until all are back. The second value is whether the run goes on.
fn storm_of(run: &mut Run<'_>, settings: &Settings) -> (StormData, bool) {
    let dropped = run.now().subscribed;
    let before = run.mark().counts;
    run.tell(Command::Storm { jitter: Duration::from_millis(settings.arguments.jitter_ms) });
    let mut goes_on = true;
    for _ in 0..STORM_SECONDS {
        goes_on = run.second();
        if !goes_on || run.back_ms().len() as u64 + run.now().given_up >= dropped {
            break;
        }
    }
    let back_ms = run.back_ms();
    let at = |share: f64| {
        let rank = (dropped as f64 * share).ceil() as usize;
        back_ms.get(rank.saturating_sub(1)).map(|ms| u64::from(*ms))
    };
    let returned = back_ms.len() as u64;
    let counts = run.mark().counts.since(before);
    let data = StormData {
        dropped,
        returned,
        recovered: counts.recovered,
        recovered_events: counts.recovered_events,
        not_recovered: counts.not_recovered,
        all_back_ms: at(1.0),
        back_ms: [at(0.5), at(0.9), at(0.99)],
    };
    (data, goes_on)
}
