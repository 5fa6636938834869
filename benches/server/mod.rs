//! A server as a child process, and connections to it, for the benches that measure from outside.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// `odin-ws serve` on the simulator.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
    admin: String,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
        rlimit::Resource::NOFILE.set(hard, hard).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_odin-ws"))
            .args(["serve", "--addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"])
            .args(["--source", "sim"])
            .args(arguments)
            .env("LOG_FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address_in = |message: &str| {
            let line = lines.find(|line| line.as_ref().unwrap().contains(message)).unwrap();
            let log: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            log["addr"].as_str().unwrap().to_owned()
        };
        let addr = address_in("listening").parse().unwrap();
        let admin = address_in("metrics");
        std::thread::spawn(move || lines.for_each(drop));
        // Whoever connects before the source is live is told when it is.
        while !is_ready(addr) {
            std::thread::yield_now();
        }
        Self { child, addr, admin }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
    }

    /// The sum of all samples of a metric, by name and labels.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let metrics = self.metrics();
        let named = metrics.iter().filter(|(key, _)| key.starts_with(name) && key.contains(label));
        named.map(|(_, value)| value).sum()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("ws_"));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    /// Connects, subscribes, and waits for the acknowledgement.
    pub fn connect(&self, channels: &[String], receive_buffer: Option<usize>) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        socket.connect(&self.addr.into()).unwrap();
        let mut stream: TcpStream = socket.into();
        let subscribe = serde_json::json!({"type": "subscribe", "channels": channels});
        // Padded to a length that always takes three bytes.
        let subscribe = format!("{:<130}", subscribe.to_string());
        let mut request = UPGRADE.as_bytes().to_vec();
        request.extend_from_slice(&[0x81, 0x80 | 126]);
        request.extend_from_slice(&(subscribe.len() as u16).to_be_bytes());
        // A masking key of zeros leaves the payload as it is.
        request.extend_from_slice(&[0; 4]);
        request.extend_from_slice(subscribe.as_bytes());
        stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        let mut chunk = [0; 4_096];
        while !answer.windows(12).any(|window| window == b"\"subscribed\"") {
            let count = stream.read(&mut chunk).unwrap();
            let said = String::from_utf8_lossy(&answer);
            assert!(count > 0, "the server closed the connection: {said}");
            answer.extend_from_slice(&chunk[..count]);
        }
        stream.set_nonblocking(true).unwrap();
        stream
    }
}

fn is_ready(addr: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.starts_with("HTTP/1.1 200 ")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
