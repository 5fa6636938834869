//! When the server takes in less: rates, and the memory and CPU that it may use.

use super::kinds::Number;
use super::setting::{Scope, Section, Setting};
use super::values::Values;
use crate::ingest::RATE_MAX;
use crate::load::PressureLimits;

pub(super) const MAX_NATS_RATE: Setting<Number<u32>> =
    Setting::new("WS_MAX_NATS_RATE", "max-nats-rate", Scope::Serve, Number::new(0, RATE_MAX))
        .default("0")
        .unit("messages/s")
        .help("messages a second taken from NATS, at most; 0: no limit");

pub(super) const MAX_BROADCAST_RATE: Setting<Number<u32>> = Setting::new(
    "WS_MAX_BROADCAST_RATE",
    "max-broadcast-rate",
    Scope::Serve,
    Number::new(0, RATE_MAX),
)
.default("0")
.unit("events/s")
.help("events a second handed to the shards, at most, whatever their source; 0: no limit");

/// The highest limit is a pebibyte, more than a machine has.
pub(super) const MEMORY_LIMIT: Setting<Number<u64>> =
    Setting::new("WS_MEMORY_LIMIT", "memory-limit", Scope::Serve, Number::new(0, 1 << 50))
        .default("0")
        .unit("bytes")
        .help(
            "bytes of memory; near the limit the server takes in less: at 85 % ingest pauses; \
             0: no limit",
        );

pub(super) const CPU_LIMIT: Setting<Number<u32>> =
    Setting::new("WS_CPU_LIMIT", "cpu-limit", Scope::Serve, Number::new(0, 100))
        .default("0")
        .unit("percent")
        .help(
            "percent of the CPUs that the process may use, 1 to 100, at which it takes in less: \
             ingest pauses; 0: no limit",
        );

pub(super) const SECTION: Section = Section {
    name: "load",
    title: "Load",
    settings: &[&MAX_NATS_RATE, &MAX_BROADCAST_RATE, &MEMORY_LIMIT, &CPU_LIMIT],
};

/// Events a second that are handed to the shards, at most; 0 is no limit.
pub fn broadcast_rate_max(values: &mut Values) -> u32 {
    values.read(&MAX_BROADCAST_RATE)
}

/// At what use of memory and CPU the server takes in less.
pub fn pressure_limits(values: &mut Values) -> PressureLimits {
    PressureLimits {
        memory_bytes: values.read(&MEMORY_LIMIT),
        cpu_percent: values.read(&CPU_LIMIT),
    }
}
