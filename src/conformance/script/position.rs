//! Scenarios of the position: what moves it, and what does not.

use std::time::Duration;

use serde_json::json;

use crate::conformance::connection::{Connection, Heartbeats, now_ms};
use crate::conformance::message::At;
use crate::conformance::rule::Rule;
use crate::conformance::stage::{START, Stage, expect, expect_if_any, recover, refuse_resume};
use crate::conformance::verdict::{Stop, not_exercised};

/// How long a client may take to ask for what is missing.
const REPLAY_WITHIN: Duration = Duration::from_secs(10);

/// The event `START + 2` is left out of `seq`. Returns its text.
fn leave_out(connection: &mut Connection) -> String {
    let missing = connection.next_event("token_trade", (START + 2, START + 1), "");
    connection.event(START + 3, START + 2);
    missing
}

/// `replay` cannot fill the hole: no resume from behind it.
pub(super) fn hole(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    leave_out(&mut connection);
    let before = connection.subscribes_total;
    if stage.settle_or_leave(&mut connection)? {
        let moment = Duration::from_secs(1);
        stage.until(&mut connection, moment, |connection| !connection.is_open())?;
    }
    let has_begun_anew = connection.subscribes_total > before;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    match has_begun_anew {
        // It loaded anew on the same connection: the newer answer's position is right.
        true => expect_if_any(&subscribe, Rule::Hole, &[stage.at(START + 1), stage.at(START + 3)]),
        false => expect_if_any(&subscribe, Rule::Hole, &[stage.at(START + 1)]),
    }
}

/// `replay` fills the hole: then the position may move on.
pub(super) fn hole_filled(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    let missing = leave_out(&mut connection);
    connection.held.insert(2, missing);
    let is_over = |connection: &Connection| connection.replays_total > 0 || !connection.is_open();
    stage.until(&mut connection, REPLAY_WITHIN.min(stage.patience), is_over)?;
    if connection.replays_total == 0 {
        return not_exercised("it did not ask for `replay`");
    }
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    let allowed = [START + 1, START + 2, START + 3].map(|pos| stage.at(pos));
    expect(&subscribe, Rule::Hole, &allowed)
}

/// An event with `prev` 0 is shown, but moves nothing; one with a `prev` does.
pub(super) fn prev_zero(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    connection.event(START + 5, 0);
    stage.settle(&mut connection)?;
    connection.cut();
    let (mut connection, subscribe) = stage.again()?;
    expect(&subscribe, Rule::PrevZero, &[stage.at(START + 1)])?;
    recover(&mut connection, &subscribe, &stage.at(START + 5), 1);
    connection.event(START + 5, START + 1);
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::PrevZero, &[stage.at(START + 5)])
}

fn resync(connection: &mut Connection, epoch: &str, reason: &str) {
    connection.say(&json!({"type": "resync", "epoch": epoch, "reason": reason}));
}

fn open_and_resync(stage: &mut Stage<'_>) -> Result<Connection, Stop> {
    let mut connection = stage.open_with_event()?;
    resync(&mut connection, &stage.at(0).epoch, "history_lost");
    stage.settle(&mut connection)?;
    Ok(connection)
}

/// After `resync` there is no position.
pub(super) fn resync_cut(stage: &mut Stage<'_>) -> Result<(), Stop> {
    open_and_resync(stage)?.cut();
    let (_, subscribe) = stage.again()?;
    expect_if_any(&subscribe, Rule::Resync, &[])
}

/// An event with `prev` 0 brings none.
pub(super) fn resync_prev_zero(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = open_and_resync(stage)?;
    connection.event(START + 10, 0);
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect_if_any(&subscribe, Rule::Resync, &[])
}

/// An event with a `prev` brings one.
pub(super) fn resync_event(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = open_and_resync(stage)?;
    connection.event(START + 10, 0);
    connection.event(START + 12, START + 10);
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Resync, &[stage.at(START + 12)])
}

/// A heartbeat brings one.
pub(super) fn resync_heartbeat(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = open_and_resync(stage)?;
    connection.set_heartbeats(Heartbeats::Position(stage.at(START + 20)));
    stage.heartbeats(&mut connection, 1)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Resync, &[stage.at(START + 20)])
}

/// Positions of the new stream are lower, and belong to its epoch.
pub(super) fn resync_epoch(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    let epoch = format!("{}-again", stage.at(0).epoch);
    resync(&mut connection, &epoch, "stream_recreated");
    connection.event(5, 0);
    connection.event(7, 5);
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Epoch, &[At::new(&epoch, 7)])
}

/// The position of a heartbeat counts; that of another epoch does not.
pub(super) fn heartbeat(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    connection.set_heartbeats(Heartbeats::Position(stage.at(START + 40)));
    stage.heartbeats(&mut connection, 1)?;
    connection.cut();
    let (mut connection, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Heartbeat, &[stage.at(START + 40)])?;
    recover(&mut connection, &subscribe, &stage.at(START + 40), 0);
    connection.set_heartbeats(Heartbeats::Position(At::new("KIT-another", START + 90)));
    stage.heartbeats(&mut connection, 1)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Heartbeat, &[stage.at(START + 40)])
}

/// A heartbeat without a position changes nothing.
pub(super) fn heartbeat_bare(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    stage.heartbeats(&mut connection, 2)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Heartbeat, &[stage.at(START + 1)])
}

fn source_message(kind: &str, at: &At) -> serde_json::Value {
    let mut message = at.json();
    message["type"] = kind.into();
    message["server_time"] = now_ms().into();
    message
}

/// Without an epoch there is no position; `source_stale` may name it before any event.
pub(super) fn epoch_null(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let epoch = stage.welcome_epoch.take();
    let (mut connection, subscribe) = stage.first()?;
    refuse_resume(&mut connection, &subscribe, None, "loading");
    stage.settle(&mut connection)?;
    connection.cut();
    let (mut connection, subscribe) = stage.again()?;
    // A `null` is answered `not_provable`: it costs nothing.
    let is_null = |it: &serde_json::Value| it["epoch"].is_null();
    if !subscribe.resume.as_ref().is_some_and(is_null) {
        expect_if_any(&subscribe, Rule::Epoch, &[])?;
    }
    refuse_resume(&mut connection, &subscribe, None, "not_provable");
    connection.say(&source_message("source_stale", &stage.at(START)));
    connection.say(&source_message("source_live", &stage.at(START)));
    connection.event(START + 1, 0);
    connection.event(START + 2, START + 1);
    stage.settle(&mut connection)?;
    stage.welcome_epoch = epoch;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Epoch, &[stage.at(START + 2)])
}

/// Events before the epoch is named belong to it.
pub(super) fn epoch_late(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let epoch = stage.welcome_epoch.take();
    let (mut connection, subscribe) = stage.first()?;
    refuse_resume(&mut connection, &subscribe, None, "loading");
    connection.event(START + 1, 0);
    connection.event(START + 2, START + 1);
    connection.say(&source_message("source_live", &stage.at(START + 2)));
    connection.event(START + 4, START + 2);
    stage.settle(&mut connection)?;
    stage.welcome_epoch = epoch;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Epoch, &[stage.at(START + 4)])
}

/// The source is lost and comes back: the client stays, and its position does not move.
pub(super) fn source(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    connection.say(&source_message("source_stale", &stage.at(START + 30)));
    stage.settle(&mut connection)?;
    connection.say(&source_message("source_live", &stage.at(START + 50)));
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Source, &[stage.at(START + 1)])
}
