//! Compressed messages to their bytes (RFC 7692, section 7.2.2), within caps.
//!
//! One [`Inflater`] serves all connections of a shard: with `client_no_context_takeover` every
//! message starts with an empty window, and a message is inflated only when all of it has come.
//! It knows no frames and no text. Bounds: the caller's caps, which the buffer passes by one byte
//! and no more; [`FINAL_BLOCKS_MAX`]; a buffer over [`KEPT_BYTES_MAX`] is given back.

use flate2::{Decompress, FlushDecompress, Status};

use super::error::WireError;
use crate::heap::allocation_bytes;

/// The longest buffer that is kept from one message to the next: the default limit of a
/// message, so that ordinary commands never allocate.
pub(crate) const KEPT_BYTES_MAX: usize = 65_536;

/// What a message may inflate to at any ratio: a repetitive command of a few hundred bytes
/// reaches ratios that would be suspect in a long one, and costs nothing.
pub const RATIO_FREE_BYTES: usize = 4_096;

/// The most blocks marked final that may be followed by another one. Compressors write none or
/// one; each costs a copy of the window.
pub(crate) const FINAL_BLOCKS_MAX: usize = 64;

/// Bytes on the heap of zlib-rs's state with its window, measured.
const STATE_BYTES: usize = 47_600;

const WINDOW_BYTES: usize = 32_768;

/// The first size of the buffer; it doubles from there.
const BUFFER_BYTES_MIN: usize = 4_096;

/// The four bytes that the sender took off (RFC 7692, section 7.2.2), and an empty final block.
/// Only if the data before it ends with a block does the stream end exactly here and put out
/// nothing more: a message that was cut off is told from a whole one.
const END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];

const CORRUPT: WireError = WireError::Protocol("corrupt deflate data");

/// How much a message may inflate to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InflateLimits {
    /// Bytes of an inflated message.
    pub output_bytes_max: usize,
    /// Bytes of an inflated message per byte of the compressed one, beyond
    /// [`RATIO_FREE_BYTES`]. Deflate reaches 1,032 at most.
    pub ratio_max: usize,
}

/// Inflates messages, one after the other. Cheap to make and to take: what it needs (48 KB) is
/// allocated with the first message.
#[derive(Debug, Default)]
pub struct Inflater {
    stream: Option<Decompress>,
    output: Vec<u8>,
}

impl Inflater {
    /// Inflates one message without the four bytes that RFC 7692, section 7.2.1, takes off. An
    /// empty message is one byte, 0x00 (section 7.2.3.6); no byte at all is understood, too.
    /// After a block marked final others may follow (section 7.2.3.4) and see what came before;
    /// one that ends the message needs no empty block behind it.
    ///
    /// Cost: linear in what comes out, up to the caps, and in `compressed`.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] and [`WireError::RatioExceeded`] as soon as a cap is passed;
    /// [`WireError::Protocol`] for what is not deflate or ends within a block. That is 1002, as
    /// Chromium and Python's websockets say it: the frames break the extension that was agreed.
    /// (npm's ws says 1007, which RFC 6455 means for whole data of the wrong type.)
    pub fn inflate(
        &mut self,
        compressed: &[u8],
        limits: InflateLimits,
    ) -> Result<&[u8], WireError> {
        self.settle();
        if compressed.is_empty() {
            return Ok(&[]);
        }
        let stream = self.stream.get_or_insert_with(|| Decompress::new(false));
        stream.reset(false);
        let by_ratio = limits.ratio_max.saturating_mul(compressed.len()).max(RATIO_FREE_BYTES);
        let output_max = limits.output_bytes_max.min(by_ratio);
        let mut run = Run { stream, output: &mut self.output, filled: 0, output_max };
        match run.message(compressed) {
            Ok(()) => {}
            Err(Failure::Corrupt) => return Err(CORRUPT),
            Err(Failure::OverCap) if output_max == limits.output_bytes_max => {
                return Err(WireError::TooLarge { limit: output_max });
            }
            Err(Failure::OverCap) => {
                return Err(WireError::RatioExceeded { limit: limits.ratio_max });
            }
        }
        let filled = run.filled;
        Ok(&self.output[..filled])
    }

    /// Gives a buffer over [`KEPT_BYTES_MAX`] back. [`Self::inflate`] begins with it.
    pub fn settle(&mut self) {
        if self.output.capacity() > KEPT_BYTES_MAX {
            self.output = Vec::new();
        }
    }

    /// Heap that is held.
    pub fn memory_bytes(&self) -> usize {
        let stream = self.stream.as_ref().map_or(0, |_| allocation_bytes(STATE_BYTES));
        stream + allocation_bytes(self.output.capacity())
    }
}

enum Failure {
    Corrupt,
    OverCap,
}

/// One message being inflated.
struct Run<'a> {
    stream: &'a mut Decompress,
    output: &'a mut Vec<u8>,
    filled: usize,
    output_max: usize,
}

impl Run<'_> {
    fn message(&mut self, compressed: &[u8]) -> Result<(), Failure> {
        let mut input = compressed;
        let mut final_blocks = 0;
        while let Some(rest) = self.push(input)? {
            final_blocks += 1;
            if rest.is_empty() {
                return Ok(());
            }
            if final_blocks > FINAL_BLOCKS_MAX {
                return Err(Failure::Corrupt);
            }
            self.go_on_after_final_block()?;
            input = rest;
        }
        let before = self.filled;
        match self.push(&END)? {
            Some([]) if self.filled == before => Ok(()),
            _ => Err(Failure::Corrupt),
        }
    }

    /// Inflates all of `input`, or up to the end of a block marked final: then what is left of it
    /// comes back.
    fn push<'b>(&mut self, mut input: &'b [u8]) -> Result<Option<&'b [u8]>, Failure> {
        loop {
            if self.filled == self.output.len() {
                self.grow();
            }
            let end = self.output.len().min(self.output_max.saturating_add(1));
            let room = &mut self.output[self.filled..end];
            let (taken, given) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(input, room, FlushDecompress::None)
                .map_err(|_| Failure::Corrupt)?;
            let taken = (self.stream.total_in() - taken) as usize;
            let given = (self.stream.total_out() - given) as usize;
            input = &input[taken..];
            self.filled += given;
            if self.filled > self.output_max {
                return Err(Failure::OverCap);
            }
            if status == Status::StreamEnd {
                return Ok(Some(input));
            }
            if self.filled < end {
                if input.is_empty() {
                    return Ok(None);
                }
                if taken == 0 && given == 0 {
                    return Err(Failure::Corrupt);
                }
            }
        }
    }

    /// Makes room for at least one byte more: the buffer is full, but not over the cap. It may
    /// reach the one byte beyond that shows the cap to be passed.
    fn grow(&mut self) {
        let wanted = self.output.len().saturating_mul(2).max(BUFFER_BYTES_MIN);
        let length = wanted.min(self.output_max.saturating_add(1));
        self.output.reserve_exact(length - self.output.len());
        self.output.resize(length, 0);
    }

    /// Blocks behind a final one go on with its window (RFC 7692, section 7.2.1, and RFC 1951,
    /// section 2); zlib's stream has ended and is begun again with what it put out last.
    fn go_on_after_final_block(&mut self) -> Result<(), Failure> {
        self.stream.reset(false);
        let window = &self.output[self.filled.saturating_sub(WINDOW_BYTES)..self.filled];
        self.stream.set_dictionary(window).map_err(|_| Failure::Corrupt)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflate::Deflater;
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    const WIDE: InflateLimits = InflateLimits { output_bytes_max: 1 << 20, ratio_max: 2_000 };

    fn inflate(compressed: &[u8]) -> Result<Vec<u8>, WireError> {
        Inflater::default().inflate(compressed, WIDE).map(<[u8]>::to_vec)
    }

    /// A whole stream that ends with a final block.
    fn finished(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() * 2 + 64);
        let mut stream = Compress::new(Compression::best(), false);
        stream.compress_vec(payload, &mut out, FlushCompress::Finish).unwrap();
        out
    }

    /// Bytes with few repetitions, the same in every run.
    fn noise(count: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7692, sections 7.2.3.1, 7.2.3.3, 7.2.3.4, 7.2.3.5 and 7.2.3.6.
        let hello: [&[u8]; 4] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];
        for compressed in hello {
            assert_eq!(inflate(compressed), Ok(b"Hello".to_vec()), "{compressed:x?}");
        }
        assert_eq!(inflate(&[0x00]), Ok(vec![]));
        assert_eq!(inflate(&[]), Ok(vec![]));
    }

    #[test]
    fn blocks_behind_a_final_one_go_on_with_its_window() {
        let block = finished(b"Hello");
        assert_eq!(inflate(&block), Ok(b"Hello".to_vec()), "no empty block behind it");
        assert_eq!(inflate(&[&block[..], &block, &[0]].concat()), Ok(b"HelloHello".to_vec()));
        let match_five = fixed_match_of_five();
        assert_eq!(inflate(&[&block[..], &match_five, &[0]].concat()), Ok(b"HelloHello".to_vec()));
        assert_eq!(inflate(&[&match_five[..], &[0]].concat()), Err(CORRUPT), "nothing before");
    }

    /// A final block with fixed codes: a match of length 5 at distance 5 (RFC 1951, section
    /// 3.2.6), the end of the block, zeros up to the next byte.
    fn fixed_match_of_five() -> Vec<u8> {
        // BFINAL 1, BTYPE 01 (lowest bit first), length 5 is code 259: 0000011, distance 5 is
        // code 4: 00100 and one extra bit 0, end of block: 0000000.
        let bits = "1".to_owned() + "10" + "0000011" + "00100" + "0" + "0000000";
        let bits: Vec<u8> = bits.bytes().map(|bit| bit - b'0').collect();
        bits.chunks(8)
            .map(|byte| byte.iter().rev().fold(0, |value, bit| value << 1 | bit))
            .collect()
    }

    #[test]
    fn final_blocks_are_counted() {
        let block = finished(b"x");
        let of = |count: usize| inflate(&[&block.repeat(count)[..], &[0]].concat());
        assert_eq!(of(FINAL_BLOCKS_MAX), Ok(vec![b'x'; FINAL_BLOCKS_MAX]));
        assert_eq!(of(FINAL_BLOCKS_MAX + 1), Err(CORRUPT));
    }

    #[test]
    fn what_is_cut_or_spoiled_is_corrupt() {
        let whole = Deflater::default().deflate_tail(&noise(500));
        assert_eq!(inflate(&whole), Ok(noise(500)));
        // It begins with a stored block, and a first byte of 0x00 alone is an empty message.
        for cut in 2..whole.len() {
            assert_eq!(inflate(&whole[..cut]), Err(CORRUPT), "cut at {cut}");
        }
        let cases: [&[u8]; 6] = [
            &[0xFF],
            &[0x06],
            &[0x07, 1, 2, 3],
            &[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0x00, 0x00, 0x00, 0xff, 0xff],
            b"{\"type\":\"heartbeat\"}",
        ];
        for compressed in cases {
            assert_eq!(inflate(compressed), Err(CORRUPT), "{compressed:x?}");
        }
        let trailing = [&finished(b"Hello")[..], b"garbage"].concat();
        assert_eq!(inflate(&trailing), Err(CORRUPT));
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let bomb = Deflater::default().deflate_tail(&vec![0; 8 << 20]);
        assert!(bomb.len() < 40_000, "{}", bomb.len());
        let mut inflater = Inflater::default();
        let limits = InflateLimits { output_bytes_max: 100_000, ratio_max: usize::MAX };
        let error = inflater.inflate(&bomb, limits);
        assert_eq!(error, Err(WireError::TooLarge { limit: 100_000 }));
        assert_eq!(inflater.output.capacity(), 100_001);
        let limits = InflateLimits { output_bytes_max: 16 << 20, ratio_max: 3 };
        let error = inflater.inflate(&bomb, limits);
        assert_eq!(error, Err(WireError::RatioExceeded { limit: 3 }));
        assert!(inflater.output.capacity() <= 3 * bomb.len() + 1);
    }

    #[test]
    fn caps_hold_to_the_byte() {
        let mut inflater = Inflater::default();
        let mut at = |bytes: usize, output_bytes_max, ratio_max| {
            let compressed = Deflater::default().deflate_tail(&vec![b'a'; bytes]);
            let limits = InflateLimits { output_bytes_max, ratio_max };
            inflater.inflate(&compressed, limits).map(<[u8]>::len)
        };
        assert_eq!(at(10_000, 10_000, 2_000), Ok(10_000));
        assert_eq!(at(10_001, 10_000, 2_000), Err(WireError::TooLarge { limit: 10_000 }));
        assert_eq!(at(4_096, 10_000, 1), Ok(4_096));
        assert_eq!(at(4_097, 10_000, 1), Err(WireError::RatioExceeded { limit: 1 }));
        assert_eq!(at(1, 0, 1), Err(WireError::TooLarge { limit: 0 }));
        assert_eq!(at(0, 0, 0), Ok(0));
    }

    #[test]
    fn a_failed_message_leaves_nothing_behind() {
        let mut inflater = Inflater::default();
        let whole = Deflater::default().deflate_tail(b"Hello");
        assert_eq!(inflater.inflate(&[0x07, 1, 2], WIDE), Err(CORRUPT));
        assert_eq!(inflater.inflate(&whole, WIDE), Ok(&b"Hello"[..]));
        assert_eq!(inflater.inflate(&whole[..3], WIDE), Err(CORRUPT));
        assert_eq!(inflater.inflate(&[0], WIDE), Ok(&b""[..]));
    }

    #[test]
    fn a_large_buffer_is_given_back() {
        let mut inflater = Inflater::default();
        assert_eq!(inflater.memory_bytes(), 0);
        let large = Deflater::default().deflate_tail(&noise(KEPT_BYTES_MAX * 3));
        assert_eq!(inflater.inflate(&large, WIDE).unwrap().len(), KEPT_BYTES_MAX * 3);
        assert!(inflater.memory_bytes() > KEPT_BYTES_MAX * 3);
        inflater.settle();
        assert_eq!(inflater.output.capacity(), 0);
        let small = Deflater::default().deflate_tail(&noise(1_000));
        inflater.inflate(&small, WIDE).unwrap();
        inflater.settle();
        assert_eq!(inflater.output.capacity(), BUFFER_BYTES_MIN);
    }

    proptest! {
        #[test]
        fn what_was_deflated_comes_back(
            mut payload in proptest::collection::vec(any::<u8>(), 0..3_000),
            repeat in 1_usize..20,
        ) {
            payload = payload.repeat(repeat);
            let compressed = Deflater::default().deflate_tail(&payload);
            prop_assert_eq!(inflate(&compressed), Ok(payload.clone()));
            prop_assert_eq!(inflate(&finished(&payload)), Ok(payload));
        }

        #[test]
        fn garbage_stays_within_the_caps(
            garbage in proptest::collection::vec(any::<u8>(), 0..400),
            output_bytes_max in 0_usize..20_000,
            ratio_max in 0_usize..200,
        ) {
            let mut inflater = Inflater::default();
            let limits = InflateLimits { output_bytes_max, ratio_max };
            let by_ratio = (garbage.len() * ratio_max).max(RATIO_FREE_BYTES);
            if let Ok(output) = inflater.inflate(&garbage, limits) {
                prop_assert!(output.len() <= output_bytes_max.min(by_ratio));
            }
            prop_assert!(inflater.output.capacity() <= output_bytes_max.min(by_ratio) + 1);
        }
    }
}
