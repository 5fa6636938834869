//! The figures of an event message, found without parsing its JSON: a run with 100,000 deliveries
//! a second cannot afford more.
//!
//! The server writes `{"seq":N,"type":"T","channel":"C","ts":N,"pos":N,"prev":N,"data":...}`. What
//! does not begin like that is no event, or one that [`scan`] leaves to a real parser.

/// What a run looks at in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The number on the connection.
    pub seq: u64,
    /// The channel's name.
    pub channel: &'a [u8],
    /// The position in the stream.
    pub pos: u64,
    /// The position of the previous event of the channel; 0 if the server knew none.
    pub prev: u64,
    /// The intended publish time that this run put into the payload, microseconds since the Unix
    /// epoch; `None` if somebody else published.
    pub sent_us: Option<u64>,
}

/// The member by which a run knows its own payloads; it is the first.
pub const SENT_MEMBER: &str = "\"loadtest_sent_us\":";

/// Reads an event; `None` if the text is another message.
pub fn scan(text: &[u8]) -> Option<Event<'_>> {
    let rest = text.strip_prefix(b"{\"seq\":")?;
    let (seq, rest) = number(rest)?;
    let rest = rest.strip_prefix(b",\"type\":\"")?;
    let rest = &rest[memchr(b'"', rest)? + 1..];
    let rest = rest.strip_prefix(b",\"channel\":\"")?;
    let end = memchr(b'"', rest)?;
    let channel = &rest[..end];
    let rest = rest[end + 1..].strip_prefix(b",\"ts\":")?;
    let (_, rest) = number(rest)?;
    let (pos, rest) = number(rest.strip_prefix(b",\"pos\":")?)?;
    let (prev, rest) = number(rest.strip_prefix(b",\"prev\":")?)?;
    let sent_us = rest
        .strip_prefix(b",\"data\":{")
        .and_then(|rest| rest.strip_prefix(SENT_MEMBER.as_bytes()))
        .and_then(number)
        .map(|(sent_us, _)| sent_us);
    Some(Event { seq, channel, pos, prev, sent_us })
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

    #[test]
    fn an_event_is_read_and_other_messages_are_not() {
        let text = br#"{"seq":17,"type":"token_trade","channel":"odin.token.LT7.trade","ts":1732150000123,"pos":812345,"prev":812290,"data":{"loadtest_sent_us":1732150000120999,"n":5}}"#;
        let event = Event {
            seq: 17,
            channel: b"odin.token.LT7.trade",
            pos: 812_345,
            prev: 812_290,
            sent_us: Some(1_732_150_000_120_999),
        };
        assert_eq!(scan(text), Some(event));
        let foreign = br#"{"seq":1,"type":"t","channel":"c","ts":0,"pos":2,"prev":0,"data":{}}"#;
        assert_eq!(scan(foreign).map(|event| event.sent_us), Some(None));
        for text in [&b"{\"type\":\"welcome\"}"[..], b"", b"{\"seq\":", b"{\"seq\":x", b"null"] {
            assert_eq!(scan(text), None);
        }
        for cut in 0..80 {
            assert_eq!(scan(&text[..cut]), None);
        }
    }
}
