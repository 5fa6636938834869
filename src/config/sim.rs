//! The price simulator.

use super::kinds::Number;
use super::setting::{Scope, Section, Setting};
use super::values::Values;
use crate::ingest::SimSettings;

pub(super) const TOKENS: Setting<Number<usize>> =
    Setting::new("SIM_TOKENS", "sim-tokens", Scope::Broker, Number::new(1, 100_000))
        .default("10")
        .unit("tokens")
        .help("tokens of the simulator");

pub(super) const RATE: Setting<Number<u32>> =
    Setting::new("SIM_RATE", "sim-rate", Scope::Broker, Number::new(0, 100_000))
        .default("0")
        .unit("events/s")
        .help("events per second of the simulator; 0: each token at its own rhythm of 1 to 5 s");

pub(super) const SECTION: Section =
    Section { name: "sim", title: "Simulator", settings: &[&TOKENS, &RATE] };

/// Reads what the simulator plays; every start plays another game.
pub(super) fn sim_settings(values: &mut Values) -> SimSettings {
    let tokens = values.read(&TOKENS);
    let rate = values.read(&RATE);
    SimSettings { tokens, events_per_second: (rate > 0).then_some(rate), seed: rand::random() }
}
