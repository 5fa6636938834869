//! Scenarios in which the client has to wait, and one in which it must not wait for ever.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::conformance::connection::refuse;
use crate::conformance::rule::Rule;
use crate::conformance::stage::{START, Stage, expect, refuse_resume};
use crate::conformance::verdict::{Stop, broken};

/// How long nobody is let in.
const WINDOW: Duration = Duration::from_secs(5);

/// A client that waits 125 ms on average between two attempts still passes. A random wait of up to
/// 1 s makes 10 attempts in the window, and 40 of them almost never.
const ATTEMPTS_MAX: usize = 40;

/// `subscribe` commands on one connection while a channel is rejected again and again.
const SUBSCRIBES_MAX: u64 = 10;

const RETRY_AFTER: Duration = Duration::from_secs(3);

const RATE_WAIT: Duration = Duration::from_millis(1_500);

/// What clocks and networks may add.
const EARLY_MAX: Duration = Duration::from_millis(100);

/// Sends away whoever comes during [`WINDOW`], and counts.
pub(super) fn hammering(
    stage: &mut Stage<'_>,
    rule: Rule,
    mut send_away: impl FnMut(&mut Stage<'_>, TcpStream),
) -> Result<(), Stop> {
    let limit = Instant::now() + WINDOW;
    let mut attempts = 0;
    while let Some(stream) = stage.stream(limit)? {
        attempts += 1;
        if attempts > ATTEMPTS_MAX {
            let saw = format!("it connected {attempts} times within {WINDOW:?}");
            return broken(rule, saw);
        }
        send_away(stage, stream);
    }
    Ok(())
}

/// Connections are dropped before the upgrade.
pub(super) fn back_off(stage: &mut Stage<'_>) -> Result<(), Stop> {
    stage.open_with_event()?.cut();
    hammering(stage, Rule::BackOff, |_, stream| drop(stream))?;
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Resume, &[stage.at(START + 1)])
}

/// The client asks again when it was told to, not earlier.
pub(super) fn retry_after(stage: &mut Stage<'_>) -> Result<(), Stop> {
    stage.open_with_event()?.cut();
    let limit = Instant::now() + stage.patience;
    let told = loop {
        let Some(stream) = stage.stream(limit)? else {
            return broken(Rule::ComeBack, format!("no request came within {:?}", stage.patience));
        };
        let told = Instant::now();
        match refuse(stream, RETRY_AFTER.as_secs()) {
            Ok(()) => break told,
            // A connection that ended before it was accepted, for example.
            Err(error) => eprintln!("a connection without a request: {error}"),
        }
    };
    let next = stage.again()?;
    let after = told.elapsed();
    if after + EARLY_MAX < RETRY_AFTER {
        let saw = format!("it came back after {after:.1?}, told {RETRY_AFTER:?}");
        return broken(Rule::RetryAfter, saw);
    }
    expect(&next.1, Rule::Resume, &[stage.at(START + 1)])
}

/// Nothing comes any more, not even the answer to a heartbeat: the client notices.
pub(super) fn silence(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let connection = stage.open_with_event()?;
    let limit = Instant::now() + stage.patience;
    let Some(stream) = stage.stream(limit)? else {
        let saw = format!("it kept a connection on which nothing came for {:?}", stage.patience);
        return broken(Rule::Silence, saw);
    };
    connection.cut();
    let (_, subscribe) = match stage.welcome(stream) {
        Some(new) => stage.subscription(new)?,
        None => stage.again()?,
    };
    expect(&subscribe, Rule::Resume, &[stage.at(START + 1)])
}

/// The first `subscribe` is refused: the client sends it again on this connection.
pub(super) fn rate_limited(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let (mut connection, subscribe) = stage.first()?;
    let mut error = json!({"type": "error", "code": "rate_limited", "message": "too many commands",
        "retry_after_ms": RATE_WAIT.as_millis() as u64});
    if let Some(id) = subscribe.id {
        error["id"] = id;
    }
    let told = Instant::now();
    connection.say(&error);
    loop {
        stage.check()?;
        connection.step();
        if !connection.is_open() {
            return broken(Rule::RateLimited, "it closed the connection after `rate_limited`");
        }
        if let Some(again) = connection.take_subscribe() {
            let after = told.elapsed();
            if after + EARLY_MAX < RATE_WAIT {
                let saw = format!("it asked again after {after:.1?}, told {RATE_WAIT:?}");
                return broken(Rule::RateLimited, saw);
            }
            refuse_resume(&mut connection, &again, Some(&stage.at(START)), "epoch_changed");
            return stage.settle(&mut connection);
        }
        if told.elapsed() > stage.patience {
            let saw = format!("it did not ask again within {:?}", stage.patience);
            return broken(Rule::RateLimited, saw);
        }
    }
}

/// One channel of several is rejected, or the only one: asking again does not help.
pub(super) fn rejected(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let (mut connection, subscribe) = stage.first()?;
    let count = subscribe.channels.len();
    let (taken, refused) = subscribe.channels.split_at(count - 1);
    let mut answer = stage.at(START).json();
    answer["channels"] = json!(taken);
    answer["rejected"] = refused
        .iter()
        .map(|channel| {
            json!({"channel": channel, "code": "channel_not_allowed", "message": "not served"})
        })
        .collect::<Value>();
    connection.answer(&subscribe, answer.clone());
    stage.until(&mut connection, Duration::from_secs(3), |connection| !connection.is_open())?;
    if connection.subscribes_total > SUBSCRIBES_MAX {
        let saw = format!("it sent `subscribe` {} times in 3 s", connection.subscribes_total);
        return broken(Rule::Rejected, saw);
    }
    if connection.is_open() {
        return stage.settle(&mut connection);
    }
    hammering(stage, Rule::Rejected, |stage, stream| {
        let subscribed = stage.welcome(stream).map(|new| stage.subscription(new));
        if let Some(Ok((mut connection, subscribe))) = subscribed {
            connection.answer(&subscribe, answer.clone());
            connection.cut();
        }
    })
}
