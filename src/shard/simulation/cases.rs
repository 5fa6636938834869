//! Single behaviours of a shard, one test each.

use super::world::World;
use super::{REQUEST, client_frame};
use crate::shard::limits::COMMAND_EXCESS_MAX;

#[test]
fn a_silent_client_is_kept_alive_then_pinged_and_then_closed() {
    let mut world = World::new(1);
    world.connect();
    world.check();
    let id = world.clients[0].id;
    for _ in 0..66 {
        world.now.monotonic_ms += 1_000;
        world.shard.tick(world.now, &mut world.wire);
    }
    world.check();
    let opcodes: Vec<u8> = world.clients[0].frames.iter().map(|(opcode, _)| *opcode).collect();
    assert_eq!(opcodes, [1, 10, 9, 8]);
    assert_eq!(world.clients[0].frames[3].1[..2], 1001_u16.to_be_bytes());
    assert_eq!(world.wire.gone.get(&id), Some(&"aborted"));
    assert_eq!(world.shard.connection_count(), 0);
}

#[test]
fn a_client_that_says_anything_stays() {
    let mut world = World::new(1);
    world.connect();
    for second in 0..300 {
        world.now.monotonic_ms += 1_000;
        if second % 50 == 0 {
            world.send(0, r#"{"type":"heartbeat"}"#);
        }
        world.shard.tick(world.now, &mut world.wire);
    }
    assert_eq!(world.shard.connection_count(), 1);
}

#[test]
fn a_handshake_that_does_not_end_meets_its_deadline() {
    let mut world = World::new(1);
    let id = world.shard.accept(world.now);
    for byte in REQUEST.iter().take(11) {
        world.now.monotonic_ms += 1_000;
        world.shard.receive(id, &mut [*byte], world.now, &mut world.wire);
        world.shard.tick(world.now, &mut world.wire);
    }
    assert_eq!(world.wire.gone.get(&id), Some(&"aborted"));
}

#[test]
fn a_client_that_asks_and_does_not_read_stops_being_read() {
    let mut world = World::new(1);
    world.connect();
    let id = world.clients[0].id;
    world.wire.room.insert(id, 0);
    let mut sent = 0;
    while world.shard.wants_read(id) {
        let mut ping = client_frame(9, &[7; 125]);
        world.shard.receive(id, &mut ping, world.now, &mut world.wire);
        sent += 1;
        assert!(sent < 1_000, "the pongs must fill its queue");
    }
    world.wire.blocked.clear();
    world.wire.room.insert(id, usize::MAX);
    world.shard.wrote(id, 0, &mut world.wire);
    assert!(world.shard.wants_read(id));
    world.check();
    let pongs = world.clients[0].frames.iter().filter(|(opcode, _)| *opcode == 10).count();
    assert_eq!(pongs, sent);
}

#[test]
fn a_command_flood_is_refused_and_then_closed() {
    let mut world = World::new(1);
    world.connect();
    for _ in 0..600 {
        world.send(0, r#"{"type":"heartbeat"}"#);
    }
    world.check();
    let frames = &world.clients[0].frames;
    let (_, last) = frames.last().unwrap();
    assert_eq!(last[..2], 1008_u16.to_be_bytes());
    let refused = frames
        .iter()
        .filter(|(_, text)| text.windows(12).any(|window| window == b"rate_limited"))
        .count();
    assert_eq!(refused, usize::from(COMMAND_EXCESS_MAX));
}

#[test]
fn a_refused_connection_gets_its_response_and_then_the_end() {
    let mut world = World::new(1);
    world.shard.settings.limits.connections_max = 1;
    world.connect();
    let id = world.shard.accept(world.now);
    world.shard.receive(id, &mut REQUEST.to_vec(), world.now, &mut world.wire);
    let response = String::from_utf8(world.wire.sent.remove(&id).unwrap()).unwrap();
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("\r\nRetry-After: 5\r\n"));
    assert_eq!(world.wire.gone.get(&id), Some(&"finished"));
}
