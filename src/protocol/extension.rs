//! The negotiation of permessage-deflate (RFC 7692, section 7.1) from the lines of
//! `Sec-WebSocket-Extensions` (RFC 6455, section 9.1).
//!
//! Pure text to a decision. Bounds: the request head bounds the text, each byte of it is looked
//! at once, and at most [`OFFERS_MAX`] offers are weighed. Nothing is allocated but the answer.
//!
//! What cannot be accepted is declined, and the connection goes on without compression. For a
//! line that breaks the grammar RFC 6455 asks for more, that the handshake be failed; servers in
//! the field are divided about it, and no client gains by it: whoever garbles an offer of
//! compression can still be served without. Such a line offers nothing from the break on.

/// The most offers that are weighed in one request. Browsers send one, and no library known
/// sends more than three.
pub(crate) const OFFERS_MAX: usize = 16;

const EXTENSION: &str = "permessage-deflate";

/// The window of a deflate stream that no parameter narrows, as a power of two of bytes.
pub(crate) const WINDOW_BITS_MAX: u8 = 15;

/// What a connection may do with the bit RSV1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// No compression: RSV1 is reserved (RFC 6455, section 5.2).
    #[default]
    Off,
    /// RSV1 marks a message compressed with permessage-deflate (RFC 7692, section 6).
    Deflate,
}

impl From<Option<Deflate>> for Compression {
    fn from(negotiated: Option<Deflate>) -> Self {
        negotiated.map_or(Self::Off, |_| Self::Deflate)
    }
}

/// What was agreed with a client. Neither side keeps its window from one message to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// The window that the server may use, as a power of two of bytes: 8 to 15 (RFC 7692,
    /// section 7.1.2.1).
    pub window_bits: u8,
}

impl Deflate {
    /// Bytes of the server's window. Whatever is not longer may be compressed with any window,
    /// for no distance in it reaches further back than it is long.
    pub fn window_bytes(self) -> usize {
        1 << self.window_bits
    }
}

/// Takes the first acceptable offer of permessage-deflate from the values of all
/// `Sec-WebSocket-Extensions` lines, in their order; with it comes the value to answer with.
///
/// An offer is declined for an unknown or repeated parameter or an invalid value (RFC 7692,
/// section 7.1), then the next one is weighed. `None`: nothing to answer, no compression.
/// `client_max_window_bits` is a hint that needs no answer: this side inflates with 15 bits.
pub(crate) fn negotiate<'a>(offers: impl Iterator<Item = &'a str>) -> Option<(Deflate, String)> {
    let mut weighed = 0;
    for line in offers {
        let mut scanner = Scanner { rest: line.as_bytes() };
        while weighed < OFFERS_MAX {
            scanner.skip_separators();
            if scanner.rest.is_empty() {
                break;
            }
            weighed += 1;
            match scanner.offer() {
                Ok(Some(offer)) => return Some(offer.answer()),
                Ok(None) => {}
                Err(Malformed) => break,
            }
        }
    }
    None
}

/// The line does not follow the grammar of RFC 6455, section 9.1.
struct Malformed;

/// The parameters of an acceptable offer that have a say in the answer.
#[derive(Debug, Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: bool,
}

impl Offer {
    /// Notes a parameter; `None` if it cannot be accepted.
    fn add(&mut self, name: &[u8], value: Value) -> Option<()> {
        let set = |flag: &mut bool| (!std::mem::replace(flag, true)).then_some(());
        match (name, value) {
            (b"server_no_context_takeover", Value::None) => {
                set(&mut self.server_no_context_takeover)
            }
            (b"client_no_context_takeover", Value::None) => {
                set(&mut self.client_no_context_takeover)
            }
            (b"server_max_window_bits", Value::WindowBits(bits)) => {
                self.server_max_window_bits.replace(bits).is_none().then_some(())
            }
            (b"client_max_window_bits", Value::None | Value::WindowBits(_)) => {
                set(&mut self.client_max_window_bits)
            }
            _ => None,
        }
    }

    fn answer(&self) -> (Deflate, String) {
        let mut value =
            format!("{EXTENSION}; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_max_window_bits {
            value.push_str(&format!("; server_max_window_bits={bits}"));
        }
        let window_bits = self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX);
        (Deflate { window_bits }, value)
    }
}

/// The value of a parameter, as far as it can matter.
#[derive(Debug, Clone, Copy)]
enum Value {
    None,
    /// A decimal from 8 to 15 without leading zeros.
    WindowBits(u8),
    Other,
}

struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// Steps over what may stand between offers: a list may have empty elements.
    fn skip_separators(&mut self) {
        let is_separator = |byte: &&u8| matches!(byte, b' ' | b'\t' | b',');
        self.rest = &self.rest[self.rest.iter().take_while(is_separator).count()..];
    }

    fn skip_blanks(&mut self) {
        let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
        self.rest = &self.rest[self.rest.iter().take_while(is_blank).count()..];
    }

    /// Takes `byte` and the blanks around it if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let Some(rest) = self.rest.strip_prefix(&[byte]) else { return false };
        self.rest = rest;
        self.skip_blanks();
        true
    }

    /// Reads an offer up to the comma or the end behind it; `None` if it is to be declined.
    fn offer(&mut self) -> Result<Option<Offer>, Malformed> {
        let mut offer = (self.token()? == EXTENSION.as_bytes()).then(Offer::default);
        while self.take(b';') {
            let name = self.token()?;
            let value = if self.take(b'=') { self.value()? } else { Value::None };
            offer = offer.and_then(|mut offer| offer.add(name, value).map(|()| offer));
        }
        match self.rest.first() {
            None | Some(b',') => Ok(offer),
            Some(_) => Err(Malformed),
        }
    }

    fn token(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.rest.iter().take_while(|&&byte| is_token_byte(byte)).count();
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, plain or as a quoted string (RFC 6455, section 9.1: what is quoted must be a
    /// token once unescaped).
    fn value(&mut self) -> Result<Value, Malformed> {
        let Some(quoted) = self.rest.strip_prefix(b"\"") else {
            return Ok(match self.token()? {
                [digit] => window_bits([*digit, 0], 1),
                [tens, ones] => window_bits([*tens, *ones], 2),
                _ => Value::Other,
            });
        };
        let mut text = [0; 2];
        let mut length = 0;
        let mut bytes = quoted.iter();
        loop {
            let byte = match bytes.next() {
                Some(b'"') if length > 0 => break,
                Some(b'\\') => bytes.next().copied(),
                other => other.copied(),
            };
            let byte = byte.filter(|&byte| is_token_byte(byte)).ok_or(Malformed)?;
            if let Some(place) = text.get_mut(length) {
                *place = byte;
            }
            length += 1;
        }
        self.rest = bytes.as_slice();
        Ok(window_bits(text, length))
    }
}

fn window_bits(text: [u8; 2], length: usize) -> Value {
    match (text, length) {
        ([digit @ b'8'..=b'9', _], 1) => Value::WindowBits(digit - b'0'),
        ([b'1', ones @ b'0'..=b'5'], 2) => Value::WindowBits(10 + ones - b'0'),
        _ => Value::Other,
    }
}

/// The characters of a token (RFC 9110, section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANSWER: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn bits(lines: &[&str]) -> Option<u8> {
        negotiate(lines.iter().copied()).map(|(deflate, _)| deflate.window_bits)
    }

    #[test]
    fn what_clients_send_is_accepted() {
        let cases = [
            ("permessage-deflate", 15),
            ("permessage-deflate; client_max_window_bits", 15),
            ("permessage-deflate;client_max_window_bits=8", 15),
            ("permessage-deflate; client_max_window_bits=\"15\"", 15),
            ("permessage-deflate ;\tserver_no_context_takeover ; client_no_context_takeover", 15),
            ("x-webkit-deflate-frame, permessage-deflate", 15),
            ("permessage-bzip2; level=\"9\"; x,permessage-deflate", 15),
            (",, permessage-deflate ,", 15),
            ("permessage-deflate; server_max_window_bits = 9", 9),
        ];
        for (line, expected) in cases {
            assert_eq!(bits(&[line]), Some(expected), "{line}");
        }
    }

    #[test]
    fn the_answer_repeats_the_servers_window_only_if_it_was_asked_for() {
        for n in 8..=15_u8 {
            let offer = format!("permessage-deflate; server_max_window_bits={n}");
            let quoted = format!("permessage-deflate; server_max_window_bits=\"{n}\"");
            let escaped = format!("permessage-deflate; server_max_window_bits=\"\\{n}\"");
            for line in [offer, quoted, escaped] {
                let expected =
                    (Deflate { window_bits: n }, format!("{ANSWER}; server_max_window_bits={n}"));
                assert_eq!(negotiate([line.as_str()].into_iter()), Some(expected), "{line}");
            }
        }
        let plain = negotiate(["permessage-deflate; client_max_window_bits=10"].into_iter());
        assert_eq!(plain, Some((Deflate { window_bits: 15 }, ANSWER.into())));
    }

    #[test]
    fn what_cannot_be_accepted_is_declined() {
        let parameters = [
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=010",
            "server_max_window_bits=\"012\"",
            "server_max_window_bits=1",
            "server_max_window_bits=+9",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits=0",
            "client_max_window_bits=16",
            "client_max_window_bits=09",
            "client_max_window_bits; client_max_window_bits=9",
            "server_no_context_takeover=1",
            "server_no_context_takeover=true",
            "client_no_context_takeover=\"8\"",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover; client_no_context_takeover",
            "Server_no_context_takeover",
            "level",
            "level=9",
        ];
        for parameter in parameters {
            let line = format!("permessage-deflate; {parameter}");
            assert_eq!(bits(&[&line]), None, "{line}");
            let with_another = format!("{line}, permessage-deflate; server_max_window_bits=11");
            assert_eq!(bits(&[&with_another]), Some(11), "{with_another}");
        }
        for line in ["", " ", ",", "permessage-deflate2", "permessage", "deflate-frame"] {
            assert_eq!(bits(&[line]), None, "{line}");
        }
    }

    #[test]
    fn a_malformed_line_offers_nothing_from_the_break_on() {
        let lines = [
            "permessage-deflate;",
            "permessage-deflate; ;client_max_window_bits",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"9",
            "permessage-deflate; client_max_window_bits=\"\"",
            "permessage-deflate; client_max_window_bits=\"9\\",
            "permessage-deflate; client_max_window_bits=\" 9\"",
            "permessage-deflate; client_max_window_bits=9 9",
            "permessage-deflate client_max_window_bits",
            "permessage-deflate=1",
            "permessage-deflate; =9",
            "; permessage-deflate",
            "\"permessage-deflate\"",
            "a b, permessage-deflate",
            "é, permessage-deflate",
        ];
        for line in lines {
            assert_eq!(bits(&[line]), None, "{line}");
            let second = "permessage-deflate; server_max_window_bits=12";
            assert_eq!(bits(&[line, second]), Some(12), "the next line counts: {line}");
        }
        assert_eq!(bits(&["permessage-deflate, ;;;"]), Some(15), "accepted before the break");
    }

    #[test]
    fn offers_are_weighed_up_to_a_bound() {
        let many = |before: usize| format!("{}permessage-deflate", "other, ".repeat(before));
        assert_eq!(bits(&[&many(OFFERS_MAX - 1)]), Some(15));
        assert_eq!(bits(&[&many(OFFERS_MAX)]), None);
        let lines = vec!["other"; OFFERS_MAX];
        assert_eq!(bits(&[&lines[..], &["permessage-deflate"]].concat()), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(line in "[a-z;,=\" \\\\0-9_é-]{0,80}") {
            drop(negotiate([line.as_str()].into_iter()));
        }

        #[test]
        fn an_answer_is_an_answer_to_what_was_offered(
            names in proptest::sample::subsequence(vec![
                "server_no_context_takeover",
                "client_no_context_takeover",
                "client_max_window_bits",
                "client_max_window_bits=9",
                "server_max_window_bits=10",
            ], 0..5).prop_shuffle(),
        ) {
            let line = names.iter().fold("permessage-deflate".to_owned(), |line, name| {
                line + "; " + name
            });
            let twice = names.iter().filter(|name| name.starts_with("client_max")).count() == 2;
            let bound = names.contains(&"server_max_window_bits=10");
            let answer = negotiate([line.as_str()].into_iter());
            prop_assert_eq!(answer.is_none(), twice);
            if let Some((deflate, value)) = answer {
                prop_assert_eq!(deflate.window_bits, if bound { 10 } else { 15 });
                prop_assert_eq!(value.contains("server_max_window_bits=10"), bound);
            }
        }
    }
}
