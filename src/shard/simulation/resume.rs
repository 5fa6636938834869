//! Clients that come back, one behaviour each.

use serde_json::{Value, json};

use super::world::World;
use super::{client_frame, limits, shard};
use crate::feed::{Feed, SourceStatus};
use crate::position::{Base, Epoch, Position, StreamPos};
use crate::protocol::message::ResumeRefusal;
use crate::shard::ConnId;
use crate::shard::limits::ClientLimits;
use crate::shard::limits::{Limits, RESUME_WAIT_MS, RESUMES_PER_TURN, WAITING_RESUMES_MAX};

/// A world with one client and `events` events on `t.A.x`, of which it has seen nothing.
pub(super) fn world_with(limits: Limits, events: usize) -> World {
    let mut world = World::new(1);
    world.shard.settings.limits = limits;
    world.publish_on(std::iter::repeat_n("t.A.x", events));
    world.connect_with("");
    world.take_messages();
    world
}

pub(super) fn subscribe(
    world: &mut World,
    channels: &[&str],
    epoch: &str,
    pos: u64,
    ts: u64,
) -> Vec<Value> {
    let resume = json!({"epoch": epoch, "pos": pos, "ts": ts});
    let command = json!({"type": "subscribe", "channels": channels, "resume": resume, "id": pos});
    world.send(0, &command.to_string());
    world.take_messages()
}

fn positions(messages: &[Value]) -> Vec<u64> {
    messages.iter().filter_map(|message| message["pos"].as_u64()).collect()
}

pub(super) fn assert_refused(messages: &[Value], reason: ResumeRefusal) {
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
        world.feed([Feed::Status(status)].into());
        world.take_messages();
        assert!(subscribe(&mut world, &["t.A.x"], "e", 5, 5).is_empty());
        world.pass(RESUME_WAIT_MS - 1);
        world.tick();
        assert!(world.take_messages().is_empty());
        world.pass(1);
        world.tick();
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
    let messages = world.take_messages();
    assert_eq!(messages[0]["type"], "source_stale", "the epoch is named before anything follows");
    assert_eq!((&messages[0]["epoch"], &messages[1]["recovered"]), (&"e".into(), &true.into()));
}

/// The answers among these messages: each with its id and whether everything was recovered.
fn outcomes(messages: &[Value]) -> Vec<(u64, bool)> {
    let answers = messages.iter().filter(|message| message["type"] == "subscribed");
    let outcome = |it: &Value| (it["id"].as_u64().unwrap(), it["recovered"].as_bool().unwrap());
    answers.map(outcome).collect()
}

#[test]
fn a_connection_has_only_so_many_resumes_waiting() {
    let mut world = world_with(limits(), 3);
    let waiting = 5..5 + WAITING_RESUMES_MAX as u64;
    for pos in waiting.clone() {
        assert!(subscribe(&mut world, &["t.A.x"], "e", pos, pos).is_empty());
    }
    let messages = subscribe(&mut world, &["t.B.x"], "e", 40, 40);
    assert_refused(&messages, ResumeRefusal::PositionUnknown);
    world.connect_with("");
    let resume = json!({"epoch": "e", "pos": 40, "ts": 40});
    let command = json!({"type": "subscribe", "channels": ["t.B.x"], "resume": resume});
    let before = world.shard.waiting.memory_bytes();
    world.send(1, &command.to_string());
    assert!(world.shard.waiting.memory_bytes() > before, "another one's may wait");
    world.publish_on(["t.C.x"; 10].into_iter());
    let expected: Vec<(u64, bool)> = waiting.map(|pos| (pos, true)).collect();
    assert_eq!(outcomes(&world.take_messages()), expected);
    assert!(subscribe(&mut world, &["t.A.x"], "e", 40, 40).is_empty(), "there is room again");
}

#[test]
fn what_waits_counts_in_the_budget_and_does_not_wait_beyond_it() {
    let mut world = world_with(limits(), 3);
    let id = world.clients[0].id;
    let names: Vec<String> = (0..500).map(|number| format!("t.A.{number:060}")).collect();
    let channels: Vec<&str> = names.iter().map(String::as_str).collect();
    let left = world.budget_left(id);
    assert!(subscribe(&mut world, &channels, "e", 5, 5).is_empty());
    let taken = left - world.budget_left(id);
    assert!(taken > 500 * 64, "{taken}");
    assert_eq!(taken, world.shard.waiting.memory_bytes());
    // Room for half of another.
    world.shard.settings.limits.connection_budget_bytes -= left - taken - taken / 2;
    let messages = subscribe(&mut world, &channels, "e", 6, 6);
    assert_refused(&messages, ResumeRefusal::PositionUnknown);
    assert!(world.is_alive(id));
    world.publish_on(["t.B.x"; 10].into_iter());
    assert_eq!(outcomes(&world.take_messages()), [(5, true)]);
    assert_eq!(world.shard.waiting.memory_bytes(), 0);
}

/// Has `clients` wait for position 5 on `t.A.x` with as many resumes as each may, which are due
/// when it returns, and of which as many as are carried out in one step were.
fn many_due(clients: usize) -> World {
    let mut world = World::new(1);
    world.shard = shard(limits());
    for client in 0..clients {
        world.connect_with("");
        for _ in 0..WAITING_RESUMES_MAX {
            let resume = json!({"epoch": "e", "pos": 0, "ts": 0});
            let command =
                json!({"type": "subscribe", "channels": ["t.A.x", "t.B.x"], "resume": resume});
            world.send(client, &command.to_string());
        }
    }
    let base = Base { after: Some(Position::default()), whole_from: StreamPos(0) };
    let mut feed = [Feed::Epoch { epoch: Epoch("e".into()), base }].into();
    world.shard.publish(&mut feed, world.now, &mut world.wire);
    world.shard.step(0, world.now, &mut world.wire);
    assert!(world.shard.waiting.has_due());
    world
}

#[test]
fn a_connection_that_ends_gives_back_what_it_has_waiting_at_once() {
    let lost = |world: &mut World, id: ConnId| world.shard.lost(id);
    let closes = |world: &mut World, id: ConnId| {
        let mut frame = client_frame(8, &1000_u16.to_be_bytes());
        world.shard.receive(id, &mut frame, world.now, &mut world.wire);
    };
    let ends: [fn(&mut World, ConnId); 2] = [lost, closes];
    for end in ends {
        let mut world = world_with(limits(), 3);
        let id = world.clients[0].id;
        for pos in 5..8 {
            assert!(subscribe(&mut world, &["t.A.x"], "e", pos, pos).is_empty());
        }
        end(&mut world, id);
        assert_eq!(world.shard.waiting.memory_bytes(), 0);
        world.publish_on(["t.B.x"; 10].into_iter());

        let mut world = many_due(1 + RESUMES_PER_TURN / WAITING_RESUMES_MAX);
        let id = world.clients.last().unwrap().id;
        end(&mut world, id);
        assert_eq!(world.shard.waiting.memory_bytes(), 0);
        world.flush();
        assert!(!world.shard.waiting.has_due());
        assert_eq!(world.shard.index.count_of(id.index), 0);
    }
}

#[test]
fn a_connection_whose_socket_fails_before_its_resume_leaves_nothing() {
    let mut world = world_with(limits(), 3);
    let id = world.clients[0].id;
    world.send(0, r#"{"type":"subscribe","channels":["t.B.x"]}"#);
    world.take_messages();
    assert!(subscribe(&mut world, &["t.A.x"], "e", 5, 5).is_empty());
    world.wire.broken.insert((id.index, id.generation));
    world.publish_on(["t.B.x"; 2].into_iter());
    assert!(!world.is_alive(id));
    assert_eq!(world.shard.index.total(), 0);
}

#[test]
fn an_unsubscribe_behind_a_resume_that_waits_wins() {
    let mut world = world_with(limits(), 3);
    assert!(subscribe(&mut world, &["t.A.x", "t.B.x"], "e", 5, 5).is_empty());
    assert!(subscribe(&mut world, &["t.A.x"], "e", 6, 6).is_empty());
    let unsubscribe = r#"{"type":"unsubscribe","channels":["t.A.x","t.C.x","t.A.x"]}"#;
    world.send(0, unsubscribe);
    let messages = world.take_messages();
    assert_eq!(messages[0]["channels"], json!(["t.A.x"]), "{}", messages[0]);
    let rejected = messages[0]["rejected"].as_array().unwrap();
    assert!(rejected.iter().all(|it| it["code"] == "not_subscribed"), "{}", messages[0]);
    assert_eq!((rejected.len(), &messages[0]["total"]), (2, &json!(0)));
    world.publish_on(["t.A.x", "t.B.x", "t.A.x", "t.B.x", "t.A.x"].into_iter());
    let messages = world.take_messages();
    assert_eq!(outcomes(&messages), [(5, true), (6, true)]);
    assert_eq!(messages[0]["channels"], json!(["t.B.x"]));
    let events: Vec<Value> =
        messages.into_iter().filter(|message| message.get("seq").is_some()).collect();
    assert_eq!(positions(&events), [7]);
    world.send(0, unsubscribe);
    assert_eq!(world.take_messages()[0]["channels"], json!([]), "nothing waits any more");
    world.send(0, r#"{"type":"subscriptions"}"#);
    assert_eq!(world.take_messages()[0]["channels"], json!(["t.B.x"]));
}

#[test]
fn an_unsubscribe_wins_also_when_the_resume_is_due() {
    let clients = 1 + RESUMES_PER_TURN / WAITING_RESUMES_MAX;
    let mut world = many_due(clients);
    let id = world.clients.last().unwrap().id;
    world.send(clients - 1, r#"{"type":"unsubscribe","channels":["t.A.x"]}"#);
    assert_eq!(world.shard.index.count_of(id.index), 0, "none of its resumes was carried out");
    world.flush();
    assert_eq!(world.shard.index.texts_of(id.index).collect::<Vec<_>>(), ["t.B.x"]);
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
    assert_eq!(world.shard.backlog_events.get(), 0);
}

/// The position in the answer to a heartbeat.
fn reached(world: &mut World) -> Value {
    world.send(0, r#"{"type":"heartbeat"}"#);
    let mut messages = world.take_messages();
    messages.retain(|message| message["type"] == "heartbeat");
    messages.pop().unwrap()["position"].take()
}

#[test]
fn a_heartbeat_tells_the_newest_position_once_everything_up_to_it_was_sent() {
    let mut world = World::new(1);
    world.shard = shard(limits());
    world.connect_with("");
    assert_eq!(reached(&mut world), Value::Null, "no source yet");
    let mut world = world_with(limits(), 600);
    assert_eq!(reached(&mut world), json!({"epoch": "e", "pos": 600, "ts": 600}));

    assert!(subscribe(&mut world, &["t.B.x"], "e", 601, 601).is_empty());
    assert_eq!(reached(&mut world), Value::Null, "a resume waits");
    world.publish_on(["t.A.x"].into_iter());
    assert_eq!(world.take_messages()[0]["recovered"], true);
    assert_eq!(reached(&mut world)["pos"], 601);

    let resume = json!({"epoch": "e", "pos": 10, "ts": 10});
    let command = json!({"type": "subscribe", "channels": ["t.A.x"], "resume": resume});
    world.send(0, &command.to_string());
    world.send(0, r#"{"type":"heartbeat"}"#);
    world.flush();
    let messages = world.take_messages();
    let heartbeat = messages.iter().position(|it| it["type"] == "heartbeat").unwrap();
    assert!(heartbeat + 1 < messages.len(), "it overtook what was missed");
    assert_eq!(messages[heartbeat]["position"], Value::Null);
    assert_eq!(reached(&mut world)["pos"], 601);
}

#[test]
fn a_client_that_reads_too_slowly_for_its_queue_is_told_no_position() {
    let client = ClientLimits { queue_messages: 32, ..limits().client };
    let mut world = world_with(Limits { client, ..limits() }, 3);
    let id = world.clients[0].id;
    world.send(0, r#"{"type":"subscribe","channels":["t.A.x"]}"#);
    world.wire.room.insert(id, 0);
    world.publish_on(["t.A.x"; 33].into_iter());
    world.send(0, r#"{"type":"heartbeat"}"#);
    world.wire.room.insert(id, usize::MAX);
    world.wire.blocked.clear();
    world.writable(id);
    let messages = world.take_messages();
    let heartbeat = messages.iter().find(|it| it["type"] == "heartbeat").unwrap();
    assert_eq!(heartbeat["position"], Value::Null, "{heartbeat}");
    assert_eq!(reached(&mut world)["pos"], 36, "everything was sent");
}

/// How a client that reads slowly gets more events while the queue is full, or was: `more` are
/// published when its socket has taken `room` bytes of those that waited. Returns its messages.
fn read_slowly(world: &mut World, (room, more): (usize, usize)) -> Vec<Value> {
    let id = world.clients[0].id;
    let let_through = |world: &mut World, room: usize| {
        world.wire.room.insert(id, room);
        world.wire.blocked.clear();
        world.writable(id);
    };
    world.send(0, r#"{"type":"subscribe","channels":["t.A.x"]}"#);
    world.wire.room.insert(id, 0);
    world.publish_on(["t.A.x"; 34].into_iter());
    let_through(world, room);
    world.publish_on(std::iter::repeat_n("t.A.x", more));
    let_through(world, usize::MAX);
    world.take_messages()
}

#[test]
fn a_client_that_is_cut_after_its_queue_was_full_resumes_and_misses_nothing() {
    for (room, more) in [(1, 0), (400, 1), (2_000, 20), (2_900, 1)] {
        let client = ClientLimits { queue_messages: 32, ..limits().client };
        let limits = Limits { client, ..limits() };
        let newest = 3 + 34 + more as u64;
        let seen = positions(&read_slowly(&mut world_with(limits.clone(), 3), (room, more))[1..]);
        assert_eq!(seen, (4..=newest).collect::<Vec<_>>(), "{more} events at {room}");
        for cut in 1..seen.len() {
            let mut world = world_with(limits.clone(), 3);
            let mut seen = positions(&read_slowly(&mut world, (room, more))[1..]);
            world.shard.lost(world.clients.remove(0).id);
            seen.truncate(cut);
            let newest_seen = *seen.iter().max().unwrap();
            world.connect_with("");
            world.take_messages();
            let rest = subscribe(&mut world, &["t.A.x"], "e", newest_seen, newest_seen);
            assert_eq!(rest[0]["recovered"], true);
            seen.extend(positions(&rest[1..]));
            assert_eq!(seen, (4..=newest).collect::<Vec<_>>(), "cut behind {newest_seen}");
        }
    }
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
    world.writable(id);
    let messages = world.take_messages();
    assert_eq!(messages.len(), 2, "two answers");
    assert_eq!(world.shard.backlog_events.get(), 0);
}

#[test]
fn who_waits_for_what_the_log_forgets_is_closed() {
    let mut world = world_with(Limits { log_messages: 300, ..limits() }, 300);
    let id = world.clients[0].id;
    world.wire.room.insert(id, 0);
    subscribe(&mut world, &["t.A.x"], "e", 10, 10);
    world.publish_on(["t.B.x"; 10].into_iter());
    world.tick();
    assert_eq!(world.shard.stats().slow_closed, 0, "the oldest is held still");
    world.publish_on(["t.B.x"; 200].into_iter());
    world.tick();
    assert_eq!(world.shard.stats().slow_closed, 1);
    assert_eq!(world.shard.backlog_events.get(), 0, "it holds nothing any more");
}
