//! WebSocket frames (RFC 6455, section 5.2): headers out, headers in, masking.
//!
//! Reading uses tungstenite's header parser and adds the rules that it leaves to its caller.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::error::WireError;
use super::extension::Compression;

/// The longest header that a server sends: two bytes and a 64-bit length, no mask.
pub const HEADER_BYTES_MAX: usize = 10;

/// The longest header that a client sends: the same and a mask.
pub const CLIENT_HEADER_BYTES_MAX: usize = 14;

/// The longest payload of a control frame (section 5.5).
pub(crate) const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message that began before.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// Close, with an optional code and reason.
    Close,
    /// A ping to be answered.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    /// Whether it is a control frame, which may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn wire(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }
}

/// The header of a frame from a client, its rules checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHeader {
    /// Whether this is the last frame of its message.
    pub is_final: bool,
    /// Whether it begins a message that is compressed (RFC 7692, section 6).
    pub is_compressed: bool,
    /// What it carries.
    pub opcode: Opcode,
    /// The payload's bytes.
    pub length: u64,
    /// The masking key.
    pub mask: [u8; 4],
    /// Bytes that the header itself took.
    pub header_bytes: usize,
}

/// Reads the header of a client's frame; `None` if `bytes` do not hold all of it yet. With
/// [`Compression::Deflate`] RSV1 is legal on a frame of text or bytes: the first one of a message.
///
/// # Errors
/// [`WireError::Protocol`] for a reserved bit or opcode, RSV1 on a continuation or a control
/// frame, a frame without a mask, a length that is not minimal or over 2^63, a control frame that
/// is fragmented or over 125 bytes.
pub fn parse_client_header(
    bytes: &[u8],
    compression: Compression,
) -> Result<Option<ClientHeader>, WireError> {
    let mut cursor = Cursor::new(bytes);
    let Some((header, length)) =
        FrameHeader::parse(&mut cursor).map_err(|_| WireError::Protocol("reserved opcode"))?
    else {
        return Ok(None);
    };
    let header_bytes = cursor.position() as usize;
    let is_compressed = header.rsv1;
    if (is_compressed && compression == Compression::Off) || header.rsv2 || header.rsv3 {
        return Err(WireError::Protocol("reserved bit set"));
    }
    let Some(mask) = header.mask else {
        return Err(WireError::Protocol("frame without a mask"));
    };
    if length >> 63 != 0 || header.len(length) != header_bytes {
        return Err(WireError::Protocol("invalid payload length"));
    }
    let opcode = match header.opcode {
        OpCode::Data(Data::Continue) => Opcode::Continuation,
        OpCode::Data(Data::Text) => Opcode::Text,
        OpCode::Data(Data::Binary) => Opcode::Binary,
        OpCode::Control(Control::Close) => Opcode::Close,
        OpCode::Control(Control::Ping) => Opcode::Ping,
        OpCode::Control(Control::Pong) => Opcode::Pong,
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            return Err(WireError::Protocol("reserved opcode"));
        }
    };
    if is_compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(WireError::Protocol("compression marked inside a message"));
    }
    if opcode.is_control() && !header.is_final {
        return Err(WireError::Protocol("fragmented control frame"));
    }
    if opcode.is_control() && length > CONTROL_BYTES_MAX as u64 {
        return Err(WireError::Protocol("control frame over 125 bytes"));
    }
    let is_final = header.is_final;
    Ok(Some(ClientHeader { is_final, is_compressed, opcode, length, mask, header_bytes }))
}

/// Writes the header of an unfragmented server frame into `out`; returns its length.
pub fn put_header(opcode: Opcode, length: usize, out: &mut [u8; HEADER_BYTES_MAX]) -> usize {
    out[0] = FIN | opcode.wire();
    if length <= CONTROL_BYTES_MAX {
        out[1] = length as u8;
        2
    } else if let Ok(short) = u16::try_from(length) {
        out[1] = 126;
        out[2..4].copy_from_slice(&short.to_be_bytes());
        4
    } else {
        out[1] = 127;
        out[2..10].copy_from_slice(&(length as u64).to_be_bytes());
        10
    }
}

/// Marks the message of a frame as compressed: RSV1 (RFC 7692, section 6).
pub(crate) fn mark_compressed(frame: &mut [u8]) {
    frame[0] |= RSV1;
}

/// A whole unfragmented server frame.
pub(crate) fn encode(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let header_bytes = put_header(opcode, payload.len(), &mut header);
    let mut out = Vec::with_capacity(header_bytes + payload.len());
    out.extend_from_slice(&header[..header_bytes]);
    out.extend_from_slice(payload);
    out
}

/// A close frame. `reason` is at most 123 bytes.
pub(crate) fn encode_close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    assert!(payload.len() <= CONTROL_BYTES_MAX, "our own close reasons fit a control frame");
    encode(Opcode::Close, &payload)
}

/// Masks or unmasks in place (section 5.3); `offset` is how many bytes of the payload came
/// before.
pub(crate) fn apply_mask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut key = mask;
    key.rotate_left(offset % 4);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_headers_are_tungstenites() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 24] {
            let mut ours = [0; HEADER_BYTES_MAX];
            let count = put_header(Opcode::Text, length, &mut ours);
            let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
            let mut theirs = Vec::new();
            header.format(length as u64, &mut theirs).unwrap();
            assert_eq!(&ours[..count], theirs, "{length}");
        }
    }

    #[test]
    fn broken_headers_name_the_rule() {
        let cases: [(&[u8], &str); 9] = [
            (&[0xC1, 0x80, 0, 0, 0, 0], "reserved bit set"),
            (&[0xA1, 0x80, 0, 0, 0, 0], "reserved bit set"),
            (&[0x91, 0x80, 0, 0, 0, 0], "reserved bit set"),
            (&[0x83, 0x80, 0, 0, 0, 0], "reserved opcode"),
            (&[0x81, 0x00], "frame without a mask"),
            (&[0x81, 0xFE, 0, 125, 0, 0, 0, 0], "invalid payload length"),
            (&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "invalid payload length"),
            (&[0x09, 0x80, 0, 0, 0, 0], "fragmented control frame"),
            (&[0x89, 0xFE, 0, 126, 0, 0, 0, 0], "control frame over 125 bytes"),
        ];
        for (bytes, rule) in cases {
            let result = parse_client_header(bytes, Compression::Off);
            assert_eq!(result, Err(WireError::Protocol(rule)), "{bytes:x?}");
        }
    }

    #[test]
    fn rsv1_marks_the_first_frame_of_a_message_if_that_was_agreed() {
        for first in [0xC1, 0x41, 0xC2, 0x42] {
            let bytes = [first, 0x80, 0, 0, 0, 0];
            let header = parse_client_header(&bytes, Compression::Deflate).unwrap().unwrap();
            assert!(header.is_compressed);
            assert_eq!(header.is_final, first & FIN != 0);
            let off = parse_client_header(&bytes, Compression::Off);
            assert_eq!(off, Err(WireError::Protocol("reserved bit set")));
        }
        let inside = "compression marked inside a message";
        let cases = [
            (0xC0, inside),
            (0x40, inside),
            (0xC8, inside),
            (0xC9, inside),
            (0xCA, inside),
            (0xE1, "reserved bit set"),
            (0xD1, "reserved bit set"),
            (0xC3, "reserved opcode"),
        ];
        for (first, rule) in cases {
            let result = parse_client_header(&[first, 0x80, 0, 0, 0, 0], Compression::Deflate);
            assert_eq!(result, Err(WireError::Protocol(rule)), "{first:x}");
        }
    }

    proptest! {
        #[test]
        fn masking_in_pieces_is_masking_at_once(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            mask in any::<[u8; 4]>(),
            split in 0_usize..100,
        ) {
            let naive: Vec<u8> =
                payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            let split = split.min(payload.len());
            let mut pieces = payload;
            apply_mask(&mut pieces[..split], mask, 0);
            apply_mask(&mut pieces[split..], mask, split);
            prop_assert_eq!(pieces, naive);
        }
    }
}
