//! A shard whose thread is stopped in earnest: the others go on, and its own clients are told.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::fs;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use odin_ws::testing::FEED_CAPACITY;
use serde_json::{Value, json};
use support::{Client, Nats, Server};

const CHANNEL: &str = "odin.token.BTC.trade";

/// Events that one shard's queue holds.
const QUEUED: u64 = FEED_CAPACITY as u64;

/// Events that come when it is full: fewer than one resume may bring.
const BEYOND: u64 = 1_000;

/// A client may be behind by everything that a queue holds: what is tested is the shard.
const PATIENT_WITH_CLIENTS: [&str; 6] =
    ["--queue-messages", "16384", "--queue-bytes", "8388608", "--conn-budget-bytes", "16777216"];

/// A thread of the server that runs no instruction until this is dropped, while the other threads
/// go on. To be dropped by the thread that made it, as ptrace wants it, and before the server: a
/// process does not end before its traced threads are let go.
struct StoppedThread(Pid);

impl StoppedThread {
    fn stop(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).expect("a child may be traced");
        ptrace::interrupt(thread).unwrap();
        let status = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(status, WaitStatus::PtraceEvent(..)), "{status:?}");
        Self(thread)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // It is gone already if the server has ended.
        ptrace::detach(self.0, None).unwrap_or_default();
    }
}

/// The threads of the shards, in their order.
fn shard_threads(server: &Server) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let mut threads: Vec<(u64, Pid)> = tasks
        .filter_map(|task| {
            let task = task.unwrap();
            let name = fs::read_to_string(task.path().join("comm")).unwrap();
            // The executors are numbered as they are made.
            let number = name.trim().strip_prefix("shard-")?.parse().unwrap();
            let thread = task.file_name().into_string().unwrap().parse().unwrap();
            Some((number, Pid::from_raw(thread)))
        })
        .collect();
    threads.sort_unstable();
    // Each has a helper of its name, for calls that block, which it started itself.
    threads.dedup_by_key(|(number, _)| *number);
    threads.into_iter().map(|(_, thread)| thread).collect()
}

/// A client on each of two shards. The kernel chooses the shard of a connection.
fn one_client_each(server: &Server) -> [Client; 2] {
    let mut clients = [None, None];
    for _ in 0..1_000 {
        let mut client = Client::connect(server);
        let status = client.command(&json!({"type": "connection:status"}));
        if status["source"] == "live" {
            let name = status["connection_id"].as_str().unwrap();
            let shard: usize = name.rsplit('-').nth(1).unwrap().parse().unwrap();
            clients[shard].get_or_insert(client);
        }
        if clients.iter().all(Option::is_some) {
            return clients.map(Option::unwrap);
        }
    }
    panic!("a shard gets no connections");
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

/// The next event of a client is the first of these, and so on; nothing else comes between.
#[track_caller]
fn assert_events(client: &mut Client, expected: std::ops::Range<u64>) -> Value {
    let mut events = client.next_events((expected.end - expected.start) as usize);
    assert!(numbers(&events).into_iter().eq(expected), "{:?}", numbers(&events));
    events.pop().unwrap()
}

#[test]
fn a_stopped_shard_holds_up_nobody_and_its_clients_are_told() {
    let nats = Nats::start();
    let url = nats.url();
    let arguments = [&["--nats-url", &url, "--shards", "2"][..], &PATIENT_WITH_CLIENTS].concat();
    let mut server = Server::serve(&arguments);
    server.wait_ready(200);
    let [mut stuck, mut other] = one_client_each(&server);
    stuck.subscribe(&[CHANNEL]);
    other.subscribe(&[CHANNEL]);
    nats.publish_numbers(CHANNEL, 0..1);
    assert_events(&mut stuck, 0..1);
    assert_events(&mut other, 0..1);
    assert_eq!(server.metrics()["ws_shard_overruns_total"], 0.0);

    let threads = shard_threads(&server);
    assert_eq!(threads.len(), 2, "{threads:?}");
    let stopped = StoppedThread::stop(threads[0]);
    let all = 1 + QUEUED + BEYOND;
    std::thread::scope(|scope| {
        scope.spawn(|| nats.publish_numbers(CHANNEL, 1..all));
        assert_events(&mut other, 1..all);
    });
    assert_eq!(server.metrics()["ws_shard_overruns_total"], 1.0);
    let log = server.wait_for_log("the others go on without it");
    let log: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(log["shard"], 0, "{log}");

    drop(stopped);
    let last = assert_events(&mut stuck, 1..1 + QUEUED);
    let resync = stuck.next();
    assert_eq!((&resync["type"], &resync["reason"]), (&json!("resync"), &json!("history_lost")));
    assert_eq!(resync["epoch"], stuck.welcome["epoch"]);

    let point = json!({"epoch": resync["epoch"], "pos": last["pos"], "ts": last["ts"]});
    let resume = json!({"type": "subscribe", "channels": [CHANNEL], "resume": point});
    let [mut back_at_it, mut gone_over] = one_client_each(&server);
    let answer = gone_over.command(&resume);
    assert_eq!(answer["recovered"], true, "{answer}");
    assert_eq!(answer["resume"]["messages"], BEYOND);
    assert_events(&mut gone_over, 1 + QUEUED..all);
    // Its log begins with what comes next: it has nothing to connect the position to.
    for client in [&mut stuck, &mut back_at_it] {
        client.send(&resume);
    }
    for client in [&mut stuck, &mut back_at_it] {
        let answer = client.next();
        assert_eq!(answer["recovered"], false, "{answer}");
        assert_eq!(answer["resume"]["reason"], "not_provable", "{answer}");
    }

    nats.publish_numbers(CHANNEL, all..all + 20);
    for client in [&mut stuck, &mut other, &mut back_at_it, &mut gone_over] {
        assert_events(client, all..all + 20);
        client.assert_quiet();
    }
    assert_eq!(server.metrics()["ws_shard_overruns_total"], 1.0);
}
