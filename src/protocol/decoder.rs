//! The bytes of one connection to messages: frames, fragments, compression, UTF-8, control
//! frames.
//!
//! A frame that lies whole in the caller's buffer is unmasked there and handed out by reference;
//! only what is incomplete is kept, in one allocation that is gone when the message is. What is
//! compressed is inflated when all of it has come, into the caller's [`Inflater`]. Bounds: the
//! message limit that the caller passes (checked against the length that a header announces,
//! before anything is stored, and for a compressed message against what comes out as well), 14
//! bytes of header and 125 bytes of control payload.

use super::close::is_valid_on_wire;
use super::error::WireError;
use super::extension::Compression;
use super::frame::{
    CLIENT_HEADER_BYTES_MAX, CONTROL_BYTES_MAX, ClientHeader, Opcode, apply_mask,
    parse_client_header,
};
use super::inflate::{InflateLimits, Inflater};
use crate::heap::allocation_bytes;

/// What a connection's messages are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes of a message: as it came, fragments added up, and once inflated.
    pub message_bytes_max: usize,
    /// Whether messages may be compressed.
    pub compression: Compression,
    /// Bytes of a message once inflated per byte as it came; see [`InflateLimits`].
    pub ratio_max: usize,
}

impl DecodeLimits {
    /// The limits of a connection without compression.
    pub fn uncompressed(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, compression: Compression::Off, ratio_max: 1 }
    }

    fn inflate(self) -> InflateLimits {
        InflateLimits { output_bytes_max: self.message_bytes_max, ratio_max: self.ratio_max }
    }
}

/// A whole message or control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping to be answered with the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping.
    Pong(&'a [u8]),
    /// A close; `None` if it carried no code.
    Close(Option<u16>),
}

/// The state between two reads of one connection: nothing at all when no message is incomplete.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

#[derive(Debug, Default)]
struct Partial {
    header: [u8; CLIENT_HEADER_BYTES_MAX],
    header_filled: usize,
    frame: Option<FrameInFlight>,
    message: Option<MessageInFlight>,
    buffer: Vec<u8>,
    control: Vec<u8>,
    handed_out: bool,
}

#[derive(Debug, Clone, Copy)]
struct FrameInFlight {
    header: ClientHeader,
    received: usize,
}

#[derive(Debug, Clone, Copy)]
struct MessageInFlight {
    is_text: bool,
    is_compressed: bool,
    utf8_valid_up_to: usize,
}

impl Decoder {
    /// Takes bytes from the front of `bytes` and returns how many, and a message if they
    /// completed one. Call again with the rest until all are taken; call [`Self::settle`] then.
    /// `inflater` may be everybody's: nothing stays in it between two calls.
    ///
    /// # Errors
    /// The first rule that the client broke; the connection cannot go on after it.
    pub fn decode<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        limits: DecodeLimits,
        inflater: &'a mut Inflater,
    ) -> Result<(usize, Option<Input<'a>>), WireError> {
        self.settle();
        if self.partial.is_none() {
            match whole_frame(bytes, limits)? {
                Some(header) => return take_whole(bytes, header, limits, inflater),
                None => self.partial = Some(Box::default()),
            }
        }
        let partial = self.partial.as_mut().expect("set just above if it was not");
        partial.take(bytes, limits, inflater)
    }

    /// Frees what a message handed out by [`Self::decode`] was kept in.
    pub fn settle(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.settle();
            if partial.is_empty() {
                self.partial = None;
            }
        }
    }

    /// Whether no message is incomplete.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Heap that is held for what is incomplete.
    pub fn memory_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            allocation_bytes(size_of::<Partial>())
                + allocation_bytes(partial.buffer.capacity())
                + allocation_bytes(partial.control.capacity())
        })
    }
}

/// The header of a frame that is a whole message and lies whole in `bytes`.
fn whole_frame(bytes: &[u8], limits: DecodeLimits) -> Result<Option<ClientHeader>, WireError> {
    let Some(header) = parse_client_header(bytes, limits.compression)? else { return Ok(None) };
    check_length(&header, 0, limits.message_bytes_max)?;
    if header.opcode == Opcode::Continuation {
        return Err(WireError::Protocol("continuation of nothing"));
    }
    let is_whole = header.is_final && (bytes.len() - header.header_bytes) as u64 >= header.length;
    Ok(is_whole.then_some(header))
}

fn take_whole<'a>(
    bytes: &'a mut [u8],
    header: ClientHeader,
    limits: DecodeLimits,
    inflater: &'a mut Inflater,
) -> Result<(usize, Option<Input<'a>>), WireError> {
    let end = header.header_bytes + header.length as usize;
    let payload = &mut bytes[header.header_bytes..end];
    apply_mask(payload, header.mask, 0);
    let payload = match &*payload {
        compressed if header.is_compressed => inflater.inflate(compressed, limits.inflate())?,
        payload => payload,
    };
    let input = match header.opcode {
        Opcode::Text => text(payload)?,
        Opcode::Binary => Input::Binary(payload),
        Opcode::Continuation => return Err(WireError::Protocol("continuation of nothing")),
        Opcode::Ping => Input::Ping(payload),
        Opcode::Pong => Input::Pong(payload),
        Opcode::Close => Input::Close(parse_close(payload)?),
    };
    Ok((end, Some(input)))
}

fn text(payload: &[u8]) -> Result<Input<'_>, WireError> {
    Ok(Input::Text(std::str::from_utf8(payload).map_err(|_| WireError::InvalidUtf8)?))
}

fn check_length(header: &ClientHeader, before: usize, limit: usize) -> Result<(), WireError> {
    if !header.opcode.is_control() && header.length > limit.saturating_sub(before) as u64 {
        return Err(WireError::TooLarge { limit });
    }
    Ok(())
}

fn parse_close(payload: &[u8]) -> Result<Option<u16>, WireError> {
    match payload {
        [] => Ok(None),
        [_] => Err(WireError::Protocol("close payload of one byte")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_valid_on_wire(code) {
                return Err(WireError::Protocol("invalid close code"));
            }
            std::str::from_utf8(reason).map_err(|_| WireError::InvalidUtf8)?;
            Ok(Some(code))
        }
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.header_filled == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn settle(&mut self) {
        if self.handed_out {
            self.handed_out = false;
            self.buffer = Vec::new();
        }
        if self.frame.is_none() {
            self.control.clear();
        }
    }

    fn take<'a>(
        &'a mut self,
        bytes: &mut [u8],
        limits: DecodeLimits,
        inflater: &'a mut Inflater,
    ) -> Result<(usize, Option<Input<'a>>), WireError> {
        let mut used = 0;
        if self.frame.is_none() {
            used = self.take_header(bytes, limits)?;
        }
        let Some(frame) = &mut self.frame else { return Ok((used, None)) };
        let length = frame.header.length as usize;
        let count = (length - frame.received).min(bytes.len() - used);
        let payload = &mut bytes[used..used + count];
        apply_mask(payload, frame.header.mask, frame.received);
        frame.received += count;
        let (header, is_complete) = (frame.header, frame.received == length);
        if header.opcode.is_control() {
            self.control.extend_from_slice(payload);
        } else {
            self.buffer.extend_from_slice(payload);
            self.check_utf8(header.is_final && is_complete)?;
        }
        used += count;
        if !is_complete {
            return Ok((used, None));
        }
        self.frame = None;
        Ok((used, self.complete(header, limits, inflater)?))
    }

    /// Moves header bytes in until the header is whole, and opens its frame.
    fn take_header(&mut self, bytes: &[u8], limits: DecodeLimits) -> Result<usize, WireError> {
        let before = self.header_filled;
        let count = (CLIENT_HEADER_BYTES_MAX - before).min(bytes.len());
        self.header[before..before + count].copy_from_slice(&bytes[..count]);
        self.header_filled += count;
        let filled = &self.header[..self.header_filled];
        let Some(header) = parse_client_header(filled, limits.compression)? else {
            return Ok(count);
        };
        self.header_filled = 0;
        check_length(&header, self.buffer.len(), limits.message_bytes_max)?;
        match (header.opcode, self.message) {
            (Opcode::Continuation, None) => {
                return Err(WireError::Protocol("continuation of nothing"));
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(WireError::Protocol("new message inside a fragmented one"));
            }
            (Opcode::Text | Opcode::Binary, None) => {
                self.message = Some(MessageInFlight {
                    is_text: header.opcode == Opcode::Text,
                    is_compressed: header.is_compressed,
                    utf8_valid_up_to: 0,
                });
            }
            _ => {}
        }
        self.frame = Some(FrameInFlight { header, received: 0 });
        Ok(header.header_bytes - before)
    }

    /// Fails on the first byte that cannot become UTF-8; a character may be cut between reads.
    /// Compressed text is checked once it is inflated.
    fn check_utf8(&mut self, at_end: bool) -> Result<(), WireError> {
        let Some(message) = &mut self.message else { return Ok(()) };
        if !message.is_text || message.is_compressed {
            return Ok(());
        }
        match std::str::from_utf8(&self.buffer[message.utf8_valid_up_to..]) {
            Ok(_) => message.utf8_valid_up_to = self.buffer.len(),
            Err(error) if error.error_len().is_none() && !at_end => {
                message.utf8_valid_up_to += error.valid_up_to();
            }
            Err(_) => return Err(WireError::InvalidUtf8),
        }
        Ok(())
    }

    fn complete<'a>(
        &'a mut self,
        header: ClientHeader,
        limits: DecodeLimits,
        inflater: &'a mut Inflater,
    ) -> Result<Option<Input<'a>>, WireError> {
        let input = match header.opcode {
            Opcode::Ping => Input::Ping(&self.control),
            Opcode::Pong => Input::Pong(&self.control),
            Opcode::Close => Input::Close(parse_close(&self.control)?),
            _ if !header.is_final => return Ok(None),
            _ => {
                self.handed_out = true;
                let message = self.message.take();
                let payload = match message {
                    Some(MessageInFlight { is_compressed: true, .. }) => {
                        inflater.inflate(&self.buffer, limits.inflate())?
                    }
                    _ => &self.buffer[..],
                };
                match message {
                    // Checked piece by piece as it came; once more is cheaper than unsafe.
                    Some(MessageInFlight { is_text: true, .. }) => text(payload)?,
                    _ => Input::Binary(payload),
                }
            }
        };
        debug_assert!(self.control.len() <= CONTROL_BYTES_MAX);
        Ok(Some(input))
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflate::Deflater;
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1_000;

    const LIMITS: DecodeLimits = DecodeLimits {
        message_bytes_max: LIMIT,
        compression: Compression::Deflate,
        ratio_max: 2_000,
    };

    /// The first byte's bit of a compressed message.
    const RSV1: u8 = 0x40;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Owned {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>),
    }

    impl From<Input<'_>> for Owned {
        fn from(input: Input<'_>) -> Self {
            match input {
                Input::Text(text) => Self::Text(text.into()),
                Input::Binary(bytes) => Self::Binary(bytes.into()),
                Input::Ping(bytes) => Self::Ping(bytes.into()),
                Input::Pong(bytes) => Self::Pong(bytes.into()),
                Input::Close(code) => Self::Close(code),
            }
        }
    }

    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 200, 33, 90];
        let mut out = vec![first];
        match payload.len() {
            length @ 0..=125 => out.push(0x80 | length as u8),
            length @ 126..=65_535 => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        let mut masked = payload.to_vec();
        apply_mask(&mut masked, mask, 0);
        out.extend(masked);
        out
    }

    fn deflated(payload: &[u8]) -> Vec<u8> {
        Deflater::default().deflate_tail(payload).into()
    }

    /// The frames of one message, cut at `cuts`.
    fn fragments(first: u8, payload: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut start = 0;
        for (index, cut) in cuts.iter().chain([&payload.len()]).enumerate() {
            let fin = if index == cuts.len() { 0x80 } else { 0 };
            let first = if index == 0 { first } else { 0 };
            stream.extend(client_frame(fin | first, &payload[start..*cut]));
            start = *cut;
        }
        stream
    }

    /// Feeds `stream` in pieces that end at `cuts`.
    fn decode_in_pieces(
        decoder: &mut Decoder,
        stream: &[u8],
        cuts: &[usize],
    ) -> Result<Vec<Owned>, WireError> {
        decode_within(LIMITS, decoder, stream, cuts)
    }

    fn decode_within(
        limits: DecodeLimits,
        decoder: &mut Decoder,
        stream: &[u8],
        cuts: &[usize],
    ) -> Result<Vec<Owned>, WireError> {
        let mut inflater = Inflater::default();
        let mut inputs = Vec::new();
        let mut start = 0;
        for end in cuts.iter().copied().chain([stream.len()]) {
            let mut piece = stream[start..end].to_vec();
            let mut rest = &mut piece[..];
            while !rest.is_empty() {
                let (used, input) = decoder.decode(rest, limits, &mut inflater)?;
                inputs.extend(input.map(Owned::from));
                rest = &mut rest[used..];
            }
            decoder.settle();
            start = end;
        }
        Ok(inputs)
    }

    fn decode_at_every_split(stream: &[u8]) -> Vec<Result<Vec<Owned>, WireError>> {
        let mut results = Vec::new();
        for cut in 0..=stream.len() {
            results.push(decode_in_pieces(&mut Decoder::default(), stream, &[cut]));
        }
        let every_byte: Vec<usize> = (0..stream.len()).collect();
        results.push(decode_in_pieces(&mut Decoder::default(), stream, &every_byte));
        results
    }

    #[test]
    fn a_fragmented_message_with_a_ping_inside_survives_any_split() {
        let stream = [
            client_frame(0x01, "hällo ".as_bytes()),
            client_frame(0x89, b"are you there"),
            client_frame(0x00, b""),
            client_frame(0x80, "wörld".as_bytes()),
            client_frame(0x82, &[0xFF; 200]),
            client_frame(0x88, &[0x03, 0xE8, b'b', b'y', b'e']),
        ]
        .concat();
        let expected = vec![
            Owned::Ping(b"are you there".to_vec()),
            Owned::Text("hällo wörld".into()),
            Owned::Binary(vec![0xFF; 200]),
            Owned::Close(Some(1000)),
        ];
        for result in decode_at_every_split(&stream) {
            assert_eq!(result.as_ref(), Ok(&expected));
        }
    }

    #[test]
    fn compressed_messages_survive_any_split() {
        let text = "hällo wörld, ".repeat(60);
        let compressed = deflated(text.as_bytes());
        let stream = [
            client_frame(0x81 | RSV1, &compressed),
            client_frame(0x01 | RSV1, &compressed[..7]),
            client_frame(0x8A, b"pong"),
            client_frame(0x00, &[]),
            client_frame(0x80, &compressed[7..]),
            client_frame(0x82 | RSV1, &deflated(&[0xFF; 900])),
            client_frame(0x81 | RSV1, &[0]),
            client_frame(0x01 | RSV1, &[]),
            client_frame(0x80, &[0]),
            client_frame(0x81, b"plain"),
        ]
        .concat();
        let expected = vec![
            Owned::Text(text.clone()),
            Owned::Pong(b"pong".to_vec()),
            Owned::Text(text),
            Owned::Binary(vec![0xFF; 900]),
            Owned::Text(String::new()),
            Owned::Text(String::new()),
            Owned::Text("plain".into()),
        ];
        for result in decode_at_every_split(&stream) {
            assert_eq!(result.as_ref(), Ok(&expected));
        }
    }

    #[test]
    fn compressed_text_may_be_cut_anywhere() {
        let compressed = deflated("éééé".as_bytes());
        for cut in 0..=compressed.len() {
            let stream = fragments(0x01 | RSV1, &compressed, &[cut]);
            let result = decode_in_pieces(&mut Decoder::default(), &stream, &[]);
            assert_eq!(result, Ok(vec![Owned::Text("éééé".into())]));
        }
    }

    #[test]
    fn each_broken_rule_is_found_at_any_split() {
        let protocol = WireError::Protocol;
        let cases = [
            (client_frame(0x80, b"x"), protocol("continuation of nothing")),
            (
                [client_frame(0x01, b"x"), client_frame(0x81, b"y")].concat(),
                protocol("new message inside a fragmented one"),
            ),
            (client_frame(0x88, &[3]), protocol("close payload of one byte")),
            (client_frame(0x88, &[3, 0xED]), protocol("invalid close code")),
            (client_frame(0x88, &[3, 0xE8, 0xFF]), WireError::InvalidUtf8),
            (client_frame(0x81, &[0xCE, 0xBA, 0xE1, 0xBD]), WireError::InvalidUtf8),
            (client_frame(0x81, &[0xED, 0xA0, 0x80]), WireError::InvalidUtf8),
            (client_frame(0x82, &[0; LIMIT + 1]), WireError::TooLarge { limit: LIMIT }),
            (
                [client_frame(0x02, &[0; 600]), client_frame(0x80, &[0; 401])].concat(),
                WireError::TooLarge { limit: LIMIT },
            ),
            (
                [client_frame(0x02 | RSV1, &[0; 600]), client_frame(0x80, &[0; 401])].concat(),
                WireError::TooLarge { limit: LIMIT },
            ),
            (
                client_frame(0x82 | RSV1, &deflated(&[0; LIMIT + 1])),
                WireError::TooLarge { limit: LIMIT },
            ),
            (
                [client_frame(0x01, b"x"), client_frame(0x80 | RSV1, b"y")].concat(),
                protocol("compression marked inside a message"),
            ),
            (
                [client_frame(0x01 | RSV1, b"x"), client_frame(0x80 | RSV1, b"y")].concat(),
                protocol("compression marked inside a message"),
            ),
            (client_frame(0x89 | RSV1, b"x"), protocol("compression marked inside a message")),
            (client_frame(0x81 | RSV1, b"plain"), protocol("corrupt deflate data")),
            (client_frame(0x81 | RSV1, &deflated(&[0xCE, 0xBA, 0xE1])), WireError::InvalidUtf8),
            (fragments(0x01 | RSV1, &deflated(&[b'a', 0xFF]), &[2]), WireError::InvalidUtf8),
        ];
        for (stream, error) in cases {
            for result in decode_at_every_split(&stream) {
                assert_eq!(result, Err(error), "{stream:x?}");
            }
        }
    }

    #[test]
    fn invalid_text_is_refused_before_its_frame_ends() {
        let stream = client_frame(0x81, &[&[b'a', 0xFF][..], &[b'b'; 100]].concat());
        let result = decode_in_pieces(&mut Decoder::default(), &stream[..8], &[]);
        assert_eq!(result, Err(WireError::InvalidUtf8));
    }

    #[test]
    fn compression_that_was_not_agreed_is_refused() {
        let limits = DecodeLimits::uncompressed(LIMIT);
        for first in [0x81, 0x01, 0x82, 0x80, 0x89] {
            let stream = client_frame(first | RSV1, &[0]);
            let result = decode_within(limits, &mut Decoder::default(), &stream, &[]);
            assert_eq!(result, Err(WireError::Protocol("reserved bit set")), "{first:x}");
        }
    }

    #[test]
    fn a_message_that_inflates_too_far_is_refused() {
        let limits = DecodeLimits { message_bytes_max: 1 << 20, ratio_max: 50, ..LIMITS };
        let stream = client_frame(0x81 | RSV1, &deflated(&[b'a'; 10_000]));
        for cuts in [&[][..], &[1], &[10]] {
            let result = decode_within(limits, &mut Decoder::default(), &stream, cuts);
            assert_eq!(result, Err(WireError::RatioExceeded { limit: 50 }));
        }
    }

    #[test]
    fn idle_is_one_pointer() {
        assert_eq!(size_of::<Decoder>(), 8);
        let mut decoder = Decoder::default();
        let stream = fragments(0x01 | RSV1, &deflated(b"twice"), &[1, 2, 3]).repeat(2);
        decode_in_pieces(&mut decoder, &stream, &[3, 9, 20]).unwrap();
        assert!(decoder.partial.is_none());
    }

    #[test]
    fn a_message_of_very_many_fragments_is_one_message() {
        const COUNT: usize = 65_537;
        let limits = DecodeLimits { message_bytes_max: 1 << 20, ..LIMITS };
        let cuts: Vec<usize> = (1..COUNT).collect();
        let plain = vec![b'x'; COUNT];
        let random: Vec<u8> = (0..COUNT as u32).map(|n| (n.wrapping_mul(n) >> 9) as u8).collect();
        let compressed = deflated(&random);
        assert!(compressed.len() > 10_000, "{}", compressed.len());
        let all_cuts: Vec<usize> = (1..compressed.len()).collect();
        let cases = [
            (fragments(0x01, &plain, &cuts), Owned::Text("x".repeat(COUNT))),
            (fragments(0x02 | RSV1, &compressed, &all_cuts), Owned::Binary(random)),
            (fragments(0x01, b"", &vec![0; COUNT]), Owned::Text(String::new())),
        ];
        for (stream, expected) in cases {
            let result = decode_within(limits, &mut Decoder::default(), &stream, &[]);
            assert_eq!(result, Ok(vec![expected]));
        }
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut decoder = Decoder::default();
        let stream = client_frame(0x82, &[1; LIMIT]);
        decode_in_pieces(&mut decoder, &stream[..20], &[]).unwrap();
        assert!(decoder.memory_bytes() < 400, "{}", decoder.memory_bytes());
    }

    fn any_message() -> impl Strategy<Value = (Vec<Owned>, Vec<u8>)> {
        let chunks = proptest::collection::vec(0_usize..300, 0..3);
        (0_u8..6, "\\PC{0,120}", proptest::collection::vec(any::<u8>(), 0..125), chunks).prop_map(
            |(kind, text, bytes, mut cuts)| {
                let (message, first, payload) = match kind {
                    0 => return (vec![Owned::Ping(bytes.clone())], client_frame(0x89, &bytes)),
                    1 => return (vec![Owned::Pong(bytes.clone())], client_frame(0x8A, &bytes)),
                    2 => (Owned::Text(text.clone()), 0x01, text.into_bytes()),
                    3 => (Owned::Binary(bytes.clone()), 0x02, bytes),
                    4 => (Owned::Text(text.clone()), 0x01 | RSV1, deflated(text.as_bytes())),
                    _ => (Owned::Binary(bytes.clone()), 0x02 | RSV1, deflated(&bytes)),
                };
                cuts.iter_mut().for_each(|cut| *cut = (*cut).min(payload.len()));
                cuts.sort_unstable();
                with_pings(message, &fragments(first, &payload, &cuts), cuts.len())
            },
        )
    }

    /// Puts a ping before each of the message's fragments but the first.
    fn with_pings(message: Owned, frames: &[u8], pings: usize) -> (Vec<Owned>, Vec<u8>) {
        let mut stream = Vec::new();
        let mut rest = frames;
        while !rest.is_empty() {
            let header = parse_client_header(rest, Compression::Deflate).unwrap().unwrap();
            let (frame, behind) = rest.split_at(header.header_bytes + header.length as usize);
            if header.opcode == Opcode::Continuation {
                stream.extend(client_frame(0x89, b"between"));
            }
            stream.extend_from_slice(frame);
            rest = behind;
        }
        let mut messages = vec![Owned::Ping(b"between".to_vec()); pings];
        messages.push(message);
        (messages, stream)
    }

    /// Frames with valid masks and lengths and anything else.
    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let opcodes = prop_oneof![Just(0_u8), Just(1), Just(2), Just(8), Just(9), Just(10)];
        let payload = proptest::collection::vec(any::<u8>(), 0..20);
        (opcodes, any::<bool>(), any::<bool>(), any::<bool>(), payload).prop_map(
            |(opcode, is_final, is_marked, is_deflated, payload)| {
                let first = opcode | u8::from(is_final) << 7 | u8::from(is_marked) << 6;
                let payload = if is_deflated { deflated(&payload) } else { payload };
                client_frame(first, &payload)
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_was_sent_arrives_however_it_is_split(
            messages in proptest::collection::vec(any_message(), 1..6),
            mut cuts in proptest::collection::vec(0_usize..2_000, 0..10),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let sent: Vec<Owned> = messages.into_iter().flat_map(|(messages, _)| messages).collect();
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(stream.len()));
            cuts.sort_unstable();
            let mut decoder = Decoder::default();
            prop_assert_eq!(decode_in_pieces(&mut decoder, &stream, &cuts), Ok(sent));
            prop_assert_eq!(decoder.memory_bytes(), 0);
        }

        #[test]
        fn any_split_gives_the_same_result_or_fails_too(
            stream in proptest::collection::vec(any_frame(), 1..8),
            mut cuts in proptest::collection::vec(0_usize..600, 0..10),
        ) {
            let stream = stream.concat();
            let whole = decode_in_pieces(&mut Decoder::default(), &stream, &[]);
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(stream.len()));
            cuts.sort_unstable();
            let split = decode_in_pieces(&mut Decoder::default(), &stream, &cuts);
            // Text of incomplete frames is refused sooner: only the rule may differ then.
            match whole {
                Ok(messages) => prop_assert_eq!(split, Ok(messages)),
                Err(_) => prop_assert!(split.is_err()),
            }
        }

        #[test]
        fn garbage_never_panics(
            stream in proptest::collection::vec(any::<u8>(), 0..400),
            cut in 0_usize..400,
        ) {
            let cut = cut.min(stream.len());
            drop(decode_in_pieces(&mut Decoder::default(), &stream, &[cut]));
        }
    }
}
