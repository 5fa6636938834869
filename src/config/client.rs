//! What one client may ask for, what may wait for it, and the memory that it may take in all.

use super::connections::SEND_BUFFER_BYTES;
use super::context::ServerKind;
use super::kinds::Number;
use super::setting::{Row, Scope, Section, Setting};
use super::values::Values;
use crate::protocol::command::BATCH_MS_MAX;
use crate::shard::{ClientLimits, Limits};

pub(super) const MAX_MESSAGE_BYTES: Setting<Number<usize>> = Setting::new(
    "WS_MAX_MESSAGE_BYTES",
    "max-message-bytes",
    Scope::Server,
    Number::new(128, 1 << 24),
)
.default("65536")
.unit("bytes")
.help(
    "longest message from a client, compressed ones inflated; `echo` takes 16777216 unless it is \
     set",
);

pub(super) const MAX_COMMANDS_PER_SECOND: Setting<Number<u32>> = Setting::new(
    "WS_MAX_COMMANDS_PER_SECOND",
    "max-commands-per-second",
    Scope::Serve,
    Number::new(1, 1_000_000),
)
.default("50")
.unit("commands/s")
.help("commands per second of a connection, and its burst");

pub(super) const MAX_CHANNELS: Setting<Number<usize>> =
    Setting::new("WS_MAX_CHANNELS", "max-channels", Scope::Serve, Number::new(1, 65_536))
        .default("1024")
        .unit("subscriptions")
        .help("subscriptions of a connection");

pub(super) const MAX_CHANNEL_BYTES: Setting<Number<usize>> =
    Setting::new("WS_MAX_CHANNEL_BYTES", "max-channel-bytes", Scope::Serve, Number::new(1, 4_096))
        .default("256")
        .unit("bytes")
        .help("longest channel name or pattern");

pub(super) const REPLAY_MESSAGES: Setting<Number<usize>> =
    Setting::new("WS_REPLAY_MESSAGES", "replay-messages", Scope::Serve, Number::new(32, 100_000))
        .default("100")
        .unit("events")
        .help("newest events of each connection that replay can send again");

pub(super) const QUEUE_MESSAGES: Setting<Number<usize>> =
    Setting::new("WS_QUEUE_MESSAGES", "queue-messages", Scope::Serve, Number::new(32, 1_000_000))
        .default("256")
        .unit("events")
        .help("events that wait for a slow connection");

pub(super) const RESUME_MESSAGES: Setting<Number<usize>> =
    Setting::new("WS_RESUME_MESSAGES", "resume-messages", Scope::Serve, Number::new(0, 1_000_000))
        .default("6000")
        .unit("events")
        .help(
            "missed events that one resume may bring; more are refused, and the client loads anew",
        );

pub(super) const CONN_BUDGET_BYTES: Setting<Number<usize>> = Setting::new(
    "WS_CONN_BUDGET_BYTES",
    "conn-budget-bytes",
    Scope::Server,
    Number::new(16_384, 1 << 36),
)
.default("716800")
.unit("bytes")
.help("memory that one connection may take in all; over it the connection is closed");

pub(super) const QUEUE_BYTES: Setting<Number<usize>> =
    Setting::new("WS_QUEUE_BYTES", "queue-bytes", Scope::Serve, Number::new(1_024, 1 << 30))
        .default("262144")
        .unit("bytes")
        .help("bytes of events that wait for a slow connection");

pub(super) const BATCH_MS: Setting<Number<u16>> =
    Setting::new("WS_BATCH_MS", "batch-ms", Scope::Serve, Number::new(0, BATCH_MS_MAX))
        .default("0")
        .unit("milliseconds")
        .help(
            "milliseconds between two sends of events to a connection, 0 to 1000; 0 sends at once",
        );

pub(super) const SECTION: Section = Section {
    name: "client",
    title: "What one client may take",
    settings: &[
        &MAX_MESSAGE_BYTES,
        &MAX_COMMANDS_PER_SECOND,
        &MAX_CHANNELS,
        &MAX_CHANNEL_BYTES,
        &REPLAY_MESSAGES,
        &QUEUE_MESSAGES,
        &RESUME_MESSAGES,
        &CONN_BUDGET_BYTES,
        &QUEUE_BYTES,
        &BATCH_MS,
    ],
};

/// The longest message of `echo`: what conformance tools send.
const ECHO_MESSAGE_BYTES: usize = 16 << 20;

/// Messages of `echo` that its budget has room for: conformance tools send the longest ones one
/// behind the other and read later.
const ECHO_MESSAGES: usize = 8;

/// Reads what one client may ask for, and what may wait for it.
pub(super) fn client_limits(values: &mut Values, kind: ServerKind) -> ClientLimits {
    let message_bytes = values.read(&MAX_MESSAGE_BYTES);
    let takes_longest = kind == ServerKind::Echo && !values.is_set(&MAX_MESSAGE_BYTES);
    ClientLimits {
        message_bytes: if takes_longest { ECHO_MESSAGE_BYTES } else { message_bytes },
        commands_per_second: values.read(&MAX_COMMANDS_PER_SECOND),
        channels: values.read(&MAX_CHANNELS),
        channel_bytes: values.read(&MAX_CHANNEL_BYTES),
        replay_messages: values.read(&REPLAY_MESSAGES),
        queue_messages: values.read(&QUEUE_MESSAGES),
        queue_bytes: values.read(&QUEUE_BYTES),
        batch_ms: values.read(&BATCH_MS),
        resume_messages: values.read(&RESUME_MESSAGES),
    }
}

/// Reads the memory budget of a connection. The bounds of its parts must fit into it: otherwise a
/// client that keeps within each of them could still be closed.
pub(super) fn budget(
    values: &mut Values,
    client: &ClientLimits,
    send_buffer_bytes: usize,
    kind: ServerKind,
) -> usize {
    let budget = values.read(&CONN_BUDGET_BYTES);
    if kind == ServerKind::Echo {
        return budget.max(ECHO_MESSAGES * client.message_bytes);
    }
    let parts = budget_needed(client, send_buffer_bytes);
    if budget < parts {
        let problem = format!(
            "must be at least {parts}, the sum of what {QUEUE_BYTES}, {QUEUE_MESSAGES}, \
             {MAX_MESSAGE_BYTES}, {SEND_BUFFER_BYTES}, {MAX_CHANNELS}, {REPLAY_MESSAGES} and \
             {RESUME_MESSAGES} allow: raise it, or lower one of them"
        );
        values.refuse(&CONN_BUDGET_BYTES, problem);
    }
    budget
}

/// What the budget's sum counts of one setting.
pub(super) struct BudgetPart {
    /// What people are told of the setting.
    pub(super) row: &'static Row,
    /// Bytes that one unit of the setting adds to the sum.
    pub(super) bytes_each: usize,
    /// Bytes that the default adds to the sum.
    pub(super) bytes_at_default: usize,
}

/// The parts of the sum that the budget must hold, and the bytes that no setting moves. They are
/// found by asking the sum itself, so that they are never stated a second time.
pub(super) fn budget_parts() -> (Vec<BudgetPart>, usize) {
    let nothing = ClientLimits {
        message_bytes: 0,
        commands_per_second: 0,
        channels: 0,
        channel_bytes: 0,
        replay_messages: 0,
        queue_messages: 0,
        queue_bytes: 0,
        batch_ms: 0,
        resume_messages: 0,
    };
    let fixed = budget_needed(&nothing, 0);
    let with = |set: fn(&mut ClientLimits)| {
        let mut client = nothing.clone();
        set(&mut client);
        budget_needed(&client, 0) - fixed
    };
    let mut values = Values::default();
    let mut part = |setting: &'static Setting<Number<usize>>, bytes_each| BudgetPart {
        row: setting.row(),
        bytes_each,
        bytes_at_default: bytes_each * values.read(setting),
    };
    let parts = vec![
        part(&QUEUE_BYTES, with(|client| client.queue_bytes = 1)),
        part(&QUEUE_MESSAGES, with(|client| client.queue_messages = 1)),
        part(&MAX_MESSAGE_BYTES, with(|client| client.message_bytes = 1)),
        part(&SEND_BUFFER_BYTES, budget_needed(&nothing, 1) - fixed),
        part(&MAX_CHANNELS, with(|client| client.channels = 1)),
        part(&REPLAY_MESSAGES, with(|client| client.replay_messages = 1)),
        part(&RESUME_MESSAGES, with(|client| client.resume_messages = 1)),
    ];
    (parts, fixed)
}

/// What a connection may take when every part of it is at its bound. The kernel takes twice the
/// buffer that it is asked for.
fn budget_needed(client: &ClientLimits, send_buffer_bytes: usize) -> usize {
    Limits::budget_needed(client) + 2 * send_buffer_bytes
}

#[cfg(test)]
mod tests {
    use super::super::values::Origin;
    use super::*;

    #[test]
    fn the_parts_of_the_budget_add_up_to_what_the_defaults_need() {
        let mut values = Values::default();
        let client = client_limits(&mut values, ServerKind::Serve);
        let send_buffer_bytes = values.read(&SEND_BUFFER_BYTES);
        let (parts, fixed) = budget_parts();
        let sum: usize = parts.iter().map(|part| part.bytes_at_default).sum();
        assert_eq!(sum + fixed, budget_needed(&client, send_buffer_bytes));
        assert!(parts.iter().all(|part| part.bytes_each > 0));
    }

    #[test]
    fn the_budget_must_hold_the_sum() {
        for (queue_bytes, is_accepted) in [("262144", true), ("300000", false)] {
            let mut values = Values::default();
            values.set(QUEUE_BYTES.row(), queue_bytes.into(), Origin::Environment);
            let client = client_limits(&mut values, ServerKind::Serve);
            let send_buffer_bytes = values.read(&SEND_BUFFER_BYTES);
            budget(&mut values, &client, send_buffer_bytes, ServerKind::Serve);
            let Err(errors) = values.finish() else {
                assert!(is_accepted, "{queue_bytes} was accepted");
                continue;
            };
            assert!(!is_accepted, "{errors}");
            let (text, setting) = (errors.to_string(), CONN_BUDGET_BYTES.row().env);
            assert!(text.contains(setting) && text.contains("must be at least"), "{text}");
        }
    }
}
