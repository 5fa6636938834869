//! Several runs, one after the other, as one.

use crate::data::{Ramp, RunData, Sample, Totals};
use crate::samples::push;

impl RunData {
    /// Adds a later run with the same number of clients. Its samples are appended, sums are added,
    /// and of each gauge the worse value is kept.
    pub fn absorb(&mut self, later: Self) {
        let offset_ms = self.elapsed_ms;
        for sample in later.samples {
            push(&mut self.samples, Sample { at_ms: offset_ms + sample.at_ms, ..sample });
        }
        self.elapsed_ms += later.elapsed_ms;
        self.is_interrupted |= later.is_interrupted;
        // All have the same bounds.
        self.connect_us.add(&later.connect_us).unwrap_or_default();
        self.delivery_us.add(&later.delivery_us).unwrap_or_default();
        self.publish_late_us.add(&later.publish_late_us).unwrap_or_default();
        self.totals = totals(&self.totals, &later.totals);
        self.failures.extend(later.failures);
        self.verdict.extend(later.verdict);
    }
}

fn totals(ours: &Totals, theirs: &Totals) -> Totals {
    let both = |ours: Option<u64>, theirs: Option<u64>| match (ours, theirs) {
        (Some(ours), Some(theirs)) => Some(ours + theirs),
        (ours, theirs) => ours.or(theirs),
    };
    Totals {
        target: ours.target,
        succeeded: ours.succeeded.min(theirs.succeeded),
        connected_max: ours.connected_max.max(theirs.connected_max),
        attempts: ours.attempts + theirs.attempts,
        lost: ours.lost + theirs.lost,
        published: ours.published + theirs.published,
        deliveries: ours.deliveries + theirs.deliveries,
        received_bytes: ours.received_bytes + theirs.received_bytes,
        message_bytes: ours.message_bytes + theirs.message_bytes,
        gaps: ours.gaps + theirs.gaps,
        duplicates: ours.duplicates + theirs.duplicates,
        disordered: ours.disordered + theirs.disordered,
        client_cpu_us: ours.client_cpu_us + theirs.client_cpu_us,
        server_cpu_us: both(ours.server_cpu_us, theirs.server_cpu_us),
        ramp: Ramp {
            elapsed_ms: ours.ramp.elapsed_ms + theirs.ramp.elapsed_ms,
            deliveries: ours.ramp.deliveries + theirs.ramp.deliveries,
            client_cpu_us: ours.ramp.client_cpu_us + theirs.ramp.client_cpu_us,
            server_cpu_us: both(ours.ramp.server_cpu_us, theirs.ramp.server_cpu_us),
        },
    }
}
