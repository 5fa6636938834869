//! The server on a cluster of three real nats-servers with a replicated stream, in either consumer
//! mode, while a leader changes, a node is killed and a node is frozen.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::thread::JoinHandle;

use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{Client, Server};

const SUBJECT: &str = "odin.token.BTC.trade";

/// A server and a client of it that checks what it reads.
struct Checked {
    server: Server,
    client: Client,
    read: u64,
    /// What came beside events.
    told: Vec<String>,
}

impl Checked {
    fn start(cluster: &Cluster, mode: &str) -> Self {
        let server = Server::serve(&[
            "--nats-url",
            &cluster.urls(),
            "--instance",
            mode,
            "--js-consumer-mode",
            mode,
            "--js-stream-replicas",
            "3",
            "--js-stream-max-age",
            "10h",
        ]);
        server.wait_ready(200);
        let mut client = Client::connect(&server);
        assert_eq!(client.subscribe(&["odin.token.>"])["total"], 1);
        Self { server, client, read: 0, told: Vec::new() }
    }

    /// Reads events up to number `until`: each once, in order, without a hole.
    fn read(&mut self, until: u64) {
        while self.read < until {
            let message = self.client.next();
            if message.get("seq").is_none() {
                self.told.push(message["type"].to_string());
                assert_ne!(message["type"], "resync", "nothing was lost");
                continue;
            }
            let expected = (self.read, self.read + 1, self.read, self.read + 1);
            let number = |value: &Value| value.as_u64().unwrap();
            let found = (
                number(&message["data"]["n"]),
                number(&message["pos"]),
                number(&message["prev"]),
                number(&message["seq"]),
            );
            assert_eq!(found, expected, "{message}");
            self.read += 1;
        }
    }

    /// The URL of the node that it is connected to.
    fn node(&mut self) -> String {
        let line = self.server.wait_for_log("connected to NATS");
        let log: Value = serde_json::from_str(&line).unwrap();
        log["url"].as_str().unwrap().to_owned()
    }
}

fn start(cluster: &Cluster) -> [Checked; 2] {
    ["ordered", "durable"].map(|mode| Checked::start(cluster, mode))
}

fn publish(cluster: &Cluster, numbers: std::ops::Range<u64>) -> JoinHandle<()> {
    let publisher = cluster.publisher();
    std::thread::spawn(move || publisher.publish_numbers(SUBJECT, numbers))
}

fn finish(servers: [Checked; 2], publishing: JoinHandle<()>, total: u64) {
    for mut checked in servers {
        checked.read(total);
        checked.server.wait_ready(200);
        checked.client.send(&json!({"type": "heartbeat", "id": "last"}));
        let rest: Vec<Value> = std::iter::from_fn(|| {
            let message = checked.client.next();
            (message["id"] != "last").then_some(message)
        })
        .collect();
        let is_status = |message: &Value| message["type"] == "source_live";
        assert!(rest.iter().all(is_status), "{rest:?}");
    }
    publishing.join().unwrap();
}

#[test]
fn leaders_of_the_stream_change_while_messages_come() {
    let cluster = Cluster::start();
    let mut servers = start(&cluster);
    assert_eq!(cluster.stream_config().num_replicas, 3);
    let publishing = publish(&cluster, 0..800);
    for until in [100, 200, 300] {
        servers.iter_mut().for_each(|checked| checked.read(until));
        cluster.step_down();
    }
    finish(servers, publishing, 800);
}

#[test]
fn a_node_is_killed_and_comes_back_while_messages_come() {
    let mut cluster = Cluster::start();
    let mut servers = start(&cluster);
    let publishing = publish(&cluster, 0..800);
    servers.iter_mut().for_each(|checked| checked.read(100));
    let url = servers[0].node();
    cluster.node(&url).kill();
    servers.iter_mut().for_each(|checked| checked.read(300));
    assert!(servers[0].told[0].contains("source_stale"), "{:?}", servers[0].told);
    cluster.node(&url).restart();
    finish(servers, publishing, 800);
}

#[test]
fn a_node_is_frozen_and_thaws_while_messages_come() {
    let mut cluster = Cluster::start();
    let mut servers = start(&cluster);
    let publishing = publish(&cluster, 0..800);
    servers.iter_mut().for_each(|checked| checked.read(100));
    let url = servers[1].node();
    cluster.node(&url).freeze();
    servers.iter_mut().for_each(|checked| checked.read(300));
    assert!(servers[1].told[0].contains("source_stale"), "{:?}", servers[1].told);
    cluster.node(&url).thaw();
    finish(servers, publishing, 800);
}
