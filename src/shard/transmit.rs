//! Frames to vectored writes: per event only the frame header and `{"seq":N,` are made, in one
//! scratch that the shard reuses; the tail is the shared event's own bytes, plain or deflated.

use std::io::IoSlice;

use super::limits::FRAMES_PER_SEND;
use crate::event::Tail;
use crate::protocol::deflate::{STORED_HEADER_BYTES, put_stored_header};
use crate::protocol::frame::{HEADER_BYTES_MAX, Opcode, mark_compressed, put_header};

const PREFIX: &[u8] = b"{\"seq\":";
const SEQ_DIGITS_MAX: usize = 20;
const HEAD_BYTES_MAX: usize =
    HEADER_BYTES_MAX + STORED_HEADER_BYTES + PREFIX.len() + SEQ_DIGITS_MAX + 1;

/// One frame to send.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// An event: the head is made here.
    Event {
        /// The number on this connection.
        seq: u64,
        /// The shared rest.
        tail: Tail<'a>,
    },
    /// Bytes that are complete as they are.
    Whole(&'a [u8]),
}

impl Frame<'_> {
    /// Bytes on the wire.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Event { seq, tail } => event_frame_bytes(*seq, *tail),
            Self::Whole(bytes) => bytes.len(),
        }
    }
}

/// Bytes of an event's frame on the wire.
pub fn event_frame_bytes(seq: u64, tail: Tail<'_>) -> usize {
    let payload = payload_bytes(seq, tail);
    let header = match payload {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    };
    header + payload
}

fn payload_bytes(seq: u64, tail: Tail<'_>) -> usize {
    prefix_bytes(seq)
        + match tail {
            Tail::Plain(tail) => tail.len(),
            Tail::Deflated(tail) => STORED_HEADER_BYTES + tail.len(),
        }
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
                    self.lengths[count] = put_head(seq, tail, &mut self.bytes[count]);
                    let (Tail::Plain(tail) | Tail::Deflated(tail)) = tail;
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

fn put_head(seq: u64, tail: Tail<'_>, out: &mut [u8; HEAD_BYTES_MAX]) -> usize {
    let mut header = [0; HEADER_BYTES_MAX];
    let mut end = put_header(Opcode::Text, payload_bytes(seq, tail), &mut header);
    if let Tail::Deflated(_) = tail {
        mark_compressed(&mut header);
        put_stored_header(prefix_bytes(seq), &mut out[end..]);
        out[..end].copy_from_slice(&header[..end]);
        end += STORED_HEADER_BYTES;
    } else {
        out[..end].copy_from_slice(&header[..end]);
    }
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
    use crate::protocol::deflate::Deflater;
    use crate::protocol::inflate::{InflateLimits, Inflater};
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
        let bytes = bytes_of(&[Frame::Event { seq: 1_234, tail: Tail::Plain(tail) }], 0);
        assert_eq!(bytes, [&[0x81, 23][..], br#"{"seq":1234,"type":"t"}"#].concat());
    }

    #[test]
    fn a_deflated_event_is_a_stored_block_with_its_seq_and_the_shared_tail() {
        let text = format!("\"type\":\"t\",\"data\":[{}1]}}", "1,".repeat(200));
        let deflated = Deflater::default().deflate_tail(text.as_bytes());
        let tail = Tail::Deflated(&deflated);
        let bytes = bytes_of(&[Frame::Event { seq: 1_234, tail }], 0);
        assert_eq!(bytes.len(), event_frame_bytes(1_234, tail));
        assert_eq!(bytes[..2], [0xC1, bytes.len() as u8 - 2]);
        let limits = InflateLimits { output_bytes_max: 1_000, ratio_max: 1_000 };
        let mut inflater = Inflater::default();
        let inflated = inflater.inflate(&bytes[2..], limits).unwrap();
        assert_eq!(inflated, format!("{{\"seq\":1234,{text}").as_bytes());
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
                    1 => Frame::Event { seq, tail: Tail::Deflated(&tail) },
                    _ => Frame::Event { seq, tail: Tail::Plain(&tail) },
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
