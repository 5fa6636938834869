//! Decides whether a run passed, and says why it did not.

use crate::data::RunData;

/// The reasons why the exit code is not zero; empty if the run passed.
pub fn verdict(data: &RunData, min_success: f64) -> Vec<String> {
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
