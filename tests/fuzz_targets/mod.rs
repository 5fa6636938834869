//! The bodies of the fuzz targets: fuzz/ drives them with libFuzzer, fuzz_corpus.rs with the
//! committed corpus. Each takes any bytes and panics only if a promise is broken.

use std::net::SocketAddr;

use odin_ws::testing::Compression;
use odin_ws::testing::Deflater;
use odin_ws::testing::WireError;
use odin_ws::testing::handshake;
use odin_ws::testing::{CLIENT_HEADER_BYTES_MAX, parse_client_header};
use odin_ws::testing::{DecodeLimits, Decoder, Input};
use odin_ws::testing::{InflateLimits, Inflater, RATIO_FREE_BYTES};

/// A target by the name of its corpus.
pub type Target = fn(&[u8]);

/// All targets.
pub const TARGETS: [(&str, Target); 4] = [
    ("handshake", handshake),
    ("frame_header", frame_header),
    ("decoder", decoder),
    ("inflate", inflate),
];

/// A request head: an answer is well formed, and agrees to nothing that was not offered.
pub fn handshake(bytes: &[u8]) {
    let peer = SocketAddr::from(([192, 0, 2, 1], 50_000));
    let mut space = handshake::field_space();
    let upgrade = match handshake::parse(bytes, peer, &mut space) {
        Ok(None) => return,
        Ok(Some(request)) => {
            assert!(request.head_bytes <= bytes.len());
            request.upgrade().map(|upgrade| (request, upgrade))
        }
        Err(refusal) => Err(refusal),
    };
    match upgrade {
        Ok((request, upgrade)) => {
            let agreed = request.agree(Compression::Deflate);
            let answer = String::from_utf8(upgrade.accept(&agreed)).expect("our answer is ASCII");
            assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\n"));
            assert_eq!(answer.matches("\r\n\r\n").count(), 1);
            let extensions = answer.matches("\r\nsec-websocket-extensions:").count();
            assert_eq!(extensions, usize::from(agreed.deflate().is_some()));
            assert!(agreed.deflate().is_none_or(|it| (8..=15).contains(&it.window_bits)));
            assert_eq!(request.agree(Compression::Off).deflate(), None);
        }
        Err(refusal) => assert!(refusal.response().starts_with(b"HTTP/1.1 4")),
    }
}

/// A frame's header: within its bounds, and not complete one byte earlier.
pub fn frame_header(bytes: &[u8]) {
    for compression in [Compression::Off, Compression::Deflate] {
        let Ok(Some(header)) = parse_client_header(bytes, compression) else { continue };
        assert!((6..=CLIENT_HEADER_BYTES_MAX).contains(&header.header_bytes));
        assert!(header.length >> 63 == 0);
        assert!(!header.opcode.is_control() || (header.is_final && header.length <= 125));
        assert!(!header.is_compressed || compression == Compression::Deflate);
        assert!(!header.is_compressed || !header.opcode.is_control());
        assert_eq!(
            parse_client_header(&bytes[..header.header_bytes - 1], compression),
            Ok(None),
            "a prefix is incomplete"
        );
    }
}

/// The decoder: the first two bytes choose how the rest is cut; any cut gives what the whole
/// gives, within the limits.
pub fn decoder(bytes: &[u8]) {
    let [step, kind, stream @ ..] = bytes else { return };
    let limits = DecodeLimits {
        message_bytes_max: 5_000,
        compression: if kind % 4 == 0 { Compression::Off } else { Compression::Deflate },
        ratio_max: 20,
    };
    let whole = decode_in_steps(stream, stream.len().max(1), limits);
    let cut = decode_in_steps(stream, usize::from(*step) + 1, limits);
    match (whole, cut) {
        (Ok(whole), Ok(cut)) => assert_eq!(whole, cut),
        (Err(_), Err(_)) => {}
        // Text that is cut off by the end of the input is judged as far as it was taken.
        (whole, cut) => panic!("whole {whole:?}, cut {cut:?}"),
    }
}

fn decode_in_steps(
    stream: &[u8],
    step: usize,
    limits: DecodeLimits,
) -> Result<Vec<String>, WireError> {
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    let mut messages = Vec::new();
    for piece in stream.chunks(step) {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        while !rest.is_empty() {
            let (used, input) = decoder.decode(rest, limits, &mut inflater)?;
            if let Some(Input::Text(_) | Input::Binary(_)) = input {
                let bytes = match &input {
                    Some(Input::Text(text)) => text.len(),
                    Some(Input::Binary(bytes)) => bytes.len(),
                    _ => 0,
                };
                assert!(bytes <= limits.message_bytes_max);
            }
            messages.extend(input.map(|input| format!("{input:?}")));
            rest = &mut rest[used..];
        }
        decoder.settle();
        assert!(decoder.memory_bytes() <= 2 * limits.message_bytes_max + 1_000);
    }
    Ok(messages)
}

/// The inflater: within the caps, the same twice, and deflated again it comes back.
pub fn inflate(bytes: &[u8]) {
    let [ratio, compressed @ ..] = bytes else { return };
    let limits = InflateLimits { output_bytes_max: 50_000, ratio_max: usize::from(*ratio) };
    let mut inflater = Inflater::default();
    let first = inflater.inflate(compressed, limits).map(<[u8]>::to_vec);
    let again = inflater.inflate(compressed, limits).map(<[u8]>::to_vec);
    assert_eq!(first, again);
    assert!(inflater.memory_bytes() <= 2 * 50_000 + 100_000);
    let Ok(payload) = first else { return };
    assert!(payload.len() <= limits.output_bytes_max);
    assert!(payload.len() <= (compressed.len() * limits.ratio_max).max(RATIO_FREE_BYTES));
    let deflated = Deflater::default().deflate_tail(&payload);
    let wide = InflateLimits { output_bytes_max: 50_000, ratio_max: usize::MAX };
    assert_eq!(inflater.inflate(&deflated, wide), Ok(&payload[..]));
}
