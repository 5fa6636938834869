//! How long a client may be silent.

use super::kinds::Number;
use super::setting::{Scope, Section, Setting};
use super::values::Values;

pub(super) const HANDSHAKE_TIMEOUT: Setting<Number<u64>> = Setting::new(
    "WS_HANDSHAKE_TIMEOUT_SECONDS",
    "handshake-timeout-seconds",
    Scope::Server,
    Number::new(1, 3_600),
)
.default("10")
.unit("seconds")
.help("from accept to a complete request");

pub(super) const HEARTBEAT: Setting<Number<u64>> = Setting::new(
    "WS_HEARTBEAT_SECONDS",
    "heartbeat-seconds",
    Scope::Server,
    Number::new(1, 86_400),
)
.default("25")
.unit("seconds")
.help("silence after which a sign of life is sent: a pong, or a ping before the idle timeout");

pub(super) const IDLE_TIMEOUT: Setting<Number<u64>> = Setting::new(
    "WS_IDLE_TIMEOUT_SECONDS",
    "idle-timeout-seconds",
    Scope::Server,
    Number::new(2, 86_400),
)
.default("60")
.unit("seconds")
.help("silence after which a connection is closed");

pub(super) const SECTION: Section = Section {
    name: "timeouts",
    title: "Silent clients",
    settings: &[&HANDSHAKE_TIMEOUT, &HEARTBEAT, &IDLE_TIMEOUT],
};

/// What a ping and its pong need at least: a tick of the timer wheel and a slow network.
const PONG_TIME_MS: u64 = 3_000;

/// How long a client may be silent, in milliseconds.
pub(super) struct Timeouts {
    /// From accept to a complete request.
    pub(super) handshake_ms: u64,
    /// Silence after which a sign of life is sent.
    pub(super) heartbeat_ms: u64,
    /// Silence after which the connection is closed; a ping and its pong fit in before.
    pub(super) idle_ms: u64,
}

/// Reads how long a client may be silent.
pub(super) fn timeouts(values: &mut Values) -> Timeouts {
    let timeouts = Timeouts {
        handshake_ms: 1_000 * values.read(&HANDSHAKE_TIMEOUT),
        heartbeat_ms: 1_000 * values.read(&HEARTBEAT),
        idle_ms: 1_000 * values.read(&IDLE_TIMEOUT),
    };
    if timeouts.idle_ms < timeouts.heartbeat_ms + PONG_TIME_MS {
        let problem = format!(
            "must be at least {} s longer than {HEARTBEAT}, or clients are closed before they can \
             answer a ping",
            PONG_TIME_MS / 1_000
        );
        values.refuse(&IDLE_TIMEOUT, problem);
    }
    timeouts
}
