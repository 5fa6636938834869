//! Scenarios of the answer to a resume.

use std::time::Duration;

use crate::conformance::connection::Connection;
use crate::conformance::message::{At, Subscribe};
use crate::conformance::rule::Rule;
use crate::conformance::stage::{START, Stage, expect, expect_if_any, recover, refuse_resume};
use crate::conformance::verdict::{Stop, broken};

/// How long an answer is held back: as long as the server does it at most.
const LATE: Duration = Duration::from_secs(2);

/// The client has read the event at `START + 1` and comes back; it resumes from there.
fn return_once(stage: &mut Stage<'_>, rule: Rule) -> Result<(Connection, Subscribe), Stop> {
    stage.open_with_event()?.cut();
    let (connection, subscribe) = stage.again()?;
    expect(&subscribe, rule, &[stage.at(START + 1)])?;
    Ok((connection, subscribe))
}

/// Nothing was missed, and the server is further: the old position stays.
pub(super) fn recovered_nothing(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let (mut connection, subscribe) = return_once(stage, Rule::Recovered)?;
    recover(&mut connection, &subscribe, &stage.at(START + 10), 0);
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Recovered, &[stage.at(START + 1)])
}

/// The connection ends before the missed events came, and then between them.
pub(super) fn recovered_some(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let (mut connection, subscribe) = return_once(stage, Rule::Recovered)?;
    recover(&mut connection, &subscribe, &stage.at(START + 10), 3);
    stage.settle(&mut connection)?;
    connection.cut();
    let (mut connection, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Recovered, &[stage.at(START + 1)])?;
    recover(&mut connection, &subscribe, &stage.at(START + 10), 3);
    connection.event(START + 4, START + 1);
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Recovered, &[stage.at(START + 4)])
}

/// The client goes on from the answer's position: a lower one, another epoch, an unknown reason.
pub(super) fn not_recovered(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let (mut connection, mut subscribe) = return_once(stage, Rule::NotRecovered)?;
    let another = format!("{}-again", stage.at(0).epoch);
    let answers = [
        (stage.at(START - 100), "position_too_old"),
        (At::new(&another, 50), "epoch_changed"),
        (At::new(&another, 60), "not_provable"),
        (At::new(&another, 70), "from_the_future"),
    ];
    for (at, reason) in answers {
        refuse_resume(&mut connection, &subscribe, Some(&at), reason);
        stage.settle(&mut connection)?;
        connection.cut();
        (connection, subscribe) = stage.again()?;
        expect(&subscribe, Rule::NotRecovered, &[at])?;
    }
    Ok(())
}

/// This instance is behind: the client goes on here, or tries another one with the old position.
pub(super) fn position_unknown(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let (mut connection, subscribe) = return_once(stage, Rule::NotRecovered)?;
    let behind = stage.at(START - 5);
    refuse_resume(&mut connection, &subscribe, Some(&behind), "position_unknown");
    stage.settle_or_leave(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::NotRecovered, &[behind, stage.at(START + 1)])
}

/// As before, with an instance that knows no epoch yet.
pub(super) fn loading(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let (mut connection, subscribe) = return_once(stage, Rule::NotRecovered)?;
    refuse_resume(&mut connection, &subscribe, None, "loading");
    stage.settle_or_leave(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect_if_any(&subscribe, Rule::NotRecovered, &[stage.at(START + 1)])
}

/// Heartbeats are answered, `subscribed` is not yet: the client waits; its position stays.
pub(super) fn late_answer(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let (mut connection, _) = return_once(stage, Rule::LateAnswer)?;
    wait_unanswered(stage, &mut connection)?;
    connection.cut();
    let (mut connection, subscribe) = stage.again()?;
    expect(&subscribe, Rule::LateAnswer, &[stage.at(START + 1)])?;
    wait_unanswered(stage, &mut connection)?;
    recover(&mut connection, &subscribe, &stage.at(START + 5), 1);
    connection.event(START + 5, START + 1);
    stage.settle(&mut connection)?;
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::LateAnswer, &[stage.at(START + 5)])
}

fn wait_unanswered(stage: &Stage<'_>, connection: &mut Connection) -> Result<(), Stop> {
    match stage.until(connection, LATE, |connection| !connection.is_open())? {
        true => broken(Rule::LateAnswer, "it did not wait 2 s for the answer to `subscribe`"),
        false => Ok(()),
    }
}

/// A resume brings events that the client has: it stays, and its position does not go back.
pub(super) fn repetition(stage: &mut Stage<'_>) -> Result<(), Stop> {
    let mut connection = stage.open_with_event()?;
    connection.event(START + 2, START + 1);
    stage.settle(&mut connection)?;
    connection.cut();
    let (mut connection, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Resume, &[stage.at(START + 2)])?;
    recover(&mut connection, &subscribe, &stage.at(START + 3), 3);
    connection.event(START + 1, START - 10);
    connection.event(START + 2, START + 1);
    connection.event(START + 3, START + 2);
    connection.event(START + 2, START + 1);
    if !stage.settle_or_leave(&mut connection)? {
        return broken(Rule::Repetition, "it closed the connection after a repeated event");
    }
    connection.cut();
    let (_, subscribe) = stage.again()?;
    expect(&subscribe, Rule::Repetition, &[stage.at(START + 3)])
}
