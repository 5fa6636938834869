//! The simulator as a source in this process: the server runs with nothing else installed.
//!
//! Its epoch is the time at which it started, its positions count from 1, and it is live at once.

use std::time::{Duration, Instant};

use super::model::{Model, SimSettings};
use crate::feed::SourceStatus;
use crate::ingest::clock::unix_ms;
use crate::ingest::shutdown::Shutdown;
use crate::ingest::{IngestError, Publisher, ShardsGone};
use crate::position::{Epoch, Incoming, Position, StreamPos};

/// Events that are due within this time are sent together: at 20,000 a second 100 at a time.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// Events in a row before the shutdown flag is checked.
const EVENTS_IN_ROW_MAX: usize = 256;

/// Plays until shutdown.
///
/// # Errors
/// None; the signature is that of every source.
pub(in crate::ingest) async fn run(
    settings: &SimSettings,
    publisher: Publisher,
    shutdown: &Shutdown,
) -> Result<(), IngestError> {
    match play(settings, publisher, shutdown).await {
        Ok(()) | Err(ShardsGone) => Ok(()),
    }
}

async fn play(
    settings: &SimSettings,
    mut publisher: Publisher,
    shutdown: &Shutdown,
) -> Result<(), ShardsGone> {
    let clock = SimClock::start();
    let start_ms = clock.now_ms();
    let mut model = Model::new(settings, start_ms);
    publisher.epoch_from_start(Epoch(format!("sim-{start_ms:x}").into())).await?;
    // Nothing was published before.
    publisher.newest_complete().await?;
    publisher.status(SourceStatus::Live).await?;
    let mut pos = StreamPos::default();
    loop {
        for _ in 0..EVENTS_IN_ROW_MAX {
            if !publisher.has_room() {
                break;
            }
            let ts_ms = clock.now_ms();
            let Some(event) = model.next(ts_ms) else { break };
            pos = StreamPos(pos.0 + 1);
            let incoming = Incoming {
                subject: event.subject,
                payload: event.payload.as_bytes(),
                position: Position { pos, ts_ms },
            };
            publisher.publish(&incoming).await?;
        }
        publisher.flush();
        if !publisher.has_room() && shutdown.fired_before(publisher.room()).await {
            return Ok(());
        }
        if shutdown.fired_within(clock.until(model.next_due_ms())).await {
            return Ok(());
        }
    }
}

/// The time of day that never goes back: the wall clock at the start, and monotonic from there.
#[derive(Debug)]
pub(super) struct SimClock {
    start_ms: u64,
    start: Instant,
}

impl SimClock {
    pub(super) fn start() -> Self {
        Self { start_ms: unix_ms(), start: Instant::now() }
    }

    /// Milliseconds since the Unix epoch.
    pub(super) fn now_ms(&self) -> u64 {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start_ms.saturating_add(passed)
    }

    /// How long to sleep before what is due then, at least a tick, at most a second.
    pub(super) fn until(&self, due_ms: u64) -> Duration {
        let wait = Duration::from_millis(due_ms.saturating_sub(self.now_ms()));
        wait.clamp(TICK, Duration::from_secs(1))
    }
}
