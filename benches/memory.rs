//! What a connection takes in four states: idle with one subscription, idle with ten, with a full
//! replay ring, and slow with a full queue. `cargo bench --bench memory` prints, per connection,
//! what the shards account for and by how much the process grew; LIMITS.md has the figures.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failure here is a failed benchmark")]

mod server;

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use server::Server;

/// Reports of the shards are up to a second old.
const REPORT: Duration = Duration::from_millis(1_500);

fn main() {
    println!(
        "{:<34} {:>12} {:>12} {:>14}",
        "per connection, bytes", "accounted", "RSS", "kernel queue"
    );
    idle("one subscription", 5_000, 1);
    idle("ten subscriptions of 1,000 channels", 5_000, 10);
    full_replay(500);
    slow(200);
}

fn idle(what: &str, count: usize, subscriptions: usize) {
    let server = Server::start(&["--sim-tokens", "1"]);
    let channels = |number: usize| -> Vec<String> {
        let first = number * subscriptions;
        (first..first + subscriptions)
            .map(|it| format!("odin.token.Q{}.trade", it % 1_000))
            .collect()
    };
    let mut sockets: Vec<TcpStream> =
        (0..64).map(|it| server.connect(&channels(it), None)).collect();
    let before = server.rss_bytes();
    sockets.extend((0..count).map(|number| server.connect(&channels(number), None)));
    print(what, &server, before, count);
}

/// Everybody reads until the ring of 100 is full.
fn full_replay(count: usize) {
    let server = Server::start(&["--sim-tokens", "5", "--sim-rate", "100"]);
    let all = ["odin.token.>".to_owned()];
    let before = server.rss_bytes();
    let mut sockets: Vec<TcpStream> = (0..count).map(|_| server.connect(&all, None)).collect();
    while server.metric("ws_deliveries_total", "") < 150.0 * count as f64 {
        read_all(&mut sockets);
    }
    read_all(&mut sockets);
    print("full replay ring", &server, before, count);
}

fn read_all(sockets: &mut [TcpStream]) {
    let mut chunk = vec![0; 65_536];
    for socket in sockets {
        while socket.read(&mut chunk).is_ok_and(|count| count > 0) {}
    }
}

/// Nobody reads; the newest figures before the first is closed.
fn slow(count: usize) {
    let server = Server::start(&["--sim-tokens", "5", "--sim-rate", "60"]);
    let all = ["odin.token.>".to_owned()];
    let before = server.rss_bytes();
    let sockets: Vec<TcpStream> = (0..count).map(|_| server.connect(&all, Some(4_096))).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut newest = String::new();
    while server.metric("ws_messages_postponed_total", "") == 0.0 && Instant::now() < deadline {
        let kernel = server.metric("ws_shard_memory_bytes", "class=\"kernel_send\"") / count as f64;
        let average = server.metric("ws_connection_memory_bytes_average", "") - kernel;
        let rss = server.rss_bytes().saturating_sub(before) as f64 / count as f64;
        newest = format!("{:<34} {average:>12.0} {rss:>12.0} {kernel:>14.0}", "slow, queue full");
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("{newest}");
    drop(sockets);
}

fn print(what: &str, server: &Server, before: u64, count: usize) {
    std::thread::sleep(REPORT);
    let average = server.metric("ws_connection_memory_bytes_average", "");
    let rss = server.rss_bytes().saturating_sub(before) as f64 / count as f64;
    println!("{what:<34} {average:>12.0} {rss:>12.0} {:>14}", 0);
}
