//! Bytes to compressed messages (RFC 7692, section 7.2.1), each with a window of its own.
//!
//! An event's frame is a stored block with what differs per connection, made by
//! [`put_stored_header`], and then the tail that was deflated once for everybody: distances in
//! it are counted backwards, so what stands before it does not disturb it. This module knows no
//! frames and no events. Bounds: a scratch buffer of a little over the longest input seen, given
//! back when it is over [`KEPT_BYTES_MAX`].

use flate2::{Compress, Compression, FlushCompress, Status};

use super::extension::WINDOW_BITS_MAX;
use crate::heap::allocation_bytes;

/// Bytes before the contents of a stored block that begins at a byte.
pub const STORED_HEADER_BYTES: usize = 5;

/// The longest scratch buffer that is kept from one message to the next.
pub(crate) const KEPT_BYTES_MAX: usize = 65_536;

/// By `cargo bench --bench deflate`, a JSON tail of 777 bytes: level 1 makes 558 of them in 5.8
/// us, 3 makes 400 in 15.3 us, 6 makes 399 in 15.8 us, 9 makes 401 in 19.1 us. A tail is deflated
/// once and sent many times, so bytes weigh more than the 10 us between 1 and 3.
const LEVEL: u32 = 3;

/// Bytes on the heap of zlib-rs's state with its window and tables, measured.
const STATE_BYTES: usize = 380_112;

/// What a sync flush ends with and a message leaves out (RFC 7692, section 7.2.1).
const FLUSH_END: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Deflates messages, one after the other. Cheap to make and to take: what it needs is allocated
/// with the first message.
#[derive(Debug, Default)]
pub struct Deflater {
    stream: Option<Compress>,
    scratch: Vec<u8>,
}

impl Deflater {
    /// Deflates `tail` with an empty window up to a sync flush, without the four bytes that
    /// RFC 7692, section 7.2.1, takes off. It can follow any block that ends at a byte, and it
    /// ends a message. Distances reach back at most `tail.len()` bytes.
    ///
    /// Cost: linear in `tail`, and clearing zlib's tables; one allocation of the result's size.
    pub fn deflate_tail(&mut self, tail: &[u8]) -> Box<[u8]> {
        let deflated = self.deflate(tail).into();
        self.settle();
        deflated
    }

    /// Deflates a whole message for a client that allows a window of 2^`window_bits` bytes.
    /// `None` if it would not become smaller, or is longer than that window. What is not longer
    /// may be deflated with the full window of 15 bits: no distance in a message exceeds its
    /// length, so one of at most 2^`window_bits` bytes keeps to the smaller window as it is
    /// (RFC 7692, section 7.1.2.1).
    pub fn compress_message(&mut self, payload: &[u8], window_bits: u8) -> Option<Vec<u8>> {
        if payload.len() > 1 << window_bits.min(WINDOW_BITS_MAX) {
            return None;
        }
        let deflated = self.deflate(payload);
        let compressed = (deflated.len() < payload.len()).then(|| deflated.to_vec());
        self.settle();
        compressed
    }

    /// Heap that is held.
    pub fn memory_bytes(&self) -> usize {
        let stream = self.stream.as_ref().map_or(0, |_| allocation_bytes(STATE_BYTES));
        stream + allocation_bytes(self.scratch.capacity())
    }

    fn deflate(&mut self, mut input: &[u8]) -> &[u8] {
        let stream =
            self.stream.get_or_insert_with(|| Compress::new(Compression::new(LEVEL), false));
        stream.reset();
        self.scratch.clear();
        // The least that incompressible data grows, so that one call is enough as a rule.
        self.scratch.reserve(input.len() + input.len() / 8 + 64);
        loop {
            let taken = stream.total_in();
            let status = stream
                .compress_vec(input, &mut self.scratch, FlushCompress::Sync)
                .expect("a fresh raw stream takes any bytes");
            input = &input[(stream.total_in() - taken) as usize..];
            let is_flushed = self.scratch.len() < self.scratch.capacity();
            if (input.is_empty() && is_flushed) || status == Status::StreamEnd {
                break;
            }
            self.scratch.reserve(input.len() + 64);
        }
        self.scratch.strip_suffix(&FLUSH_END).expect("a sync flush ends with an empty block")
    }

    fn settle(&mut self) {
        if self.scratch.capacity() > KEPT_BYTES_MAX {
            self.scratch = Vec::new();
        }
    }
}

/// Writes the header of a stored block of `len` bytes, not the last one, that begins at a byte,
/// to the first [`STORED_HEADER_BYTES`] of `out` (RFC 1951, section 3.2.4): 00, then `len` and
/// its complement, lowest byte first.
///
/// # Panics
/// If `len` is over 65,535 or `out` too short.
pub fn put_stored_header(len: usize, out: &mut [u8]) {
    let len = u16::try_from(len).expect("a stored block holds at most 65,535 bytes");
    out[0] = 0;
    out[1..3].copy_from_slice(&len.to_le_bytes());
    out[3..STORED_HEADER_BYTES].copy_from_slice(&(!len).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::inflate::{InflateLimits, Inflater};
    use super::*;
    use proptest::prelude::*;

    const WIDE: InflateLimits = InflateLimits { output_bytes_max: 1 << 22, ratio_max: 2_000 };

    fn stored(prefix: &[u8]) -> Vec<u8> {
        let mut out = vec![0; STORED_HEADER_BYTES];
        put_stored_header(prefix.len(), &mut out);
        out.extend_from_slice(prefix);
        out
    }

    #[test]
    fn a_stored_header_is_the_rfcs() {
        // RFC 7692, section 7.2.3.3.
        assert_eq!(stored(b"Hello")[..5], [0x00, 0x05, 0x00, 0xfa, 0xff]);
        let mut out = [9; 7];
        put_stored_header(65_535, &mut out);
        assert_eq!(out, [0, 0xFF, 0xFF, 0, 0, 9, 9]);
    }

    #[test]
    fn an_empty_message_is_one_byte() {
        assert_eq!(*Deflater::default().deflate_tail(b""), [0]);
        assert_eq!(Deflater::default().compress_message(b"", 15), None);
    }

    #[test]
    fn a_message_is_compressed_if_it_fits_the_window_and_shrinks() {
        let mut deflater = Deflater::default();
        for window_bits in 8..=15_u8 {
            let window = 1_usize << window_bits;
            let mut compress = |length| deflater.compress_message(&vec![b'x'; length], window_bits);
            assert!(compress(window).is_some_and(|it| it.len() < window), "{window_bits}");
            assert_eq!(compress(window + 1), None, "{window_bits}");
        }
        assert_eq!(deflater.compress_message(b"abc", 15), None);
        assert_eq!(deflater.compress_message(&vec![b'x'; 1 << 20], u8::MAX), None);
    }

    #[test]
    fn a_large_scratch_is_given_back() {
        let mut deflater = Deflater::default();
        assert_eq!(deflater.memory_bytes(), 0);
        let noise: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let deflated = deflater.deflate_tail(&noise);
        assert_eq!(Inflater::default().inflate(&deflated, WIDE), Ok(&noise[..]));
        assert_eq!(deflater.scratch.capacity(), 0);
        deflater.deflate_tail(b"small");
        assert!(deflater.scratch.capacity() > 0);
    }

    proptest! {
        #[test]
        fn a_stored_prefix_joins_with_any_tail(
            seq in any::<u64>(),
            tails in proptest::collection::vec(("\\PC{0,60}", 0_usize..40), 1..4),
        ) {
            let mut deflater = Deflater::default();
            let prefix = format!("{{\"seq\":{seq},");
            for (tail, repeat) in tails {
                let tail = tail.repeat(repeat);
                let message = [stored(prefix.as_bytes()), deflater.deflate_tail(tail.as_bytes()).into()];
                let expected = format!("{prefix}{tail}");
                let mut inflater = Inflater::default();
                prop_assert_eq!(inflater.inflate(&message.concat(), WIDE), Ok(expected.as_bytes()));
            }
        }

        #[test]
        fn a_reused_deflater_forgets_what_came_before(
            payloads in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..500), 1..5),
        ) {
            let mut reused = Deflater::default();
            for payload in payloads {
                let fresh = Deflater::default().deflate_tail(&payload);
                prop_assert_eq!(reused.deflate_tail(&payload), fresh);
            }
        }
    }
}
