//! The built binary as a child process, its address taken from its log.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::Value;

use super::GUARD;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_odin-ws");

/// A command without any setting from the environment of the test run.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars() {
        let prefixes = ["WS_", "JS_", "NATS_", "SIM_", "LOG_", "HTTP_SOURCE_"];
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    // Many servers run side by side: each has an admin port of its own.
    command.env("WS_ADMIN_ADDR", "127.0.0.1:0");
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A running server.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    pub addr: SocketAddr,
}

impl Server {
    /// `odin-ws serve` on a free port of the loopback, with these further arguments. The simulator,
    /// if that is the source, is live.
    pub fn serve(arguments: &[&str]) -> Self {
        let server = Self::start(&[&["serve", "--addr", "127.0.0.1:0"], arguments].concat());
        if arguments.contains(&"sim") {
            server.wait_ready(200);
        }
        server
    }

    /// `odin-ws echo` on a free port of the loopback.
    pub fn echo() -> Self {
        Self::start(&["echo", "--addr", "127.0.0.1:0"])
    }

    /// A free port for a server that is to come back to it. Of 127.0.0.1 a connection of anybody
    /// may take it meanwhile; of an address of this process alone nobody does, as connections to
    /// all of 127.0.0.0/8 go out from 127.0.0.1.
    pub fn own_address() -> String {
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        format!("127.{}.{middle}.{low}:0", high + 1)
    }

    /// Starts a command that listens, and waits until it does.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments)
            .env("LOG_FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built binary starts");
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let addr = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { child, lines, seen: Vec::new(), addr };
        let line = server.wait_for_log("\"message\":\"listening\"");
        let log: Value = serde_json::from_str(&line).unwrap();
        server.addr = log["addr"].as_str().unwrap().parse().unwrap();
        server
    }

    /// The first line of the log from now on, or before, that contains `text`.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let deadline = Instant::now() + GUARD;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no {text:?} in the log:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Everything logged until the process ended.
    pub fn rest_of_log(&mut self) -> String {
        self.seen.extend(self.lines.iter());
        self.seen.join("\n")
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(status.success());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// A plain request; the whole response as text.
    pub fn get(&self, path: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
    }

    /// Sends bytes and reads until the server ends the connection.
    pub fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).expect("the server ends the connection");
        String::from_utf8_lossy(&response).into_owned()
    }

    /// The metrics of the admin port: name with labels, and value.
    pub fn metrics(&mut self) -> BTreeMap<String, f64> {
        self.scrape("/metrics")
    }

    /// The same, with the heap of now instead of that of the last minute.
    pub fn metrics_with_heap(&mut self) -> BTreeMap<String, f64> {
        self.scrape("/metrics?heap=now")
    }

    fn scrape(&mut self, target: &str) -> BTreeMap<String, f64> {
        let line = self.wait_for_log("metrics on the admin port");
        let log: Value = serde_json::from_str(&line).unwrap();
        let mut stream = TcpStream::connect(log["addr"].as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Asks `/ready` until it answers with this status.
    pub fn wait_ready(&self, status: u16) {
        let deadline = Instant::now() + GUARD;
        let line = format!("HTTP/1.1 {status} ");
        loop {
            let response = self.get("/ready");
            if response.starts_with(&line) {
                return;
            }
            assert!(Instant::now() < deadline, "not {status} but {response}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already if the test ended it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for a child with a guard.
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + GUARD;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        std::thread::yield_now();
    }
}

/// Runs a command to its end: exit code, standard output and standard error.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = command(arguments);
    command.envs(environment.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
