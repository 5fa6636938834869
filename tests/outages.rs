//! The network to the broker cut, and credentials changed: what clients, /ready and /metrics say.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::nats::NatsServer;
use support::proxy::Proxy;
use support::{Client, Nats, Server};

const SUBJECT: &str = "odin.token.BTC.trade";

const MODES: [&str; 2] = ["ordered", "durable"];

fn serve(url: &str, further: &[&str]) -> Server {
    let arguments = ["--nats-url", url, "--js-stream-max-age", "10h"];
    let server = Server::serve(&[&arguments, further].concat());
    server.wait_ready(200);
    server
}

fn follower(server: &Server) -> Client {
    let mut client = Client::connect(server);
    assert_eq!(client.subscribe(&["odin.token.>"])["total"], 1);
    client
}

/// Reads so many events; the numbers in them, and what came beside them.
fn read(client: &mut Client, count: usize) -> (Vec<u64>, Vec<String>) {
    let (mut numbers, mut told) = (Vec::new(), Vec::new());
    while numbers.len() < count {
        let message = client.next();
        match message.get("seq") {
            Some(_) => numbers.push(message["data"]["n"].as_u64().unwrap()),
            None => told.push(message["type"].as_str().unwrap().to_owned()),
        }
    }
    (numbers, told)
}

fn status(server: &mut Server, status: &str) -> f64 {
    server.metrics()[&format!("ws_source_status{{status=\"{status}\"}}")]
}

/// Cuts the network, publishes, and mends it after the loss was told and `duration` has passed;
/// how long it took until the loss was told.
fn cut_network(mode: &str, duration: Duration) -> Duration {
    let nats = Nats::start();
    let proxy = Proxy::to(&nats.url());
    let mut server = serve(&proxy.url(), &["--js-consumer-mode", mode]);
    let mut client = follower(&server);
    nats.publish_numbers(SUBJECT, 0..20);
    assert_eq!(read(&mut client, 20).0, (0..20).collect::<Vec<u64>>());
    let began = Instant::now();
    proxy.cut();
    nats.publish_numbers(SUBJECT, 20..60);
    assert_eq!(client.next()["type"], "source_stale");
    let noticed = began.elapsed();
    assert!(server.get("/ready").contains("\"source\":\"stale\""));
    assert_eq!((status(&mut server, "stale"), status(&mut server, "live")), (1.0, 0.0));
    while began.elapsed() < duration {
        thread::sleep(Duration::from_secs(1));
        // A client that is silent for a minute would be closed.
        let answer = client.command(&json!({"type": "heartbeat"}));
        assert_eq!(answer["type"], "heartbeat");
    }
    proxy.mend();
    nats.publish_numbers(SUBJECT, 60..100);
    let (numbers, told) = read(&mut client, 80);
    assert_eq!(numbers, (20..100).collect::<Vec<u64>>());
    assert!(!told.contains(&"resync".to_owned()), "{told:?}");
    server.wait_ready(200);
    assert_eq!(status(&mut server, "live"), 1.0);
    assert_eq!(server.metrics()["ws_source_epochs_total"], 1.0);
    noticed
}

/// `ODIN_TEST_CUT_SECONDS=90 cargo test --test outages` cuts for longer than it takes to notice.
#[test]
fn a_cut_network_is_noticed_and_costs_no_message() {
    let seconds = std::env::var("ODIN_TEST_CUT_SECONDS").map_or(0, |text| text.parse().unwrap());
    for mode in MODES {
        let noticed = cut_network(mode, Duration::from_secs(seconds));
        println!("{mode}: a cut network is noticed after {noticed:?}");
    }
}

#[test]
fn credentials_that_are_withdrawn_are_told_and_tried_until_they_are_valid_again() {
    let login = |password: &str| format!("authorization {{ user: ana, password: {password} }}");
    let mut broker = NatsServer::start_with(&login("first"));
    let url = broker.url().replace("nats://", "nats://ana:first@");
    for mode in MODES {
        let mut server = serve(&url, &["--js-consumer-mode", mode, "--instance", mode]);
        let mut client = follower(&server);
        broker.reload(&login("second"));
        assert_eq!(client.next()["type"], "source_stale");
        let log = server.wait_for_log("NATS refuses the credentials");
        assert!(!log.contains("first"), "{log}");
        server.wait_ready(503);
        broker.reload(&login("first"));
        let live: Value = client.next();
        assert_eq!(live["type"], "source_live");
        server.wait_ready(200);
    }
}
