//! The price simulator: realistic token events without a backend.
//!
//! ```text
//! model    tokens, prices, rhythms, payloads (pure: seeded, the clock passed in)
//! pace     when the next events are due
//! publish  the `simulate` command: the model's events to JetStream
//! ```
//!
//! This file is the source in the server's own process.

mod model;
mod publish;

pub use model::{Model, SimEvent, SimSettings};
pub use publish::{SimulateError, SimulateSettings, Summary, simulate};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::sleep;

use super::publisher::{Publisher, ShardsGone};
use super::stopped;
use crate::event::{Epoch, Incoming, Position, StreamPos};
use crate::feed::SourceStatus;

/// The shortest time between two rounds of publishing what is due: fine enough for the eye, coarse enough for 20,000 events/s
/// to go out as 100 at a time.
const TICK: Duration = Duration::from_millis(5);

/// Runs the simulator until `stop` says so.
pub(super) async fn run(
    settings: &SimSettings,
    publisher: &mut Publisher,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ShardsGone> {
    let start_ms = unix_ms();
    let mut model = Model::new(settings, start_ms);
    let mut pos = 0;
    publisher.epoch(Epoch(format!("sim-{start_ms:x}").into())).await?;
    publisher.status(SourceStatus::Live).await?;
    while !*stop.borrow() {
        let wait = Duration::from_millis(model.next_ms().saturating_sub(unix_ms()));
        tokio::select! {
            () = sleep(wait.max(TICK)) => {}
            () = stopped(&mut stop) => return Ok(()),
        }
        let now_ms = unix_ms();
        for event in model.due(now_ms) {
            pos += 1;
            let position = Position { pos: StreamPos(pos), ts_ms: now_ms };
            let (subject, payload) = (event.subject.as_str(), event.payload.as_bytes());
            publisher.publish(&Incoming { subject, payload, position }).await?;
        }
        publisher.flush();
    }
    Ok(())
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
