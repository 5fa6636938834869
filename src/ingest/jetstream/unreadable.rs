//! Messages that the client library cannot parse, and how to get past them.
//!
//! nats-server stores what a publisher sends, even a subject or a header that is not UTF-8, or
//! headers that look like a status. The library ends the connection at the first and swallows the
//! second, so that a consumer that meets one ends without progress, again and again. When that
//! has happened [`SUSPICION`] times in a row, the next message is fetched through the JetStream
//! API; it is stepped over only if it really is such a message. Bound: [`SEARCH_MAX`] messages at
//! a time.

use async_nats::jetstream::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ingest::filter::FilterPlan;
use crate::ingest::stream::{StreamError, call};

/// Consumers in a row that end without progress before the next message is suspected.
pub(super) const SUSPICION: u32 = 2;

/// Unreadable messages in a row that one search steps over.
const SEARCH_MAX: usize = 1_000;

#[derive(Serialize)]
struct Query<'a> {
    seq: u64,
    next_by_subj: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    /// Base64.
    #[serde(default)]
    hdrs: Option<String>,
}

/// The last of the unreadable messages that follow `after` without a readable one between;
/// `None` if the next message can be read.
///
/// # Errors
/// Why the stream cannot be asked.
pub(super) async fn search(
    context: &Context,
    stream: &str,
    plan: &FilterPlan,
    after: u64,
) -> Result<Option<u64>, StreamError> {
    let mut found = None;
    for _ in 0..SEARCH_MAX {
        let from = found.unwrap_or(after) + 1;
        let Some(next) = next_message(context, stream, plan, from).await? else { break };
        let Some(reason) = reason(&next) else { break };
        tracing::error!(stream, pos = next.seq, reason, "a message cannot be read and is left out");
        found = Some(next.seq);
    }
    Ok(found)
}

/// The first message from `seq` on that the consumer would get.
async fn next_message(
    context: &Context,
    stream: &str,
    plan: &FilterPlan,
    seq: u64,
) -> Result<Option<Stored>, StreamError> {
    let mut filters: Vec<&str> = plan.server_filters().iter().map(|p| p.as_str()).collect();
    if filters.is_empty() {
        filters.push(">");
    }
    let mut first: Option<Stored> = None;
    for next_by_subj in filters {
        let query = Query { seq, next_by_subj };
        match call::<_, Answer>(context, &format!("STREAM.MSG.GET.{stream}"), &query).await {
            Ok(Answer { message }) => {
                if first.as_ref().is_none_or(|known| message.seq < known.seq) {
                    first = Some(message);
                }
            }
            // No message is left on this filter.
            Err(StreamError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(first)
}

/// Why a message cannot be read; `None` if it can.
fn reason(stored: &Stored) -> Option<&'static str> {
    // The API's JSON puts U+FFFD in place of bytes that are not UTF-8.
    if stored.subject.contains(char::REPLACEMENT_CHARACTER) {
        return Some("its subject is not UTF-8");
    }
    let headers = STANDARD.decode(stored.hdrs.as_deref()?).ok()?;
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
            let stored = Stored {
                subject: subject.to_owned(),
                seq: 1,
                hdrs: headers.map(|bytes| STANDARD.encode(bytes)),
            };
            assert_eq!(reason(&stored).is_none(), is_readable, "{subject} {headers:?}");
        }
    }
}
