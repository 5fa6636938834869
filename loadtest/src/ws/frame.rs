//! Frames of RFC 6455, section 5: a server's bytes to messages, and a client's frames.
//!
//! A whole frame is passed on without a copy; only incomplete ones are stored. Bound: the message
//! limit of [`ReadLimits`], checked before anything is stored.

use super::ProtocolError;
use super::deflate::Inflater;

/// Bytes of a control frame's payload (section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What came from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message. The receiver of this value checks its encoding (section 8.1).
    Text(&'a [u8]),
    /// A binary message.
    Binary,
    /// A ping; the answer has the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping.
    Pong,
    /// A close frame: the code, if there was one, and the reason.
    Close(Option<u16>, &'a [u8]),
}

/// What a reader takes.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Bytes of a message, before and after decompression.
    pub message_bytes_max: usize,
}

/// The state between two reads: 24 bytes, and heap only for what is incomplete.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// Bytes of a frame that is not complete.
    partial: Vec<u8>,
    /// A message in fragments.
    message: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    is_deflated: bool,
    payload: Vec<u8>,
}

struct Header {
    is_final: bool,
    is_deflated: bool,
    opcode: u8,
    bytes: usize,
    payload: usize,
}

/// Takes messages, and says how to read them.
struct Out<'a, F> {
    limits: &'a ReadLimits,
    inflater: Option<&'a mut Inflater>,
    on: &'a mut F,
}

impl<F: FnMut(Incoming<'_>) -> Result<(), ProtocolError>> Out<'_, F> {
    /// A message is complete.
    fn message(
        &mut self,
        payload: &[u8],
        is_text: bool,
        is_deflated: bool,
    ) -> Result<(), ProtocolError> {
        let plain = match &mut self.inflater {
            Some(inflater) if is_deflated => {
                inflater.inflate(payload, self.limits.message_bytes_max)?
            }
            _ => payload,
        };
        if is_text { (self.on)(Incoming::Text(plain)) } else { (self.on)(Incoming::Binary) }
    }
}

impl FrameReader {
    /// Takes bytes and hands out every message that they complete. `inflater` is there if
    /// compression was agreed.
    ///
    /// # Errors
    /// The first rule that the server broke, or what `on` returned; the connection cannot go on.
    pub fn read(
        &mut self,
        bytes: &[u8],
        limits: &ReadLimits,
        inflater: Option<&mut Inflater>,
        on: &mut impl FnMut(Incoming<'_>) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let mut out = Out { limits, inflater, on };
        let mut rest = bytes;
        while !self.partial.is_empty() {
            // Only the bytes that complete the frame are copied.
            let needed = match header(&self.partial, limits)? {
                None => self.partial.len() + 1,
                Some(header) => header.bytes + header.payload,
            };
            if needed > self.partial.len() {
                let taken = (needed - self.partial.len()).min(rest.len());
                self.partial.extend_from_slice(&rest[..taken]);
                rest = &rest[taken..];
                if self.partial.len() < needed {
                    return Ok(());
                }
                continue;
            }
            let frame = std::mem::take(&mut self.partial);
            self.take_frames(&frame, &mut out)?;
        }
        let used = self.take_frames(rest, &mut out)?;
        self.partial.extend_from_slice(&rest[used..]);
        Ok(())
    }

    /// Takes the whole frames at the front of `bytes`; how many bytes they are.
    fn take_frames<F: FnMut(Incoming<'_>) -> Result<(), ProtocolError>>(
        &mut self,
        bytes: &[u8],
        out: &mut Out<'_, F>,
    ) -> Result<usize, ProtocolError> {
        let mut used = 0;
        while let Some(header) = header(&bytes[used..], out.limits)? {
            let start = used + header.bytes;
            let Some(payload) = bytes.get(start..start + header.payload) else { break };
            used = start + header.payload;
            if header.opcode >= CLOSE {
                (out.on)(control(header.opcode, payload)?)?;
            } else {
                self.take_data(&header, payload, out)?;
            }
        }
        Ok(used)
    }

    fn take_data<F: FnMut(Incoming<'_>) -> Result<(), ProtocolError>>(
        &mut self,
        header: &Header,
        payload: &[u8],
        out: &mut Out<'_, F>,
    ) -> Result<(), ProtocolError> {
        if header.is_deflated && (out.inflater.is_none() || header.opcode == CONTINUATION) {
            return Err(ProtocolError::Frame("a reserved bit is set"));
        }
        match (&mut self.message, header.opcode, header.is_final) {
            (None, TEXT | BINARY, true) => {
                out.message(payload, header.opcode == TEXT, header.is_deflated)
            }
            (None, TEXT | BINARY, false) => {
                self.message = Some(Box::new(Fragments {
                    is_text: header.opcode == TEXT,
                    is_deflated: header.is_deflated,
                    payload: payload.to_vec(),
                }));
                Ok(())
            }
            (Some(message), CONTINUATION, is_final) => {
                let bytes_max = out.limits.message_bytes_max;
                if message.payload.len() + payload.len() > bytes_max {
                    return Err(ProtocolError::TooLarge(bytes_max));
                }
                message.payload.extend_from_slice(payload);
                match is_final.then(|| self.message.take()).flatten() {
                    None => Ok(()),
                    Some(whole) => out.message(&whole.payload, whole.is_text, whole.is_deflated),
                }
            }
            (None, ..) => Err(ProtocolError::Frame("a continuation of nothing")),
            (Some(_), ..) => Err(ProtocolError::Frame("a message within another")),
        }
    }
}

fn control(opcode: u8, payload: &[u8]) -> Result<Incoming<'_>, ProtocolError> {
    Ok(match opcode {
        PING => Incoming::Ping(payload),
        PONG => Incoming::Pong,
        _ => match payload {
            [] => Incoming::Close(None, payload),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    return Err(ProtocolError::Frame("a close code that may not be sent"));
                }
                std::str::from_utf8(reason).map_err(|_| ProtocolError::Utf8)?;
                Incoming::Close(Some(code), reason)
            }
            [_] => return Err(ProtocolError::Frame("a close payload of one byte")),
        },
    })
}

/// The header at the front of `bytes`; `None` if it is not complete.
fn header(bytes: &[u8], limits: &ReadLimits) -> Result<Option<Header>, ProtocolError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (is_final, opcode) = (first & 0x80 != 0, first & 0x0F);
    let is_control = opcode >= CLOSE;
    if first & 0x30 != 0 || (is_control && first & 0x40 != 0) {
        return Err(ProtocolError::Frame("a reserved bit is set"));
    }
    if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err(ProtocolError::Frame("an opcode that does not exist"));
    }
    if second & 0x80 != 0 {
        return Err(ProtocolError::Frame("a server must not mask"));
    }
    let (bytes, payload) = match (second & 0x7F, rest) {
        (126, [high, low, ..]) => {
            let length = u16::from_be_bytes([*high, *low]);
            (4, if length > 125 { Some(u64::from(length)) } else { None })
        }
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (10, if length > 0xFFFF { Some(length) } else { None })
        }
        (126 | 127, _) => return Ok(None),
        (length, _) => (2, Some(u64::from(length))),
    };
    let Some(payload) = payload else {
        return Err(ProtocolError::Frame("a length in more bytes than it needs"));
    };
    if is_control && (!is_final || payload > CONTROL_BYTES_MAX as u64) {
        return Err(ProtocolError::Frame("a control frame that is fragmented or too long"));
    }
    if payload > limits.message_bytes_max as u64 {
        return Err(ProtocolError::TooLarge(limits.message_bytes_max));
    }
    let is_deflated = first & 0x40 != 0;
    Ok(Some(Header { is_final, is_deflated, opcode, bytes, payload: payload as usize }))
}

/// Appends a client's frame, masked (section 5.3).
pub fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: [u8; 4]) {
    put_header(out, opcode, 0x80, payload.len());
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Appends a server's text frame, for the bare sender.
pub fn put_server_frame(out: &mut Vec<u8>, text: &[u8]) {
    put_header(out, TEXT, 0, text.len());
    out.extend_from_slice(text);
}

/// Bytes of the header of a server's frame.
pub fn server_header_bytes(payload: usize) -> usize {
    match payload {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    }
}

fn put_header(out: &mut Vec<u8>, opcode: u8, mask_bit: u8, payload: usize) {
    out.push(0x80 | opcode);
    match payload {
        0..=125 => out.push(mask_bit | payload as u8),
        126..=65_535 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
}

/// The payload of the client's frame at the front of `bytes`, for the bare sender; `None` if it is
/// not complete.
pub fn unmask(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, start) = match (bytes.get(1)? & 0x7F, bytes) {
        (126, [_, _, high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
        (126 | 127, _) => return None,
        (length, _) => (usize::from(length), 2),
    };
    let mask = bytes.get(start..start + 4)?;
    let payload = bytes.get(start + 4..start + 4 + length)?;
    Some(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: ReadLimits = ReadLimits { message_bytes_max: 200_000 };

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        put_frame(&mut masked, 0, payload, [0; 4]);
        // A server's: the same without the mask.
        let header = masked.len() - payload.len() - 4;
        let mut out = vec![first];
        out.push(masked[1] & 0x7F);
        out.extend_from_slice(&masked[2..header]);
        out.extend_from_slice(payload);
        out
    }

    fn read(reader: &mut FrameReader, bytes: &[u8]) -> Result<Vec<String>, ProtocolError> {
        let mut seen = Vec::new();
        reader.read(bytes, &LIMITS, None, &mut |incoming| {
            seen.push(match incoming {
                Incoming::Text(text) => {
                    String::from_utf8(text.to_vec()).map_err(|_| ProtocolError::Utf8)?
                }
                other => format!("{other:?}"),
            });
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn frames_of_both_sides_fit() {
        for length in [0, 125, 126, 700, 65_535, 65_536] {
            let text = "x".repeat(length);
            let mut out = Vec::new();
            put_server_frame(&mut out, text.as_bytes());
            assert_eq!(out.len(), length + server_header_bytes(length));
            assert_eq!(read(&mut FrameReader::default(), &out), Ok(vec![text.clone()]));
            let mut masked = Vec::new();
            put_frame(&mut masked, 1, text.as_bytes(), [1, 2, 3, 4]);
            if length <= 65_535 {
                assert_eq!(unmask(&masked), Some(text.into_bytes()));
                assert_eq!(unmask(&masked[..masked.len() - 1]), None);
            }
        }
    }

    #[test]
    fn a_masked_frame_unmasks() {
        let mut out = Vec::new();
        put_frame(&mut out, 1, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        let expected = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(out, expected, "the example of section 5.7");
    }

    #[test]
    fn broken_frames_are_named() {
        let long = vec![b'x'; 126];
        let cases: [(Vec<u8>, &str); 14] = [
            (vec![0x81, 0x80, 0, 0, 0, 0], "mask"),
            (vec![0xA1, 0], "reserved"),
            (vec![0xC1, 0], "reserved"),
            (vec![0x83, 0], "opcode"),
            (vec![0x09, 0], "fragmented"),
            (frame(0x89, &long), "too long"),
            (vec![0x81, 126, 0, 5], "more bytes"),
            (vec![0x81, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], "more bytes"),
            (frame(0x80, b"x"), "continuation"),
            ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), "within"),
            (frame(0x88, b"x"), "one byte"),
            (frame(0x88, &1005_u16.to_be_bytes()), "may not be sent"),
            (frame(0x81, b"\xff"), "UTF-8"),
            (vec![0x81, 127, 0, 0, 0, 0, 1, 0, 0, 0], "over 200000"),
        ];
        for (bytes, part) in cases {
            let error = read(&mut FrameReader::default(), &bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(
            texts in proptest::collection::vec((0_usize..70_000, 1_usize..4), 1..6),
            cuts in proptest::collection::vec(1_usize..9_000, 1..60),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (length, pieces) in texts {
                let text = "ab é"[..].chars().cycle().take(length).collect::<String>();
                let whole = text.as_bytes();
                for piece in 0..pieces {
                    let part = &whole[whole.len() * piece / pieces..whole.len() * (piece + 1) / pieces];
                    let is_last = if piece + 1 == pieces { 0x80 } else { 0 };
                    bytes.extend(frame(is_last | u8::from(piece == 0), part));
                    bytes.extend(frame(0x89, b"p"));
                    if is_last == 0 {
                        expected.push("Ping([112])".to_owned());
                    }
                }
                expected.push(text);
                expected.push("Ping([112])".to_owned());
            }
            let mut reader = FrameReader::default();
            let mut seen = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                seen.extend(read(&mut reader, now).unwrap());
                rest = later;
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(reader.partial.capacity(), 0);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(read(&mut FrameReader::default(), &bytes));
        }
    }
}
