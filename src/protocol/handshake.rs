//! The request head of a new connection: an upgrade (RFC 6455, section 4.2) and its answer, a
//! probe, or a refusal.
//!
//! Parsing is tungstenite's (httparse inside); this module decides. Bound: a head of
//! [`HEAD_BYTES_MAX`] bytes.

use http::HeaderValue;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::machine::TryParse as _;
use tungstenite::handshake::server::{Request, create_response, write_response};

use super::extension::{Compression, Deflate, negotiate};
use super::response::Refusal;

/// The longest request head that is read.
pub const HEAD_BYTES_MAX: usize = 8_192;

/// [`Refusal::HeadTooLarge`] says so to the client.
const _: () = assert!(HEAD_BYTES_MAX == 8_192);

/// What a complete request head asks for.
#[derive(Debug)]
pub enum Head {
    /// A valid WebSocket upgrade; `response` is the 101 to send.
    Upgrade {
        /// Bytes of the head in the buffer: what follows are frames.
        head_bytes: usize,
        /// The path without its query.
        path: String,
        /// The whole response.
        response: Vec<u8>,
        /// The compression that the response agrees to.
        deflate: Option<Deflate>,
    },
    /// A plain GET: a probe or a mistake.
    Get {
        /// The path without its query.
        path: String,
        /// What is missing to make it an upgrade.
        refusal: Refusal,
    },
}

/// Reads a request head; `None` if it is not complete yet. With [`Compression::Deflate`] the
/// first acceptable offer of permessage-deflate is taken (RFC 7692, section 5.1).
///
/// # Errors
/// The refusal to answer with.
pub fn parse(buffer: &[u8], compression: Compression) -> Result<Option<Head>, Refusal> {
    let (head_bytes, request) = match Request::try_parse(buffer) {
        Ok(Some(parsed)) => parsed,
        Ok(None) if buffer.len() >= HEAD_BYTES_MAX => return Err(Refusal::HeadTooLarge),
        Ok(None) => return Ok(None),
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => return Err(Refusal::Method),
        Err(Error::Protocol(ProtocolError::WrongHttpVersion)) => {
            return old_request(buffer).map(Some);
        }
        Err(_) => return Err(Refusal::Malformed),
    };
    if head_bytes > HEAD_BYTES_MAX {
        return Err(Refusal::HeadTooLarge);
    }
    let path = request.uri().path().to_owned();
    let refusal = match create_response(&request) {
        Ok(mut response) => {
            let agreed = agree(&request, compression);
            let deflate = agreed.as_ref().map(|(deflate, _)| *deflate);
            if let Some((_, value)) = agreed {
                response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, value);
            }
            let mut bytes = Vec::with_capacity(256);
            return match write_response(&mut bytes, &response) {
                Ok(()) => Ok(Some(Head::Upgrade { head_bytes, path, response: bytes, deflate })),
                Err(_) => Err(Refusal::Malformed),
            };
        }
        Err(_) => missing_for_upgrade(&request),
    };
    Ok(Some(Head::Get { path, refusal }))
}

/// A request of HTTP/1.0, as health checks of load balancers send it. It cannot be upgraded
/// (RFC 6455, section 4.1).
fn old_request(buffer: &[u8]) -> Result<Head, Refusal> {
    let line = buffer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let target = line.strip_prefix(b"GET ").and_then(|rest| rest.strip_suffix(b" HTTP/1.0"));
    let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
    let path = path.and_then(|path| std::str::from_utf8(path).ok()).ok_or(Refusal::Malformed)?;
    Ok(Head::Get { path: path.to_owned(), refusal: Refusal::UpgradeRequired })
}

/// Lines that are not ASCII offer nothing: they do not follow the grammar.
fn agree(request: &Request, compression: Compression) -> Option<(Deflate, HeaderValue)> {
    if compression == Compression::Off {
        return None;
    }
    let lines = request.headers().get_all(SEC_WEBSOCKET_EXTENSIONS);
    let (deflate, value) = negotiate(lines.iter().filter_map(|line| line.to_str().ok()))?;
    Some((deflate, HeaderValue::from_str(&value).ok()?))
}

fn missing_for_upgrade(request: &Request) -> Refusal {
    let headers = request.headers();
    let has_token = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    if !has_token(&CONNECTION, "upgrade") || !has_token(&UPGRADE, "websocket") {
        Refusal::UpgradeRequired
    } else if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        Refusal::Version
    } else if headers.contains_key(SEC_WEBSOCKET_KEY) {
        Refusal::BadKey
    } else {
        Refusal::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UPGRADE_HEAD: &str = "GET /ws?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn the_example_of_the_rfc_is_accepted_at_its_last_byte() {
        for end in 0..UPGRADE_HEAD.len() {
            assert!(
                parse(&UPGRADE_HEAD.as_bytes()[..end], Compression::Off).unwrap().is_none(),
                "{end}"
            );
        }
        let with_frames = format!("{UPGRADE_HEAD}rest");
        match parse(with_frames.as_bytes(), Compression::Off) {
            Ok(Some(Head::Upgrade { head_bytes, path, response, deflate })) => {
                assert_eq!(head_bytes, UPGRADE_HEAD.len());
                assert_eq!(path, "/ws");
                assert_eq!(deflate, None);
                let response = String::from_utf8(response).unwrap().to_ascii_lowercase();
                assert!(response.starts_with("http/1.1 101 switching protocols\r\n"));
                // The accept value of RFC 6455, section 1.3.
                let accept = "s3pplmbitxaq9kygzzhzrbk+xoo=";
                assert!(response.contains(&format!("sec-websocket-accept: {accept}\r\n")));
            }
            other => panic!("{other:?}"),
        }
    }

    fn upgrade(extensions: &str, compression: Compression) -> (Option<Deflate>, String) {
        let head = UPGRADE_HEAD.replace("Upgrade: websocket\r\n", extensions);
        let head = head.replace("Host: a\r\n", "Host: a\r\nUpgrade: websocket\r\n");
        match parse(head.as_bytes(), compression) {
            Ok(Some(Head::Upgrade { deflate, response, .. })) => {
                (deflate, String::from_utf8(response).unwrap().to_ascii_lowercase())
            }
            other => panic!("{other:?} for {head}"),
        }
    }

    #[test]
    fn compression_is_agreed_if_it_is_offered_and_wanted() {
        let lines = "Sec-WebSocket-Extensions: x-other, permessage-deflate; level=9\r\n\
            sec-websocket-extensions: permessage-deflate; server_max_window_bits=10\r\n";
        let (deflate, response) = upgrade(lines, Compression::Deflate);
        assert_eq!(deflate, Some(Deflate { window_bits: 10 }));
        let answer = "\r\nsec-websocket-extensions: permessage-deflate; \
            server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10\r\n";
        assert!(response.contains(answer), "{response}");
        assert!(response.ends_with("\r\n\r\n"));
        let declined = "Sec-WebSocket-Extensions: permessage-deflate; x\r\n";
        for (lines, compression) in [
            (lines, Compression::Off),
            (declined, Compression::Deflate),
            ("Sec-WebSocket-Extensions: ;;\r\n", Compression::Deflate),
            ("Sec-WebSocket-Extensions: permessage-deflate; \u{e9}\r\n", Compression::Deflate),
            ("", Compression::Deflate),
        ] {
            let (deflate, response) = upgrade(lines, compression);
            assert_eq!(deflate, None, "{lines}");
            assert!(!response.contains("sec-websocket-extensions"), "{response}");
        }
    }

    #[test]
    fn what_is_missing_decides_the_refusal() {
        let without = |line: &str| UPGRADE_HEAD.replace(line, "");
        let cases = [
            (without("Upgrade: websocket\r\n"), Refusal::UpgradeRequired),
            (without("Connection: keep-alive, Upgrade\r\n"), Refusal::UpgradeRequired),
            (without("Sec-WebSocket-Version: 13\r\n"), Refusal::Version),
            (UPGRADE_HEAD.replace("Version: 13", "Version: 8"), Refusal::Version),
            (UPGRADE_HEAD.replace("dGhl", "dG"), Refusal::BadKey),
            ("GET /health HTTP/1.1\r\n\r\n".into(), Refusal::UpgradeRequired),
            ("GET /health?a HTTP/1.0\r\n\r\n".into(), Refusal::UpgradeRequired),
            (UPGRADE_HEAD.replace("HTTP/1.1", "HTTP/1.0"), Refusal::UpgradeRequired),
        ];
        for (head, expected) in cases {
            match parse(head.as_bytes(), Compression::Deflate) {
                Ok(Some(Head::Get { refusal, .. })) => assert_eq!(refusal, expected, "{head}"),
                other => panic!("{other:?} for {head}"),
            }
        }
    }

    #[test]
    fn what_is_no_get_request_is_refused_at_once() {
        let long = format!("GET /ws HTTP/1.1\r\nCookie: {}", "x".repeat(HEAD_BYTES_MAX));
        let cases: [(&[u8], Refusal); 5] = [
            (b"POST /ws HTTP/1.1\r\n\r\n", Refusal::Method),
            (b"GET /ws HTTP/0.9\r\n\r\n", Refusal::Malformed),
            (b"\x16\x03\x01\x02\x00", Refusal::Malformed),
            (b"GET /ws HTTP/1.1\r\nbad header\r\n\r\n", Refusal::Malformed),
            (long.as_bytes(), Refusal::HeadTooLarge),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse(bytes, Compression::Off).unwrap_err(), expected);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(parse(&bytes, Compression::Deflate));
        }
    }
}
