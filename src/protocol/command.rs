//! Client text to [`Command`], with an error that says what is wrong.
//!
//! Bounds: the message limit of the decoder bounds the text, and with it the list of channels
//! (65,536 bytes hold at most 21,800 names; the shard takes fewer); an `id` of 64 bytes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The longest that events of a connection may be held back, in milliseconds.
pub(crate) const BATCH_MS_MAX: u16 = 1_000;

/// The longest `epoch` of a resume: a stream's name of at most 255 bytes and its creation time.
const EPOCH_BYTES_MAX: usize = 300;

/// The longest `id` of a command, in bytes.
const ID_BYTES_MAX: usize = 64;

/// The client's own name for a command, repeated in the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "id is not an integer of 64 bits or a string")]
pub(crate) enum CommandId {
    /// An integer.
    Number(i64),
    /// A string of up to 64 bytes.
    Text(String),
}

/// Where a client stands: the last message that it has seen, on any instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ResumePoint {
    /// The stream's life; `None` (`null`, which has to be there) if the client was never told one.
    #[serde(deserialize_with = "Option::deserialize")]
    pub epoch: Option<String>,
    /// The stream position.
    pub pos: u64,
    /// The broker's store time of that message, in milliseconds.
    pub ts: u64,
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Subscribe to channels, with the newest message of each if `snapshot`.
    Subscribe {
        /// Channel names and patterns, not validated yet.
        channels: Vec<String>,
        /// Whether the newest message of each is wanted first.
        snapshot: bool,
        /// The last position that the client has seen: what came after it is wanted first.
        resume: Option<ResumePoint>,
    },
    /// Unsubscribe.
    Unsubscribe {
        /// The texts that were subscribed.
        channels: Vec<String>,
    },
    /// Send events again.
    Replay {
        /// The first `seq` wanted.
        from_seq: u64,
        /// The last `seq` wanted.
        to_seq: u64,
    },
    /// Send events at most once in so many milliseconds.
    Batch {
        /// 0 to send at once, up to [`BATCH_MS_MAX`].
        ms: u16,
    },
    /// Answer with the server's time.
    Heartbeat {
        /// The client's time, returned as it is.
        ts: Option<i64>,
    },
    /// List this connection's subscriptions.
    Subscriptions,
    /// Tell about the connection and the instance.
    Status,
}

/// Why a text is not a command. The client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    /// Not JSON.
    #[error("the message is not JSON: {0}")]
    Json(String),
    /// Not an object with a `type`, or a member of the wrong kind.
    #[error("{0}")]
    Invalid(String),
    /// A `type` that does not exist.
    #[error(
        "there is no command {0:?}; there are subscribe, unsubscribe, replay, batch, heartbeat, \
         subscriptions and connection:status"
    )]
    UnknownType(String),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    id: Option<CommandId>,
    #[serde(default)]
    channels: Option<Vec<String>>,
    #[serde(default)]
    snapshot: Option<bool>,
    #[serde(borrow, default)]
    resume: Option<&'a RawValue>,
    #[serde(default)]
    from_seq: Option<u64>,
    #[serde(default)]
    to_seq: Option<u64>,
    #[serde(default)]
    ms: Option<u64>,
    #[serde(default)]
    ts: Option<i64>,
}

#[derive(Deserialize)]
struct OnlyId {
    #[serde(default)]
    id: Option<CommandId>,
}

/// Reads a command; the id is returned beside the result, so that an error can carry it too.
pub(crate) fn parse(text: &str) -> (Option<CommandId>, Result<Command, CommandError>) {
    let envelope = match serde_json::from_str::<Envelope<'_>>(text) {
        Err(error) if !error.is_data() => {
            return (None, Err(CommandError::Json(error.to_string())));
        }
        // Before anything is taken from it: the first item of a list would be read as its id.
        _ if !is_object(text) => {
            return (None, Err(CommandError::Invalid("the message is not a JSON object".into())));
        }
        Ok(envelope) => envelope,
        Err(error) => {
            // What is wrong is another member, or the id itself.
            let id = serde_json::from_str(text).ok().and_then(|OnlyId { id }| id);
            let id = id.filter(|id| id.check().is_ok());
            return (id, Err(CommandError::Invalid(error.to_string())));
        }
    };
    if let Some(Err(error)) = envelope.id.as_ref().map(CommandId::check) {
        return (None, Err(error));
    }
    let id = envelope.id.clone();
    (id, command_of(envelope))
}

impl CommandId {
    fn check(&self) -> Result<(), CommandError> {
        match self {
            Self::Text(id) if id.len() > ID_BYTES_MAX => Err(CommandError::Invalid(format!(
                "id has {} bytes, at most {ID_BYTES_MAX} are allowed",
                id.len()
            ))),
            _ => Ok(()),
        }
    }
}

fn command_of(envelope: Envelope<'_>) -> Result<Command, CommandError> {
    let missing = |member: &str| CommandError::Invalid(format!("{member} is missing"));
    let Some(kind) = envelope.kind else { return Err(missing("type")) };
    let channels = || match envelope.channels {
        None => Err(missing("channels, a list of channel names,")),
        Some(list) if list.is_empty() => {
            Err(CommandError::Invalid("channels is an empty list".into()))
        }
        Some(list) => Ok(list),
    };
    Ok(match kind.as_ref() {
        "subscribe" => Command::Subscribe {
            channels: channels()?,
            snapshot: envelope.snapshot.unwrap_or(false),
            resume: envelope.resume.map(resume_point).transpose()?,
        },
        "unsubscribe" => Command::Unsubscribe { channels: channels()? },
        "replay" => Command::Replay {
            from_seq: envelope.from_seq.ok_or_else(|| missing("from_seq"))?,
            to_seq: envelope.to_seq.ok_or_else(|| missing("to_seq"))?,
        },
        "batch" => match envelope.ms.map(u16::try_from) {
            Some(Ok(ms)) if ms <= BATCH_MS_MAX => Command::Batch { ms },
            _ => {
                let problem = format!("ms is missing or not from 0 to {BATCH_MS_MAX}");
                return Err(CommandError::Invalid(problem));
            }
        },
        "heartbeat" => Command::Heartbeat { ts: envelope.ts },
        "subscriptions" => Command::Subscriptions,
        "connection:status" => Command::Status,
        other => return Err(CommandError::UnknownType(other.chars().take(64).collect())),
    })
}

fn resume_point(raw: &RawValue) -> Result<ResumePoint, CommandError> {
    if !is_object(raw.get()) {
        let problem = "resume is not an object of epoch, pos and ts";
        return Err(CommandError::Invalid(problem.into()));
    }
    let point: ResumePoint = serde_json::from_str(raw.get())
        .map_err(|error| CommandError::Invalid(format!("resume: {error}")))?;
    if point.epoch.as_ref().is_some_and(|epoch| epoch.len() > EPOCH_BYTES_MAX) {
        let problem = format!("epoch of resume is over {EPOCH_BYTES_MAX} bytes");
        return Err(CommandError::Invalid(problem));
    }
    Ok(point)
}

/// Whether this JSON is an object: structs are read from lists, too.
fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_command_is_read() {
        let cases = [
            (
                r#"{"type":"subscribe","channels":["a.b","c.\u0064"],"snapshot":true,"x":{}}"#,
                Command::Subscribe {
                    channels: vec!["a.b".into(), "c.d".into()],
                    snapshot: true,
                    resume: None,
                },
            ),
            (
                r#"{"type":"subscribe","channels":["a"],"resume":{"epoch":"e","pos":5,"ts":6,"x":1}}"#,
                Command::Subscribe {
                    channels: vec!["a".into()],
                    snapshot: false,
                    resume: Some(ResumePoint { epoch: Some("e".into()), pos: 5, ts: 6 }),
                },
            ),
            (
                r#"{"type":"subscribe","channels":["a"],"resume":{"epoch":null,"pos":0,"ts":0}}"#,
                Command::Subscribe {
                    channels: vec!["a".into()],
                    snapshot: false,
                    resume: Some(ResumePoint { epoch: None, pos: 0, ts: 0 }),
                },
            ),
            (
                r#" {"channels":["a"],"type":"unsubscribe"} "#,
                Command::Unsubscribe { channels: vec!["a".into()] },
            ),
            (
                r#"{"type":"replay","from_seq":1,"to_seq":9}"#,
                Command::Replay { from_seq: 1, to_seq: 9 },
            ),
            (r#"{"type":"batch","ms":0}"#, Command::Batch { ms: 0 }),
            (r#"{"type":"batch","ms":1000}"#, Command::Batch { ms: 1_000 }),
            (r#"{"type":"heartbeat"}"#, Command::Heartbeat { ts: None }),
            (r#"{"type":"heartbeat","ts":-5}"#, Command::Heartbeat { ts: Some(-5) }),
            (r#"{"type":"subscriptions"}"#, Command::Subscriptions),
            (r#"{"type":"connection:status"}"#, Command::Status),
        ];
        for (text, command) in cases {
            assert_eq!(parse(text), (None, Ok(command)), "{text}");
        }
    }

    #[test]
    fn ids_come_back() {
        let id = |text: &str| parse(&format!(r#"{{"type":"nonsense","id":{text}}}"#)).0;
        assert_eq!(id("7"), Some(CommandId::Number(7)));
        assert_eq!(id(r#""seven""#), Some(CommandId::Text("seven".into())));
        assert_eq!(id(&format!("\"{}\"", "x".repeat(65))), None);
        let wrong = r#"{"type":"subscribe","channels":"a","id":"7"}"#;
        assert_eq!(parse(wrong).0, Some(CommandId::Text("7".into())), "another member is wrong");
    }

    #[test]
    fn what_is_no_object_has_no_id_and_is_told_so() {
        let cases = [
            "[1]",
            " [1]",
            "[\"7\"]",
            "[1,2]",
            "[null,1]",
            "[[1]]",
            "[[1],1]",
            "[{\"id\":1}]",
            "[\"subscribe\",1]",
            "[\"subscribe\",1,\"a\"]",
            "1",
            "-1",
            "1.5",
            "true",
            "null",
            "\"id\"",
            "\"{\\\"id\\\":1}\"",
        ];
        let error = CommandError::Invalid("the message is not a JSON object".into());
        for text in cases {
            assert_eq!(parse(text), (None, Err(error.clone())), "{text}");
        }
    }

    #[test]
    fn errors_are_told_apart() {
        let json = ["", "{", "hello", "{\"type\":}", "{} {}"];
        for text in json {
            assert!(matches!(parse(text).1, Err(CommandError::Json(_))), "{text}");
        }
        let long = "e".repeat(EPOCH_BYTES_MAX + 1);
        let long = format!(
            r#"{{"type":"subscribe","channels":["a"],"resume":{{"epoch":"{long}","pos":5,"ts":6}}}}"#
        );
        let invalid = [
            &long,
            "[]",
            r#"["subscribe",1,["a"]]"#,
            "1",
            "\"subscribe\"",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","channels":[]}"#,
            r#"{"type":"subscribe","channels":"a"}"#,
            r#"{"type":"subscribe","channels":[1]}"#,
            r#"{"type":"subscribe","channels":["a"],"snapshot":"yes"}"#,
            r#"{"type":"subscribe","channels":["a"],"resume":{"epoch":"e","pos":5}}"#,
            r#"{"type":"subscribe","channels":["a"],"resume":{"pos":5,"ts":6}}"#,
            r#"{"type":"subscribe","channels":["a"],"resume":{"epoch":5,"pos":5,"ts":6}}"#,
            r#"{"type":"subscribe","channels":["a"],"resume":{"epoch":"e","pos":-5,"ts":6}}"#,
            r#"{"type":"subscribe","channels":["a"],"resume":true}"#,
            r#"{"type":"subscribe","channels":["a"],"resume":["e",5,6]}"#,
            r#"{"type":"replay","from_seq":1}"#,
            r#"{"type":"replay","from_seq":-1,"to_seq":2}"#,
            r#"{"type":"batch"}"#,
            r#"{"type":"batch","ms":1001}"#,
            r#"{"type":"batch","ms":65537}"#,
            r#"{"type":"batch","ms":-1}"#,
            r#"{"type":"batch","ms":0.5}"#,
            r#"{"type":"heartbeat","ts":"now"}"#,
            r#"{"type":"heartbeat","id":[]}"#,
        ];
        for text in invalid {
            assert!(matches!(parse(text).1, Err(CommandError::Invalid(_))), "{text}");
        }
        assert!(matches!(parse(r#"{"type":"x"}"#).1, Err(CommandError::UnknownType(_))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "\\PC{0,200}") {
            drop(parse(&text));
        }

        #[test]
        fn a_list_never_has_an_id(items in "[]\\[{}\":,a1 ]{0,20}") {
            assert_eq!(parse(&format!("[{items}]")).0, None);
        }
    }
}
