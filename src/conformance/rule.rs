//! The rules of docs/client-guide.md that can be judged from outside, by name.

/// A rule of the client guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Subscribe,
    Stay,
    ComeBack,
    BackOff,
    RetryAfter,
    Drain,
    Pong,
    Resume,
    BySeq,
    Unknown,
    Hole,
    PrevZero,
    Resync,
    Recovered,
    NotRecovered,
    LateAnswer,
    Epoch,
    Source,
    Heartbeat,
    Silence,
    RateLimited,
    Rejected,
    OwnMistake,
    Repetition,
}

impl Rule {
    #[cfg(test)]
    pub(super) const ALL: [Self; 24] = [
        Self::Subscribe,
        Self::Stay,
        Self::ComeBack,
        Self::BackOff,
        Self::RetryAfter,
        Self::Drain,
        Self::Pong,
        Self::Resume,
        Self::BySeq,
        Self::Unknown,
        Self::Hole,
        Self::PrevZero,
        Self::Resync,
        Self::Recovered,
        Self::NotRecovered,
        Self::LateAnswer,
        Self::Epoch,
        Self::Source,
        Self::Heartbeat,
        Self::Silence,
        Self::RateLimited,
        Self::Rejected,
        Self::OwnMistake,
        Self::Repetition,
    ];

    /// The name, which the guide's table of rules has, too.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Stay => "stay",
            Self::ComeBack => "come-back",
            Self::BackOff => "back-off",
            Self::RetryAfter => "retry-after",
            Self::Drain => "drain-time",
            Self::Pong => "pong",
            Self::Resume => "resume",
            Self::BySeq => "events-by-seq",
            Self::Unknown => "ignore-unknown",
            Self::Hole => "hole",
            Self::PrevZero => "prev-0",
            Self::Resync => "resync",
            Self::Recovered => "recovered",
            Self::NotRecovered => "not-recovered",
            Self::LateAnswer => "late-answer",
            Self::Epoch => "epoch",
            Self::Source => "source",
            Self::Heartbeat => "heartbeat",
            Self::Silence => "silence",
            Self::RateLimited => "rate-limited",
            Self::Rejected => "rejected",
            Self::OwnMistake => "own-mistake",
            Self::Repetition => "repetition",
        }
    }
}
