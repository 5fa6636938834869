//! Clients that come back, one behaviour each.

use serde_json::{Value, json};

use super::world::World;
use super::{limits, shard};
use crate::event::{Base, Epoch, Position, StreamPos};
use crate::feed::{Feed, SourceStatus};
use crate::protocol::message::{ClientLimits, ResumeRefusal};
use crate::shard::limits::{Limits, RESUME_WAIT_MS};

/// A world with one client and `events` events on `t.A.x`, of which it has seen nothing.
fn world_with(limits: Limits, events: usize) -> World {
    let mut world = World::new(1);
    world.shard.settings.limits = limits;
    world.publish_on(std::iter::repeat_n("t.A.x", events));
    world.connect_with("");
    world.take_messages();
    world
}

fn subscribe(world: &mut World, channels: &[&str], epoch: &str, pos: u64, ts: u64) -> Vec<Value> {
    let resume = json!({"epoch": epoch, "pos": pos, "ts": ts});
    let command = json!({"type": "subscribe", "channels": channels, "resume": resume, "id": pos});
    world.send(0, &command.to_string());
    world.take_messages()
}

fn positions(messages: &[Value]) -> Vec<u64> {
    messages.iter().filter_map(|message| message["pos"].as_u64()).collect()
}

fn assert_refused(messages: &[Value], reason: ResumeRefusal) {
    let answer = &messages[0];
    assert_eq!(answer["recovered"], false, "{answer}");
    assert_eq!(answer["resume"]["reason"], reason.name(), "{answer}");
    assert_eq!(messages.len(), 1, "nothing of what was missed is sent");
}

#[test]
fn what_was_missed_comes_once_and_in_order_before_what_is_live() {
    let mut world = world_with(limits(), 0);
    world.publish_on(["t.A.x", "t.B.x", "t.A.x", "t.C.y", "t.B.x", "t.A.x"].into_iter());
    let messages = subscribe(&mut world, &["t.*.x", "t.B.x", "t.A.>"], "e", 2, 2);
    let answer = &messages[0];
    assert_eq!((&answer["recovered"], &answer["pos"]), (&json!(true), &json!(6)));
    assert_eq!(answer["resume"], json!({"messages": 3}));
    assert_eq!(positions(&messages[1..]), [3, 5, 6]);
    world.publish_on(["t.B.x"].into_iter());
    let live = world.take_messages();
    assert_eq!((positions(&live), &live[0]["seq"]), (vec![7], &json!(4)));
}

#[test]
fn nothing_missed_is_recovered_too() {
    let mut world = world_with(limits(), 3);
    let messages = subscribe(&mut world, &["t.A.x"], "e", 3, 3);
    assert_eq!(messages[0]["resume"], json!({"messages": 0}));
    assert_eq!(messages.len(), 1);
    let mut fresh = world_with(limits(), 0);
    let messages = subscribe(&mut fresh, &["t.A.x"], "e", 0, 0);
    assert_eq!(messages[0]["recovered"], true, "a client that has not received anything yet");
}

#[test]
fn what_cannot_be_proved_is_refused_with_its_reason() {
    let short = Limits { log_messages: 4, ..limits() };
    let few = ClientLimits { resume_messages: 3, ..limits().client };
    let few = Limits { client: few, ..limits() };
    let cases = [
        (limits(), ("other", 3, 3), ResumeRefusal::EpochChanged),
        (short, ("e", 3, 3), ResumeRefusal::PositionTooOld),
        (limits(), ("e", 3, 4), ResumeRefusal::PositionMismatch),
        (few, ("e", 3, 3), ResumeRefusal::TooManyMessages),
    ];
    for (limits, (epoch, pos, ts), reason) in cases {
        let mut world = world_with(limits, 9);
        assert_refused(&subscribe(&mut world, &["t.A.x"], epoch, pos, ts), reason);
        assert_eq!(world.shard.stats().not_resumed[reason as usize], 1);
        world.publish_on(["t.A.x"].into_iter());
        assert_eq!(positions(&world.take_messages()), [10], "it is subscribed all the same");
    }
}

#[test]
fn overlapping_patterns_do_not_count_twice() {
    let client = ClientLimits { resume_messages: 6, ..limits().client };
    let mut world = world_with(Limits { client, ..limits() }, 9);
    let messages = subscribe(&mut world, &["t.A.x", "t.>", "t.*.x"], "e", 3, 3);
    assert_eq!(positions(&messages[1..]), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn what_may_have_been_sent_before_is_not_called_complete() {
    let mut world = world_with(limits(), 9);
    world.send(0, r#"{"type":"subscribe","channels":["t.A.>"]}"#);
    world.take_messages();
    let messages = subscribe(&mut world, &["t.A.x"], "e", 3, 3);
    assert_refused(&messages, ResumeRefusal::AlreadySubscribed);
    let messages = subscribe(&mut world, &["t.B.x"], "e", 3, 3);
    assert_eq!(messages[0]["recovered"], true, "another channel");
}

#[test]
fn a_snapshot_is_sent_only_if_nothing_is_recovered() {
    for (ts, snapshot) in [(3, Value::Null), (4, json!({"messages": 1, "complete": true}))] {
        let mut world = world_with(limits(), 9);
        let resume = json!({"epoch": "e", "pos": 3, "ts": ts});
        let command = json!({"type": "subscribe", "channels": ["t.A.x"], "snapshot": true,
                             "resume": resume});
        world.send(0, &command.to_string());
        let messages = world.take_messages();
        assert_eq!(messages[0]["snapshot"], snapshot);
        let expected = if ts == 3 { vec![4, 5, 6, 7, 8, 9] } else { vec![9] };
        assert_eq!(positions(&messages[1..]), expected);
    }
}

#[test]
fn channels_that_are_refused_bring_nothing() {
    let mut world = world_with(limits(), 3);
    let messages = subscribe(&mut world, &["t.A.x", "u.x", "t..x"], "e", 1, 1);
    assert_eq!(messages[0]["rejected"].as_array().unwrap().len(), 2);
    assert_eq!(messages[0]["resume"], json!({"messages": 2}));
    assert_eq!(positions(&messages[1..]), [2, 3]);
}

#[test]
fn a_position_that_another_instance_has_reached_is_waited_for() {
    let mut world = world_with(limits(), 3);
    assert!(subscribe(&mut world, &["t.A.x"], "e", 5, 5).is_empty());
    world.publish_on(["t.A.x"; 1].into_iter());
    assert!(world.take_messages().is_empty());
    world.publish_on(["t.A.x"; 3].into_iter());
    let messages = world.take_messages();
    assert_eq!((&messages[0]["recovered"], &messages[0]["id"]), (&json!(true), &json!(5)));
    assert_eq!(positions(&messages[1..]), [6, 7]);
    // Another message has it.
    assert!(subscribe(&mut world, &["t.B.x"], "e", 8, 9).is_empty());
    world.publish_on(["t.B.x"; 2].into_iter());
    assert_refused(&world.take_messages()[..1], ResumeRefusal::PositionMismatch);
}

#[test]
fn a_position_that_never_comes_is_refused_after_a_while() {
    for (status, reason) in [
        (SourceStatus::Live, ResumeRefusal::PositionUnknown),
        (SourceStatus::Loading, ResumeRefusal::Loading),
    ] {
        let mut world = world_with(limits(), 3);
        world.feed([Feed::Source(status)].into());
        world.take_messages();
        assert!(subscribe(&mut world, &["t.A.x"], "e", 5, 5).is_empty());
        world.now.monotonic_ms += RESUME_WAIT_MS - 1;
        world.shard.tick(world.now, &mut world.wire);
        assert!(world.take_messages().is_empty());
        world.now.monotonic_ms += 1;
        world.shard.tick(world.now, &mut world.wire);
        assert_refused(&world.take_messages(), reason);
    }
}

#[test]
fn before_the_first_contact_a_resume_waits_for_it() {
    let mut world = World::new(1);
    world.shard = shard(limits());
    world.connect_with("");
    world.take_messages();
    assert!(subscribe(&mut world, &["t.A.x"], "e", 0, 0).is_empty());
    let base = Base { after: Some(Position::default()), whole_from: StreamPos(0) };
    world.feed([Feed::Epoch { epoch: Epoch("e".into()), base }].into());
    assert_eq!(world.take_messages()[0]["recovered"], true);
}

#[test]
fn a_backlog_goes_out_in_portions_and_others_are_served_between() {
    let mut world = world_with(limits(), 600);
    world.connect_with("");
    world.send(1, r#"{"type":"subscribe","channels":["t.B.x"]}"#);
    let other = world.clients[1].id;
    world.take_messages();
    let resume = json!({"epoch": "e", "pos": 10, "ts": 10});
    let command = json!({"type": "subscribe", "channels": ["t.A.x"], "resume": resume});
    let sends = world.shard.stats().sends;
    world.send(0, &command.to_string());
    assert!(world.shard.stats().sends - sends <= 3, "the rest is sent in later turns");
    let before = world.wire.sent.get(&other).map_or(0, Vec::len);
    world.publish_on(["t.B.x", "t.A.x"].into_iter());
    assert!(world.wire.sent[&other].len() > before);
    let messages = world.take_messages();
    assert_eq!(positions(&messages[1..]), (11..=600).chain([602]).collect::<Vec<_>>());
    assert_eq!(world.shard.catch_up_events.get(), 0);
}

#[test]
fn what_is_unsubscribed_is_not_sent_any_more() {
    let mut world = world_with(limits(), 300);
    let id = world.clients[0].id;
    world.wire.room.insert(id, 0);
    subscribe(&mut world, &["t.A.x"], "e", 10, 10);
    world.send(0, r#"{"type":"unsubscribe","channels":["t.A.x"]}"#);
    world.wire.room.insert(id, usize::MAX);
    world.wire.blocked.clear();
    world.shard.writable(id, &mut world.wire);
    let messages = world.take_messages();
    assert_eq!(messages.len(), 2, "two answers");
    assert_eq!(world.shard.catch_up_events.get(), 0);
}

#[test]
fn who_waits_for_what_the_log_forgets_is_closed() {
    let mut world = world_with(Limits { log_messages: 300, ..limits() }, 300);
    let id = world.clients[0].id;
    world.wire.room.insert(id, 0);
    subscribe(&mut world, &["t.A.x"], "e", 10, 10);
    world.publish_on(["t.B.x"; 10].into_iter());
    world.shard.tick(world.now, &mut world.wire);
    assert_eq!(world.shard.stats().slow_closed, 0, "the oldest is held still");
    world.publish_on(["t.B.x"; 200].into_iter());
    world.shard.tick(world.now, &mut world.wire);
    assert_eq!(world.shard.stats().slow_closed, 1);
    assert_eq!(world.shard.catch_up_events.get(), 0, "it holds nothing any more");
}

#[test]
fn a_resync_ends_what_was_under_way() {
    let mut world = world_with(limits(), 300);
    let id = world.clients[0].id;
    world.wire.room.insert(id, 0);
    subscribe(&mut world, &["t.A.x"], "e", 10, 10);
    world.feed([Feed::Epoch { epoch: Epoch("f".into()), base: Base::default() }].into());
    world.wire.room.insert(id, usize::MAX);
    world.wire.blocked.clear();
    world.shard.writable(id, &mut world.wire);
    let kinds: Vec<Value> = world.take_messages().iter().map(|it| it["type"].clone()).collect();
    assert_eq!(kinds, [json!("subscribed"), json!("resync")]);
    assert_eq!(world.shard.catch_up_events.get(), 0);
}
