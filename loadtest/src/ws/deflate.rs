//! permessage-deflate of RFC 7692, the receiving side; what a client sends stays uncompressed,
//! which the RFC allows.
//!
//! Bound: a message inflates to the reader's limit at most.

use flate2::{Decompress, FlushDecompress, Status};

use super::ProtocolError;

/// The offer. It leaves every choice to the server.
pub const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// The end of a sync flush, which a message leaves out (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// Bytes by which the output grows.
const STEP_BYTES: usize = 16_384;

/// What was agreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeflateParams {
    /// The server forgets its window after each message.
    pub server_no_context_takeover: bool,
}

/// Reads the server's answer to [`OFFER`].
///
/// # Errors
/// A parameter that does not exist, comes twice, or was not offered.
pub fn parse_answer(value: &str) -> Result<DeflateParams, ProtocolError> {
    let mut parts = value.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return Err(ProtocolError::Handshake("an extension that was not offered"));
    }
    let mut params = DeflateParams { server_no_context_takeover: false };
    let mut seen = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (part, None),
        };
        if seen.contains(&name) {
            return Err(ProtocolError::Deflate("a parameter comes twice"));
        }
        seen.push(name);
        let bits = value.and_then(|value| value.parse::<u8>().ok());
        match (name, value, bits) {
            ("server_no_context_takeover", None, _) => params.server_no_context_takeover = true,
            ("client_no_context_takeover", None, _)
            | ("server_max_window_bits" | "client_max_window_bits", _, Some(8..=15)) => {}
            _ => return Err(ProtocolError::Deflate("a parameter is unknown or has a wrong value")),
        }
    }
    Ok(params)
}

/// Inflates the messages of one connection, or of several whose server keeps no context.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
    keeps_context: bool,
    output: Vec<u8>,
}

impl Inflater {
    /// An inflater for what was agreed. Its window is the largest, which reads all.
    pub fn new(params: &DeflateParams) -> Self {
        let keeps_context = !params.server_no_context_takeover;
        Self { stream: Decompress::new(false), keeps_context, output: Vec::new() }
    }

    /// Whether one inflater can serve many connections.
    pub fn is_shareable(params: &DeflateParams) -> bool {
        params.server_no_context_takeover
    }

    /// The message, in a buffer that is used again.
    ///
    /// # Errors
    /// Bytes that are not deflate, or a message over the limit.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<&[u8], ProtocolError> {
        self.output.clear();
        for input in [payload, &TAIL[..]] {
            self.feed(input, bytes_max)?;
        }
        if !self.keeps_context {
            self.stream.reset(false);
        }
        Ok(&self.output)
    }

    fn feed(&mut self, mut input: &[u8], bytes_max: usize) -> Result<(), ProtocolError> {
        loop {
            if self.output.len() == self.output.capacity() {
                if self.output.len() > bytes_max {
                    return Err(ProtocolError::TooLarge(bytes_max));
                }
                self.output.reserve(STEP_BYTES);
            }
            let before = self.stream.total_in();
            let status = self
                .stream
                .decompress_vec(input, &mut self.output, FlushDecompress::Sync)
                .map_err(|_| ProtocolError::Deflate("a message is not deflate"))?;
            input = &input[(self.stream.total_in() - before) as usize..];
            let is_done = input.is_empty() && self.output.len() < self.output.capacity();
            match status {
                Status::Ok if !is_done => {}
                Status::Ok | Status::BufError => break,
                // A final block ends the stream; the next byte begins a new one.
                Status::StreamEnd if input.is_empty() => {
                    self.stream.reset(false);
                    break;
                }
                Status::StreamEnd => self.stream.reset(false),
            }
        }
        match self.output.len() > bytes_max {
            true => Err(ProtocolError::TooLarge(bytes_max)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};

    fn compress(stream: &mut Compress, text: &[u8]) -> Vec<u8> {
        if text.is_empty() {
            // Nothing to flush: section 7.2.3.6.
            return vec![0];
        }
        let mut out = Vec::with_capacity(text.len() + 1_000);
        stream.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - 4);
        out
    }

    #[test]
    fn messages_inflate_with_and_without_context() {
        let text =
            b"{\"seq\":1,\"type\":\"token_trade\",\"channel\":\"odin.token.BTC.trade\"}".repeat(9);
        for server_no_context_takeover in [false, true] {
            let params = DeflateParams { server_no_context_takeover };
            let mut inflater = Inflater::new(&params);
            let mut stream = Compress::new(Compression::default(), false);
            let mut sizes = Vec::new();
            for length in [text.len(), text.len(), 0, 1, text.len()] {
                let message = compress(&mut stream, &text[..length]);
                sizes.push(message.len());
                assert_eq!(inflater.inflate(&message, 10_000).unwrap(), &text[..length]);
                if server_no_context_takeover {
                    stream.reset();
                }
            }
            assert_eq!(sizes[1] < sizes[0], !server_no_context_takeover);
        }
    }

    #[test]
    fn the_examples_of_the_rfc_inflate() {
        // Section 7.2.3: one block, no compression, and BFINAL set.
        let cases: [&[u8]; 3] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ];
        for payload in cases {
            let mut inflater = Inflater::new(&DeflateParams { server_no_context_takeover: true });
            assert_eq!(inflater.inflate(payload, 100).unwrap(), b"Hello");
        }
    }

    #[test]
    fn bombs_and_garbage_end() {
        let params = DeflateParams { server_no_context_takeover: true };
        let mut stream = Compress::new(Compression::best(), false);
        let bomb = compress(&mut stream, &vec![0; 3_000_000]);
        assert!(bomb.len() < 10_000);
        let error = Inflater::new(&params).inflate(&bomb, 65_536).unwrap_err();
        assert_eq!(error, ProtocolError::TooLarge(65_536));
        let mut inflater = Inflater::new(&params);
        let garbage = inflater.inflate(&[0xFF; 40], 65_536);
        assert!(matches!(garbage, Err(ProtocolError::Deflate(_))));
    }

    #[test]
    fn answers_are_read_strictly() {
        let good = [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate;server_max_window_bits=10; client_max_window_bits=\"15\"",
        ];
        assert!(good.iter().all(|value| parse_answer(value).is_ok()));
        let bad = [
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; unknown",
        ];
        assert!(bad.iter().all(|value| parse_answer(value).is_err()));
    }
}
