//! Requests before the upgrade: probes, refusals, and clients that take their time.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::io::{Read as _, Write as _};

use support::client::UPGRADE;
use support::{Client, Server};

fn server() -> Server {
    Server::serve(&["--source", "sim"])
}

fn without(line: &str) -> String {
    assert!(UPGRADE.contains(line));
    UPGRADE.replace(line, "")
}

#[test]
fn probes_answer_and_close() {
    let server = server();
    let health = server.get("/health");
    assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
    assert!(health.ends_with("\r\n\r\n{\"status\":\"ok\"}"), "{health}");
    server.wait_ready(200);
    let ready = server.get("/ready?verbose");
    assert!(ready.ends_with("{\"ready\":true,\"source\":\"live\"}"), "{ready}");
}

#[test]
fn refusals_say_what_to_do() {
    let server = server();
    let long = format!("GET /ws HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(9_000));
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "404 Not Found", "not_found"),
        (UPGRADE.replace("/ws", "/other"), "404 Not Found", "not_found"),
        ("POST /ws HTTP/1.1\r\n\r\n".to_owned(), "405 Method Not Allowed", "method_not_allowed"),
        ("GET /ws HTTP/1.1\r\n\r\n".to_owned(), "426 Upgrade Required", "upgrade_required"),
        (without("Upgrade: websocket\r\n"), "426 Upgrade Required", "upgrade_required"),
        (without("Sec-WebSocket-Version: 13\r\n"), "426 Upgrade Required", "unsupported_version"),
        (UPGRADE.replace("dGhl", "dG"), "400 Bad Request", "invalid_key"),
        (
            without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
            "400 Bad Request",
            "invalid_key",
        ),
        ("nonsense\r\n\r\n".to_owned(), "400 Bad Request", "malformed_request"),
        ("\x16\x03\x01\x00\x05".to_owned(), "400 Bad Request", "malformed_request"),
        (long, "431 Request Header Fields Too Large", "head_too_large"),
    ];
    for (request, status, code) in cases {
        let response = server.exchange(request.as_bytes());
        let line = format!("HTTP/1.1 {status}\r\n");
        assert!(response.starts_with(&line), "{request:.60}: {response}");
        assert!(response.contains(&format!("{{\"error\":\"{code}\",")), "{response}");
    }
    let response = server.exchange(UPGRADE.replace("Version: 13", "Version: 8").as_bytes());
    assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
    let response = server.exchange(b"DELETE /ws HTTP/1.1\r\n\r\n");
    assert!(response.contains("\r\nAllow: GET\r\n"), "{response}");
}

#[test]
fn a_request_of_too_many_fields_is_told_how_many_it_may_have() {
    let server = server();
    let fields = "A: b\r\n".repeat(125 - UPGRADE.matches(": ").count());
    let request = UPGRADE.replace("\r\n\r\n", &format!("\r\n{fields}\r\n"));
    let response = server.exchange(request.as_bytes());
    let body = "{\"error\":\"malformed_request\",\
        \"message\":\"the request has more than 124 header fields\"}";
    assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
    assert!(response.ends_with(body), "{response}");
}

#[test]
fn health_checks_of_http_1_0_are_answered() {
    let server = server();
    server.wait_ready(200);
    for (path, status) in [("/health", "200 OK"), ("/ready", "200 OK"), ("/ws", "426 Upgrade")] {
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let response = server.exchange(request.as_bytes());
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {response}");
    }
}

#[test]
fn a_full_server_refuses_at_once_and_takes_again_when_one_leaves() {
    let server = Server::serve(&["--source", "sim", "--max-connections", "1"]);
    let mut only = Client::connect(&server);
    let response = server.exchange(UPGRADE.as_bytes());
    assert!(response.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{response}");
    assert!(response.contains("\r\nRetry-After: 5\r\n"), "{response}");
    assert!(response.contains("too_many_connections"), "{response}");
    assert!(server.get("/health").starts_with("HTTP/1.1 200 "), "probes are not connections");
    only.socket.close(None).unwrap();
    only.read_close();
    Client::connect(&server);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = server();
    let mut stream = server.connect();
    for byte in UPGRADE.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut head = [0; 34];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101 Switching Protocols\r\n");
}

#[test]
fn frames_may_follow_the_request_in_the_same_segment() {
    let server = server();
    let mut stream = server.connect();
    // An empty ping, masked with zeros.
    let request = [UPGRADE.as_bytes(), &[0x89, 0x80, 0, 0, 0, 0]].concat();
    stream.write_all(&request).unwrap();
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    while !bytes.ends_with(&[0x8A, 0x00]) {
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "the pong must come");
        bytes.extend_from_slice(&chunk[..count]);
    }
}

#[test]
fn an_unfinished_request_meets_its_deadline_even_if_it_dribbles() {
    let server = Server::serve(&["--source", "sim", "--handshake-timeout-seconds", "1"]);
    let mut silent = server.connect();
    let mut bytes = Vec::new();
    let ended = silent.read_to_end(&mut bytes);
    assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    assert_eq!(bytes, b"");
    // One that sends a byte whenever it can is cut all the same.
    let mut dribbling = server.connect();
    dribbling.write_all(b"GET /ws HTTP/1.1\r\n").unwrap();
    while dribbling.write_all(b"X: 1\r\n").is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
