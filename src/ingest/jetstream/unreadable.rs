//! Messages that the client library cannot parse, and how they are read all the same.
//!
//! nats-server stores what a publisher sends, even a subject or a header that is not UTF-8, or
//! headers that look like a status. The library ends the connection at the first and swallows the
//! second, so that a consumer that meets one ends without progress, again and again. When that
//! has happened [`SUSPICION`] times in a row, the next message is taken through the JetStream API,
//! and with it those behind it that are known not to be parsed. Headers are not needed. Bound:
//! [`SEARCH_MAX`] messages at a time.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::RawMessage;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ingest::follower::Stored;
use crate::ingest::stream::{StreamError, call};

/// Consumers in a row that end without progress before the next message is suspected.
pub(super) const SUSPICION: u32 = 2;

/// Unreadable messages in a row that one search brings.
const SEARCH_MAX: usize = 64;

#[derive(Serialize)]
struct Query {
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<&'static str>,
}

#[derive(Deserialize)]
struct Answer {
    message: RawMessage,
}

/// A message that the library cannot parse, or is suspected not to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    seq: u64,
    stored_nanos: i128,
    /// With U+FFFD in place of bytes that are not UTF-8.
    subject: String,
    payload: Vec<u8>,
}

/// The message that follows `after`, which is suspected, and the unreadable ones that follow it
/// without a readable one between.
///
/// # Errors
/// Why the stream cannot be asked.
pub(super) async fn search(
    context: &Context,
    stream: &str,
    after: u64,
) -> Result<Vec<Unreadable>, StreamError> {
    let mut found: Vec<Unreadable> = Vec::new();
    while found.len() < SEARCH_MAX {
        let seq = found.last().map_or(after, |last| last.seq) + 1;
        let query = Query { seq, next_by_subj: Some(">") };
        match get(context, stream, &query).await {
            Ok(Some(message)) => {
                let reason = reason(&message);
                if reason.is_none() && !found.is_empty() {
                    break;
                }
                let reason = reason.unwrap_or("it ends every consumer");
                let pos = message.sequence;
                tracing::warn!(stream, pos, reason, "a message is read without its headers");
                let Some(message) = Unreadable::new(message) else { break };
                found.push(message);
            }
            Ok(None) => break,
            // What was found is of use.
            Err(_) if !found.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// When the message at `seq` was stored, in nanoseconds since the Unix epoch; `None` if there is
/// none.
///
/// # Errors
/// Why the stream cannot be asked.
pub(super) async fn stored_at(
    context: &Context,
    stream: &str,
    seq: u64,
) -> Result<Option<i128>, StreamError> {
    let message = get(context, stream, &Query { seq, next_by_subj: None }).await?;
    Ok(message.map(|message| message.time.unix_timestamp_nanos()))
}

async fn get(
    context: &Context,
    stream: &str,
    query: &Query,
) -> Result<Option<RawMessage>, StreamError> {
    match call(context, &format!("STREAM.MSG.GET.{stream}"), query).await {
        Ok(Answer { message }) => Ok(Some(message)),
        // There is no such message.
        Err(StreamError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Unreadable {
    /// `None` if the payload is not what the API says it is.
    fn new(stored: RawMessage) -> Option<Self> {
        Some(Self {
            seq: stored.sequence,
            stored_nanos: stored.time.unix_timestamp_nanos(),
            subject: stored.subject,
            payload: STANDARD.decode(stored.payload).ok()?,
        })
    }

    /// The message. A subject that is not UTF-8 is no channel: it has an empty one.
    pub(super) fn stored(&self) -> Stored<'_> {
        let is_utf8 = !self.subject.contains(char::REPLACEMENT_CHARACTER);
        Stored {
            sequence: self.seq,
            stored_nanos: self.stored_nanos,
            subject: if is_utf8 { &self.subject } else { "" },
            payload: &self.payload,
        }
    }
}

/// Why a message cannot be read; `None` if it can.
fn reason(stored: &RawMessage) -> Option<&'static str> {
    // The API's JSON puts U+FFFD in place of bytes that are not UTF-8.
    if stored.subject.contains(char::REPLACEMENT_CHARACTER) {
        return Some("its subject is not UTF-8");
    }
    let headers = STANDARD.decode(stored.headers.as_deref()?).ok()?;
    let Ok(headers) = std::str::from_utf8(&headers) else {
        return Some("its headers are not UTF-8");
    };
    let mut lines = headers.lines();
    if lines.next().is_some_and(|version| version.trim_end() != "NATS/1.0") {
        return Some("its headers hold a status");
    }
    let is_header =
        |line: &str| line.is_empty() || line.starts_with(char::is_whitespace) || line.contains(':');
    (!lines.all(is_header)).then_some("its headers are malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_that_the_library_cannot_parse_are_unreadable() {
        let cases: [(&str, Option<&[u8]>, bool); 7] = [
            ("odin.token.BTC.trade", None, true),
            ("odin.token.\u{fffd}.trade", None, false),
            ("odin.a", Some(b"NATS/1.0\r\nA: b\r\n c\r\n\r\n"), true),
            ("odin.a", Some(b"NATS/1.0\r\nA: \xff\r\n\r\n"), false),
            ("odin.a", Some(b"NATS/1.0 409 Consumer Deleted\r\n\r\n"), false),
            ("odin.a", Some(b"NATS/1.0\r\nno colon\r\n\r\n"), false),
            ("odin.a", Some(b""), true),
        ];
        for (subject, headers, is_readable) in cases {
            let headers = headers.map(|bytes| STANDARD.encode(bytes));
            let json = serde_json::json!({
                "subject": subject, "seq": 7, "data": "e30=", "hdrs": headers,
                "time": "2026-01-02T03:04:05.000000006Z",
            });
            let stored: RawMessage = serde_json::from_value(json).unwrap();
            assert_eq!(reason(&stored).is_none(), is_readable, "{subject} {headers:?}");
            let found = Unreadable::new(stored).unwrap();
            let stored = found.stored();
            assert_eq!(stored.subject.is_empty(), subject.contains('\u{fffd}'), "{subject}");
            assert_eq!((stored.sequence, stored.payload), (7, &b"{}"[..]));
            assert_eq!(stored.stored_nanos % 1_000_000_000, 6);
        }
    }
}
