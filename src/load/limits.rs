//! What the operator lets the process use of the machine.

/// At what use of the machine the server takes in less. 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PressureLimits {
    /// Bytes of memory, as [`super::MemoryMeter::bytes_in_use`] counts them; the process is short
    /// of memory from 85 % of them on.
    pub memory_bytes: u64,
    /// Percent of the CPUs that the process may use.
    pub cpu_percent: u32,
}

impl PressureLimits {
    /// Whether there is no limit at all.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }
}
