//! Answers in HTTP before the upgrade: what a probe is told, and each way a request is refused.

use std::fmt::Write as _;

/// A refusal in HTTP: whose fault and what to do is in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP/1.1, or a malformed header.
    Malformed,
    /// More than the 124 header fields that are read.
    TooManyFields,
    /// No `Sec-WebSocket-Key`.
    MissingKey,
    /// A `Sec-WebSocket-Key` that is not 16 bytes in base64.
    BadKey,
    /// No such path.
    NotFound,
    /// Not a GET.
    Method,
    /// No `Connection: Upgrade` with `Upgrade: websocket`.
    UpgradeRequired,
    /// A `Sec-WebSocket-Version` other than 13.
    Version,
    /// A head over the 8,192 bytes that are read.
    HeadTooLarge,
    /// The connection limit is reached.
    Full,
}

impl Refusal {
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Malformed => {
                ("400 Bad Request", "malformed_request", "this is not an HTTP/1.1 request")
            }
            Self::TooManyFields => (
                "400 Bad Request",
                "malformed_request",
                "the request has more than 124 header fields",
            ),
            Self::MissingKey => ("400 Bad Request", "invalid_key", "Sec-WebSocket-Key is missing"),
            Self::BadKey => {
                ("400 Bad Request", "invalid_key", "Sec-WebSocket-Key must be 16 bytes in base64")
            }
            Self::NotFound => ("404 Not Found", "not_found", "try /ws, /health or /ready"),
            Self::Method => ("405 Method Not Allowed", "method_not_allowed", "use GET"),
            Self::UpgradeRequired => (
                "426 Upgrade Required",
                "upgrade_required",
                "connect with a WebSocket client: Connection: Upgrade, Upgrade: websocket",
            ),
            Self::Version => {
                ("426 Upgrade Required", "unsupported_version", "Sec-WebSocket-Version must be 13")
            }
            Self::HeadTooLarge => (
                "431 Request Header Fields Too Large",
                "head_too_large",
                "the request head is limited to 8192 bytes",
            ),
            Self::Full => (
                "503 Service Unavailable",
                "too_many_connections",
                "the connection limit is reached, try again later",
            ),
        }
    }

    fn headers(self) -> &'static str {
        match self {
            Self::Method => "Allow: GET\r\n",
            Self::UpgradeRequired => "Upgrade: websocket\r\n",
            Self::Version => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            Self::Full => "Retry-After: 5\r\n",
            _ => "",
        }
    }

    /// The whole response; the connection closes after it.
    pub fn response(self) -> Vec<u8> {
        let (status, code, message) = self.parts();
        let body = format!("{{\"error\":\"{code}\",\"message\":\"{message}\"}}");
        json_response(status, self.headers(), &body)
    }
}

/// A JSON response after which the connection closes; `headers` are whole lines.
pub(crate) fn json_response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let mut out = String::with_capacity(160 + headers.len() + body.len());
    write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n{headers}\r\n{body}",
        body.len()
    )
    .expect("writing to a String cannot fail");
    out.into_bytes()
}
