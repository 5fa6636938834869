//! permessage-deflate on `serve`, byte by byte: what is agreed, and what a hostile client gets.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use flate2::{Compress, Compression, FlushCompress};
use odin_ws::testing::{InflateLimits, Inflater};
use serde_json::{Value, json};
use support::Server;
use support::client::UPGRADE;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

/// A connection that offered compression, and the response's head in lower case.
fn open(server: &Server) -> (TcpStream, String) {
    let mut stream = server.connect();
    let request = format!("{}{OFFER}", UPGRADE.strip_suffix("\r\n").unwrap());
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

/// The first byte and the payload of the next frame.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).unwrap();
    let mut length = usize::from(header[1]);
    if length == 126 {
        let mut bytes = [0; 2];
        stream.read_exact(&mut bytes).unwrap();
        length = usize::from(u16::from_be_bytes(bytes));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    (header[0], payload)
}

/// A compressed text message; the mask is zero, which leaves the payload as it is.
fn compressed(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xC1, 0x80 | payload.len().min(126) as u8];
    if payload.len() >= 126 {
        frame.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Raw deflate as a client sends it: a sync flush without its last four bytes.
fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1_024);
    let mut stream = Compress::new(Compression::best(), false);
    stream.compress_vec(bytes, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

fn rss_bytes(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
}

#[test]
fn commands_and_events_are_compressed_if_that_was_agreed() {
    let server = Server::serve(&["--source", "sim", "--sim-rate", "200"]);
    let (mut stream, head) = open(&server);
    let answer = "\r\nsec-websocket-extensions: permessage-deflate; server_no_context_takeover; \
        client_no_context_takeover\r\n";
    assert!(head.contains(answer), "{head}");
    let subscribe = json!({"type": "subscribe", "channels": ["odin.token.>"]}).to_string();
    stream.write_all(&compressed(&deflate(subscribe.as_bytes()))).unwrap();
    let (mut plain_bytes, mut bytes, mut events) = (0, 0, 0);
    while events < 100 {
        let (first, payload) = read_frame(&mut stream);
        if first == 0x81 {
            let answer: Value = serde_json::from_slice(&payload).unwrap();
            assert!(answer["seq"].is_null(), "events of 128 bytes are compressed: {answer}");
            continue;
        }
        assert_eq!(first, 0xC1);
        let limits = InflateLimits { output_bytes_max: 65_536, ratio_max: 100 };
        let mut inflater = Inflater::default();
        let text = inflater.inflate(&payload, limits).unwrap();
        let event: Value = serde_json::from_slice(text).unwrap();
        events += 1;
        assert_eq!(event["seq"], events);
        plain_bytes += text.len();
        bytes += payload.len();
    }
    println!("{bytes} bytes instead of {plain_bytes}");
    assert!(bytes * 10 < plain_bytes * 7, "{bytes} of {plain_bytes}");
}

#[test]
fn without_it_nothing_is_agreed() {
    let server = Server::serve(&["--source", "sim", "--compression", "off"]);
    let (mut stream, head) = open(&server);
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    assert_eq!(read_frame(&mut stream).0, 0x81);
    stream.write_all(&compressed(b"x")).unwrap();
    let (first, payload) = read_frame(&mut stream);
    assert_eq!((first, &payload[..2]), (0x88, &1_002_u16.to_be_bytes()[..]));
}

#[test]
fn a_bomb_is_refused_and_memory_does_not_move() {
    let server = Server::serve(&["--source", "sim", "--sim-rate", "1"]);
    // 40 MB in 39 KB; 60,000 bytes in 80, which is within the limit and over the ratio; noise.
    let cases = [
        (deflate(&vec![b' '; 40_000_000]), 1_009_u16),
        (deflate(&[b' '; 60_000]), 1_009),
        (vec![0xFF; 200], 1_002),
    ];
    let attack = |payload: &[u8], expected: u16| {
        let (mut stream, _) = open(&server);
        stream.write_all(&compressed(payload)).unwrap();
        loop {
            let (first, payload) = read_frame(&mut stream);
            if first == 0x88 {
                assert_eq!(payload[..2], expected.to_be_bytes());
                return;
            }
        }
    };
    // The first message makes the inflater.
    cases.iter().for_each(|(payload, code)| attack(payload, *code));
    let before = rss_bytes(&server);
    for _ in 0..20 {
        cases.iter().for_each(|(payload, code)| attack(payload, *code));
    }
    let grown = rss_bytes(&server).saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
    assert!(server.get("/health").contains("200 OK"));
}
