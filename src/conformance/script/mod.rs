//! The scenarios: what the server says, and what it expects of the client.
//!
//! Each begins with a new connection and a stream of its own, whatever the client did before. Those
//! after which a client may end for good stand last.

mod closing;
mod patience;
mod position;
mod resume;
mod subscribe;

use super::rule::Rule;
use super::stage::Stage;
use super::verdict::Stop;

/// One scenario.
#[derive(Debug)]
pub(super) struct Scenario {
    pub name: &'static str,
    /// The rule that it tries.
    pub rule: Rule,
    /// What happens, in one line.
    pub about: &'static str,
    pub play: fn(&mut Stage<'_>) -> Result<(), Stop>,
}

const fn scenario(
    name: &'static str,
    rule: Rule,
    play: fn(&mut Stage<'_>) -> Result<(), Stop>,
    about: &'static str,
) -> Scenario {
    Scenario { name, rule, about, play }
}

/// All scenarios, in the order in which they are played.
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("plain", Rule::Resume, subscribe::plain, "events, a cut, a resume"),
    scenario("frames", Rule::Pong, subscribe::frames, "fragments, empty frames, pings"),
    scenario("unknown", Rule::Unknown, subscribe::unknown, "unknown types and members"),
    scenario("event-types", Rule::BySeq, subscribe::event_types, "events of type resync, error, …"),
    scenario(
        "rate-limited",
        Rule::RateLimited,
        patience::rate_limited,
        "subscribe is refused once",
    ),
    scenario("hole", Rule::Hole, position::hole, "seq has a hole, replay has nothing"),
    scenario("hole-filled", Rule::Hole, position::hole_filled, "seq has a hole, replay fills it"),
    scenario("prev-0", Rule::PrevZero, position::prev_zero, "an event that proves nothing"),
    scenario("resync-cut", Rule::Resync, position::resync_cut, "resync, then the end"),
    scenario(
        "resync-prev-0",
        Rule::Resync,
        position::resync_prev_zero,
        "resync, event with prev 0",
    ),
    scenario("resync-event", Rule::Resync, position::resync_event, "resync, event with a prev"),
    scenario("resync-heartbeat", Rule::Resync, position::resync_heartbeat, "resync, heartbeat"),
    scenario("resync-epoch", Rule::Epoch, position::resync_epoch, "resync with a new epoch"),
    scenario("heartbeat", Rule::Heartbeat, position::heartbeat, "the position of a heartbeat"),
    scenario("heartbeat-bare", Rule::Heartbeat, position::heartbeat_bare, "heartbeats without one"),
    scenario("epoch-null", Rule::Epoch, position::epoch_null, "a server without a source so far"),
    scenario("epoch-late", Rule::Epoch, position::epoch_late, "events before the epoch is named"),
    scenario("source", Rule::Source, position::source, "source_stale and source_live"),
    scenario(
        "recovered-0",
        Rule::Recovered,
        resume::recovered_nothing,
        "recovered, nothing missed",
    ),
    scenario(
        "recovered-n",
        Rule::Recovered,
        resume::recovered_some,
        "recovered, cut before it came",
    ),
    scenario("not-recovered", Rule::NotRecovered, resume::not_recovered, "resume is refused"),
    scenario(
        "position-unknown",
        Rule::NotRecovered,
        resume::position_unknown,
        "an instance behind",
    ),
    scenario("loading", Rule::NotRecovered, resume::loading, "an instance that has no epoch yet"),
    scenario("late-answer", Rule::LateAnswer, resume::late_answer, "subscribed after heartbeats"),
    scenario("repetition", Rule::Repetition, resume::repetition, "events come again on a resume"),
    scenario("close-1001", Rule::ComeBack, closing::close_1001, "closed with 1001"),
    scenario("close-1008", Rule::ComeBack, closing::close_1008, "closed with 1008"),
    scenario("close-1012", Rule::ComeBack, closing::close_1012, "closed with 1012"),
    scenario("close-unknown", Rule::ComeBack, closing::close_unknown, "closed with 4999"),
    scenario("draining", Rule::Drain, closing::draining, "server_draining"),
    scenario("draining-twice", Rule::Drain, closing::draining_twice, "a second server_draining"),
    scenario("retry-after", Rule::RetryAfter, patience::retry_after, "503 with Retry-After"),
    scenario("back-off", Rule::BackOff, patience::back_off, "nobody is let in for 5 s"),
    scenario("silence", Rule::Silence, patience::silence, "a server that says nothing any more"),
    scenario("rejected", Rule::Rejected, patience::rejected, "a channel is rejected"),
    scenario("close-1002", Rule::OwnMistake, closing::close_1002, "closed with 1002 each time"),
    scenario("close-1003", Rule::OwnMistake, closing::close_1003, "closed with 1003 each time"),
    scenario("close-1007", Rule::OwnMistake, closing::close_1007, "closed with 1007 each time"),
    scenario("close-1009", Rule::OwnMistake, closing::close_1009, "closed with 1009 each time"),
];
