//! Single behaviours of a shard, one test each.

use serde_json::{Value, json};

use super::world::World;
use super::{PEER, REQUEST, client_frame};
use crate::feed::{Feed, SourceStatus};
use crate::position::{Base, Epoch};
use crate::shard::limits::{
    ANNOUNCED_PER_STEP, COMMAND_EXCESS_MAX, DEADLINES_PER_STEP, RESUME_WAIT_MS, SCAN_STEPS_MAX,
    SCAN_STEPS_PER_COMMAND, SNAPSHOT_MESSAGES_MAX,
};
use crate::shard::scan_budget::ScanBudget;

#[test]
fn a_silent_client_is_kept_alive_then_pinged_and_then_closed() {
    let mut world = World::new(1);
    world.connect();
    world.check();
    let id = world.clients[0].id;
    for _ in 0..66 {
        world.pass(1_000);
        world.tick();
    }
    world.check();
    let opcodes: Vec<u8> = world.clients[0].frames.iter().map(|(opcode, _)| *opcode).collect();
    assert_eq!(opcodes, [1, 10, 9, 8]);
    assert_eq!(world.clients[0].frames[3].1[..2], 1001_u16.to_be_bytes());
    assert_eq!(world.wire.gone.get(&id), Some(&"aborted"));
    assert_eq!(world.shard.connections.len(), 0);
}

#[test]
fn a_client_that_says_anything_stays() {
    let mut world = World::new(1);
    world.connect();
    for second in 0..300 {
        world.pass(1_000);
        if second % 50 == 0 {
            world.send(0, r#"{"type":"heartbeat"}"#);
        }
        world.tick();
    }
    assert_eq!(world.shard.connections.len(), 1);
}

#[test]
fn a_handshake_that_does_not_end_meets_its_deadline() {
    let mut world = World::new(1);
    let id = world.shard.accept(PEER, world.now);
    for byte in REQUEST.iter().take(11) {
        world.pass(1_000);
        world.shard.receive(id, &mut [*byte], world.now, &mut world.wire);
        world.tick();
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
    world.writable(id);
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
    let id = world.shard.accept(PEER, world.now);
    world.shard.receive(id, &mut REQUEST.to_vec(), world.now, &mut world.wire);
    let response = String::from_utf8(world.wire.sent.remove(&id).unwrap()).unwrap();
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("\r\nRetry-After: 5\r\n"));
    assert_eq!(world.wire.gone.get(&id), Some(&"finished"));
}

#[test]
fn a_command_of_too_many_channels_is_refused_as_a_whole() {
    let mut world = World::new(1);
    world.connect();
    world.take_messages();
    let names: Vec<String> = (0..1_025).map(|number| format!("t.{number}")).collect();
    for kind in ["subscribe", "unsubscribe"] {
        world.send(0, &json!({"type": kind, "channels": names, "id": 3}).to_string());
        let answer = &world.take_messages()[0];
        assert_eq!(answer["code"], "too_many_channels", "{answer}");
        assert_eq!((&answer["limit"], &answer["id"]), (&json!(1_024), &json!(3)));
    }
    world.send(0, &json!({"type": "subscribe", "channels": names[..1_024]}).to_string());
    assert_eq!(world.take_messages()[0]["total"], 1_024);
}

#[test]
fn snapshots_of_many_patterns_end_and_are_paid_for() {
    let mut world = World::new(1);
    world.connect();
    let channels = 30_000;
    let names: Vec<String> = (0..channels).map(|number| format!("t.{number}.x")).collect();
    world.publish_on(names.iter().map(String::as_str));
    world.take_messages();
    // Each pattern has all channels to look at; none matches, so all would be looked at.
    let patterns: Vec<String> = (0..1_000).map(|number| format!("t.*.y{number}")).collect();
    let subscribe = json!({"type": "subscribe", "channels": patterns, "snapshot": true});
    world.send(0, &subscribe.to_string());
    let answer = &world.take_messages()[0];
    assert_eq!(answer["snapshot"], json!({"messages": 0, "complete": false}));
    assert_eq!(answer["total"], 1_000);
    // The command took a few more from the burst of 50.
    let heartbeats = 50 - 1 - SCAN_STEPS_MAX / SCAN_STEPS_PER_COMMAND;
    for _ in 0..=heartbeats {
        world.send(0, r#"{"type":"heartbeat"}"#);
    }
    let kinds: Vec<Value> =
        world.take_messages().iter().map(|message| message["type"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "heartbeat").count(), heartbeats);
    assert_eq!(kinds.last(), Some(&json!("error")));
}

#[test]
fn what_is_subscribed_already_brings_no_snapshot_and_no_cost() {
    let mut world = World::new(1);
    world.connect();
    let channels = SNAPSHOT_MESSAGES_MAX + 1;
    let names: Vec<String> = (0..channels).map(|number| format!("t.{number}.x")).collect();
    world.publish_on(names.iter().map(String::as_str));
    world.take_messages();
    let subscribe = json!({"type": "subscribe", "channels": ["t.>"], "snapshot": true}).to_string();
    for (messages, complete) in [(SNAPSHOT_MESSAGES_MAX, false), (0, true)] {
        world.send(0, &subscribe);
        let answer = &world.take_messages()[0];
        assert_eq!(answer["snapshot"], json!({"messages": messages, "complete": complete}));
    }
}

#[test]
fn whoever_comes_while_the_source_is_away_is_told() {
    let mut world = World::new(1);
    let source = |world: &mut World, status| {
        world.feed([Feed::Status(status)].into());
    };
    source(&mut world, SourceStatus::Stale);
    world.connect();
    let kinds = |world: &mut World| -> Vec<(Value, Value)> {
        let messages = world.take_messages();
        messages.iter().map(|it| (it["type"].clone(), it["epoch"].clone())).collect()
    };
    let told = |kind: &str| (json!(kind), json!("e"));
    assert_eq!(kinds(&mut world), [told("welcome"), told("source_stale")]);
    source(&mut world, SourceStatus::Live);
    source(&mut world, SourceStatus::Stale);
    source(&mut world, SourceStatus::Live);
    let changes = ["source_live", "source_stale", "source_live"].map(told);
    assert_eq!(kinds(&mut world), changes);
}

#[test]
fn a_batch_that_does_not_fit_the_queue_of_a_full_socket_closes_the_client() {
    let mut world = World::new(1);
    world.connect();
    world.send(0, r#"{"type":"subscribe","channels":["t.>"]}"#);
    world.take_messages();
    let id = world.clients[0].id;
    world.shard.settings.limits.client.queue_bytes = 600;
    world.wire.room.insert(id, 0);
    // One batch: all are pending when the socket turns out to be full, and few fit.
    world.publish_on(["t.A.x"; 20].into_iter());
    let stats = world.shard.stats();
    assert_eq!((stats.slow_closed, stats.postponed, stats.dropped), (1, 3, 20));
    world.wire.room.insert(id, usize::MAX);
    world.wire.blocked.clear();
    world.writable(id);
    world.check();
    let opcodes: Vec<u8> = world.clients[0].frames.iter().map(|it| it.0).collect();
    assert_eq!(opcodes, [8], "none of the twenty was sent, and none may be");
}

/// A client on `t.>` that has seen `count` events of one channel each, and a budget of 24,000
/// bytes.
fn small_budget(count: usize) -> World {
    let mut world = World::new(1);
    world.connect();
    world.send(0, r#"{"type":"subscribe","channels":["t.>"]}"#);
    let names: Vec<String> = (0..count).map(|number| format!("t.{number}.x")).collect();
    world.publish_on(names.iter().map(String::as_str));
    world.take_messages();
    world.shard.settings.limits.connection_budget_bytes = 24_000;
    world
}

#[test]
fn what_a_client_asks_for_is_cut_to_its_budget() {
    let mut world = small_budget(300);
    let budget = world.shard.settings.limits.connection_budget_bytes;
    world.wire.room.insert(world.clients[0].id, 0);
    world.send(0, r#"{"type":"replay","from_seq":201,"to_seq":300}"#);
    world.send(0, r#"{"type":"replay","from_seq":201,"to_seq":300,"id":5}"#);
    world.send(0, r#"{"type":"unsubscribe","channels":["t.>"]}"#);
    world.send(0, r#"{"type":"subscribe","channels":["t.>"],"snapshot":true}"#);
    let id = world.clients[0].id;
    assert!(!world.is_over_budget(id), "nothing of it is over the budget");
    world.wire.room.insert(id, usize::MAX);
    world.wire.blocked.clear();
    world.writable(id);
    let messages = world.take_messages();
    let answers: Vec<&Value> = messages.iter().filter(|it| it.get("seq").is_none()).collect();
    assert_eq!((&answers[0]["type"], &answers[0]["count"]), (&json!("replay"), &json!(100)));
    assert_eq!((&answers[1]["code"], &answers[1]["id"]), (&json!("over_budget"), &json!(5)));
    assert_eq!(answers[1]["limit"], budget);
    let snapshot = &answers[3]["snapshot"];
    assert_eq!(snapshot["complete"], false);
    assert!(snapshot["messages"].as_u64().unwrap() < 300, "{snapshot}");
    assert_eq!(messages.len() - 4, 100 + snapshot["messages"].as_u64().unwrap() as usize);
}

#[test]
fn a_connection_over_its_budget_is_closed() {
    let mut world = small_budget(1);
    world.shard.settings.limits.connection_budget_bytes = 12_000;
    let names: Vec<String> = (0..1_000).map(|number| format!("t.{number}.y")).collect();
    world.send(0, &json!({"type": "subscribe", "channels": names}).to_string());
    assert_eq!(world.shard.stats().budget_closed, 1);
    let sent = world.wire.sent.remove(&world.clients[0].id).unwrap();
    let close = [&1008_u16.to_be_bytes()[..], b"connection over its memory budget"].concat();
    assert!(sent.ends_with(&close));
    // What the kernel holds counts, too.
    let mut world = small_budget(1);
    let id = world.clients[0].id;
    world.shard.check_budget(id, 10_000, world.now);
    world.flush();
    assert_eq!(world.shard.stats().budget_closed, 0);
    world.shard.check_budget(id, 24_000, world.now);
    world.flush();
    assert_eq!(world.shard.stats().budget_closed, 1);
}

#[test]
fn events_of_a_batching_connection_are_sent_together_when_it_is_due() {
    let mut world = World::new(1);
    world.connect();
    world.send(0, r#"{"type":"subscribe","channels":["t.>"]}"#);
    world.send(0, r#"{"type":"batch","ms":100,"id":1}"#);
    assert_eq!(world.take_messages().pop(), Some(json!({"type": "batch", "ms": 100, "id": 1})));
    let positions = |world: &mut World| -> Vec<u64> {
        world.take_messages().iter().map(|event| event["pos"].as_u64().unwrap()).collect()
    };
    world.publish_on(["t.a"].into_iter());
    assert_eq!(positions(&mut world), [1], "the first does not wait");
    let sends = world.shard.stats().sends;
    for _ in 0..40 {
        world.pass(1);
        world.publish_on(["t.a", "t.b"].into_iter());
    }
    assert_eq!(positions(&mut world), [0; 0]);
    assert_eq!(world.shard.next_due_ms(), Some(1_100));
    world.pass(60);
    assert_eq!(positions(&mut world), (2..=81).collect::<Vec<u64>>());
    assert_eq!(world.shard.stats().sends - sends, 2, "as many as 80 frames need");
    // More than can be kept is not kept back.
    for _ in 0..101 {
        world.publish_on(["t.a"].into_iter());
    }
    assert_eq!(positions(&mut world), (82..=181).collect::<Vec<u64>>());
    // What a client asks for does not wait, and nothing overtakes anything.
    world.send(0, r#"{"type":"heartbeat"}"#);
    let messages = world.take_messages();
    assert_eq!((&messages[0]["pos"], &messages[1]["type"]), (&json!(182), &json!("heartbeat")));
}

#[test]
fn what_is_compressed_is_compressed_once_and_within_the_window() {
    let mut world = World::new(1);
    for offer in ["permessage-deflate", "", "permessage-deflate; server_max_window_bits=9"] {
        world.connect_with(offer);
    }
    for client in 0..3 {
        world.send(client, r#"{"type":"subscribe","channels":["t.>"]}"#);
    }
    for length in [1, 300, 600] {
        world.publish_text("t.a", &"x".repeat(length));
    }
    world.check();
    let compressed: Vec<usize> = world.clients.iter().map(|client| client.compressed).collect();
    assert_eq!(
        compressed,
        [2, 0, 1],
        "not the short one, and not what the window is too small for"
    );
    let texts = |client: usize| -> Vec<&Vec<u8>> {
        let frames = world.clients[client].frames.iter();
        frames.map(|(_, text)| text).filter(|text| text.starts_with(b"{\"seq\"")).collect()
    };
    assert_eq!((texts(0).len(), texts(0) == texts(1), texts(0) == texts(2)), (3, true, true));
}

#[test]
fn a_message_that_never_ends_is_closed_and_others_may_take_their_time() {
    let mut world = World::new(1);
    world.connect();
    world.connect();
    let ids = [world.clients[0].id, world.clients[1].id];
    let ping = |world: &mut World, client: usize, bytes: &[u8]| {
        world.shard.receive(ids[client], &mut bytes.to_vec(), world.now, &mut world.wire);
    };
    // One sends a byte a second of one frame, the other whole messages as slowly.
    ping(&mut world, 0, &client_frame(1, &[b' '; 1_000])[..8]);
    for second in 0..60 {
        world.pass(1_000);
        ping(&mut world, 0, b"x");
        let pong = client_frame(10, b"");
        ping(&mut world, 1, &pong[..3]);
        ping(&mut world, 1, &pong[3..]);
        world.tick();
        world.check();
        let closed = world.clients[0].frames.iter().any(|(opcode, _)| *opcode == 8);
        assert!(!closed || second >= 58, "closed after {second} s");
    }
    let close = world.clients[0].frames.last().unwrap();
    assert_eq!(
        (close.0, &close.1[..2], &close.1[2..]),
        (8, &1008_u16.to_be_bytes()[..], &b"message not complete in time"[..])
    );
    assert!(world.clients[1].frames.iter().all(|(opcode, _)| *opcode != 8));
}

#[test]
fn a_command_behind_a_pause_that_no_full_socket_ends_is_answered() {
    let mut world = World::new(1);
    world.connect_with("");
    world.take_messages();
    let names: Vec<String> = (0..600).map(|number| format!("t.{number:060}")).collect();
    let resume = json!({"epoch": "e", "pos": 5, "ts": 5});
    let command = json!({"type": "subscribe", "channels": names, "resume": resume});
    for _ in 0..2 {
        world.send(0, &command.to_string());
    }
    // The answers, of over 64 KiB, are queued by the shard itself and sent in the connection's turn.
    world.pass(RESUME_WAIT_MS);
    world.shard.tick(world.now);
    world.shard.step(0, world.now, &mut world.wire);
    world.send(0, r#"{"type":"heartbeat"}"#);
    assert_eq!(world.wire.unread.len(), 1, "the heartbeat is not read yet");
    let kinds: Vec<Value> =
        world.take_messages().iter().map(|message| message["type"].clone()).collect();
    assert_eq!(kinds, ["subscribed", "subscribed", "heartbeat"], "though no socket was ever full");
}

#[test]
fn clients_that_came_together_are_seen_to_a_few_at_a_time() {
    let mut world = World::new(1);
    world.shard.settings.limits.connections_max = u64::MAX;
    let clients = 2 * DEADLINES_PER_STEP + 10;
    for _ in 0..clients {
        world.connect_with("");
    }
    world.flush();
    let told = |world: &mut World| -> Vec<usize> {
        world.check();
        world.clients.iter().map(|client| client.frames.len() - 1).collect()
    };
    world.pass(26_000);
    world.shard.tick(world.now);
    let mut steps = 0;
    loop {
        let has_more = world.shard.step(usize::MAX, world.now, &mut world.wire);
        steps += 1;
        let done: usize = told(&mut world).iter().sum();
        assert!(done <= steps * DEADLINES_PER_STEP, "{done} after {steps} steps");
        if !has_more {
            break;
        }
    }
    assert!(steps >= 3 && told(&mut world).iter().all(|count| *count == 1));
}

#[test]
fn a_change_of_the_source_is_told_to_some_at_a_time_and_before_anything_else() {
    let mut world = World::new(1);
    world.shard.settings.limits.connections_max = u64::MAX;
    let clients = ANNOUNCED_PER_STEP + 50;
    for client in 0..clients {
        world.connect_with("");
        world.send(client, r#"{"type":"subscribe","channels":["t.>"]}"#);
    }
    world.flush();
    world.check();
    let before: Vec<usize> = world.clients.iter().map(|client| client.frames.len()).collect();
    let mut feed = [
        Feed::Epoch { epoch: Epoch("f".into()), base: Base::default() },
        Feed::Status(SourceStatus::Stale),
    ]
    .into();
    world.shard.publish(&mut feed, world.now, &mut world.wire);
    assert_eq!(feed.len(), 1, "nothing is published until everybody has been told");
    // One that was not told yet says something, and one comes.
    world.send(clients - 1, r#"{"type":"heartbeat"}"#);
    world.connect_with("");
    while !feed.is_empty() {
        world.shard.publish(&mut feed, world.now, &mut world.wire);
        world.shard.step(100, world.now, &mut world.wire);
    }
    world.flush();
    world.check();
    let kinds = |client: usize, from: usize| -> Vec<Value> {
        let frames = &world.clients[client].frames[from..];
        let texts = frames.iter().map(|(_, text)| serde_json::from_slice::<Value>(text).unwrap());
        texts.map(|message| message["type"].clone()).collect()
    };
    for (client, &from) in before.iter().enumerate().take(clients - 1) {
        assert_eq!(kinds(client, from), ["resync", "source_stale"], "client {client}");
    }
    let early = kinds(clients - 1, before[clients - 1]);
    assert_eq!(early, ["resync", "heartbeat", "source_stale"]);
    assert_eq!(kinds(clients, 0), ["welcome", "source_stale"], "the welcome has the new epoch");
}

#[test]
fn a_snapshot_for_a_client_with_many_subscriptions_keeps_to_its_budget() {
    let mut world = World::new(1);
    world.connect();
    let names: Vec<String> = (0..40_000).map(|number| format!("t.{number}.x")).collect();
    world.publish_on(names.iter().map(String::as_str));
    let own: Vec<&String> = names.iter().take(1_000).collect();
    world.send(0, &json!({"type": "subscribe", "channels": own}).to_string());
    world.take_messages();
    let id = world.clients[0].id;
    let subscribed = world.shard.index.subscribed(id.index);
    let mut budget = ScanBudget::new(SCAN_STEPS_MAX);
    for name in &names {
        world.shard.index.has_match(&subscribed, name, &mut budget);
    }
    assert_eq!(budget.taken(), 1_000, "a channel is compared with the topics that match it alone");
    world.send(0, r#"{"type":"subscribe","channels":["t.>"],"snapshot":true}"#);
    let answer = &world.take_messages()[0];
    assert_eq!(answer["snapshot"]["messages"], SNAPSHOT_MESSAGES_MAX);
}

#[test]
fn a_client_that_asks_for_its_status_on_and_on_is_measured_all_the_same() {
    let mut world = World::new(1);
    world.connect_with("");
    for _ in 0..3 {
        world.send(0, r#"{"type":"connection:status"}"#);
        world.now.monotonic_us += 300;
    }
    world.check();
    let pings: Vec<Vec<u8>> =
        world.clients[0].frames.iter().filter(|it| it.0 == 9).map(|it| it.1.clone()).collect();
    assert_eq!(pings.len(), 1, "one at a time");
    let id = world.clients[0].id;
    let mut pong = client_frame(10, &pings[0]);
    world.shard.receive(id, &mut pong, world.now, &mut world.wire);
    world.take_messages();
    world.send(0, r#"{"type":"connection:status"}"#);
    assert_eq!(world.take_messages()[0]["latency_ms"], 0);
}
