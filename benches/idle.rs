//! What idle connections cost: user memory (RSS growth) per connection with one subscription
//! each, and the server's CPU while they do nothing but answer pings and one simulated token trades
//! every few seconds on a channel that nobody follows.
//!
//! `cargo bench --bench idle` opens 10,000 connections and watches for 106 s, two whole rounds of
//! signs of life and pings; `cargo bench --bench idle -- 18000 53` opens 18,000 and watches one.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failure here is a failed benchmark")]

mod server;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use server::Server;

/// Clock ticks per second of /proc/PID/stat (sysconf(_SC_CLK_TCK) on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(10_000);
    let seconds = numbers.get(1).copied().unwrap_or(106);
    let server = Server::start(&["--sim-tokens", "1"]);
    let pid = server.pid();
    // Nobody publishes on it: the connections are idle.
    let quiet = ["odin.token.QUIET.trade".to_owned()];
    // The first connections grow what is shared.
    let mut sockets: Vec<TcpStream> = (0..64).map(|_| server.connect(&quiet, None)).collect();
    let before = server.rss_bytes();
    let began = Instant::now();
    sockets.extend((0..count).map(|_| server.connect(&quiet, None)));
    let connecting = began.elapsed();
    let after = server.rss_bytes();
    println!("{count} connections in {:.1} s", connecting.as_secs_f64());
    let bytes = (after - before) as f64 / count as f64;
    println!("memory: RSS grew from {before} to {after} bytes: {bytes:.0} per connection");

    std::thread::sleep(Duration::from_millis(1_500));
    let accounted = server.metric("ws_connection_memory_bytes_average", "");
    println!("memory: {accounted:.0} bytes per connection accounted for by the shards");

    let cpu_before = cpu_seconds(pid);
    let (watched, pongs) = answer_pings(&mut sockets, Duration::from_secs(seconds));
    let cpu = cpu_seconds(pid) - cpu_before;
    println!(
        "cpu: {cpu:.2} s in {watched:.0} s, {:.2} % of a core, {pongs} pings answered",
        100.0 * cpu / watched
    );
    let last = server.rss_bytes();
    let bytes = (last - before) as f64 / count as f64;
    println!("memory: RSS {last} bytes afterwards: {bytes:.0} per connection");
}

/// Answers pings once a second for so long; the seconds it took and the pings answered.
fn answer_pings(sockets: &mut [TcpStream], duration: Duration) -> (f64, u64) {
    let began = Instant::now();
    let mut pongs = 0;
    while began.elapsed() < duration {
        for socket in sockets.iter_mut() {
            let mut chunk = [0; 256];
            match socket.read(&mut chunk) {
                // The server's sign of life, which wants no answer.
                Ok(2) if chunk[..2] == [0x8A, 0] => {}
                Ok(10) if chunk[..2] == [0x89, 8] => {
                    let mut pong = vec![0x8A, 0x88, 0, 0, 0, 0];
                    pong.extend_from_slice(&chunk[2..10]);
                    socket.write_all(&pong).unwrap();
                    pongs += 1;
                }
                Ok(count) => panic!("not a ping: {:x?}", &chunk[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    (began.elapsed().as_secs_f64(), pongs)
}

/// User and system time of the process so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}
