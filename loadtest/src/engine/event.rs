//! The figures of an event message, found without parsing its JSON: a run with 100,000 deliveries
//! a second cannot afford more.
//!
//! The server writes `{"seq":N,"type":"T","channel":"C","ts":N,"pos":N,"prev":N,"data":...}`. What
//! does not begin like that is not an event, or goes to a complete JSON parser.
//!
//! Every subscriber gets the same text behind its `seq`. [`EventReader`] keeps what it has read, so
//! that a text that is byte for byte the same need only be compared.

use std::collections::HashMap;

use serde_json::Value;

use crate::ws::ProtocolError;

/// The member by which a run knows its own payloads; it is the first.
pub const SENT_MEMBER: &str = "\"loadtest_sent_us\":";

/// Its name.
const SENT_NAME: &str = "loadtest_sent_us";

/// Texts that are kept: about a quarter of a second of events at 4,000 a second.
const KNOWN_MAX: usize = 1_024;

/// Bytes of the longest text that is kept: all of them take 4 MiB at most.
const KNOWN_BYTES_MAX: usize = 4_096;

/// Bytes at the front of a text from which its slot is computed; they include the position.
const HASHED_BYTES: usize = 112;

/// What a run looks at in an event, beside its `seq`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event {
    /// The channel's number in this run.
    pub channel: u32,
    /// When the broker stored it, milliseconds since the Unix epoch.
    pub ts: u64,
    /// The position in the stream.
    pub pos: u64,
    /// The position of the previous event of the channel; 0 if the server knew none.
    pub prev: u64,
    /// The intended publish time that this run put into the payload, microseconds since the Unix
    /// epoch; `None` if another program published the event.
    pub sent_us: Option<u64>,
}

/// Reads events.
#[derive(Debug, Default)]
pub struct EventReader {
    channels: ChannelNumbers,
    known: Vec<Known>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    text: Vec<u8>,
    event: Event,
}

impl EventReader {
    /// The `seq` and the figures of an event; `None` if the text is another message.
    ///
    /// # Errors
    /// The text is not UTF-8.
    pub fn read(&mut self, text: &[u8]) -> Result<Option<(u64, Event)>, ProtocolError> {
        let Some((seq, rest)) = text.strip_prefix(b"{\"seq\":").and_then(number) else {
            check_utf8(text)?;
            return Ok(None);
        };
        // What stands before `rest` is ASCII.
        if self.known.is_empty() {
            self.known.resize(KNOWN_MAX, Known::default());
        }
        let known = &mut self.known[slot(rest)];
        if !rest.is_empty() && known.text == rest {
            return Ok(Some((seq, known.event)));
        }
        check_utf8(rest)?;
        let Some(event) = scan(rest, &mut self.channels) else { return Ok(None) };
        if rest.len() <= KNOWN_BYTES_MAX {
            known.text.clear();
            known.text.extend_from_slice(rest);
            known.event = event;
        }
        Ok(Some((seq, event)))
    }
}

impl EventReader {
    /// The event of a message that has `seq` and another form than the usual one.
    pub fn read_json(&mut self, message: &Value) -> Option<(u64, Event)> {
        let number = |name: &str| message[name].as_u64();
        let channel = self.channels.number(message["channel"].as_str()?.as_bytes());
        let (ts, pos, prev) = (number("ts")?, number("pos")?, number("prev")?);
        let sent_us = message["data"][SENT_NAME].as_u64();
        Some((number("seq")?, Event { channel, ts, pos, prev, sent_us }))
    }
}

/// The channels of a run by number, so that a connection can keep them small.
#[derive(Debug, Default)]
struct ChannelNumbers {
    by_name: HashMap<Box<[u8]>, u32>,
}

impl ChannelNumbers {
    /// The channel's number. Cost: one hash; an allocation for a name that is new.
    fn number(&mut self, name: &[u8]) -> u32 {
        if let Some(&number) = self.by_name.get(name) {
            return number;
        }
        let number = self.by_name.len() as u32;
        self.by_name.insert(name.into(), number);
        number
    }
}

fn check_utf8(text: &[u8]) -> Result<(), ProtocolError> {
    std::str::from_utf8(text).map(drop).map_err(|_| ProtocolError::Utf8)
}

/// The slot that keeps a text. Two texts that share a slot only cost time.
fn slot(text: &[u8]) -> usize {
    let mut hash = text.len() as u64;
    for chunk in text[..text.len().min(HASHED_BYTES)].chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    (hash >> 32) as usize % KNOWN_MAX
}

/// Reads what stands behind the `seq` of an event.
fn scan(rest: &[u8], channels: &mut ChannelNumbers) -> Option<Event> {
    let rest = rest.strip_prefix(b",\"type\":\"")?;
    let rest = &rest[memchr(b'"', rest)? + 1..];
    let rest = rest.strip_prefix(b",\"channel\":\"")?;
    let end = memchr(b'"', rest)?;
    let channel = &rest[..end];
    let rest = rest[end + 1..].strip_prefix(b",\"ts\":")?;
    let (ts, rest) = number(rest)?;
    let (pos, rest) = number(rest.strip_prefix(b",\"pos\":")?)?;
    let (prev, rest) = number(rest.strip_prefix(b",\"prev\":")?)?;
    let sent_us = rest
        .strip_prefix(b",\"data\":{")
        .and_then(|rest| rest.strip_prefix(SENT_MEMBER.as_bytes()))
        .and_then(number)
        .map(|(sent_us, _)| sent_us);
    Some(Event { channel: channels.number(channel), ts, pos, prev, sent_us })
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > 19 {
        return None;
    }
    let (digits, rest) = bytes.split_at(digits);
    Some((digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')), rest))
}

fn memchr(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|it| *it == byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"seq":17,"type":"token_trade","channel":"odin.token.LT7.trade","ts":1732150000123,"pos":812345,"prev":812290,"data":{"loadtest_sent_us":1732150000120999,"n":5}}"#;

    const EVENT: Event = Event {
        channel: 0,
        ts: 1_732_150_000_123,
        pos: 812_345,
        prev: 812_290,
        sent_us: Some(1_732_150_000_120_999),
    };

    fn read(reader: &mut EventReader, text: impl AsRef<[u8]>) -> Option<(u64, Event)> {
        reader.read(text.as_ref()).unwrap()
    }

    #[test]
    fn an_event_is_read_and_other_messages_are_not() {
        let mut reader = EventReader::default();
        assert_eq!(read(&mut reader, TEXT), Some((17, EVENT)));
        let foreign = r#"{"seq":1,"type":"t","channel":"c","ts":0,"pos":2,"prev":0,"data":{}}"#;
        let expected = Event { channel: 1, ts: 0, pos: 2, prev: 0, sent_us: None };
        assert_eq!(read(&mut reader, foreign), Some((1, expected)));
        for text in ["{\"type\":\"welcome\"}", "", "{\"seq\":", "{\"seq\":x", "{\"seq\":1", "null"]
        {
            assert_eq!(read(&mut reader, text), None);
        }
        for cut in 0..80 {
            assert_eq!(read(&mut reader, &TEXT[..cut]), None);
        }
    }

    #[test]
    fn an_event_of_another_form_goes_to_the_json_parser() {
        let mut reader = EventReader::default();
        let text = TEXT.replace("token_trade", "a\\\"b");
        assert_eq!(read(&mut reader, &text), None);
        let message = serde_json::from_str(&text).unwrap();
        assert_eq!(reader.read_json(&message), Some((17, EVENT)));
        assert_eq!(reader.read_json(&serde_json::json!({"type": "welcome", "pos": 1})), None);
    }

    #[test]
    fn only_what_is_the_same_to_the_last_byte_is_known() {
        let mut reader = EventReader::default();
        assert_eq!(read(&mut reader, TEXT), Some((17, EVENT)));
        assert_eq!(read(&mut reader, TEXT.replace(":17,", ":18,")), Some((18, EVENT)));
        let later = Event { pos: 812_346, ..EVENT };
        assert_eq!(read(&mut reader, TEXT.replace("812345", "812346")), Some((17, later)));
        // The same slot, another end: it is read again, and refused.
        let mut broken = TEXT.as_bytes().to_vec();
        let last = broken.len() - 3;
        broken[last] = 0xFF;
        assert!(matches!(reader.read(&broken), Err(ProtocolError::Utf8)));
        assert_eq!(read(&mut reader, TEXT), Some((17, EVENT)));
        assert!(matches!(reader.read(b"\xFF"), Err(ProtocolError::Utf8)));
    }

    #[test]
    fn a_text_that_is_too_long_to_keep_is_read_every_time() {
        let mut reader = EventReader::default();
        let long = TEXT.replace(":5}", &format!(":\"{}\"}}", "x".repeat(KNOWN_BYTES_MAX)));
        for _ in 0..2 {
            assert_eq!(read(&mut reader, &long), Some((17, EVENT)));
        }
        assert!(reader.known.iter().all(|known| known.text.is_empty()));
    }

    #[test]
    fn channels_keep_their_numbers() {
        let mut numbers = ChannelNumbers::default();
        let first = ["a", "b", "a", "c"].map(|name| numbers.number(name.as_bytes()));
        assert_eq!(first, [0, 1, 0, 2]);
    }
}
