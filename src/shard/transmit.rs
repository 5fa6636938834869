//! Frames to vectored writes: per event only the frame header and `{"seq":N,` are made, in one
//! scratch that the shard reuses; the tail is the shared event's own bytes.

use std::io::IoSlice;

use super::limits::FRAMES_PER_SEND;
use crate::protocol::frame::{HEADER_BYTES_MAX, Opcode, put_header};

const PREFIX: &[u8] = b"{\"seq\":";
const SEQ_DIGITS_MAX: usize = 20;
const HEAD_BYTES_MAX: usize = HEADER_BYTES_MAX + PREFIX.len() + SEQ_DIGITS_MAX + 1;

/// One frame to send.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// An event: the head is made here.
    Event {
        /// The number on this connection.
        seq: u64,
        /// The shared rest of the text.
        tail: &'a [u8],
    },
    /// Bytes that are complete as they are.
    Whole(&'a [u8]),
}

impl Frame<'_> {
    /// Bytes on the wire.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Event { seq, tail } => event_frame_bytes(*seq, tail.len()),
            Self::Whole(bytes) => bytes.len(),
        }
    }
}

/// Bytes of an event's frame on the wire.
pub fn event_frame_bytes(seq: u64, tail_bytes: usize) -> usize {
    let payload = prefix_bytes(seq) + tail_bytes;
    let header = match payload {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    };
    header + payload
}

fn prefix_bytes(seq: u64) -> usize {
    PREFIX.len() + seq.checked_ilog10().unwrap_or(0) as usize + 1 + 1
}

/// Scratch for the heads of one send.
#[derive(Debug)]
pub struct Heads {
    bytes: [[u8; HEAD_BYTES_MAX]; FRAMES_PER_SEND],
    lengths: [usize; FRAMES_PER_SEND],
}

impl Default for Heads {
    fn default() -> Self {
        Self { bytes: [[0; HEAD_BYTES_MAX]; FRAMES_PER_SEND], lengths: [0; FRAMES_PER_SEND] }
    }
}

impl Heads {
    /// Calls `send` with the slices of up to [`FRAMES_PER_SEND`] frames, without the first `skip`
    /// bytes, and with their sum.
    pub fn gather<'a, R>(
        &mut self,
        frames: impl Iterator<Item = Frame<'a>>,
        skip: usize,
        send: impl FnOnce(&[IoSlice<'_>], usize) -> R,
    ) -> R {
        let mut tails = [&[][..]; FRAMES_PER_SEND];
        let mut count = 0;
        for frame in frames.take(FRAMES_PER_SEND) {
            match frame {
                Frame::Event { seq, tail } => {
                    self.lengths[count] = put_head(seq, tail.len(), &mut self.bytes[count]);
                    tails[count] = tail;
                }
                Frame::Whole(bytes) => {
                    self.lengths[count] = 0;
                    tails[count] = bytes;
                }
            }
            count += 1;
        }
        let mut slices = [IoSlice::new(&[]); FRAMES_PER_SEND * 2];
        let (mut used, mut total, mut skip) = (0, 0, skip);
        let heads = self.bytes.iter().zip(self.lengths).map(|(bytes, length)| &bytes[..length]);
        for (head, tail) in heads.zip(tails).take(count) {
            for part in [head, tail] {
                let cut = skip.min(part.len());
                skip -= cut;
                let part = &part[cut..];
                if !part.is_empty() {
                    slices[used] = IoSlice::new(part);
                    used += 1;
                    total += part.len();
                }
            }
        }
        send(&slices[..used], total)
    }
}

fn put_head(seq: u64, tail_bytes: usize, out: &mut [u8; HEAD_BYTES_MAX]) -> usize {
    let mut header = [0; HEADER_BYTES_MAX];
    let mut end = put_header(Opcode::Text, prefix_bytes(seq) + tail_bytes, &mut header);
    out[..end].copy_from_slice(&header[..end]);
    let mut digits = itoa::Buffer::new();
    for part in [PREFIX, digits.format(seq).as_bytes(), b","] {
        out[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(frames: &[Frame<'_>], skip: usize) -> Vec<u8> {
        Heads::default().gather(frames.iter().copied(), skip, |slices, total| {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(bytes.len(), total);
            bytes
        })
    }

    #[test]
    fn an_event_is_a_text_frame_with_its_seq() {
        let tail = br#""type":"t"}"#;
        let bytes = bytes_of(&[Frame::Event { seq: 1_234, tail }], 0);
        assert_eq!(bytes, [&[0x81, 23][..], br#"{"seq":1234,"type":"t"}"#].concat());
    }

    proptest! {
        #[test]
        fn lengths_and_skips_agree_with_the_bytes(
            seqs in proptest::collection::vec(prop_oneof![0_u64..2_000, any::<u64>()], 1..40),
            tail in prop_oneof![0_usize..200, 65_480..65_600_usize],
            skip in 0_usize..300,
        ) {
            let tail = vec![b'x'; tail];
            let whole = vec![b'w'; 7];
            let frames: Vec<Frame<'_>> = seqs
                .iter()
                .map(|&seq| match seq % 5 {
                    0 => Frame::Whole(&whole),
                    _ => Frame::Event { seq, tail: &tail },
                })
                .collect();
            let all = bytes_of(&frames, 0);
            let taken = frames.len().min(FRAMES_PER_SEND);
            prop_assert_eq!(all.len(), frames[..taken].iter().map(Frame::bytes).sum::<usize>());
            let skip = skip.min(frames[0].bytes());
            prop_assert_eq!(bytes_of(&frames, skip), &all[skip..]);
        }
    }
}
