//! The bounds of a shard and its connections, as values that the configuration fills.

use crate::protocol::extension::Compression;
use crate::protocol::message::WelcomeLimits;

/// Frames in one send: at 2,000,000 deliveries/s to 5,000 connections about 33 wait for each when
/// its turn comes.
pub(super) const FRAMES_PER_SEND: usize = 64;

/// Bytes of answers (not events) that may wait for a connection before its reading pauses. What one
/// read of pipelined commands asks for beyond it is bounded by the connection's budget.
pub(super) const ANSWER_BYTES_PAUSE: usize = 65_536;

/// Messages of one snapshot.
pub(super) const SNAPSHOT_MESSAGES_MAX: usize = 1_024;

/// Steps that one command may take to find what it asks for: channels and events looked at, and
/// subscriptions compared with. As many as channels are kept, so that a client without
/// subscriptions sees all of them with one pattern. About 10 ms.
pub(super) const SCAN_STEPS_MAX: usize = NEWEST_CHANNELS_MAX;

/// Steps that count as one more command of the client's rate.
pub(super) const SCAN_STEPS_PER_COMMAND: usize = 4_096;

/// Events that may wait beyond a full queue; the next one closes the client.
pub(super) const POSTPONED_MAX: usize = 2;

/// Deliveries that are queued before some of them are sent: about 1 ms of work.
pub(super) const DELIVERIES_PER_TURN: usize = 8_192;

/// Channels whose newest event is kept.
pub(super) const NEWEST_CHANNELS_MAX: usize = 65_536;

/// Bytes of newest events that are kept: at 800 bytes an event more than the channels' bound.
pub(super) const NEWEST_BYTES_MAX: usize = 64 << 20;

/// Commands over the rate, less those within it, after which the client is closed.
pub(super) const COMMAND_EXCESS_MAX: u16 = 500;

/// Events of all resumes of a shard that wait to be sent, 8 bytes each.
pub(super) const BACKLOG_EVENTS_MAX: usize = 4_000_000;

/// Live events that may wait behind what a resume brings.
pub(super) const BACKLOG_LIVE_MAX: usize = 1_024;

/// Places by which the list of both grows.
pub(super) const BACKLOG_GROWTH: usize = 1_024;

/// How long a resume waits for a position that this instance has not reached: another one may be
/// ahead of it, or it may be reading what the stream retains.
pub(super) const RESUME_WAIT_MS: u64 = 2_000;

/// Resumes that were waited with and are carried out in one step: about 1 ms of work.
pub(super) const RESUMES_PER_TURN: usize = 16;

/// Resumes of a connection that wait so. A client resumes all of its channels in one command; 1,024
/// names of 256 bytes fill 4 messages.
pub(super) const WAITING_RESUMES_MAX: usize = 4;

/// Bytes of the resumes of a shard that wait so.
pub(super) const WAITING_RESUME_BYTES_MAX: usize = 16 << 20;

/// What one client may ask for, and what may wait for it.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    /// Bytes of a message from the client.
    pub message_bytes: usize,
    /// Commands per second, and in a burst.
    pub commands_per_second: u32,
    /// Subscriptions.
    pub channels: usize,
    /// Bytes of a channel name or pattern.
    pub channel_bytes: usize,
    /// Events kept for `replay`.
    pub replay_messages: usize,
    /// Live events that may wait while the socket is full.
    pub queue_messages: usize,
    /// Bytes of them.
    pub queue_bytes: usize,
    /// The least time between two sends of events, in milliseconds.
    pub batch_ms: u16,
    /// Missed events that one resume may bring.
    pub resume_messages: usize,
}

impl ClientLimits {
    /// The limits as the welcome message tells them.
    pub fn for_welcome(&self) -> WelcomeLimits {
        WelcomeLimits {
            message_bytes: self.message_bytes,
            commands_per_second: self.commands_per_second,
            channels: self.channels,
            channel_bytes: self.channel_bytes,
            replay_messages: self.replay_messages,
            queue_messages: self.queue_messages,
            queue_bytes: self.queue_bytes,
            batch_ms: self.batch_ms,
            resume_messages: self.resume_messages,
        }
    }
}

/// The bounds that the configuration sets.
#[derive(Debug, Clone)]
pub struct Limits {
    /// What clients are told in `welcome`.
    pub client: ClientLimits,
    /// Memory that one connection may take in all, the kernel's send queue included.
    pub connection_budget_bytes: usize,
    /// Open connections of the whole instance.
    pub connections_max: u64,
    /// Whether compression is agreed to with clients that offer it.
    pub compression: Compression,
    /// Bytes that an event's text has at least to be compressed.
    pub deflate_bytes_min: usize,
    /// How many times its bytes a compressed message of a client may inflate to.
    pub inflate_ratio_max: usize,
    /// From accept to a complete request.
    pub handshake_timeout_ms: u64,
    /// Silence after which a ping is sent.
    pub heartbeat_interval_ms: u64,
    /// Silence after which the connection is closed.
    pub idle_timeout_ms: u64,
    /// Life of a connection, give or take a fifth, after which its client is asked to connect
    /// again; 0 for no bound.
    pub connection_age_ms: u64,
    /// From a close frame or a refusal to the end of the connection.
    pub close_timeout_ms: u64,
    /// Messages in the recent log.
    pub log_messages: usize,
    /// Bytes in the recent log.
    pub log_bytes: usize,
    /// Age of the recent log.
    pub log_ms: u64,
}

impl Limits {
    /// What a connection may take in the process when every part of it is at its bound: queue and
    /// the events in it, a message that is incomplete and the buffer that it grew from, answers,
    /// subscriptions in both their lists, the replay ring. Lists that grow by doubling count twice.
    pub fn budget_needed(client: &ClientLimits) -> usize {
        const SUBSCRIPTION_BYTES: usize = 8 + 8;
        client.queue_bytes
            + 2 * QUEUED_EVENT_BYTES * client.queue_messages
            + 2 * client.message_bytes
            + ANSWER_BYTES_PAUSE
            + 2 * SUBSCRIPTION_BYTES * client.channels
            + 8 * client.replay_messages
            + 8 * (client.resume_messages + BACKLOG_LIVE_MAX + BACKLOG_GROWTH)
            + STATE_BYTES
    }
}

/// Bytes of the queue per event that waits in it: the assertion beside the type says so.
pub(super) const QUEUED_EVENT_BYTES: usize = 32;

/// Events that one call forgets because they are too old; the rest is forgotten by the next.
pub(super) const FORGOTTEN_PER_CALL_MAX: usize = 8_192;

/// Connections that are told of a change of the source in one step: about 1 ms of work.
pub(super) const ANNOUNCED_PER_STEP: usize = 1_024;

/// Connections whose deadlines are looked at, and that are sent to, in one step: about 0.5 ms.
pub(super) const DEADLINES_PER_STEP: usize = 64;

/// A connection without any of that: the assertion beside the type says that it is enough.
pub(super) const STATE_BYTES: usize = 1_024;
