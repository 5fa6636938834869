//! The publisher: events at a rate, each with the time at which it was due.
//!
//! A late publisher does not hide a slow server: the latency of an event counts from when it was
//! due, not from when it was sent (coordinated omission). How late events were sent is measured,
//! too. Channels take turns, so the number of events per channel follows from the total.
//!
//! It is a thread of its own that sleeps in the kernel: a runtime's timer is a millisecond coarse.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

use crate::engine::event::SENT_MEMBER;
use crate::engine::shared::{histogram, record};
use crate::schedule::{Schedule, WallClock, sharpen_sleep, sleep_until};

/// Events in a row before the connection is flushed.
const FLUSH_EVENTS: usize = 64;

/// What publisher and run share.
#[derive(Debug)]
struct State {
    /// Events per second, as the bits of an f64.
    rate: AtomicU64,
    published: AtomicU64,
    is_stopped: AtomicBool,
    /// From when an event was due until the kernel had it, microseconds.
    late_us: Mutex<Histogram<u64>>,
}

/// A running publisher.
#[derive(Debug)]
pub struct Publisher {
    state: Arc<State>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Publisher {
    /// Connects and begins at `rate` events per second.
    ///
    /// # Errors
    /// Why NATS cannot be reached, with the address.
    pub fn start(
        url: &str,
        channels: Vec<String>,
        rate: f64,
        payload_bytes: usize,
    ) -> Result<Self, String> {
        // The runtime runs in the publisher's thread: another thread would have to be woken for
        // every event.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let client = runtime
            .block_on(async_nats::connect(url))
            .map_err(|error| format!("--nats-url is {url:?}: {error}"))?;
        let state = Arc::new(State {
            rate: AtomicU64::new(rate.to_bits()),
            published: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
            late_us: Mutex::new(histogram()),
        });
        let shared = Arc::clone(&state);
        let broker = Broker { runtime, client, unflushed: Vec::with_capacity(FLUSH_EVENTS) };
        let thread = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || publish(broker, &channels, payload_bytes, &shared))
            .map_err(|error| error.to_string())?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Events published.
    pub fn published(&self) -> u64 {
        self.state.published.load(Ordering::Relaxed)
    }

    /// How late the kernel had the events, microseconds.
    pub fn late_us(&self) -> Histogram<u64> {
        self.state.late_us.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the rate.
    pub fn set_rate(&self, rate: f64) {
        self.state.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// Ends; everything published is on its way when this returns.
    pub fn stop(&mut self) {
        self.state.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed by its thread.
            drop(thread.join());
        }
    }
}

/// The connection to the broker, and what it has not sent yet.
struct Broker {
    runtime: Runtime,
    client: async_nats::Client,
    /// When each event was due, at most [`FLUSH_EVENTS`].
    unflushed: Vec<Instant>,
}

impl Broker {
    fn publish(&mut self, channel: String, payload: Vec<u8>, due: Instant, state: &State) {
        // It fails only if the connection is closed for good; the run then reports the gaps.
        self.runtime.block_on(self.client.publish(channel, payload.into())).unwrap_or_default();
        self.unflushed.push(due);
        if self.unflushed.len() == FLUSH_EVENTS {
            self.flush(state);
        }
    }

    /// Returns when the kernel has all events. It also answers the broker's pings, so it is called
    /// even if there is no event.
    fn flush(&mut self, state: &State) {
        self.runtime.block_on(self.client.flush()).unwrap_or_default();
        let now = Instant::now();
        let mut late_us = state.late_us.lock().unwrap_or_else(PoisonError::into_inner);
        for due in self.unflushed.drain(..) {
            record(&mut late_us, now.saturating_duration_since(due).as_micros() as u64);
        }
    }
}

fn publish(mut broker: Broker, channels: &[String], payload_bytes: usize, state: &State) {
    sharpen_sleep();
    let clock = WallClock::read();
    let rate = || f64::from_bits(state.rate.load(Ordering::Relaxed));
    let mut schedule = Schedule::new(Instant::now(), rate());
    let mut published = 0_u64;
    while !state.is_stopped.load(Ordering::Relaxed) {
        schedule.set_rate(rate());
        let due = schedule.due();
        if due > Instant::now() {
            broker.flush(state);
            if !sleep_until(due) {
                continue;
            }
        }
        let payload = payload(clock.unix_us(due), published, payload_bytes);
        let channel = channels[published as usize % channels.len()].clone();
        broker.publish(channel, payload, due, state);
        schedule.advance();
        published += 1;
        state.published.store(published, Ordering::Relaxed);
    }
    broker.flush(state);
}

/// A JSON object of `bytes` bytes that begins with the time.
fn payload(sent_us: u64, number: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!("{{{SENT_MEMBER}{sent_us},\"n\":{number},\"pad\":\"");
    let padding = bytes.saturating_sub(text.len() + 2);
    text.extend(std::iter::repeat_n('x', padding));
    text.push_str("\"}");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_of_its_length_and_begins_with_the_time() {
        let bytes = payload(1_732_150_000_120_999, 5, 600);
        assert_eq!(bytes.len(), 600);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["loadtest_sent_us"], 1_732_150_000_120_999_u64);
        assert!(bytes.starts_with(b"{\"loadtest_sent_us\":17"));
    }
}
