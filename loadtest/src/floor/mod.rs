//! Measures in the same run what a delivery costs at least on this machine, and what it costs the
//! server.
//!
//! ```text
//! mod     alternates both, and computes the ratio
//! child   the bare sender as its parent sees it
//! sender  the bare sender
//! accept  its connections until it sends
//! ```
//!
//! Each measurement is a run of its own with the same clients: connect, [`WARM_UP`], the window,
//! wait for the last events, close. Nothing but the sending end differs.

mod accept;
mod child;
pub mod sender;

use std::time::Duration;

use crate::data::{FloorData, FloorRate, FloorRound, FloorSide, RunData};
use crate::preflight::{self, Checked};
use crate::run::{Mark, Run};
use crate::settings::Settings;
use crate::ws::frame::server_header_bytes;
use crate::ws::handshake::Target;

use child::BareSender;

/// The time until queues, caches and the clocks of the cores are steady.
const WARM_UP: Duration = Duration::from_secs(2);

/// Measures every rate, in rounds.
///
/// # Errors
/// Why it could not begin or go on.
pub fn run(settings: &Settings, clients: usize) -> Result<RunData, String> {
    let checked = preflight::examine(settings, clients)?;
    let subscriptions = clients * settings.subscriptions.min(settings.channels.len());
    let per_event = subscriptions as f64 / settings.channels.len() as f64;
    let mut whole: Option<RunData> = None;
    let mut floor = FloorData::default();
    for &deliveries_wanted_per_s in &settings.arguments.delivery_rates {
        let mut rounds = Vec::new();
        for round in 1..=settings.arguments.rounds {
            let events_per_s = deliveries_wanted_per_s / per_event;
            let what = format!("at {deliveries_wanted_per_s}/s, round {round}");
            let measured = measure_server(settings, (clients, events_per_s), &checked)?;
            let (server, data) = measured;
            let whole = add(&mut whole, data, &format!("server {what}"));
            if !whole.verdict.is_empty() || whole.is_interrupted {
                break;
            }
            let (bare, data) =
                measure_bare(settings, (clients, events_per_s), server.frame_bytes, &checked)?;
            let reasons = data.verdict.iter().map(|reason| format!("bare sender {what}: {reason}"));
            whole.verdict.extend(reasons);
            whole.is_interrupted |= data.is_interrupted;
            rounds.push(FloorRound { server, bare });
        }
        floor.rates.extend(rate(deliveries_wanted_per_s, rounds));
        if whole.as_ref().is_some_and(|whole| !whole.verdict.is_empty() || whole.is_interrupted) {
            break;
        }
    }
    let mut whole = whole.ok_or("nothing was measured")?;
    whole.floor = Some(floor);
    Ok(whole)
}

/// Adds a run with the server to what the report shows as one.
fn add<'a>(whole: &'a mut Option<RunData>, mut data: RunData, what: &str) -> &'a mut RunData {
    for reason in &mut data.verdict {
        *reason = format!("{what}: {reason}");
    }
    match whole {
        Some(whole) => {
            whole.absorb(data);
            whole
        }
        None => whole.insert(data),
    }
}

fn measure_server(
    settings: &Settings,
    (clients, events_per_s): (usize, f64),
    checked: &Checked,
) -> Result<(FloorSide, RunData), String> {
    let mut settings = settings.clone();
    settings.arguments.rate = events_per_s;
    let mut run = Run::prepare(&settings, clients, checked.clone())?;
    let goes_on = run.ramp(settings.arguments.ramp_rate);
    run.start_publisher()?;
    let side = window(&mut run, goes_on, settings.duration);
    run.drain();
    Ok((side, run.finish(None)))
}

fn measure_bare(
    settings: &Settings,
    (clients, events_per_s): (usize, f64),
    frame_bytes: f64,
    checked: &Checked,
) -> Result<(FloorSide, RunData), String> {
    let mut sender = BareSender::start(settings)?;
    let mut settings = settings.clone();
    settings.target = Target::parse(&sender.url)?;
    let addr = (settings.target.host.as_str(), settings.target.port);
    settings.addr = format!("{}:{}", addr.0, addr.1).parse().map_err(|_| sender.url.clone())?;
    let arguments = &mut settings.arguments;
    (arguments.nats_url, arguments.metrics_url) = (None, None);
    (arguments.server_pid, arguments.bearer) = (Some(sender.pid()), None);
    arguments.compress = false;
    let mut run = Run::prepare(&settings, clients, checked.clone())?;
    let goes_on = run.ramp(settings.arguments.ramp_rate);
    sender.begin(events_per_s, frame_bytes)?;
    let side = window(&mut run, goes_on, settings.duration);
    let sent = sender.end()?;
    run.wait_for(Some(sent.frames + sent.refused));
    Ok((side, run.finish(None)))
}

/// Measures for `duration`, after the warm-up.
fn window(run: &mut Run<'_>, goes_on: bool, duration: Duration) -> FloorSide {
    if !goes_on || !run.hold(WARM_UP) {
        return FloorSide::default();
    }
    let before = run.mark();
    run.hold(duration);
    side(&before, &run.mark())
}

fn side(before: &Mark, after: &Mark) -> FloorSide {
    let counts = after.counts.since(before.counts);
    let per_delivery = |amount: f64| amount / counts.deliveries.max(1) as f64;
    let (first, last) = (before.server.unwrap_or_default(), after.server.unwrap_or_default());
    let cpu_us = last.cpu_us.saturating_sub(first.cpu_us);
    let sched_ns = last.sched_ns.zip(first.sched_ns).map(|(last, first)| last - first);
    let message_bytes = per_delivery(counts.message_bytes as f64);
    FloorSide {
        elapsed_ms: after.at.duration_since(before.at).as_millis() as u64,
        deliveries: counts.deliveries,
        frame_bytes: message_bytes + server_header_bytes(message_bytes as usize) as f64,
        cpu_us,
        sched_ns,
        us_per_delivery: per_delivery(sched_ns.map_or(cpu_us as f64, |ns| ns as f64 / 1e3)),
        client_us_per_delivery: per_delivery((after.client_cpu_us - before.client_cpu_us) as f64),
        latency: before.latency_until(after),
    }
}

/// The medians of a rate; `None` if no round was complete.
fn rate(deliveries_wanted_per_s: f64, rounds: Vec<FloorRound>) -> Option<FloorRate> {
    let server = median(rounds.iter().map(|round| round.server.us_per_delivery).collect())?;
    let bare = median(rounds.iter().map(|round| round.bare.us_per_delivery).collect())?;
    Some(FloorRate {
        deliveries_wanted_per_s,
        rounds,
        server_us_per_delivery: server,
        bare_us_per_delivery: bare,
        server_to_bare: if bare > 0.0 { server / bare } else { 0.0 },
    })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let side = |us_per_delivery| FloorSide { us_per_delivery, ..FloorSide::default() };
        let round = |server, bare| FloorRound { server: side(server), bare: side(bare) };
        let rounds = vec![round(4.0, 2.0), round(9.0, 2.5), round(5.0, 8.0)];
        let rate = rate(50_000.0, rounds).unwrap();
        assert_eq!((rate.server_us_per_delivery, rate.bare_us_per_delivery), (5.0, 2.5));
        assert_eq!(rate.server_to_bare, 2.0);
        assert_eq!(median(vec![1.0, 2.0]), Some(1.5));
        assert!(super::rate(1.0, Vec::new()).is_none());
    }
}
