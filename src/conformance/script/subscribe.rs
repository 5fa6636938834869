//! Scenarios of a connection that works: the client understands what it is sent.

use std::time::Duration;

use serde_json::json;

use crate::conformance::message::Event;
use crate::conformance::rule::Rule;
use crate::conformance::stage::{START, Stage, expect, refuse_resume};
use crate::conformance::verdict::{Stop, broken};

/// Events come, the connection is cut: the client resumes from the last one.
pub(super) fn plain(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open()?;
    connection.event(START + 1, START - 10);
    connection.event(START + 7, START + 1);
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Resume, &[stage.at(START + 7)])
}

/// An event in three frames with an empty one and a ping between them. The client answers pings,
/// and resumes from that event.
pub(super) fn frames(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    let text = connection.next_event("token_trade", (START + 2, START + 1), "");
    connection.say_in_parts(&text, 3);
    stage.settle(&mut connection)?;
    if !connection.has_ponged(b"between two fragments") {
        return broken(Rule::Pong, "it did not answer a ping between two fragments");
    }
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Resume, &[stage.at(START + 2)])
}

/// Types and members of a later server: the client stays, and takes what it knows.
pub(super) fn unknown(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let (mut connection, subscribe) = stage.first()?;
    let mut answer = stage.at(START).json();
    answer["from_the_future"] = json!({"pos": 5});
    answer["recovered"] = false.into();
    answer["resume"] = json!({"reason": "from_the_future", "message": "", "further": null});
    connection.answer(&subscribe, answer);
    connection.say(&json!({"type": "weather", "pos": 77, "ts": 77, "epoch": "sunny"}));
    connection.say(&json!({"type": "error", "code": "from_the_future", "id": "never sent"}));
    connection.say(&json!({"no_type": true}));
    connection.event_as("token_trade", (START + 1, START - 10), ",\"from_the_future\":[{}]");
    if !stage.settle_or_leave(&mut connection)? {
        return broken(Rule::Unknown, "it closed the connection after what it did not know");
    }
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Unknown, &[stage.at(START + 1)])
}

/// Events whose publisher chose the types of the server's own messages.
pub(super) fn event_types(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    let types = [
        "subscribed",
        "heartbeat",
        "welcome",
        "source_stale",
        "server_draining",
        "error",
        "resync",
    ];
    for (kind, pos) in types.into_iter().zip(START + 2..) {
        connection.event_as(kind, (pos, pos - 1), "");
    }
    stage.settle(&mut connection)?;
    if stage.until(&mut connection, Duration::from_secs(1), |connection| !connection.is_open())? {
        return broken(Rule::BySeq, "it closed the connection after an event");
    }
    connection.cut();
    let (mut connection, subscribe) = stage.again()?;
    let last = START + 1 + types.len() as u64;
    expect(&subscribe, Rule::BySeq, &[stage.at(last)])?;
    // Also on another channel than the first, and as the first event of a connection.
    refuse_resume(&mut connection, &subscribe, Some(&stage.at(START)), "position_too_old");
    let channel = "odin.kit.other";
    let (pos, prev) = (START + 20, START - 10);
    let event = Event { seq: 1, kind: "resync", channel, pos, prev, further: "" };
    connection.say_text(event.text());
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::BySeq, &[stage.at(START + 20)])
}
