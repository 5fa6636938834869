//! Scenarios of the end of a connection: draining, and the close codes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::patience::hammering;
use crate::conformance::connection::Connection;
use crate::conformance::rule::Rule;
use crate::conformance::stage::{START, Stage, expect};
use crate::conformance::verdict::{Stop, broken};

/// A client that comes back so much too early is right: clocks and networks differ.
const EARLY_MAX: Duration = Duration::from_millis(100);

fn closed(stage: &mut Stage<'_>, code: u16, reason: &str) -> Result<(), Stop> {
    stage.open_with_event()?.close(code, reason);
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Resume, &[stage.at(START + 1)])
}

pub(super) fn close_1001(stage: &mut Stage<'_>) -> Result<(), Stop> {
    closed(stage, 1001, "idle timeout")
}

pub(super) fn close_1008(stage: &mut Stage<'_>) -> Result<(), Stop> {
    closed(stage, 1008, "client reads too slowly")
}

pub(super) fn close_1012(stage: &mut Stage<'_>) -> Result<(), Stop> {
    closed(stage, 1012, "server is draining")
}

pub(super) fn close_unknown(stage: &mut Stage<'_>) -> Result<(), Stop> {
    closed(stage, 4999, "from the future")
}

pub(super) fn close_1002(stage: &mut Stage<'_>) -> Result<(), Stop> {
    own_mistake(stage, 1002, "protocol error")
}

pub(super) fn close_1003(stage: &mut Stage<'_>) -> Result<(), Stop> {
    own_mistake(stage, 1003, "binary messages are not accepted")
}

pub(super) fn close_1007(stage: &mut Stage<'_>) -> Result<(), Stop> {
    own_mistake(stage, 1007, "not UTF-8")
}

pub(super) fn close_1009(stage: &mut Stage<'_>) -> Result<(), Stop> {
    own_mistake(stage, 1009, "message too big")
}

/// The client stays away, or comes back slowly.
fn own_mistake(stage: &mut Stage<'_>, code: u16, reason: &str) -> Result<(), Stop> {
    stage.open_with_event()?.close(code, reason);
    hammering(stage, Rule::OwnMistake, |stage, stream| {
        if let Some(connection) = stage.welcome(stream) {
            connection.close(code, reason);
        }
    })
}

fn announce(connection: &mut Connection, reconnect_after: Duration) -> Instant {
    let ms = reconnect_after.as_millis() as u64;
    let told = Instant::now();
    connection.say(&json!({"type": "server_draining", "reconnect_after_ms": ms,
        "deadline_ms": ms + 1_000}));
    told
}

/// The client comes back after its time, with `resume`; the old connection is closed at the
/// deadline.
pub(super) fn draining(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    let wait = Duration::from_secs(2);
    let told = announce(&mut connection, wait);
    connection.event(START + 2, START + 1);
    drained(stage, connection, (told, wait))
}

/// The second time replaces the first.
pub(super) fn draining_twice(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    announce(&mut connection, Duration::from_millis(1_500));
    connection.event(START + 2, START + 1);
    let moment = Duration::from_millis(300);
    stage.until(&mut connection, moment, |connection| !connection.is_open())?;
    let wait = Duration::from_secs(3);
    let told = announce(&mut connection, wait);
    drained(stage, connection, (told, wait))
}

fn drained(
    stage: &mut Stage<'_>,
    mut connection: Connection,
    (told, wait): (Instant, Duration),
) -> Result<(), Stop> {
    let earliest = told + wait.saturating_sub(EARLY_MAX);
    let deadline = told + wait + Duration::from_secs(1);
    let mut early = None;
    while Instant::now() < deadline && early.is_none() {
        stage.check()?;
        connection.step();
        early = stage.poll_stream();
        if early.is_some() && Instant::now() < earliest {
            let after = told.elapsed();
            return broken(Rule::Drain, format!("it came back after {after:.1?}, told {wait:?}"));
        }
    }
    let next = match early {
        // It moves while the old connection is still open.
        Some(stream) => match stage.welcome(stream) {
            Some(new) => stage.subscription(new)?,
            None => stage.again()?,
        },
        None => {
            connection.close(1012, "server is draining");
            stage.again()?
        }
    };
    expect(&next.1, Rule::Drain, &[stage.at(START + 2)])
}
