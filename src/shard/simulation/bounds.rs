//! Every bound on memory that LIMITS.md names for a shard, and an attempt to break it.

use std::sync::Arc;

use serde_json::json;

use super::limits;
use super::world::World;
use crate::event::Event;
use crate::feed::Feed;
use crate::position::{Incoming, Position, StreamPos};
use crate::shard::limits::{
    ANSWER_BYTES_PAUSE, BACKLOG_GROWTH, BACKLOG_LIVE_MAX, ClientLimits, FRAMES_PER_SEND, Limits,
    NEWEST_BYTES_MAX, QUEUED_EVENT_BYTES, WAITING_RESUME_BYTES_MAX, WAITING_RESUMES_MAX,
};

/// Publishes `count` events of `bytes` bytes each, on as many channels as there are in `channels`.
fn flood(world: &mut World, channels: usize, count: usize, bytes: usize) {
    let payload = "7".repeat(bytes);
    for number in 0..count {
        let pos = number as u64 + 1;
        let position = Position { pos: StreamPos(pos), ts_ms: pos };
        let channel = format!("t.{}.x", number % channels);
        let incoming = Incoming { subject: &channel, payload: payload.as_bytes(), position };
        let event = Event::new(&incoming, channel.as_str().into(), StreamPos(0), 0);
        let mut feed = [Feed::Event(Arc::new(event))].into();
        world.shard.publish(&mut feed, world.now, &mut world.wire);
    }
    world.flush();
}

fn world_with(limits: Limits) -> World {
    let mut world = World::new(1);
    world.shard.settings.limits = limits;
    world
}

#[test]
fn superseded_events_are_let_go_when_the_log_forgets_them() {
    let mut world = world_with(Limits { log_messages: 1, ..limits() });
    flood(&mut world, 1, 3_000, 20_000);
    // The newest of the log is the newest of its channel.
    assert_eq!(world.shard.history.events_alive(), 1);
    let mut world = world_with(Limits { log_messages: 1, ..limits() });
    flood(&mut world, 10, 3_000, 20_000);
    assert_eq!(world.shard.history.events_alive(), 10, "one for each channel");
}

#[test]
fn newest_events_keep_to_their_bytes() {
    let mut world = world_with(Limits { log_messages: 1, ..limits() });
    let bytes = 1 << 20;
    flood(&mut world, 1_000, 100, bytes);
    let held = world.shard.history.events_alive();
    assert!(held <= NEWEST_BYTES_MAX / bytes + 1, "{held} events of 1 MiB");
    assert!(held >= NEWEST_BYTES_MAX / bytes - 1, "as many as may be held");
}

#[test]
fn the_log_keeps_to_its_bytes_whatever_is_published() {
    let mut world = world_with(Limits { log_bytes: 1 << 20, ..limits() });
    for bytes in [10, 1_000, 100_000] {
        flood(&mut world, 1, 3_000, bytes);
        let held = world.shard.history.log_messages();
        assert!(held * bytes <= 1 << 20, "{held} of {bytes}");
    }
}

#[test]
fn a_client_that_reads_nothing_keeps_to_its_queue() {
    let client = ClientLimits { queue_messages: 64, queue_bytes: 32_768, ..limits().client };
    for bytes in [1, 900, 20_000] {
        let mut world = world_with(Limits { client: client.clone(), ..limits() });
        world.connect_with("");
        world.send(0, r#"{"type":"subscribe","channels":["t.>"]}"#);
        let id = world.clients[0].id;
        world.wire.room.insert(id, 0);
        flood(&mut world, 1, 2_000, bytes);
        let memory = world.shard.memory();
        let bound = 2 * QUEUED_EVENT_BYTES * client.queue_messages + 4_096;
        assert!(memory.queue <= bound, "{} of {bound} with {bytes}", memory.queue);
        let ring = client.replay_messages.max(FRAMES_PER_SEND);
        assert!(memory.replay <= 8 * ring + 16, "{}", memory.replay);
    }
}

#[test]
fn a_backlog_that_nobody_reads_keeps_to_its_bound() {
    let client = ClientLimits { resume_messages: 500, ..limits().client };
    let mut world = world_with(Limits { client, log_messages: 100_000, ..limits() });
    world.publish_on(std::iter::repeat_n("t.A.x", 500));
    world.connect_with("");
    let id = world.clients[0].id;
    world.wire.room.insert(id, 0);
    let resume = json!({"epoch": "e", "pos": 0, "ts": 0});
    let command = json!({"type": "subscribe", "channels": ["t.A.x"], "resume": resume});
    world.send(0, &command.to_string());
    for _ in 0..10 {
        world.publish_on(std::iter::repeat_n("t.A.x", 500));
        let waiting = world.shard.backlog_events.get();
        assert!(waiting <= 500 + BACKLOG_LIVE_MAX, "{waiting}");
        let bound = 8 * (500 + BACKLOG_LIVE_MAX + BACKLOG_GROWTH) + ANSWER_BYTES_PAUSE;
        assert!(world.shard.memory().queue <= bound);
    }
    assert_eq!((world.shard.stats().slow_closed, world.shard.backlog_events.get()), (1, 0));
}

#[test]
fn resumes_that_wait_keep_to_the_bounds_of_a_connection_and_of_the_shard() {
    let mut world = world_with(Limits { connections_max: u64::MAX, ..limits() });
    let names: Vec<String> = (0..240).map(|number| format!("t.{number:0250}")).collect();
    let resume = json!({"epoch": "e", "pos": 9, "ts": 9});
    let command = json!({"type": "subscribe", "channels": names, "resume": resume}).to_string();
    for client in 0..100 {
        world.connect_with("");
        for _ in 0..2 * WAITING_RESUMES_MAX {
            world.send(client, &command);
        }
        assert!(world.shard.waiting.memory_bytes() <= WAITING_RESUME_BYTES_MAX);
    }
    let per_connection = world.shard.waiting.memory_bytes_of(world.clients[0].id.index);
    assert!(per_connection <= WAITING_RESUMES_MAX * 2 * 65_536, "{per_connection}");
}

#[test]
fn what_one_sends_and_reads_through_does_not_grow_with_what_is_sent() {
    let mut world = world_with(limits());
    world.connect();
    world.send(0, r#"{"type":"subscribe","channels":["t.>"]}"#);
    let before = world.shard.memory().fixed;
    flood(&mut world, 1, 50, 1 << 20);
    let grown = world.shard.memory().fixed - before;
    assert!(grown <= 800_000, "{grown}: the states of compression and 64 KiB of each buffer");
}
