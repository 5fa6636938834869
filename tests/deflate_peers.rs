//! What this side deflates, as zlib reads it, and what zlib deflates, as this side reads it:
//! Python's zlib is the reference implementation.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use odin_ws::testing::{Deflater, STORED_HEADER_BYTES, put_stored_header};
use odin_ws::testing::{InflateLimits, Inflater};

const LIMITS: InflateLimits = InflateLimits { output_bytes_max: 1 << 20, ratio_max: 2_000 };

/// Runs `program` with `lines` as its input; each line of its output is base64.
fn python(program: &str, lines: &[String]) -> Vec<Vec<u8>> {
    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    // Python answers when its input ends: both pipes cannot fill up at once.
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| STANDARD.decode(line).unwrap()).collect()
}

/// Tails from nothing to longer than a window.
fn tails() -> Vec<String> {
    let trade = r#""type":"token_trade","channel":"odin.token.2jjj.trade","data":{"price":1.5}}"#;
    [0, 1, 2, 10, 100, 1_000].map(|count| trade.repeat(count)).into()
}

#[test]
fn a_stored_prefix_and_a_shared_tail_are_one_message_for_zlib() {
    const INFLATE: &str = "
import base64, sys, zlib
answers = []
for line in sys.stdin.read().splitlines():
    bits, data = line.split()
    stream = zlib.decompressobj(wbits=-int(bits))
    data = base64.b64decode(data) + b'\\x00\\x00\\xff\\xff'
    # Byte by byte, so that distances are looked up in the window and nowhere else.
    text = b''.join(stream.decompress(data[at:at + 1]) for at in range(len(data)))
    assert not stream.unused_data and not stream.unconsumed_tail and not stream.eof
    answers.append(base64.b64encode(text).decode())
print('\\n'.join(answers))
";
    let mut deflater = Deflater::default();
    let mut lines = Vec::new();
    let mut texts = Vec::new();
    for tail in tails() {
        let deflated = deflater.deflate_tail(tail.as_bytes());
        for seq in [1, 99, u64::MAX] {
            let prefix = format!("{{\"seq\":{seq},");
            let mut message = vec![0; STORED_HEADER_BYTES];
            put_stored_header(prefix.len(), &mut message);
            message.extend_from_slice(prefix.as_bytes());
            message.extend_from_slice(&deflated);
            let text = format!("{prefix}{tail}");
            let mut inflater = Inflater::default();
            assert_eq!(inflater.inflate(&message, LIMITS), Ok(text.as_bytes()));
            lines.push(format!("15 {}", STANDARD.encode(&message)));
            texts.push(text.into_bytes());
        }
    }
    // What is not longer than a window is read with that window.
    for window_bits in 8..=15_u8 {
        let text = tails()[5][..1 << window_bits].to_owned();
        let message = deflater.compress_message(text.as_bytes(), window_bits).unwrap();
        lines.push(format!("{window_bits} {}", STANDARD.encode(&message)));
        texts.push(text.into_bytes());
    }
    assert_eq!(python(INFLATE, &lines), texts);
}

#[test]
fn what_zlib_deflates_is_read_here() {
    const DEFLATE: &str = "
import base64, sys, zlib
text = base64.b64decode(sys.stdin.read())
answers = []
for level in range(10):
    for bits in (9, 12, 15):
        for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY):
            for flush in (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH):
                stream = zlib.compressobj(level, zlib.DEFLATED, -bits, 8, strategy)
                data = stream.compress(text[:700]) + stream.flush(flush)
                data += stream.compress(text[700:]) + stream.flush(flush)
                assert data.endswith(b'\\x00\\x00\\xff\\xff')
                answers.append(base64.b64encode(data[:-4]).decode())
            stream = zlib.compressobj(level, zlib.DEFLATED, -bits, 8, strategy)
            data = stream.compress(text) + stream.flush(zlib.Z_FINISH) + b'\\x00'
            answers.append(base64.b64encode(data).decode())
print('\\n'.join(answers))
";
    let text = tails()[5][..50_000].to_owned();
    let messages = python(DEFLATE, &[STANDARD.encode(&text)]);
    assert_eq!(messages.len(), 10 * 3 * 3 * 3);
    let mut inflater = Inflater::default();
    for message in messages {
        assert_eq!(inflater.inflate(&message, LIMITS), Ok(text.as_bytes()));
    }
}
