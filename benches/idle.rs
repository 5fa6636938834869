//! What idle connections cost: user memory (RSS growth) per connection with one subscription
//! each, and the server's CPU while they do nothing but answer pings and one simulated token trades
//! every few seconds on a channel that nobody follows.
//!
//! `cargo bench --bench idle` opens 10,000 connections and watches for 106 s, two whole rounds of
//! signs of life and pings; `cargo bench --bench idle -- 18000 53` opens 18,000 and watches one.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failure here is a failed benchmark")]

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Nobody publishes on it: the connections are idle.
const SUBSCRIBE: &str = r#"{"type":"subscribe","channels":["odin.token.QUIET.trade"]}"#;

/// Clock ticks per second of /proc/PID/stat (sysconf(_SC_CLK_TCK) on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(10_000);
    let seconds = numbers.get(1).copied().unwrap_or(106);
    let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
    rlimit::Resource::NOFILE.set(hard, hard).unwrap();
    assert!(hard > count + 64, "{count} connections need more than the {hard} descriptors here");

    let mut server = Command::new(env!("CARGO_BIN_EXE_odin-ws"))
        .args([
            "serve",
            "--addr",
            "127.0.0.1:0",
            "--admin-addr",
            "off",
            "--source",
            "sim",
            "--sim-tokens",
            "1",
        ])
        .env("LOG_FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address = address_of(&mut server);
    let pid = server.id();
    // The first connections grow what is shared.
    let mut sockets: Vec<TcpStream> = (0..64).map(|_| connect(&address)).collect();
    let before_kb = rss_kb(pid);
    let began = Instant::now();
    sockets.extend((0..count).map(|_| connect(&address)));
    let connecting = began.elapsed();
    let after_kb = rss_kb(pid);
    println!("{count} connections in {:.1} s", connecting.as_secs_f64());
    let bytes = (after_kb - before_kb) as f64 * 1_024.0 / count as f64;
    println!("memory: RSS grew from {before_kb} to {after_kb} kB: {bytes:.0} bytes per connection");

    let cpu_before = cpu_seconds(pid);
    let (watched, pongs) = answer_pings(&mut sockets, Duration::from_secs(seconds));
    let cpu = cpu_seconds(pid) - cpu_before;
    println!(
        "cpu: {cpu:.2} s in {watched:.0} s, {:.2} % of a core, {pongs} pings answered",
        100.0 * cpu / watched
    );
    let last_kb = rss_kb(pid);
    let bytes = (last_kb - before_kb) as f64 * 1_024.0 / count as f64;
    println!("memory: RSS {last_kb} kB afterwards: {bytes:.0} bytes per connection");
    server.kill().unwrap();
    server.wait().unwrap();
}

fn address_of(server: &mut Child) -> String {
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().unwrap().contains("listening")).unwrap().unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    let log: serde_json::Value = serde_json::from_str(&line).unwrap();
    log["addr"].as_str().unwrap().to_owned()
}

/// Connects, subscribes, and waits for the acknowledgement.
fn connect(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut request = UPGRADE.as_bytes().to_vec();
    // A masking key of zeros leaves the payload as it is.
    request.extend_from_slice(&[0x81, 0x80 | SUBSCRIBE.len() as u8, 0, 0, 0, 0]);
    request.extend_from_slice(SUBSCRIBE.as_bytes());
    stream.write_all(&request).unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4_096];
    while !answer.windows(12).any(|window| window == b"\"subscribed\"") {
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "the server closed the connection");
        answer.extend_from_slice(&chunk[..count]);
    }
    stream.set_nonblocking(true).unwrap();
    stream
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

fn rss_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// User and system time of the process so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}
