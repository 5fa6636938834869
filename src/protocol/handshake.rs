//! The request head of a new connection (RFC 9112, section 3; RFC 6455, section 4.2), and the
//! answer to one that is upgraded.
//!
//! Two steps: [`parse`] says what was asked, and whoever decides sees all of it; then
//! [`Upgrade::accept`] makes the answer. A [`Request`] borrows from the head: parsing allocates
//! nothing. The grammar is httparse's. Bounds: a head of [`HEAD_BYTES_MAX`] bytes with
//! [`FIELDS_MAX`] fields.

use core::net::SocketAddr;
use std::fmt;
use std::mem::MaybeUninit;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use httparse::{Header, Status};
use tungstenite::handshake::derive_accept_key;

use super::extension::{Compression, Deflate, negotiate};
use super::response::Refusal;

/// The longest request head that is read.
pub const HEAD_BYTES_MAX: usize = 8_192;

/// [`Refusal::HeadTooLarge`] says so to the client.
const _: () = assert!(HEAD_BYTES_MAX == 8_192);

/// The most header fields of a request.
pub const FIELDS_MAX: usize = 124;

/// [`Refusal::TooManyFields`] says so to the client.
const _: () = assert!(FIELDS_MAX == 124);

/// Where the header fields of one request are noted: 4 KiB that nobody has to clear.
pub type FieldSpace<'a> = [MaybeUninit<Header<'a>>; FIELDS_MAX];

/// Space for the fields of one request.
pub fn field_space<'a>() -> FieldSpace<'a> {
    [MaybeUninit::uninit(); FIELDS_MAX]
}

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// Any other.
    Other,
}

/// A complete request head, as it came.
///
/// `Debug` leaves out the query and the fields: tokens come in both.
pub struct Request<'a> {
    /// Bytes of the head in the buffer: after an upgrade, frames follow.
    pub head_bytes: usize,
    /// What kind of request it is.
    pub method: Method,
    /// The path of the target, without its query.
    pub path: &'a str,
    /// The query of the target: what stands between `?` and `#`.
    pub query: Option<&'a str>,
    /// The address of the peer that connected.
    pub peer: SocketAddr,
    /// HTTP/1.1 or newer: only then may it ask for an upgrade (RFC 6455, section 4.1).
    may_upgrade: bool,
    fields: &'a [Header<'a>],
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Reads a request head; `None` if it is not complete yet. Health checks of load balancers send
/// HTTP/1.0: it is read, but cannot be upgraded.
///
/// # Errors
/// The refusal to answer with.
pub fn parse<'a>(
    buffer: &'a [u8],
    peer: SocketAddr,
    space: &'a mut FieldSpace<'a>,
) -> Result<Option<Request<'a>>, Refusal> {
    let mut raw = httparse::Request::new(&mut []);
    let head_bytes = match raw.parse_with_uninit_headers(buffer, space) {
        Ok(Status::Complete(head_bytes)) => head_bytes,
        Ok(Status::Partial) if buffer.len() >= HEAD_BYTES_MAX => {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyFields),
        Err(_) => return Err(Refusal::Malformed),
    };
    if head_bytes > HEAD_BYTES_MAX {
        return Err(Refusal::HeadTooLarge);
    }
    let method = if raw.method == Some("GET") { Method::Get } else { Method::Other };
    let target = raw.path.ok_or(Refusal::Malformed)?;
    let (path, query) = split_target(target).ok_or(Refusal::Malformed)?;
    let may_upgrade = raw.version == Some(1);
    Ok(Some(Request { head_bytes, method, path, query, peer, may_upgrade, fields: raw.headers }))
}

impl<'a> Request<'a> {
    /// The page that opened the connection, if a browser says so (RFC 6454, section 7).
    pub fn origin(&self) -> Option<&'a [u8]> {
        self.lines("origin").next()
    }

    /// The first `Authorization` (RFC 9110, section 11.6.2).
    pub fn authorization(&self) -> Option<&'a [u8]> {
        self.lines("authorization").next()
    }

    /// The subprotocols on offer, the preferred one first, from all lines that are ASCII.
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> {
        let lines = self.lines("sec-websocket-protocol").filter_map(ascii);
        lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty())
    }

    /// The lines that offer extensions. One that is not ASCII offers nothing: it does not follow
    /// the grammar.
    pub fn extensions(&self) -> impl Iterator<Item = &'a str> {
        self.lines("sec-websocket-extensions").filter_map(ascii)
    }

    /// The upgrade that it asks for.
    ///
    /// # Errors
    /// What is missing.
    pub fn upgrade(&self) -> Result<Upgrade<'a>, Refusal> {
        let asks =
            self.has_token("connection", "upgrade") && self.has_token("upgrade", "websocket");
        if !self.may_upgrade || !asks {
            return Err(Refusal::UpgradeRequired);
        }
        if self.lines("sec-websocket-version").next() != Some(b"13") {
            return Err(Refusal::Version);
        }
        let key = self.lines("sec-websocket-key").next().ok_or(Refusal::MissingKey)?;
        let mut decoded = [0; KEY_BYTES_DECODED_MAX];
        match STANDARD.decode_slice(key, &mut decoded) {
            Ok(16) => Ok(Upgrade { key }),
            _ => Err(Refusal::BadKey),
        }
    }

    /// The first acceptable offer of permessage-deflate, if compression is wanted (RFC 7692,
    /// section 5.1).
    pub fn agree(&self, compression: Compression) -> Agreed {
        match compression {
            Compression::Off => Agreed::default(),
            Compression::Deflate => Agreed { deflate: negotiate(self.extensions()) },
        }
    }

    /// The values of all fields of that name, which is in lower case.
    fn lines(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.fields.iter();
        fields.filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Lists may be cut into several fields (RFC 9110, section 5.3). Some clients separate with
    /// blanks alone.
    fn has_token(&self, name: &'static str, token: &str) -> bool {
        self.lines(name)
            .flat_map(|line| line.split(|byte| matches!(byte, b',' | b' ' | b'\t')))
            .any(|part| part.eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// Room to decode a key in: more than its 16 bytes, so that a longer one is told from it.
const KEY_BYTES_DECODED_MAX: usize = 32;

/// A valid request for an upgrade.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade<'a> {
    key: &'a [u8],
}

/// What the server agrees to.
#[derive(Debug, Default)]
pub struct Agreed {
    /// The compression, and the value of `Sec-WebSocket-Extensions` that says so.
    deflate: Option<(Deflate, String)>,
}

impl Agreed {
    /// The compression.
    pub fn deflate(&self) -> Option<Deflate> {
        self.deflate.as_ref().map(|(deflate, _)| *deflate)
    }
}

impl Upgrade<'_> {
    /// The answer 101 (RFC 6455, section 4.2.2).
    pub fn accept(&self, agreed: &Agreed) -> Vec<u8> {
        let mut answer = Vec::with_capacity(256);
        answer.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-accept: ",
        );
        answer.extend_from_slice(derive_accept_key(self.key).as_bytes());
        answer.extend_from_slice(b"\r\n");
        if let Some((_, value)) = &agreed.deflate {
            answer.extend_from_slice(b"sec-websocket-extensions: ");
            answer.extend_from_slice(value.as_bytes());
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"\r\n");
        answer
    }
}

fn ascii(line: &[u8]) -> Option<&str> {
    str::from_utf8(line).ok().filter(|line| line.is_ascii())
}

/// Path and query of a request target (RFC 9112, section 3.2); `None` if it is none. A target
/// that names a host too, as a proxy gets it, is read like one that does not.
fn split_target(target: &str) -> Option<(&str, Option<&str>)> {
    if !target.starts_with('/') {
        let uri: http::Uri = target.parse().ok()?;
        if target == "*" {
            return Some((target, None));
        }
        let after_scheme = uri.scheme().and_then(|_| target.split_once("://"));
        let Some((_, after_scheme)) = after_scheme else { return Some(("", None)) };
        let path_at = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
        let (path, query) = split_query(&after_scheme[path_at..]);
        return Some((if path.is_empty() { "/" } else { path }, query));
    }
    let (path, query) = split_query(target);
    let is_forbidden = |byte| matches!(byte, b'<' | b'>');
    let is_valid = !path.bytes().any(|byte| byte == b'`' || is_forbidden(byte))
        && !query.is_some_and(|query| query.bytes().any(|byte| byte == b'"' || is_forbidden(byte)));
    is_valid.then_some((path, query))
}

fn split_query(target: &str) -> (&str, Option<&str>) {
    let target = target.split_once('#').map_or(target, |(target, _)| target);
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use proptest::sample::subsequence;
    use tungstenite::handshake::machine::TryParse as _;
    use tungstenite::handshake::server;

    const PEER: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000);

    const UPGRADE_HEAD: &str = "GET /ws?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    const UPGRADE_LINES: [&str; 9] = [
        "Upgrade: websocket",
        "upgrade: WebSocket",
        "Connection: Upgrade",
        "Connection: keep-alive, upgrade",
        "connection:close Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA== ",
        "Host: a",
    ];

    /// The refusal of the upgrade that this head asks for, and the answer if there is none.
    fn answer(head: &str, compression: Compression) -> Result<(Option<Deflate>, String), Refusal> {
        let mut space = field_space();
        let request = parse(head.as_bytes(), PEER, &mut space)?.expect("a complete head");
        let agreed = request.agree(compression);
        let answer = request.upgrade()?.accept(&agreed);
        Ok((agreed.deflate(), String::from_utf8(answer).unwrap()))
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted_at_its_last_byte() {
        for end in 0..UPGRADE_HEAD.len() {
            let mut space = field_space();
            let parsed = parse(&UPGRADE_HEAD.as_bytes()[..end], PEER, &mut space);
            assert!(parsed.unwrap().is_none(), "{end}");
        }
        let with_frames = format!("{UPGRADE_HEAD}rest");
        let mut space = field_space();
        let request = parse(with_frames.as_bytes(), PEER, &mut space).unwrap().unwrap();
        assert_eq!(request.head_bytes, UPGRADE_HEAD.len());
        assert_eq!((request.path, request.query), ("/ws", Some("x=1")));
        let answer = request.upgrade().unwrap().accept(&Agreed::default());
        // The accept value of RFC 6455, section 1.3.
        let expected = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\
            upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
    }

    #[test]
    fn a_request_tells_who_asks_and_what_for() {
        let head = "GET /ws?token=secret#x HTTP/1.1\r\nORIGIN: https://a.example\r\n\
            Authorization: Bearer secret\r\nSec-WebSocket-Protocol: b, a,\r\n\
            sec-websocket-protocol: \u{e9}\r\nSec-WebSocket-Protocol: c\r\n\
            Sec-WebSocket-Extensions: x\r\nSec-WebSocket-Extensions: y;z\r\n\r\n";
        let mut space = field_space();
        let request = parse(head.as_bytes(), PEER, &mut space).unwrap().unwrap();
        assert_eq!((request.method, request.peer), (Method::Get, PEER));
        assert_eq!((request.path, request.query), ("/ws", Some("token=secret")));
        assert_eq!(request.origin(), Some(&b"https://a.example"[..]));
        assert_eq!(request.authorization(), Some(&b"Bearer secret"[..]));
        assert_eq!(request.protocols().collect::<Vec<_>>(), ["b", "a", "c"]);
        assert_eq!(request.extensions().collect::<Vec<_>>(), ["x", "y;z"]);
        assert!(!format!("{request:?}").contains("secret"), "{request:?}");
        let mut space = field_space();
        let request = parse(b"PUT / HTTP/1.1\r\n\r\n", PEER, &mut space).unwrap().unwrap();
        assert_eq!((request.method, request.origin()), (Method::Other, None));
    }

    #[test]
    fn compression_is_agreed_if_it_is_offered_and_wanted() {
        let upgrade = |extensions: &str, compression| {
            let head = UPGRADE_HEAD.replace("Host: a\r\n", extensions);
            let (deflate, answer) = answer(&head, compression).unwrap();
            (deflate, answer)
        };
        let lines = "Sec-WebSocket-Extensions: x-other, permessage-deflate; level=9\r\n\
            sec-websocket-extensions: permessage-deflate; server_max_window_bits=10\r\n";
        let (deflate, answer) = upgrade(lines, Compression::Deflate);
        assert_eq!(deflate, Some(Deflate { window_bits: 10 }));
        let agreed = "\r\nsec-websocket-extensions: permessage-deflate; \
            server_no_context_takeover; client_no_context_takeover; \
            server_max_window_bits=10\r\n\r\n";
        assert!(answer.ends_with(agreed), "{answer}");
        let declined = "Sec-WebSocket-Extensions: permessage-deflate; x\r\n";
        for (lines, compression) in [
            (lines, Compression::Off),
            (declined, Compression::Deflate),
            ("Sec-WebSocket-Extensions: ;;\r\n", Compression::Deflate),
            ("Sec-WebSocket-Extensions: permessage-deflate; \u{e9}\r\n", Compression::Deflate),
            ("", Compression::Deflate),
        ] {
            let (deflate, answer) = upgrade(lines, compression);
            assert_eq!(deflate, None, "{lines}");
            assert!(!answer.contains("sec-websocket-extensions"), "{answer}");
        }
    }

    #[test]
    fn what_is_missing_decides_the_refusal() {
        let without = |line: &str| UPGRADE_HEAD.replace(line, "");
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let cases = [
            (without("Upgrade: websocket\r\n"), Refusal::UpgradeRequired),
            (without("Connection: keep-alive, Upgrade\r\n"), Refusal::UpgradeRequired),
            (without("Sec-WebSocket-Version: 13\r\n"), Refusal::Version),
            (UPGRADE_HEAD.replace("Version: 13", "Version: 8"), Refusal::Version),
            (without(key), Refusal::MissingKey),
            (UPGRADE_HEAD.replace("dGhl", "dG"), Refusal::BadKey),
            (UPGRADE_HEAD.replace("dGhl", "dGhldGhl"), Refusal::BadKey),
            (UPGRADE_HEAD.replace("dGhl", &"dGhl".repeat(100)), Refusal::BadKey),
            (UPGRADE_HEAD.replace("ZQ==", "ZR=="), Refusal::BadKey),
            ("GET /health HTTP/1.1\r\n\r\n".into(), Refusal::UpgradeRequired),
            ("GET /health?a HTTP/1.0\r\n\r\n".into(), Refusal::UpgradeRequired),
            (UPGRADE_HEAD.replace("HTTP/1.1", "HTTP/1.0"), Refusal::UpgradeRequired),
        ];
        for (head, expected) in cases {
            assert_eq!(answer(&head, Compression::Deflate).unwrap_err(), expected, "{head}");
        }
    }

    #[test]
    fn a_list_in_several_fields_is_one_list() {
        let two = "Connection: keep-alive\r\nConnection: Upgrade\r\n";
        for (from, to) in [
            ("Connection: keep-alive, Upgrade\r\n", two),
            ("keep-alive, Upgrade", "keep-alive Upgrade"),
            ("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        ] {
            let head = UPGRADE_HEAD.replace(from, to);
            assert!(answer(&head, Compression::Off).is_ok(), "{head}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_at_once() {
        let long = format!("GET /ws HTTP/1.1\r\nCookie: {}", "x".repeat(HEAD_BYTES_MAX));
        let whole = format!("{long}\r\n\r\n");
        let crowded = format!("GET /ws HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        let cases: [(&[u8], Refusal); 6] = [
            (b"GET /ws HTTP/0.9\r\n\r\n", Refusal::Malformed),
            (b"\x16\x03\x01\x02\x00", Refusal::Malformed),
            (b"GET /ws HTTP/1.1\r\nbad header\r\n\r\n", Refusal::Malformed),
            (crowded.as_bytes(), Refusal::TooManyFields),
            (long.as_bytes(), Refusal::HeadTooLarge),
            (whole.as_bytes(), Refusal::HeadTooLarge),
        ];
        for (bytes, expected) in cases {
            let mut space = field_space();
            assert_eq!(parse(bytes, PEER, &mut space).unwrap_err(), expected);
        }
        let full = crowded.replacen("A: b\r\n", "", 1);
        assert!(parse(full.as_bytes(), PEER, &mut field_space()).unwrap().is_some());
    }

    #[test]
    fn targets_are_cut_into_path_and_query() {
        let cases = [
            ("/", Some(("/", None))),
            ("/ws?", Some(("/ws", Some("")))),
            ("/ws?a=1?b#c?d", Some(("/ws", Some("a=1?b")))),
            ("/ws#a?b", Some(("/ws", None))),
            ("http://a.example:80/ws?b", Some(("/ws", Some("b")))),
            ("http://a.example", Some(("/", None))),
            ("http://a.example?b", Some(("/", Some("b")))),
            ("a.example:80", Some(("", None))),
            ("*", Some(("*", None))),
            ("/<>", None),
            ("/ws?\"", None),
            ("http:///ws", None),
        ];
        for (target, expected) in cases {
            assert_eq!(split_target(target), expected, "{target}");
        }
    }

    /// Another implementation's path and query of the same target.
    fn split_by_http(target: &str) -> Option<(String, Option<String>)> {
        let uri: http::Uri = target.parse().ok()?;
        Some((uri.path().to_owned(), uri.query().map(str::to_owned)))
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut space = field_space();
            if let Ok(Some(request)) = parse(&bytes, PEER, &mut space) {
                prop_assert!(request.head_bytes <= bytes.len());
                prop_assert!(request.upgrade().is_err(), "nobody rolls a handshake by chance");
            }
        }

        #[test]
        fn whom_tungstenite_accepts_gets_its_answer(
            lines in subsequence(UPGRADE_LINES.to_vec(), 4..UPGRADE_LINES.len()).prop_shuffle()
        ) {
            let head = format!("GET /ws HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
            let (_, request) = server::Request::try_parse(head.as_bytes()).unwrap().unwrap();
            if let Ok(response) = server::create_response(&request) {
                let mut expected = Vec::new();
                server::write_response(&mut expected, &response).unwrap();
                let (_, answer) = answer(&head, Compression::Deflate).unwrap();
                prop_assert_eq!(answer.into_bytes(), expected);
            }
        }

        #[test]
        fn targets_are_cut_as_others_do(target in "(http://[a-z]{0,2})?/?[!-~é]{0,12}") {
            let ours = split_target(&target);
            let ours = ours.map(|(path, query)| (path.to_owned(), query.map(str::to_owned)));
            prop_assert_eq!(ours, split_by_http(&target));
        }
    }
}
