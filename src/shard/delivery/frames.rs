//! Frames to the bytes of one send: per event only the frame header and `{"seq":N,` are made; the
//! tail is the shared event's own bytes, plain or deflated.

use crate::event::{Event, Tail};
use crate::heap::allocation_bytes;
use crate::protocol::deflate::{Deflater, STORED_HEADER_BYTES, put_stored_header};
use crate::protocol::dialect::Dialect;
use crate::protocol::frame::{self, HEADER_BYTES_MAX, Opcode, mark_compressed, put_header};
use crate::shard::limits::FRAMES_PER_SEND;

const PREFIX: &[u8] = b"{\"seq\":";
const SEQ_DIGITS_MAX: usize = 20;
const HEAD_BYTES_MAX: usize =
    HEADER_BYTES_MAX + STORED_HEADER_BYTES + PREFIX.len() + SEQ_DIGITS_MAX + 1;

/// One frame to send.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Frame<'a> {
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
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Event { seq, tail } => event_frame_bytes(*seq, *tail),
            Self::Whole(bytes) => bytes.len(),
        }
    }
}

/// Bytes of an event's frame on the wire.
pub(crate) fn event_frame_bytes(seq: u64, tail: Tail<'_>) -> usize {
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

/// Bytes of one send: more than a socket takes at once.
pub(super) const SEND_BYTES_MAX: usize = 65_536;

/// The bytes of one send, in a scratch that the shard reuses. They are copied together, which
/// costs less than having the kernel collect them: many small pieces are dear.
#[derive(Debug, Default)]
pub(crate) struct SendBuffer {
    bytes: Vec<u8>,
    frames: usize,
    is_cut: bool,
}

impl SendBuffer {
    /// Collects up to [`FRAMES_PER_SEND`] frames of up to [`SEND_BYTES_MAX`] bytes in all,
    /// without the first `skip` bytes; of a longer frame as much as that.
    pub(crate) fn collect<'a>(&mut self, frames: impl Iterator<Item = Frame<'a>>, skip: usize) {
        self.bytes.clear();
        self.frames = 0;
        self.is_cut = false;
        let mut skip = skip;
        for frame in frames.take(FRAMES_PER_SEND) {
            let length = frame.bytes() - skip;
            if self.frames > 0 && self.bytes.len() + length > SEND_BYTES_MAX {
                return;
            }
            self.is_cut = length > SEND_BYTES_MAX;
            self.push(frame, skip);
            self.frames += 1;
            skip = 0;
        }
    }

    /// What was collected.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many frames end in it, and begin or went on.
    pub(crate) fn frames(&self) -> usize {
        self.frames - usize::from(self.is_cut)
    }

    /// Heap that is held.
    pub(crate) fn memory_bytes(&self) -> usize {
        allocation_bytes(self.bytes.capacity())
    }

    fn push(&mut self, frame: Frame<'_>, mut skip: usize) {
        let mut scratch = [0; HEAD_BYTES_MAX];
        let (head, tail) = match frame {
            Frame::Event { seq, tail } => {
                let end = put_head(seq, tail, &mut scratch);
                let (Tail::Plain(tail) | Tail::Deflated(tail)) = tail;
                (&scratch[..end], tail)
            }
            Frame::Whole(bytes) => (&[][..], bytes),
        };
        for part in [head, tail] {
            let cut = skip.min(part.len());
            skip -= cut;
            let room = (part.len() - cut).min(SEND_BYTES_MAX - self.bytes.len());
            self.bytes.extend_from_slice(&part[cut..cut + room]);
        }
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

/// Has events compressed that somebody wants so, each once in the process.
#[derive(Debug)]
pub(crate) struct Encoder {
    deflater: Deflater,
    deflate_bytes_min: usize,
}

impl Encoder {
    /// Compresses texts of at least `deflate_bytes_min` bytes.
    pub(crate) fn new(deflate_bytes_min: usize) -> Self {
        Self { deflater: Deflater::default(), deflate_bytes_min }
    }

    /// Has an event in the form that `dialect` wants, if nobody has wanted it before.
    pub(crate) fn prepare(&mut self, event: &Event, dialect: Dialect) {
        if dialect.deflate.is_some() {
            event.deflate(&mut self.deflater, self.deflate_bytes_min);
        }
    }

    /// One message for one connection, as a whole frame.
    pub(crate) fn encode_message(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        dialect: Dialect,
    ) -> Vec<u8> {
        let compressed = dialect
            .deflate
            .and_then(|deflate| self.deflater.compress_message(payload, deflate.window_bits));
        let Some(compressed) = compressed else { return frame::encode(opcode, payload) };
        let mut encoded = frame::encode(opcode, &compressed);
        mark_compressed(&mut encoded);
        encoded
    }

    /// Heap that is held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.deflater.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::deflate::Deflater;
    use crate::protocol::inflate::{InflateLimits, Inflater};
    use proptest::prelude::*;

    fn bytes_of(frames: &[Frame<'_>], skip: usize) -> Vec<u8> {
        let mut buffer = SendBuffer::default();
        buffer.collect(frames.iter().copied(), skip);
        buffer.bytes
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
            let mut buffer = SendBuffer::default();
            buffer.collect(frames.iter().copied(), 0);
            let lengths: Vec<usize> = frames.iter().map(Frame::bytes).collect();
            let whole: usize = lengths[..buffer.frames()].iter().sum();
            let all = buffer.bytes().to_vec();
            if buffer.is_cut {
                prop_assert_eq!((buffer.frames(), all.len()), (0, SEND_BYTES_MAX));
            } else {
                prop_assert_eq!(all.len(), whole);
                let is_full = frames.get(buffer.frames())
                    .is_none_or(|next| whole + next.bytes() > SEND_BYTES_MAX);
                prop_assert!(is_full || buffer.frames() == FRAMES_PER_SEND);
            }
            // Bytes that were sent are left out, and room for later ones is used.
            let skip = skip.min(lengths[0]);
            let rest = bytes_of(&frames, skip);
            let common = rest.len().min(all.len() - skip);
            prop_assert_eq!(&rest[..common], &all[skip..skip + common]);
            prop_assert!(rest.len() + skip >= all.len());
        }
    }
}
