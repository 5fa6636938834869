//! Channel names and patterns: what a client may subscribe to and what an event is called.
//!
//! A channel is a NATS subject; a pattern is a NATS subject with wildcards, `*` for one token and
//! `>` for one or more at the end (NATS documentation, "Subject-Based Messaging"). This module
//! validates both at the edge, so that nothing inside has to check again, makes any name a token of
//! a channel, and names the event type a subject stands for. It knows no subscriber and no broker.
//! Bound: the length limit that the caller passes.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_encode_byte;

/// Why a text is neither a channel nor a pattern. The client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Longer than the limit; both lengths in bytes.
    #[error("the channel name has {length} bytes, at most {limit} are allowed")]
    TooLong {
        /// Bytes in the name.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// No bytes at all.
    #[error("the channel name is empty")]
    Empty,
    /// Two dots in a row, or a dot at either end.
    #[error("a token between two dots is empty")]
    EmptyToken,
    /// White space or a control character.
    #[error("white space and control characters are not allowed in a channel name")]
    BadCharacter,
    /// `*` or `>` beside other characters of a token.
    #[error("a wildcard (* or >) must be a token of its own")]
    PartialWildcard,
    /// `>` anywhere but in the last token.
    #[error("> is allowed only as the last token")]
    TailNotLast,
}

/// A valid subscription: an exact channel name, or a pattern with wildcards.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
    is_wildcard: bool,
}

impl Pattern {
    /// Validates `text`, at most `length_max` bytes long.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str, length_max: usize) -> Result<Self, ChannelError> {
        if text.is_empty() {
            return Err(ChannelError::Empty);
        }
        if text.len() > length_max {
            return Err(ChannelError::TooLong { length: text.len(), limit: length_max });
        }
        if text.chars().any(is_refused) {
            return Err(ChannelError::BadCharacter);
        }
        let mut is_wildcard = false;
        let mut tokens = text.split('.').peekable();
        while let Some(token) = tokens.next() {
            match token {
                "" => return Err(ChannelError::EmptyToken),
                "*" => is_wildcard = true,
                ">" if tokens.peek().is_some() => return Err(ChannelError::TailNotLast),
                ">" => is_wildcard = true,
                other if other.contains(['*', '>']) => return Err(ChannelError::PartialWildcard),
                _ => {}
            }
        }
        Ok(Self { text: text.into(), is_wildcard })
    }

    /// The pattern as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has a wildcard token.
    pub fn is_wildcard(&self) -> bool {
        self.is_wildcard
    }

    /// Whether `channel` (a name without wildcards) falls under this pattern.
    pub fn matches(&self, channel: &str) -> bool {
        if !self.is_wildcard {
            return *self.text == *channel;
        }
        self.covers_tokens(channel)
    }

    /// Whether every channel that `other` matches is matched by this pattern too.
    pub fn covers(&self, other: &Pattern) -> bool {
        self.covers_tokens(&other.text)
    }

    /// The part before the first wildcard token, with its dot; the whole text if there is none.
    pub fn literal_prefix(&self) -> &str {
        let mut end = 0;
        for token in self.text.split_inclusive('.') {
            if matches!(token.trim_end_matches('.'), "*" | ">") {
                return &self.text[..end];
            }
            end += token.len();
        }
        &self.text
    }

    fn covers_tokens(&self, other: &str) -> bool {
        let mut theirs = other.split('.');
        for mine in self.text.split('.') {
            match (mine, theirs.next()) {
                (">", Some(_)) => return true,
                (_, None | Some(">")) => return false,
                ("*", Some(_)) => {}
                (mine, Some(their)) if mine == their => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// `name` as one token of a channel: percent-encoded (RFC 3986, section 2.1) where a token cannot hold
/// it as it stands, and at each `%`, so that it can be decoded and two names never become one token.
/// `None` if it is empty. It is borrowed if nothing has to be encoded; else it has up to 3 bytes for
/// each of the name's.
pub(crate) fn token_of(name: &str) -> Option<Cow<'_, str>> {
    if name.is_empty() {
        return None;
    }
    if !name.contains(is_encoded) {
        return Some(Cow::Borrowed(name));
    }
    let mut token = String::with_capacity(name.len() + 8);
    for c in name.chars() {
        if is_encoded(c) {
            let mut bytes = [0; 4];
            token.extend(c.encode_utf8(&mut bytes).bytes().map(percent_encode_byte));
        } else {
            token.push(c);
        }
    }
    Some(Cow::Owned(token))
}

/// Whether no channel can have this character.
fn is_refused(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// Whether a character of a name is encoded in a token.
fn is_encoded(c: char) -> bool {
    is_refused(c) || matches!(c, '.' | '*' | '>' | '%')
}

/// The event type of a subject, for payloads that do not name their own.
///
/// `…token.{SYMBOL}.{kind}` is `token_{kind}`, `…global.…` is `global_update`, the older
/// hierarchy `…tokens.{id}.{kind}` is `{kind}:update`; anything else is its last two tokens
/// joined by a colon (`odin.system.health` is `system:health`).
pub(crate) fn event_type_of(subject: &str) -> String {
    let tokens: Vec<&str> = subject.split('.').collect();
    for (index, token) in tokens.iter().enumerate().take(2) {
        match (*token, &tokens[index + 1..]) {
            ("token", [_, kind, ..]) => return format!("token_{kind}"),
            ("tokens", ["batch", "update"]) => return "batch:update".into(),
            ("tokens", [_, kind]) => return format!("{kind}:update"),
            ("global", [_, ..]) => return "global_update".into(),
            _ => {}
        }
    }
    tokens[tokens.len().saturating_sub(2)..].join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text, 256).unwrap()
    }

    #[test]
    fn parse_names_the_broken_rule() {
        let cases = [
            ("", ChannelError::Empty),
            (".", ChannelError::EmptyToken),
            ("a..b", ChannelError::EmptyToken),
            (".a", ChannelError::EmptyToken),
            ("a.", ChannelError::EmptyToken),
            ("a b", ChannelError::BadCharacter),
            ("a\u{0}b", ChannelError::BadCharacter),
            ("a.b*", ChannelError::PartialWildcard),
            ("a.>x", ChannelError::PartialWildcard),
            (">.a", ChannelError::TailNotLast),
            ("a.>.b", ChannelError::TailNotLast),
            ("abcdefghi", ChannelError::TooLong { length: 9, limit: 8 }),
        ];
        for (text, error) in cases {
            assert_eq!(Pattern::parse(text, 8), Err(error), "{text:?}");
        }
    }

    #[test]
    fn matches_as_nats_does() {
        let cases = [
            ("odin.token.BTC.trade", "odin.token.BTC.trade", true),
            ("odin.token.BTC.trade", "odin.token.BTC", false),
            ("odin.token.*.trade", "odin.token.BTC.trade", true),
            ("odin.token.*.trade", "odin.token.BTC.update", false),
            ("odin.token.*.trade", "odin.token.A.B.trade", false),
            ("odin.token.BTC.>", "odin.token.BTC.trade", true),
            ("odin.token.BTC.>", "odin.token.BTC", false),
            ("odin.token.BTC.>", "odin.token.BTC.a.b", true),
            ("*", "odin", true),
            ("*", "odin.x", false),
            (">", "odin.x", true),
            ("*.>", "odin", false),
            ("*.*", "odin.x", true),
        ];
        for (text, channel, expected) in cases {
            assert_eq!(pattern(text).matches(channel), expected, "{text} against {channel}");
        }
    }

    #[test]
    fn covers_is_the_subset_relation() {
        let cases = [
            ("odin.token.>", "odin.token.*.trade", true),
            ("odin.token.>", "odin.token.>", true),
            ("odin.token.>", "odin.>", false),
            ("odin.token.>", ">", false),
            ("odin.token.*.trade", "odin.token.BTC.trade", true),
            ("odin.token.*.trade", "odin.token.BTC.>", false),
            ("odin.token.*.*", "odin.token.*.trade", true),
            ("odin.token.BTC.*", "odin.token.*.trade", false),
            (">", ">", true),
        ];
        for (outer, inner, expected) in cases {
            assert_eq!(pattern(outer).covers(&pattern(inner)), expected, "{outer} over {inner}");
        }
    }

    #[test]
    fn literal_prefix_ends_before_the_first_wildcard() {
        let cases =
            [("odin.token.*.trade", "odin.token."), ("a.>", "a."), (">", ""), ("a.b", "a.b")];
        for (text, prefix) in cases {
            assert_eq!(pattern(text).literal_prefix(), prefix);
        }
    }

    #[test]
    fn event_types_of_all_hierarchies() {
        let cases = [
            ("odin.token.BTC.trade", "token_trade"),
            ("odin.token.BTC.update", "token_update"),
            ("odin.global.trending", "global_update"),
            ("token.abc.update", "token_update"),
            ("global.trending", "global_update"),
            ("odin.tokens.abc.price", "price:update"),
            ("odin.tokens.abc.volume", "volume:update"),
            ("odin.tokens.batch.update", "batch:update"),
            ("odin.market.statistics", "market:statistics"),
            ("odin.system.health", "system:health"),
            ("single", "single"),
        ];
        for (subject, expected) in cases {
            assert_eq!(event_type_of(subject), expected, "{subject}");
        }
    }

    #[test]
    fn names_become_tokens() {
        let cases = [
            ("BTC", "BTC"),
            ("raé/$?", "raé/$?"),
            ("USDC.e", "USDC%2Ee"),
            ("USDC%2Ee", "USDC%252Ee"),
            ("100%", "100%25"),
            ("*", "%2A"),
            ("a>", "a%3E"),
            (" a\tb", "%20a%09b"),
            ("a\u{0}\u{7f}\u{85}", "a%00%7F%C2%85"),
            ("a\u{a0}\u{3000}é", "a%C2%A0%E3%80%80é"),
        ];
        for (name, token) in cases {
            assert_eq!(token_of(name).unwrap(), token, "{name:?}");
        }
        assert_eq!(token_of(""), None);
    }

    proptest! {
        #[test]
        fn any_name_is_a_token_and_comes_back(name in "[.*>% \u{85}\u{a0}\u{2028}é2EaZ\\PC\\pC]{1,40}") {
            let token = token_of(&name).unwrap();
            let channel = Pattern::parse(&token, usize::MAX).unwrap();
            prop_assert!(!channel.is_wildcard());
            prop_assert_eq!(token.split('.').count(), 1);
            let decoded = percent_decode_str(&token).decode_utf8().unwrap();
            prop_assert_eq!(decoded, name.as_str());
        }
    }
}
