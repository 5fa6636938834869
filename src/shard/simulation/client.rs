//! The clients of the simulated world: what each asked for, must see and has seen.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::inflate::{InflateLimits, Inflater};
use crate::shard::ConnId;

/// One client: what it asked for and what it must see.
#[derive(Debug)]
pub(super) struct Client {
    pub id: ConnId,
    pub bytes: Vec<u8>,
    pub frames: Vec<(u8, Vec<u8>)>,
    pub patterns: BTreeSet<String>,
    /// Positions that must come, by the `seq` that they must have.
    pub expected: BTreeMap<u64, u64>,
    pub next_seq: u64,
    pub checked: usize,
    pub seen: BTreeMap<u64, u64>,
    /// The position of the newest event that came, replayed ones left out.
    pub position: u64,
    /// What the answer to its resume must say.
    pub recovers: Option<bool>,
    pub replaying: u64,
    /// Compressed frames that came.
    pub compressed: usize,
    /// The window that it offered, in bytes; 0 without compression.
    pub window: usize,
}

impl Client {
    /// Takes the whole frames out of what came.
    pub(super) fn take_frames(&mut self) {
        if self.bytes.starts_with(b"HTTP") {
            let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return;
            };
            self.bytes.drain(..end + 4);
        }
        loop {
            let (header, length) = match self.bytes[..] {
                [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
                [_, length, ..] if length < 126 => (2, usize::from(length)),
                [_, 127..=255, ..] => panic!("no frame is that long"),
                _ => return,
            };
            if self.bytes.len() < header + length {
                return;
            }
            let first = self.bytes[0];
            let mut payload = self.bytes[header..header + length].to_vec();
            if self.window > 0 && first == 0xC1 {
                let limits = InflateLimits { output_bytes_max: 65_536, ratio_max: 1_032 };
                payload = Inflater::default().inflate(&payload, limits).unwrap().to_vec();
                // All but what stands before the tail is within the window that was offered.
                assert!(payload.len() < self.window + 30);
                self.compressed += 1;
            } else {
                assert_eq!(first & 0xF0, 0x80, "unfragmented, no reserved bits");
            }
            self.frames.push((first & 0x0F, payload));
            self.bytes.drain(..header + length);
        }
    }
}
