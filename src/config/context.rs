//! What is known before any setting is read: the machine, and which server is configured.

/// What the machine offers.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Cores that this process may run on.
    pub cores: usize,
    /// The limit of open descriptors (RLIMIT_NOFILE), already raised as far as it goes.
    pub descriptors: u64,
    /// The host's name.
    pub host_name: String,
    /// Whether standard error is a terminal.
    pub is_terminal: bool,
}

/// Which server is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Channels.
    Serve,
    /// Echo.
    Echo,
}
