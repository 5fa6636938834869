//! How clients leave: all of them before the shard ends, each when its connection is old.

use std::collections::BTreeMap;

use serde_json::Value;

use super::world::World;
use super::{PEER, REQUEST};
use crate::shard::DRAIN_STEP_MS;

/// What one client has noticed of its leaving.
#[derive(Debug, Default)]
struct Leaving {
    frames: usize,
    events: usize,
    /// When it was told what: `reconnect_after_ms` and `deadline_ms`.
    told: Vec<(u64, u64, u64)>,
    /// When it was closed with which code.
    closed: Option<(u64, u16)>,
}

/// A world whose clients are all subscribed, and what they have noticed.
struct Watched {
    world: World,
    clients: Vec<Leaving>,
}

impl Watched {
    fn new(clients: usize, connection_age_ms: u64) -> Self {
        let mut world = World::new(1);
        world.shard.settings.limits.connections_max = u64::MAX;
        world.shard.settings.limits.idle_timeout_ms = 3_600_000;
        world.shard.settings.limits.connection_age_ms = connection_age_ms;
        for client in 0..clients {
            world.connect();
            world.send(client, r#"{"type":"subscribe","channels":["t.>"]}"#);
        }
        let clients = (0..clients).map(|_| Leaving::default()).collect();
        Self { world, clients }
    }

    fn begin_drain(&mut self, window_ms: u64) {
        self.world.shard.begin_drain(window_ms, self.world.now);
        self.world.flush();
    }

    fn drain(&mut self) -> bool {
        let has_more = self.world.shard.drain(self.world.now);
        self.world.flush();
        has_more
    }

    fn tick(&mut self) {
        self.world.tick();
    }

    /// Reads what came; how many were closed.
    fn look(&mut self) -> usize {
        self.world.check();
        let now_ms = self.world.now.monotonic_ms();
        let mut closed = 0;
        for (leaving, client) in self.clients.iter_mut().zip(&self.world.clients) {
            for (opcode, payload) in &client.frames[leaving.frames..] {
                assert_eq!(leaving.closed, None, "nothing follows a close");
                if *opcode == 8 {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    leaving.closed = Some((now_ms, code));
                    closed += 1;
                } else if *opcode == 1 {
                    let message: Value = serde_json::from_slice(payload).unwrap();
                    leaving.events += usize::from(message.get("seq").is_some());
                    if message["type"] == "server_draining" {
                        let number = |name: &str| message[name].as_u64().unwrap();
                        let told = (number("reconnect_after_ms"), number("deadline_ms"));
                        leaving.told.push((now_ms, told.0, told.1));
                    }
                }
            }
            leaving.frames = client.frames.len();
        }
        closed
    }

    fn pass(&mut self, elapsed_ms: u64) {
        self.world.pass(elapsed_ms);
    }
}

/// How many of `moments` lie in each tenth of `from..to`.
fn tenths(moments: impl Iterator<Item = u64>, from: u64, to: u64) -> Vec<usize> {
    let mut counts = vec![0; 10];
    for moment in moments {
        assert!((from..to).contains(&moment), "{moment} is not in {from}..{to}");
        counts[((moment - from) * 10 / (to - from)) as usize] += 1;
    }
    counts
}

#[test]
fn everybody_is_told_once_and_closed_in_even_shares_before_the_deadline() {
    let mut watched = Watched::new(600, 0);
    let unfinished = watched.world.shard.accept(PEER, watched.world.now);
    let lost = watched.world.clients[300].id;
    let begin_ms = watched.world.now.monotonic_ms();
    watched.begin_drain(10_000);
    assert_eq!(watched.world.wire.gone.get(&unfinished), Some(&"aborted"));
    assert!(!watched.drain(), "one step tells so many");
    assert_eq!(watched.look(), 0);
    watched.world.shard.lost(lost);
    let mut published = BTreeMap::new();
    while watched.world.now.monotonic_ms() < begin_ms + 9_100 {
        let now_ms = watched.world.now.monotonic_ms();
        if now_ms.is_multiple_of(500) {
            watched.world.publish_text("t.a", "x");
            published.insert(now_ms, published.len() + 1);
        }
        watched.pass(DRAIN_STEP_MS);
        watched.drain();
        let closed = watched.look();
        // 600 in 160 steps are 3.75 each.
        assert!(closed <= 5, "{closed} closed in one step");
    }
    let stayed = || watched.clients.iter().enumerate().filter(|(index, _)| *index != 300);
    for (_, leaving) in stayed() {
        let [(told_ms, reconnect_after_ms, deadline_ms)] = leaving.told[..] else {
            panic!("told {} times", leaving.told.len());
        };
        assert_eq!((told_ms, deadline_ms), (begin_ms, reconnect_after_ms + 1_000));
        let (closed_ms, code) = leaving.closed.expect("all are closed");
        assert_eq!(code, 1012);
        let due_ms = begin_ms + deadline_ms;
        assert!((due_ms..due_ms + DRAIN_STEP_MS).contains(&closed_ms), "{closed_ms} {due_ms}");
        let before = published.range(..closed_ms).next_back().map_or(0, |(_, count)| *count);
        assert_eq!(leaving.events, before, "events come until the close");
    }
    let moments = stayed().map(|(_, leaving)| leaving.told[0].1);
    let even = tenths(moments, 0, 8_000);
    assert!(even.iter().all(|count| (58..=62).contains(count)), "{even:?}");
    let stats = watched.world.shard.stats();
    assert_eq!((stats.drain_closed, stats.age_closed), (599, 0));
}

#[test]
fn steps_that_come_late_close_no_crowd_and_the_deadline_closes_the_rest() {
    let mut watched = Watched::new(600, 0);
    watched.begin_drain(10_000);
    watched.drain();
    watched.look();
    watched.pass(9_000);
    let mut closed = 0;
    for _ in 0..3 {
        watched.drain();
        let crowd = watched.look();
        assert_eq!(crowd, 8, "two shares of 3.75, each rounded up");
        closed += crowd;
    }
    watched.world.shard.shut_down(watched.world.now);
    watched.world.flush();
    assert_eq!(watched.look(), 600 - closed);
    let of = |code: u16| {
        let codes = watched.clients.iter().filter_map(|leaving| leaving.closed);
        codes.filter(|(_, closed)| *closed == code).count()
    };
    assert_eq!((of(1012), of(1001)), (closed, 600 - closed));
    assert_eq!(watched.world.shard.stats().drain_closed, closed as u64);
}

#[test]
fn a_great_many_clients_are_told_in_steps_and_none_is_closed_untold() {
    let mut watched = Watched::new(1_500, 0);
    watched.begin_drain(0);
    watched.pass(1_000);
    assert!(watched.drain(), "more are to be told");
    watched.look();
    let told = watched.clients.iter().filter(|leaving| leaving.told.len() == 1).count();
    assert_eq!(told, 1_024);
    assert!(!watched.drain());
    watched.look();
    for leaving in &watched.clients {
        assert_eq!((leaving.told.len(), leaving.closed.map(|(_, code)| code)), (1, Some(1012)));
    }
}

#[test]
fn readiness_fails_while_connections_are_still_taken() {
    let mut watched = Watched::new(0, 0);
    let ask = |watched: &mut Watched| {
        let world = &mut watched.world;
        let id = world.shard.accept(PEER, world.now);
        let mut request = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        world.shard.receive(id, &mut request, world.now, &mut world.wire);
        String::from_utf8(world.wire.sent.remove(&id).unwrap()).unwrap()
    };
    assert!(ask(&mut watched).ends_with("{\"ready\":true,\"source\":\"live\"}"));
    watched.world.shard.retire();
    let response = ask(&mut watched);
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.ends_with("{\"ready\":false,\"draining\":true,\"source\":\"live\"}"));
    let world = &mut watched.world;
    let id = world.shard.accept(PEER, world.now);
    world.shard.receive(id, &mut REQUEST.to_vec(), world.now, &mut world.wire);
    assert!(world.wire.sent[&id].starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn old_connections_are_told_and_closed_at_ages_of_their_own() {
    let mut watched = Watched::new(400, 100_000);
    let begin_ms = watched.world.now.monotonic_ms();
    for second in 1..=130 {
        watched.pass(1_000);
        // Whether a client is busy makes no difference.
        if second % 7 == 0 {
            watched.world.send(0, r#"{"type":"heartbeat"}"#);
        }
        watched.tick();
        watched.look();
    }
    for leaving in &watched.clients {
        let [(told_ms, reconnect_after_ms, deadline_ms)] = leaving.told[..] else {
            panic!("told {} times", leaving.told.len());
        };
        assert!(reconnect_after_ms < 5_000 && reconnect_after_ms + 1_000 <= deadline_ms);
        assert!(deadline_ms < reconnect_after_ms + 2_000, "within a tick");
        assert_eq!(leaving.closed, Some((told_ms + deadline_ms, 1012)));
    }
    let told = watched.clients.iter().map(|leaving| leaving.told[0].0);
    let ages = tenths(told, begin_ms + 80_000, begin_ms + 121_000);
    assert!(ages.iter().all(|count| (20..=60).contains(count)), "{ages:?}");
    let moments = watched.clients.iter().map(|leaving| leaving.told[0].1);
    let moments = tenths(moments, 0, 5_000);
    assert!(moments.iter().all(|count| (20..=60).contains(count)), "{moments:?}");
    let stats = watched.world.shard.stats();
    assert_eq!((stats.age_closed, stats.drain_closed), (400, 0));
}

#[test]
fn a_drain_takes_over_from_the_age() {
    let mut watched = Watched::new(100, 10_000);
    for _ in 0..11 {
        watched.pass(1_000);
        watched.tick();
        watched.look();
    }
    let told_twice = watched.clients.iter().filter(|it| it.told.len() == 1).count();
    assert!((10..90).contains(&told_twice), "{told_twice} know already");
    let gone = watched.clients.iter().filter(|it| it.closed.is_some()).count();
    watched.begin_drain(60_000);
    for step in 1..=60_000 / DRAIN_STEP_MS {
        watched.drain();
        watched.pass(DRAIN_STEP_MS);
        if step % 20 == 0 {
            watched.tick();
        }
        watched.look();
    }
    for leaving in &watched.clients {
        let (told_ms, _, deadline_ms) = *leaving.told.last().unwrap();
        let (closed_ms, code) = leaving.closed.unwrap();
        let due_ms = told_ms + deadline_ms;
        assert!((due_ms..due_ms + 2 * DRAIN_STEP_MS).contains(&closed_ms), "{closed_ms} {due_ms}");
        assert_eq!(code, 1012);
    }
    let stats = watched.world.shard.stats();
    assert_eq!((stats.age_closed, stats.drain_closed), (gone as u64, 100 - gone as u64));
}
