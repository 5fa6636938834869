//! RFC 6455 byte by byte, on `odin-ws echo`: the same accept, handshake, frame and send code as
//! `serve`.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use support::Server;
use support::client::UPGRADE;

const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

/// A masked client frame; `first` is FIN, reserved bits and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn open(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(UPGRADE.replace("/ws", "/any/path").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// Reads one unmasked server frame.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[1] & 0x80, 0, "servers do not mask");
    let length = match header[1] {
        126 => {
            let mut bytes = [0; 2];
            stream.read_exact(&mut bytes).unwrap();
            u64::from(u16::from_be_bytes(bytes))
        }
        127 => {
            let mut bytes = [0; 8];
            stream.read_exact(&mut bytes).unwrap();
            u64::from_be_bytes(bytes)
        }
        length => u64::from(length),
    };
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).unwrap();
    (header[0], payload)
}

/// Sends `bytes` and expects a close with `code`, then the end of the connection.
fn assert_closes(server: &Server, bytes: &[u8], code: u16) {
    let mut stream = open(server);
    stream.write_all(bytes).unwrap();
    loop {
        let (first, payload) = read_frame(&mut stream);
        if first == 0x88 {
            assert_eq!(payload[..2], code.to_be_bytes(), "{bytes:x?}");
            break;
        }
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the end after {bytes:x?}");
}

#[test]
fn messages_of_each_kind_and_length_come_back() {
    let server = Server::echo();
    let mut stream = open(&server);
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000] {
        let text = "é".repeat(length / 2) + &"a".repeat(length % 2);
        stream.write_all(&frame(0x81, text.as_bytes())).unwrap();
        assert_eq!(read_frame(&mut stream), (0x81, text.into_bytes()));
        let bytes = vec![0xFE; length];
        stream.write_all(&frame(0x82, &bytes)).unwrap();
        assert_eq!(read_frame(&mut stream), (0x82, bytes));
    }
}

#[test]
fn sixteen_mebibytes_come_back_and_one_byte_more_does_not() {
    let server = Server::echo();
    let mut stream = open(&server);
    let bytes: Vec<u8> = (0..16 << 20).map(|index: u32| index as u8).collect();
    let request = frame(0x82, &bytes);
    let mut writing = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || writing.write_all(&request).unwrap());
    assert!(read_frame(&mut stream) == (0x82, bytes));
    writer.join().unwrap();
    let mut header = frame(0x82, &[]);
    header[1] = 0x80 | 127;
    header.splice(2..2, ((16_u64 << 20) + 1).to_be_bytes());
    assert_closes(&server, &header, 1009);
}

#[test]
fn any_split_of_a_fragmented_message_with_a_ping_inside() {
    let server = Server::echo();
    let stream_of = [
        frame(0x01, "hel".as_bytes()),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x80, "lö".as_bytes()),
    ]
    .concat();
    for cut in 0..=stream_of.len() {
        let mut stream = open(&server);
        stream.write_all(&stream_of[..cut]).unwrap();
        stream.write_all(&stream_of[cut..]).unwrap();
        assert_eq!(read_frame(&mut stream), (0x8A, b"ping".to_vec()));
        assert_eq!(read_frame(&mut stream), (0x81, "hellö".as_bytes().to_vec()));
    }
    let mut stream = open(&server);
    for byte in &stream_of {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_frame(&mut stream), (0x8A, b"ping".to_vec()));
    assert_eq!(read_frame(&mut stream), (0x81, "hellö".as_bytes().to_vec()));
}

#[test]
fn many_frames_in_one_segment_are_answered_in_order() {
    let server = Server::echo();
    let mut stream = open(&server);
    let all: Vec<u8> =
        (0..500).flat_map(|number: u32| frame(0x81, number.to_string().as_bytes())).collect();
    stream.write_all(&all).unwrap();
    for number in 0..500_u32 {
        assert_eq!(read_frame(&mut stream), (0x81, number.to_string().into_bytes()));
    }
}

#[test]
fn a_message_in_65537_fragments() {
    let server = Server::echo();
    let mut stream = open(&server);
    let mut all = frame(0x02, b"a");
    for _ in 0..65_535 {
        all.extend(frame(0x00, b"b"));
    }
    all.extend(frame(0x80, b"c"));
    let mut writing = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || writing.write_all(&all).unwrap());
    let (first, payload) = read_frame(&mut stream);
    writer.join().unwrap();
    assert_eq!((first, payload.len(), payload[0], payload[65_536]), (0x82, 65_537, b'a', b'c'));
}

#[test]
fn broken_frames_close_with_1002() {
    let server = Server::echo();
    let unmasked = [0x81, 0x01, b'a'];
    let cases: [Vec<u8>; 12] = [
        unmasked.to_vec(),
        frame(0xC1, b"reserved bit 1"),
        frame(0xA1, b"reserved bit 2"),
        frame(0x91, b"reserved bit 3"),
        frame(0x83, b"reserved data opcode"),
        frame(0x8B, b"reserved control opcode"),
        frame(0x09, b"fragmented ping"),
        frame(0x89, &[b'x'; 126]),
        frame(0x80, b"continuation of nothing"),
        [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
        frame(0x88, &[3]),
        // A length of 1 in the 16-bit form.
        [&[0x81, 0xFE, 0, 1][..], &MASK, b"a"].concat(),
    ];
    for bytes in cases {
        assert_closes(&server, &bytes, 1002);
    }
}

#[test]
fn text_that_is_not_utf8_closes_with_1007_as_soon_as_it_shows() {
    let server = Server::echo();
    assert_closes(&server, &frame(0x81, &[0xC0, 0xAF]), 1007);
    assert_closes(&server, &frame(0x81, &[0xED, 0xA0, 0x80]), 1007);
    assert_closes(&server, &frame(0x81, &[0xF4, 0x90, 0x80, 0x80]), 1007);
    assert_closes(&server, &frame(0x88, &[3, 0xE8, 0xFF]), 1007);
    // The rest of the message never comes.
    assert_closes(&server, &frame(0x01, &[0xFF]), 1007);
    assert_closes(&server, &frame(0x81, &[&[0xFF][..], &[b'a'; 1_000]].concat())[..20], 1007);
    // A character may be cut by fragments.
    let mut stream = open(&server);
    stream.write_all(&[frame(0x01, &[0xC3]), frame(0x80, &[0xA9])].concat()).unwrap();
    assert_eq!(read_frame(&mut stream), (0x81, "é".as_bytes().to_vec()));
}

#[test]
fn the_close_handshake_repeats_the_clients_code() {
    let server = Server::echo();
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1011, 3000, 3999, 4000, 4999] {
        assert_closes(&server, &frame(0x88, &code.to_be_bytes()), code);
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_closes(&server, &frame(0x88, &code.to_be_bytes()), 1002);
    }
    let mut stream = open(&server);
    stream.write_all(&[frame(0x88, &[]), frame(0x81, b"ignored")].concat()).unwrap();
    assert_eq!(read_frame(&mut stream), (0x88, Vec::new()));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_client_that_writes_much_and_reads_late_gets_everything() {
    let server = Server::echo();
    let mut stream = open(&server);
    let payload = vec![b'x'; 60_000];
    let mut writing = stream.try_clone().unwrap();
    let request = frame(0x82, &payload);
    // 60 MB in flight are more than all buffers hold: the server has to stop reading.
    let writer = std::thread::spawn(move || {
        for _ in 0..1_000 {
            writing.write_all(&request).unwrap();
        }
    });
    for _ in 0..1_000 {
        assert!(read_frame(&mut stream) == (0x82, payload.clone()));
    }
    writer.join().unwrap();
}
