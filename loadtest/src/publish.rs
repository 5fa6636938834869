//! The publisher: events at a rate, each with the time at which it was due.
//!
//! A late publisher does not hide a slow server: the latency of an event counts from its place in
//! the schedule, not from when it was sent (coordinated omission). Channels take turns, so that the
//! number of events of each follows from their sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine::event::SENT_MEMBER;

/// Events in a row before the connection is flushed.
const FLUSH_EVENTS: u64 = 64;

/// What publisher and run share.
#[derive(Debug, Default)]
struct State {
    /// Events per second, as the bits of an f64.
    rate: AtomicU64,
    published: AtomicU64,
    is_stopped: AtomicBool,
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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let client = runtime
            .block_on(async_nats::connect(url))
            .map_err(|error| format!("--nats-url is {url:?}: {error}"))?;
        let state = Arc::new(State::default());
        state.rate.store(rate.to_bits(), Ordering::Relaxed);
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || {
                runtime.block_on(publish(&client, &channels, payload_bytes, &shared));
            })
            .map_err(|error| error.to_string())?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Events published.
    pub fn published(&self) -> u64 {
        self.state.published.load(Ordering::Relaxed)
    }

    /// Goes on at another rate.
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

async fn publish(
    client: &async_nats::Client,
    channels: &[String],
    payload_bytes: usize,
    state: &State,
) {
    let mut rate = f64::from_bits(state.rate.load(Ordering::Relaxed));
    let (mut base, mut since_base) = (Instant::now(), 0_u64);
    let mut published = 0_u64;
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let began = Instant::now();
    while !state.is_stopped.load(Ordering::Relaxed) {
        let wanted = f64::from_bits(state.rate.load(Ordering::Relaxed));
        if wanted != rate {
            base += Duration::from_secs_f64(since_base as f64 / rate);
            (rate, since_base) = (wanted, 0);
        }
        let due = base + Duration::from_secs_f64(since_base as f64 / rate);
        let now = Instant::now();
        if due > now {
            client.flush().await.unwrap_or_default();
            // In pieces, so that the end and another rate are noticed.
            let wait = (due - now).min(Duration::from_millis(100));
            tokio::time::sleep(wait).await;
            if due > Instant::now() {
                continue;
            }
        }
        let sent_us = (epoch + due.duration_since(began)).as_micros() as u64;
        let payload = payload(sent_us, published, payload_bytes);
        let channel = channels[published as usize % channels.len()].clone();
        // It fails only when the connection is gone for good; the run misses the events then.
        client.publish(channel, payload.into()).await.unwrap_or_default();
        published += 1;
        since_base += 1;
        state.published.store(published, Ordering::Relaxed);
        if published.is_multiple_of(FLUSH_EVENTS) {
            client.flush().await.unwrap_or_default();
        }
    }
    client.flush().await.unwrap_or_default();
}

/// A JSON object of so many bytes that begins with the time.
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
