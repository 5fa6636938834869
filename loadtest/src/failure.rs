//! Why a connection failed, by cause, with the line that fixes it.

use std::collections::HashMap;
use std::io;

use crate::data::FailureCount;

/// A cause of failure. Two causes of the same kind differ in the text of the variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The load generator is out of descriptors (EMFILE).
    Emfile,
    /// The whole machine is out of descriptors (ENFILE).
    Enfile,
    /// No ephemeral port is left towards the server (EADDRNOTAVAIL).
    PortsExhausted,
    /// The kernel has no memory for a socket.
    NoMemory,
    /// No answer to the SYN.
    ConnectTimeout,
    /// Nobody listens.
    ConnectRefused,
    /// Another error of connect.
    Connect(String),
    /// An HTTP status other than 101.
    Refused { status: u16, body: String },
    /// The connection was made, but the upgrade was not answered.
    UpgradeTimeout,
    /// Reset or closed before the upgrade.
    ResetBeforeUpgrade,
    /// Reset or closed after the upgrade, without a close frame.
    ResetAfterUpgrade,
    /// The server sent a close frame.
    Closed { code: u16, reason: String },
    /// What the server sent is not WebSocket.
    Protocol(String),
    /// TLS failed.
    Tls(String),
    /// No answer to `subscribe`.
    NoAcknowledgement,
    /// Nothing came after a heartbeat.
    Silent,
    /// The answer to `subscribe` rejects channels, or is an error.
    SubscriptionRefused(String),
}

impl Cause {
    /// The cause of an error of `connect` or of creating its socket.
    pub fn of_connect(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE) => Self::Emfile,
            Some(libc::ENFILE) => Self::Enfile,
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Self::PortsExhausted,
            Some(libc::ENOMEM | libc::ENOBUFS) => Self::NoMemory,
            Some(libc::ETIMEDOUT | libc::EHOSTUNREACH) => Self::ConnectTimeout,
            Some(libc::ECONNREFUSED) => Self::ConnectRefused,
            Some(libc::ECONNRESET) => Self::ResetBeforeUpgrade,
            _ => Self::Connect(error.to_string()),
        }
    }

    /// Whether trying again can help.
    pub fn is_worth_retrying(&self) -> bool {
        match self {
            Self::Protocol(_) | Self::SubscriptionRefused(_) => false,
            // These say that the client is wrong.
            Self::Closed { code, .. } => !matches!(code, 1002 | 1003 | 1007 | 1009),
            _ => true,
        }
    }

    /// The stable name.
    pub fn name(&self) -> String {
        match self {
            Self::Emfile => "emfile".into(),
            Self::Enfile => "enfile".into(),
            Self::PortsExhausted => "ports_exhausted".into(),
            Self::NoMemory => "kernel_memory".into(),
            Self::ConnectTimeout => "connect_timeout".into(),
            Self::ConnectRefused => "connect_refused".into(),
            Self::Connect(_) => "connect_error".into(),
            Self::Refused { status, .. } => format!("refused_http_{status}"),
            Self::UpgradeTimeout => "upgrade_timeout".into(),
            Self::ResetBeforeUpgrade => "reset_before_upgrade".into(),
            Self::ResetAfterUpgrade => "reset_after_upgrade".into(),
            Self::Closed { code, .. } => format!("closed_{code}"),
            Self::Protocol(_) => "protocol_error".into(),
            Self::Tls(_) => "tls_error".into(),
            Self::NoAcknowledgement => "no_acknowledgement".into(),
            Self::Silent => "silent".into(),
            Self::SubscriptionRefused(_) => "subscription_refused".into(),
        }
    }

    /// What it means, one sentence.
    pub fn meaning(&self) -> String {
        match self {
            Self::Emfile => "this process may not open more files".into(),
            Self::Enfile => "this machine may not open more files".into(),
            Self::PortsExhausted => {
                "no local port is left for another connection to this address".into()
            }
            Self::NoMemory => "the kernel has no memory for another socket".into(),
            Self::ConnectTimeout => {
                "the server's kernel did not answer the SYN: its accept or SYN queue is full, or \
                 packets are lost"
                    .into()
            }
            Self::ConnectRefused => "nobody listens at this address".into(),
            Self::Connect(text) => format!("connect failed: {text}"),
            Self::Refused { status, body } => format!("the server answered HTTP {status}: {body}"),
            Self::UpgradeTimeout => "connected, but the upgrade was not answered in time".into(),
            Self::ResetBeforeUpgrade => "the connection ended before the upgrade".into(),
            Self::ResetAfterUpgrade => "the connection ended without a close frame".into(),
            Self::Closed { code, reason } => format!("the server closed with {code} {reason:?}"),
            Self::Protocol(text) => format!("the server broke the WebSocket protocol: {text}"),
            Self::Tls(text) => format!("TLS failed: {text}"),
            Self::NoAcknowledgement => "`subscribe` was not answered in time".into(),
            Self::Silent => "nothing came for 10 s after a heartbeat".into(),
            Self::SubscriptionRefused(text) => format!("`subscribe` was refused: {text}"),
        }
    }

    /// The line that fixes it.
    pub fn fix(&self) -> String {
        match self {
            Self::Emfile => "here: ulimit -n 200000".into(),
            Self::Enfile => "here: sysctl -w fs.file-max=1048576".into(),
            Self::PortsExhausted => {
                "here: sysctl -w net.ipv4.ip_local_port_range='1024 65535', or more addresses \
                 with --source-ips"
                    .into()
            }
            Self::NoMemory => "here: raise net.ipv4.tcp_mem, or add memory".into(),
            Self::ConnectTimeout => {
                "server: sysctl -w net.core.somaxconn=8192 net.ipv4.tcp_max_syn_backlog=8192, \
                 WS_LISTEN_BACKLOG=8192; here: a lower --ramp-rate"
                    .into()
            }
            Self::ConnectRefused => "start the server, or correct --url".into(),
            Self::Connect(_) => "check --url, --source-ips and the route to the server".into(),
            Self::Refused { status: 503, .. } => {
                "server: raise WS_MAX_CONNECTIONS and its nofile limit, or add an instance".into()
            }
            Self::Refused { status: 429, .. } => {
                "server: raise its limit per address, or use --source-ips".into()
            }
            Self::Refused { status: 401 | 403, .. } => "pass a token with --bearer".into(),
            Self::Refused { .. } => "check the path and the query of --url".into(),
            Self::UpgradeTimeout => {
                "server: it is out of CPU; add cores, or a lower --ramp-rate".into()
            }
            Self::ResetBeforeUpgrade => {
                "server: it is out of descriptors or handshake slots (its nofile limit), or \
                 restarting"
                    .into()
            }
            Self::ResetAfterUpgrade => "server: see its log; a proxy's idle timeout".into(),
            Self::Closed { code: 1008, .. } => {
                "server: the client was too slow or over a limit; fewer events, or more CPU here"
                    .into()
            }
            Self::Closed { .. } => "server: see its log".into(),
            Self::Protocol(_) => "a mistake of the server: keep this report".into(),
            Self::Tls(_) => "pass the authority with --ca-file, or --insecure for a test".into(),
            Self::NoAcknowledgement | Self::Silent => {
                "server: it is out of CPU, or speaks another protocol".into()
            }
            Self::SubscriptionRefused(_) => {
                "check --channels against the server's NATS_SUBJECTS and WS_MAX_CHANNELS".into()
            }
        }
    }
}

/// Causes that are kept apart; all further ones count as one, because a broken server can send
/// ever new reasons.
const CAUSES_MAX: usize = 64;

/// How often each cause came.
#[derive(Debug, Default)]
pub struct Failures {
    counts: HashMap<Cause, FailureCount>,
}

impl Failures {
    /// Counts one; `at_ms` since the start, with so many connections open.
    pub fn count(&mut self, cause: Cause, at_ms: u64, connected: u64) {
        let cause = match cause {
            cause if self.counts.len() < CAUSES_MAX || self.counts.contains_key(&cause) => cause,
            _ => Cause::Connect("(further causes)".into()),
        };
        let entry = self.counts.entry(cause).or_insert_with_key(|cause| FailureCount {
            cause: cause.name(),
            count: 0,
            first_ms: at_ms,
            connected_then: connected,
            meaning: cause.meaning(),
            fix: cause.fix(),
        });
        entry.count += 1;
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: &Self) {
        for (cause, theirs) in &other.counts {
            match self.counts.get_mut(cause) {
                None => drop(self.counts.insert(cause.clone(), theirs.clone())),
                Some(ours) => {
                    ours.count += theirs.count;
                    if theirs.first_ms < ours.first_ms {
                        ours.first_ms = theirs.first_ms;
                        ours.connected_then = theirs.connected_then;
                    }
                }
            }
        }
    }

    /// All causes, most frequent first.
    pub fn list(&self) -> Vec<FailureCount> {
        let mut list: Vec<FailureCount> = self.counts.values().cloned().collect();
        list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.cause.cmp(&b.cause)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_have_their_cause_and_every_cause_a_fix() {
        let cases = [
            (libc::EMFILE, "emfile"),
            (libc::EADDRNOTAVAIL, "ports_exhausted"),
            (libc::ECONNREFUSED, "connect_refused"),
            (libc::ETIMEDOUT, "connect_timeout"),
            (libc::EACCES, "connect_error"),
        ];
        for (code, name) in cases {
            let cause = Cause::of_connect(&io::Error::from_raw_os_error(code));
            assert_eq!(cause.name(), name);
            assert!(!cause.meaning().is_empty() && !cause.fix().is_empty());
        }
    }

    #[test]
    fn causes_are_counted_merged_and_bounded() {
        let mut failures = Failures::default();
        failures.count(Cause::Emfile, 500, 10);
        let mut other = Failures::default();
        other.count(Cause::Emfile, 300, 7);
        other.count(Cause::ConnectTimeout, 900, 8);
        failures.merge(&other);
        let list = failures.list();
        assert_eq!((list[0].cause.as_str(), list[0].count), ("emfile", 2));
        assert_eq!((list[0].first_ms, list[0].connected_then), (300, 7));
        for number in 0..1_000 {
            failures.count(Cause::Protocol(number.to_string()), 0, 0);
        }
        let total: u64 = failures.list().iter().map(|failure| failure.count).sum();
        assert_eq!(total, 1_003);
        assert!(failures.list().len() <= CAUSES_MAX + 1);
    }
}
