//! The upgrade of RFC 6455, section 4: the request and the check of its answer.
//!
//! Bound: a response head of [`HEAD_BYTES_MAX`] bytes with [`HEADERS_MAX`] headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::ProtocolError;
use super::deflate::{self, DeflateParams};

/// Bytes of a response head.
const HEAD_BYTES_MAX: usize = 16_384;

/// Headers of a response.
const HEADERS_MAX: usize = 64;

/// Characters of a refusal's body that are kept.
const BODY_CHARS_MAX: usize = 300;

/// The text that is appended to the key before hashing (section 1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// `wss`.
    pub is_tls: bool,
}

impl Target {
    /// Reads `ws://` and `wss://` addresses (section 3).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (is_tls, rest) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err("write ws://host:port/path or wss://...".into()),
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if path.contains('#') || path.contains(char::is_whitespace) {
            return Err("its path has a fragment or a space".into());
        }
        let path = match path.as_bytes().first() {
            None => "/".to_owned(),
            Some(b'?') => format!("/{path}"),
            Some(_) => path.to_owned(),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or("a bracket is not closed")?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            None => return Err("its port has no colon before it".into()),
            Some(port) => port.parse().map_err(|_| format!("{port:?} is not a port"))?,
        };
        if host.is_empty() {
            return Err("it names no host".into());
        }
        Ok(Self { host: host.to_owned(), port, path, is_tls })
    }
}

/// The value of `Sec-WebSocket-Key` of 16 random bytes.
pub fn random_key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// The request of an upgrade.
pub fn request(target: &Target, key: &str, offers_deflate: bool, bearer: Option<&str>) -> Vec<u8> {
    let Target { host, port, path, .. } = target;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let mut text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
    );
    if offers_deflate {
        text.push_str("Sec-WebSocket-Extensions: ");
        text.push_str(deflate::OFFER);
        text.push_str("\r\n");
    }
    if let Some(token) = bearer {
        text.push_str("Authorization: Bearer ");
        text.push_str(token);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// A server's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Response {
    /// The head is not complete.
    Partial,
    /// Status 101; frames follow after the head.
    Upgraded {
        /// Bytes of the head.
        head_bytes: usize,
        /// The compression that was agreed.
        deflate: Option<DeflateParams>,
    },
    /// Another status.
    Refused {
        /// The status.
        status: u16,
        /// The part of the body that has arrived, cut.
        body_start: String,
        /// `Retry-After`, if it is a number of seconds.
        retry_after_s: Option<u64>,
    },
}

/// Reads the answer to [`request`] with the same key.
///
/// # Errors
/// What the server did wrong.
pub fn parse_response(
    bytes: &[u8],
    key: &str,
    offered_deflate: bool,
) -> Result<Response, ProtocolError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => {
            return Ok(Response::Partial);
        }
        Ok(httparse::Status::Partial) => {
            return Err(ProtocolError::Handshake("the response head is too long"));
        }
        Err(_) => return Err(ProtocolError::Handshake("the answer is not HTTP")),
    };
    let status = response.code.unwrap_or(0);
    let values = |name: &'static str| {
        let named = response.headers.iter().filter(move |it| it.name.eq_ignore_ascii_case(name));
        named.filter_map(|header| std::str::from_utf8(header.value).ok())
    };
    if status != 101 {
        let body = String::from_utf8_lossy(&bytes[head_bytes..]);
        let body_start = body.chars().take(BODY_CHARS_MAX).collect();
        let retry_after_s = values("retry-after").next().and_then(|text| text.trim().parse().ok());
        return Ok(Response::Refused { status, body_start, retry_after_s });
    }
    let has_token = |name, token: &str| {
        values(name)
            .flat_map(|value| value.split(','))
            .any(|it| it.trim().eq_ignore_ascii_case(token))
    };
    if !has_token("upgrade", "websocket") {
        return Err(ProtocolError::Handshake("no `Upgrade: websocket`"));
    }
    if !has_token("connection", "upgrade") {
        return Err(ProtocolError::Handshake("no `Connection: Upgrade`"));
    }
    let mut accepts = values("sec-websocket-accept");
    if accepts.next().map(str::trim) != Some(&accept(key)) || accepts.next().is_some() {
        return Err(ProtocolError::Handshake("Sec-WebSocket-Accept does not fit the key"));
    }
    if values("sec-websocket-protocol").next().is_some() {
        return Err(ProtocolError::Handshake("a subprotocol that was not offered"));
    }
    let mut extensions =
        values("sec-websocket-extensions").filter(|value| !value.trim().is_empty());
    let deflate = match (extensions.next(), offered_deflate) {
        (None, _) => None,
        (Some(_), false) => {
            return Err(ProtocolError::Handshake("an extension that was not offered"));
        }
        (Some(value), true) => Some(deflate::parse_answer(value)?),
    };
    if extensions.next().is_some() {
        return Err(ProtocolError::Handshake("more than one extension"));
    }
    Ok(Response::Upgraded { head_bytes, deflate })
}

/// The value of `Sec-WebSocket-Accept` for this key.
pub fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(KEY_SUFFIX);
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn answer(headers: &str) -> String {
        format!("HTTP/1.1 101 Switching Protocols\r\n{headers}\r\n")
    }

    const GOOD: &str = "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    #[test]
    fn addresses() {
        let parse = |url| Target::parse(url).map(|it| (it.host, it.port, it.path, it.is_tls));
        let target = |host: &str, port, path: &str, is_tls| {
            Ok::<_, String>((host.to_owned(), port, path.to_owned(), is_tls))
        };
        assert_eq!(parse("ws://a"), target("a", 80, "/", false));
        assert_eq!(parse("wss://a/ws?x=1"), target("a", 443, "/ws?x=1", true));
        assert_eq!(parse("ws://[::1]:3002/ws"), target("::1", 3002, "/ws", false));
        assert_eq!(parse("ws://a:1?q"), target("a", 1, "/?q", false));
        for url in ["", "http://a", "ws://", "ws://a:x/", "ws://[::1", "ws://a:70000/", "ws:///ws"]
        {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_answer_of_the_rfc_is_taken_at_any_split() {
        let text = answer(GOOD) + "rest";
        let end = text.len() - 4;
        for cut in 0..end {
            let partial = parse_response(&text.as_bytes()[..cut], KEY, false);
            assert_eq!(partial, Ok(Response::Partial), "{cut}");
        }
        let whole = Ok(Response::Upgraded { head_bytes: end, deflate: None });
        assert_eq!(parse_response(text.as_bytes(), KEY, false), whole);
    }

    #[test]
    fn wrong_answers_are_named() {
        let deflate = format!("{GOOD}Sec-WebSocket-Extensions: permessage-deflate\r\n");
        let cases = [
            (answer(&GOOD.replace("s3pP", "S3pP")), "Accept"),
            (answer(&GOOD.replace("WebSocket\r", "h2c\r")), "Upgrade: websocket"),
            (answer(&GOOD.replace("keep-alive, Upgrade", "close")), "Connection: Upgrade"),
            (answer(&deflate), "not offered"),
            (answer(&format!("{GOOD}Sec-WebSocket-Protocol: x\r\n")), "not offered"),
            ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), "not HTTP"),
            ("HTTP/1.1 200 OK\r\n".to_owned() + &"A: b\r\n".repeat(4_000), "not HTTP"),
        ];
        for (text, part) in cases {
            let error = parse_response(text.as_bytes(), KEY, false).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        let refused = parse_response(b"HTTP/1.1 503 No\r\nRetry-After: 5\r\n\r\nfull", KEY, false);
        let (body_start, retry_after_s) = ("full".to_owned(), Some(5));
        assert_eq!(refused, Ok(Response::Refused { status: 503, body_start, retry_after_s }));
        assert!(matches!(
            parse_response(answer(&deflate).as_bytes(), KEY, true),
            Ok(Response::Upgraded { deflate: Some(_), .. })
        ));
    }

    #[test]
    fn the_request_names_everything() {
        let target = Target::parse("ws://[::1]:3002/ws").unwrap();
        let text = String::from_utf8(request(&target, KEY, true, Some("abc"))).unwrap();
        for line in [
            "GET /ws HTTP/1.1\r\n",
            "Host: [::1]:3002\r\n",
            "permessage-deflate",
            "Authorization: Bearer abc\r\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(text.ends_with("\r\n\r\n"));
    }
}
