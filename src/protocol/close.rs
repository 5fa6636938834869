//! Close codes (RFC 6455, section 7.4) and the reasons that this server closes for.
//!
//! The one place where an error becomes a close code.

use super::error::WireError;

/// Why the server closes a connection: the code and the reason text it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The server is shutting down.
    ShuttingDown,
    /// The server goes and comes again: its clients leave one after the other.
    Restarting,
    /// The connection has reached the longest life that one may have.
    Aged,
    /// Nothing came from the client within the idle timeout.
    Idle,
    /// A message was not complete within the idle timeout.
    UnfinishedMessage,
    /// A binary message where commands are text.
    BinaryCommand,
    /// The client reads more slowly than its messages arrive.
    SlowClient,
    /// The client kept sending commands over the rate.
    CommandFlood,
    /// The connection takes more memory than its budget.
    OverBudget,
    /// The client broke the wire protocol.
    Wire(WireError),
}

impl CloseReason {
    /// The close code.
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::ShuttingDown | Self::Idle => 1001,
            Self::BinaryCommand => 1003,
            Self::SlowClient | Self::CommandFlood | Self::OverBudget | Self::UnfinishedMessage => {
                1008
            }
            Self::Wire(WireError::Protocol(_)) => 1002,
            Self::Wire(WireError::InvalidUtf8) => 1007,
            Self::Wire(WireError::TooLarge { .. } | WireError::RatioExceeded { .. }) => 1009,
            // Service restart, of the registry that section 11.7 began.
            Self::Restarting | Self::Aged => 1012,
        }
    }

    /// The reason text: at most 123 bytes, for it shares a control frame with the code.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::ShuttingDown => "server is shutting down",
            Self::Restarting => "server is restarting, connect again",
            Self::Aged => "connection is old, connect again",
            Self::Idle => "idle timeout",
            Self::UnfinishedMessage => "message not complete in time",
            Self::BinaryCommand => "commands are text messages",
            Self::SlowClient => "client reads too slowly",
            Self::CommandFlood => "too many commands",
            Self::OverBudget => "connection over its memory budget",
            Self::Wire(WireError::Protocol(rule)) => rule,
            Self::Wire(WireError::InvalidUtf8) => "text is not UTF-8",
            Self::Wire(WireError::TooLarge { .. }) => "message too large",
            Self::Wire(WireError::RatioExceeded { .. }) => "message inflates too far",
        }
    }
}

/// Whether a peer may send `code` in a close frame: the defined and registered codes of section
/// 7.4.1 and IANA's registry that may appear on the wire, and the ranges for libraries and
/// applications of section 7.4.2.
pub(crate) fn is_valid_on_wire(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_and_may_not_appear_on_the_wire() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            assert!(is_valid_on_wire(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!is_valid_on_wire(code), "{code}");
        }
    }
}
