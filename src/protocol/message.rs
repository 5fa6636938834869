//! Server messages other than events, to JSON text.
//!
//! One struct per message; the documentation of each member is docs/protocol.md.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::command::CommandId;
use super::frame::{self, Opcode};

/// A stable error code, as in the table of docs/protocol.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    /// Not JSON.
    InvalidJson,
    /// Not an object with a `type`, or a member of the wrong kind.
    InvalidCommand,
    /// No such command.
    UnknownType,
    /// Not a subject or pattern.
    InvalidChannel,
    /// A channel name over the limit.
    ChannelTooLong,
    /// Not covered by the server's subjects.
    ChannelNotAllowed,
    /// Over the limit of channels per connection.
    TooManyChannels,
    /// Not subscribed.
    NotSubscribed,
    /// More commands than allowed.
    RateLimited,
    /// A replay of what is not held.
    RangeNotAvailable,
    /// A message over the limit.
    MessageTooLarge,
    /// More than the connection's memory budget leaves.
    OverBudget,
}

/// A message from the server.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(crate) enum ServerMessage<'a> {
    /// The first message on a connection.
    #[serde(rename = "welcome")]
    Welcome(Welcome<'a>),
    /// The answer to `subscribe`.
    #[serde(rename = "subscribed")]
    Subscribed(Subscribed<'a>),
    /// The answer to `unsubscribe`.
    #[serde(rename = "unsubscribed")]
    Unsubscribed(Unsubscribed<'a>),
    /// The answer to `replay`; the events follow.
    #[serde(rename = "replay")]
    Replay(Replay),
    /// The answer to `batch`.
    #[serde(rename = "batch")]
    Batch(Batch),
    /// The answer to `heartbeat`.
    #[serde(rename = "heartbeat")]
    Heartbeat(Heartbeat<'a>),
    /// The answer to `subscriptions`.
    #[serde(rename = "subscriptions")]
    Subscriptions(Subscriptions<'a>),
    /// The answer to `connection:status`.
    #[serde(rename = "connection:status")]
    Status(Status<'a>),
    /// Something the client asked for was refused.
    #[serde(rename = "error")]
    Error(Error),
    /// The stream was made again.
    #[serde(rename = "resync")]
    Resync(Resync<'a>),
    /// The source was lost.
    #[serde(rename = "source_stale")]
    SourceStale(SourceState<'a>),
    /// The source is there again.
    #[serde(rename = "source_live")]
    SourceLive(SourceState<'a>),
    /// The client is to connect again.
    #[serde(rename = "server_draining")]
    ServerDraining(ServerDraining),
}

impl ServerMessage<'_> {
    /// The message as JSON text.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("these structs hold only strings, numbers and lists")
    }

    /// The message as a whole text frame.
    pub(crate) fn to_frame(&self) -> Vec<u8> {
        frame::encode(Opcode::Text, &self.to_json())
    }
}

/// The limits that a client is told, in the order of the text.
#[derive(Debug, Serialize)]
pub struct WelcomeLimits {
    pub message_bytes: usize,
    pub commands_per_second: u32,
    pub channels: usize,
    pub channel_bytes: usize,
    pub replay_messages: usize,
    pub queue_messages: usize,
    pub queue_bytes: usize,
    pub batch_ms: u16,
    pub resume_messages: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Welcome<'a> {
    pub connection_id: &'a str,
    pub instance: &'a str,
    pub epoch: Option<&'a str>,
    pub pos: u64,
    pub ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_per_channel: Option<u64>,
    pub server_time: u64,
    pub heartbeat_interval_ms: u64,
    pub idle_timeout_ms: u64,
    pub limits: WelcomeLimits,
}

#[derive(Debug, Serialize)]
pub(crate) struct Rejection<'a> {
    pub channel: &'a str,
    pub code: ErrorCode,
    pub message: Cow<'static, str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotSummary {
    pub messages: usize,
    pub complete: bool,
}

/// Why a client is not given what it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResumeRefusal {
    /// The stream was made again.
    EpochChanged,
    /// Messages after the position are not held any more.
    PositionTooOld,
    /// Another message, or none, has the position.
    PositionMismatch,
    /// The position has not been reached.
    PositionUnknown,
    /// What the stream retains is not read yet.
    Loading,
    /// More messages than one resume may bring, or all of them together.
    TooManyMessages,
    /// Some of the messages may have been sent to this connection before.
    AlreadySubscribed,
    /// Messages after the position may be missing.
    NotProvable,
}

impl ResumeRefusal {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::EpochChanged,
        Self::PositionTooOld,
        Self::PositionMismatch,
        Self::PositionUnknown,
        Self::Loading,
        Self::TooManyMessages,
        Self::AlreadySubscribed,
        Self::NotProvable,
    ];

    /// How many there are.
    pub(crate) const COUNT: usize = 8;

    /// The name, as the client and the metrics have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EpochChanged => "epoch_changed",
            Self::PositionTooOld => "position_too_old",
            Self::PositionMismatch => "position_mismatch",
            Self::PositionUnknown => "position_unknown",
            Self::Loading => "loading",
            Self::TooManyMessages => "too_many_messages",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NotProvable => "not_provable",
        }
    }

    /// The same for people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::EpochChanged => "the stream was made again since then",
            Self::PositionTooOld => "messages after this position are not held any more",
            Self::PositionMismatch => "another message, or none, has this position",
            Self::PositionUnknown => "this server has not reached this position",
            Self::Loading => "this server is still reading what the stream retains",
            Self::TooManyMessages => "more messages were missed than may be sent again",
            Self::AlreadySubscribed => {
                "this connection was subscribed before to some of what was missed"
            }
            Self::NotProvable => "messages after this position may be missing",
        }
    }
}

impl Serialize for ResumeRefusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How a resume ended.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ResumeSummary {
    /// What was missed follows.
    Recovered {
        /// How many messages.
        messages: usize,
    },
    /// The client has to load what it shows again.
    Refused {
        /// The stable reason.
        reason: ResumeRefusal,
        /// The same for people.
        message: Cow<'static, str>,
    },
}

#[derive(Debug, Serialize)]
pub(crate) struct Subscribed<'a> {
    pub channels: Vec<&'a str>,
    pub rejected: Vec<Rejection<'a>>,
    pub total: usize,
    pub epoch: Option<&'a str>,
    pub pos: u64,
    pub ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_per_channel: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumeSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Unsubscribed<'a> {
    pub channels: Vec<&'a str>,
    pub rejected: Vec<Rejection<'a>>,
    pub total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Replay {
    pub from_seq: u64,
    pub to_seq: u64,
    pub count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Batch {
    pub ms: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Heartbeat<'a> {
    pub server_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<ReachedPosition<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
}

/// A position as `resume` takes it.
#[derive(Debug, Serialize)]
pub(crate) struct ReachedPosition<'a> {
    pub epoch: &'a str,
    pub pos: u64,
    pub ts: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Subscriptions<'a> {
    pub channels: Vec<&'a str>,
    pub total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Status<'a> {
    pub connection_id: &'a str,
    pub connected_clients: u64,
    pub latency_ms: Option<u32>,
    pub subscriptions: usize,
    pub last_seq: u64,
    pub source: &'static str,
    pub server_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Error {
    pub code: ErrorCode,
    pub message: Cow<'static, str>,
    #[serde(flatten)]
    pub detail: ErrorDetail,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
}

/// Further members of an error.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ErrorDetail {
    None {},
    Retry { retry_after_ms: u64 },
    Range { first_seq: u64, last_seq: u64 },
    Limit { limit: usize },
}

#[derive(Debug, Serialize)]
pub(crate) struct Resync<'a> {
    pub epoch: &'a str,
    pub reason: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct SourceState<'a> {
    pub epoch: Option<&'a str>,
    pub pos: u64,
    pub ts: u64,
    pub server_time: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ServerDraining {
    pub reconnect_after_ms: u64,
    pub deadline_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_look_as_documented() {
        let error = |detail, id| {
            let code = ErrorCode::RangeNotAvailable;
            let message = "m".into();
            let message = ServerMessage::Error(Error { code, message, detail, id });
            String::from_utf8(message.to_json()).unwrap()
        };
        assert_eq!(
            error(ErrorDetail::None {}, None),
            r#"{"type":"error","code":"range_not_available","message":"m"}"#
        );
        let detail = ErrorDetail::Range { first_seq: 1, last_seq: 2 };
        assert_eq!(
            error(detail, Some(CommandId::Number(3))),
            r#"{"type":"error","code":"range_not_available","message":"m","first_seq":1,"last_seq":2,"id":3}"#
        );
    }
}
