//! PURE: an answer's bytes to the changes in it; the format is in docs/http-source.md.
//!
//! Payloads are cut out of the answer as they stand. One entry that cannot be used does not spoil
//! the others; an answer whose cursor cannot be relied on is refused as a whole. Bounds:
//! [`CURSOR_BYTES_MAX`], [`PAYLOAD_BYTES_MAX`].

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::channel::token_of;

/// The longest cursor, in bytes.
pub(super) const CURSOR_BYTES_MAX: usize = 1_024;

/// The longest payload of one change, in bytes: what NATS takes by default.
const PAYLOAD_BYTES_MAX: usize = 1_048_576;

/// Characters of a name that are shown in an error.
const SHOWN_CHARS_MAX: usize = 64;

/// The backend's word for a place in the sequence of changes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Cursor(String);

impl Cursor {
    /// A cursor of 1 to [`CURSOR_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`AnswerError::CursorLength`].
    pub(super) fn new(text: String) -> Result<Self, AnswerError> {
        match text.len() {
            1..=CURSOR_BYTES_MAX => Ok(Self(text)),
            bytes => Err(AnswerError::CursorLength { bytes }),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An answer that cannot be used. The backend's fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the answer is not JSON as expected ({0}): see docs/http-source.md")]
    Json(#[from] serde_json::Error),
    #[error(
        "the answer is not a JSON object: write {{\"cursor\":…,\"tokens\":[…]}}, a bare list has \
         no cursor to go on from"
    )]
    NotAnObject,
    #[error("the answer has no \"cursor\" that is a string or a number")]
    NoCursor,
    #[error("the answer's \"cursor\" has {bytes} bytes, from 1 to {CURSOR_BYTES_MAX} are allowed")]
    CursorLength { bytes: usize },
    #[error(
        "the answer has changes, but the \"cursor\" that was asked with: the same changes would \
         come again for ever; it must move with every change"
    )]
    CursorStands,
}

/// One entry of an answer that cannot be published. The backend's fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("a token is not an object with a \"ticker\", \"symbol\" or \"id\"")]
    Token,
    #[error("the symbol of a token is empty, so it has no channel")]
    EmptySymbol,
    #[error("an event is not an object of \"channel\" and \"data\"")]
    Event,
    #[error("the channel {0:?} is not among NATS_SUBJECTS, so nobody could subscribe to it")]
    NotServed(String),
    #[error("a change has {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
}

impl Unusable {
    /// A channel that is not served.
    pub(super) fn not_served(channel: &str) -> Self {
        Self::NotServed(shown(channel))
    }
}

/// A change, ready to be published.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change<'a> {
    pub(super) channel: Cow<'a, str>,
    /// JSON.
    pub(super) payload: &'a str,
}

/// A usable answer.
pub(super) struct Answer<'a> {
    /// Where the next request goes on.
    pub(super) cursor: Cursor,
    /// What was before does not connect to this.
    pub(super) is_reset: bool,
    tokens: Vec<&'a RawValue>,
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    cursor: Option<&'a RawValue>,
    #[serde(default)]
    reset: bool,
    #[serde(borrow, default)]
    tokens: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Names<'a> {
    #[serde(borrow)]
    ticker: Option<&'a RawValue>,
    #[serde(borrow)]
    symbol: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct NamedEvent<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl<'a> Answer<'a> {
    /// Reads the answer to a request that was sent with the cursor `asked`.
    ///
    /// # Errors
    /// An answer from which it is not clear how to go on.
    pub(super) fn read(body: &'a [u8], asked: Option<&Cursor>) -> Result<Self, AnswerError> {
        // Structs are read from lists, too, which would take any list for an answer.
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(AnswerError::NotAnObject);
        }
        let Body { cursor, reset, tokens, events } = serde_json::from_slice(body)?;
        let cursor = cursor.and_then(text_of).ok_or(AnswerError::NoCursor)?;
        let cursor = Cursor::new(cursor.into_owned())?;
        let has_changes = !(tokens.is_empty() && events.is_empty());
        if has_changes && !reset && asked == Some(&cursor) {
            return Err(AnswerError::CursorStands);
        }
        Ok(Self { cursor, is_reset: reset, tokens, events })
    }

    /// The changes in their order: tokens, then events.
    pub(super) fn changes(&self) -> impl Iterator<Item = Result<Change<'a>, Unusable>> {
        let tokens = self.tokens.iter().map(|raw| change_of_token(raw));
        tokens.chain(self.events.iter().map(|raw| change_of_event(raw)))
    }
}

fn change_of_token(raw: &RawValue) -> Result<Change<'_>, Unusable> {
    let names: Names<'_> = object(raw).ok_or(Unusable::Token)?;
    let name = names.ticker.or(names.symbol).or(names.id).and_then(text_of);
    let name = name.ok_or(Unusable::Token)?;
    let symbol = token_of(&name).ok_or(Unusable::EmptySymbol)?;
    let channel = format!("odin.token.{symbol}.update").into();
    Ok(Change { channel, payload: bounded(raw)? })
}

fn change_of_event(raw: &RawValue) -> Result<Change<'_>, Unusable> {
    let NamedEvent { channel, data } = object(raw).ok_or(Unusable::Event)?;
    Ok(Change { channel, payload: bounded(data)? })
}

fn object<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    raw.get().starts_with('{').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

fn bounded(raw: &RawValue) -> Result<&str, Unusable> {
    match raw.get().len() {
        0..=PAYLOAD_BYTES_MAX => Ok(raw.get()),
        bytes => Err(Unusable::TooLong { bytes }),
    }
}

/// A string's text, or a number as it was written: no digit of it is lost.
fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(text).ok().map(Cow::Owned),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(text)),
        _ => None,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, asked: Option<&str>) -> Result<(String, bool), String> {
        let asked = asked.map(|text| Cursor(text.to_owned()));
        Answer::read(text.as_bytes(), asked.as_ref())
            .map(|answer| (answer.cursor.0, answer.is_reset))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn cursors_are_texts_and_numbers_to_the_last_digit() {
        let cases = [
            (r#"{"cursor":"a\u00e9\"b","tokens":[]}"#, "aé\"b"),
            (r#" {"tokens":[{"id":1}],"cursor":12345678901234567890123}"#, {
                "12345678901234567890123"
            }),
            (r#"{"cursor":-1.50e3,"other":{"cursor":2}}"#, "-1.50e3"),
        ];
        for (text, cursor) in cases {
            assert_eq!(read(text, Some("before")), Ok((cursor.to_owned(), false)), "{text}");
        }
        let long = format!(r#"{{"cursor":"{}"}}"#, "x".repeat(CURSOR_BYTES_MAX + 1));
        let cases = [
            (r#"[{"ticker":"BTC"}]"#, "not a JSON object"),
            ("[]", "not a JSON object"),
            ("", "not JSON as expected"),
            ("<html>", "not JSON as expected"),
            ("7", "not JSON as expected"),
            (r#"{"cursor":"a"} x"#, "not JSON as expected"),
            (r#"{"cursor":"a","tokens":{}}"#, "not JSON as expected"),
            (r#"{"cursor":"a","reset":1}"#, "not JSON as expected"),
            (r#"{"tokens":[]}"#, "no \"cursor\""),
            (r#"{"cursor":null}"#, "no \"cursor\""),
            (r#"{"cursor":true}"#, "no \"cursor\""),
            (r#"{"cursor":["a"]}"#, "no \"cursor\""),
            (r#"{"cursor":""}"#, "has 0 bytes"),
            (&long, "has 1025 bytes"),
        ];
        for (text, expected) in cases {
            let error = read(text, None).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Answer::read(b"{\"cursor\":\"\xff\"}", None).is_err());
    }

    #[test]
    fn changes_have_to_move_the_cursor() {
        let (changes, none) = (r#"{"cursor":"a","tokens":[{}]}"#, r#"{"cursor":"a"}"#);
        assert!(read(changes, Some("a")).unwrap_err().contains("must move"));
        assert!(read(changes, None).is_ok() && read(none, Some("a")).is_ok());
        let reset = r#"{"cursor":"a","tokens":[{}],"reset":true}"#;
        assert_eq!(read(reset, Some("a")), Ok(("a".to_owned(), true)));
    }

    #[test]
    fn tokens_and_events_become_changes_and_others_are_told() {
        let text = r#"{"cursor":1,"tokens":[
            {"ticker":"BTC","symbol":"x","id":"y", "price": 1.50},
            {"ticker":null,"symbol":"ETH"}, {"id":77}, {"id":"ra\u00e9"},
            {"ticker":"A.B"}, {"ticker":"*"}, {"ticker":"A>"}, {"ticker":"A B"}, {"ticker":""},
            {"ticker":"A\u0000"}, {"name":"x"}, {"ticker":{}}, {"ticker":"A","ticker":"B"}, 7, ["A"]
          ],"events":[
            {"data": [1, 2],"channel":"odin.token.BTC.trade"},
            {"channel":"a"}, ["a", 1], {"channel":1,"data":1}
          ]}"#;
        let answer = Answer::read(text.as_bytes(), None).unwrap();
        let changes: Vec<_> = answer
            .changes()
            .map(|change| match change {
                Ok(Change { channel, payload }) => format!("{channel} {payload}"),
                Err(unusable) => unusable.to_string(),
            })
            .collect();
        let empty = Unusable::EmptySymbol.to_string();
        let (token, event) = (Unusable::Token.to_string(), Unusable::Event.to_string());
        let expected = [
            r#"odin.token.BTC.update {"ticker":"BTC","symbol":"x","id":"y", "price": 1.50}"#,
            r#"odin.token.ETH.update {"ticker":null,"symbol":"ETH"}"#,
            r#"odin.token.77.update {"id":77}"#,
            r#"odin.token.raé.update {"id":"ra\u00e9"}"#,
            r#"odin.token.A%2EB.update {"ticker":"A.B"}"#,
            r#"odin.token.%2A.update {"ticker":"*"}"#,
            r#"odin.token.A%3E.update {"ticker":"A>"}"#,
            r#"odin.token.A%20B.update {"ticker":"A B"}"#,
            &empty,
            r#"odin.token.A%00.update {"ticker":"A\u0000"}"#,
            &token,
            &token,
            &token,
            &token,
            &token,
            "odin.token.BTC.trade [1, 2]",
            &event,
            &event,
            &event,
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_payload_has_a_bound_and_a_name_is_cut_for_the_log() {
        let text = format!(r#"{{"id":"A","x":"{}"}}"#, "x".repeat(PAYLOAD_BYTES_MAX));
        let body = format!(r#"{{"cursor":1,"tokens":[{text}]}}"#);
        let answer = Answer::read(body.as_bytes(), None).unwrap();
        let expected = Unusable::TooLong { bytes: text.len() };
        assert_eq!(answer.changes().collect::<Vec<_>>(), [Err(expected)]);
        assert_eq!(Unusable::not_served(&"é".repeat(99)), Unusable::NotServed("é".repeat(64)));
    }
}
