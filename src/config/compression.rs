//! When messages are compressed, and what a client's compressed message may grow to.

use super::kinds::{Choice, Number};
use super::setting::{Scope, Section, Setting};
use crate::protocol::extension::Compression;

pub(super) const COMPRESSION: Setting<Choice<Compression>> =
    Setting::new("WS_COMPRESSION", "compression", Scope::Server, Choice::new(MODES))
        .default("auto")
        .help("auto: permessage-deflate with clients that offer it; off: never");

pub(super) const COMPRESSION_MIN_BYTES: Setting<Number<usize>> = Setting::new(
    "WS_COMPRESSION_MIN_BYTES",
    "compression-min-bytes",
    Scope::Serve,
    Number::new(0, 1 << 24),
)
.default("128")
.unit("bytes")
.help("bytes that an event has at least to be compressed");

/// A deflate stream cannot inflate to more than 1,032 times its bytes.
pub(super) const INFLATE_RATIO_MAX: Setting<Number<usize>> =
    Setting::new("WS_INFLATE_RATIO_MAX", "inflate-ratio-max", Scope::Server, Number::new(1, 1_032))
        .default("200")
        .unit("times")
        .help("times its bytes that a client's message over 4 KiB may inflate to");

pub(super) const SECTION: Section = Section {
    name: "compression",
    title: "Compression",
    settings: &[&COMPRESSION, &COMPRESSION_MIN_BYTES, &INFLATE_RATIO_MAX],
};

const MODES: &[(&str, Compression)] = &[("auto", Compression::Deflate), ("off", Compression::Off)];
