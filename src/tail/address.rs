//! Where the server is, and the way to it: resolve, connect, upgrade.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use tungstenite::http::{Response, Uri};
use tungstenite::{Error, HandshakeError, WebSocket, client};

use super::ended::Ended;
use super::settings::TailError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The upgrade must be answered in this time.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Address {
    uri: Uri,
    host_port: String,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, TailError> {
        let refuse = |problem| TailError::Url { url: url.to_owned(), problem };
        let uri: Uri = url.parse().map_err(|_| refuse("it is not an address"))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => return Err(refuse("tail does not speak TLS yet: use ws://")),
            _ => return Err(refuse("write ws://host:port/ws")),
        }
        let host = uri.host().ok_or_else(|| refuse("it names no host"))?;
        let host_port = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Ok(Self { uri, host_port })
    }

    pub(super) fn connect(&self) -> Result<WebSocket<TcpStream>, Ended> {
        let addresses = self.host_port.to_socket_addrs().map_err(|error| not_connected(&error))?;
        let mut last = not_connected(&"the host has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => return self.upgrade(stream),
                Err(error) => last = not_connected(&error),
            }
        }
        Err(last)
    }

    fn upgrade(&self, stream: TcpStream) -> Result<WebSocket<TcpStream>, Ended> {
        stream.set_nodelay(true).map_err(|error| not_connected(&error))?;
        stream.set_read_timeout(Some(UPGRADE_TIMEOUT)).map_err(|error| not_connected(&error))?;
        match client(self.uri.clone(), stream) {
            Ok((socket, _)) => Ok(socket),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(refused(&response)),
            Err(error) => Err(not_connected(&error)),
        }
    }
}

fn not_connected(cause: &impl ToString) -> Ended {
    Ended::NotConnected { cause: cause.to_string(), retry_after: None }
}

/// What an HTTP answer other than 101 means: with a status from 400 to 499 the request is wrong,
/// but for 408 and 429, which ask for another one later.
fn refused(response: &Response<Option<Vec<u8>>>) -> Ended {
    let body = response.body().as_deref().unwrap_or_default();
    let status = response.status();
    let cause = format!("HTTP {status}: {}", String::from_utf8_lossy(body));
    if status.is_client_error() && !matches!(status.as_u16(), 408 | 429) {
        return Ended::ForGood(cause);
    }
    let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let retry_after = seconds.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    Ended::NotConnected { cause, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(Address::parse("ws://localhost/ws").unwrap().host_port, "localhost:80");
        assert_eq!(Address::parse("ws://[::1]:3002/ws").unwrap().host_port, "[::1]:3002");
        for url in ["", "http://a/ws", "wss://a/ws", "127.0.0.1:3002", "ws:///ws"] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_wrong_request_is_not_sent_again_and_a_full_server_says_when() {
        let answer = |status: u16| {
            Response::builder().status(status).header("Retry-After", "5").body(None).unwrap()
        };
        assert!(matches!(refused(&answer(404)), Ended::ForGood(_)));
        let expected = Some(Duration::from_secs(5));
        for status in [503, 429] {
            let ended = refused(&answer(status));
            assert!(
                matches!(ended, Ended::NotConnected { retry_after, .. } if retry_after == expected)
            );
        }
    }
}
