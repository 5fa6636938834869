//! Servers that a test plays itself: one that misbehaves on purpose, and Python's `websockets`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// A server on a free port of the loopback that does with each connection what `play` does;
/// returns its address as `ws://...`.
pub fn server(play: impl Fn(usize, &mut Peer) + Send + Sync + Copy + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut peer = Peer { stream: stream.unwrap() };
            std::thread::spawn(move || play(number, &mut peer));
        }
    });
    format!("ws://{addr}/ws")
}

/// One connection, seen from the server. Errors end it: the client may leave at any time.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// Reads the request; its head.
    pub fn request(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && self.stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_default();
    }

    /// Upgrades, and reads the first frame: the subscription.
    pub fn upgrade(&mut self) -> String {
        self.accept();
        self.frame()
    }

    /// Upgrades.
    pub fn accept(&mut self) {
        let head = self.request();
        let line = head.lines().find(|line| line.starts_with("Sec-WebSocket-Key: ")).unwrap();
        let mut hash = Sha1::new();
        hash.update(&line.as_bytes()[19..]);
        hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let accept = STANDARD.encode(hash.finalize());
        self.say(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .as_bytes(),
        );
    }

    /// Reads one short frame of the client; its text.
    pub fn frame(&mut self) -> String {
        let mut header = [0; 2];
        if self.stream.read_exact(&mut header).is_err() {
            return String::new();
        }
        assert_ne!(header[1] & 0x80, 0, "a client masks");
        let mut length = usize::from(header[1] & 0x7F);
        if length == 126 {
            let mut bytes = [0; 2];
            self.stream.read_exact(&mut bytes).unwrap();
            length = usize::from(u16::from_be_bytes(bytes));
        }
        let mut rest = vec![0; length + 4];
        self.stream.read_exact(&mut rest).unwrap();
        let (mask, payload) = rest.split_at(4);
        let text = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        String::from_utf8(text.collect()).unwrap()
    }

    pub fn text(&mut self, text: &str) {
        let mut frame = vec![0x81];
        match text.len() {
            length @ 0..=125 => frame.push(length as u8),
            length => {
                frame.push(126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(text.as_bytes());
        self.say(&frame);
    }

    /// Upgrades and acknowledges the subscription, without a position.
    pub fn subscribe(&mut self) {
        self.subscribe_at(0);
    }

    /// The same at this position of the stream.
    pub fn subscribe_at(&mut self, pos: u64) {
        self.upgrade();
        self.text(r#"{"type":"welcome","connection_id":"a"}"#);
        self.text(&format!(
            r#"{{"type":"subscribed","channels":["odin.token.>"],"rejected":[],"total":1,"pos":{pos}}}"#
        ));
    }

    pub fn event(&mut self, seq: u64, pos: u64, prev: u64) {
        self.text(&format!(
            r#"{{"seq":{seq},"type":"t","channel":"odin.token.A.trade","ts":1,"pos":{pos},"prev":{prev},"data":{{}}}}"#
        ));
    }

    /// Reads until the client leaves.
    pub fn wait(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap_or_default();
    }
}

/// A server of Python's `websockets`, which shares no code with anything here.
pub struct PythonServer {
    child: Child,
    pub url: String,
}

impl PythonServer {
    /// With compression, and with TLS if there is a certificate and its key.
    pub fn start(tls: Option<(&Path, &Path)>) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python: PathBuf = root.join("../.venv/bin/python");
        assert!(python.exists(), "run the tests with ./scripts/test, which installs it");
        let mut command = Command::new(python);
        command.arg(root.join("tests/peers/server.py"));
        if let Some((certificate, key)) = tls {
            command.args([certificate, key]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.next().unwrap().unwrap();
        Self { child, url }
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

/// A child process that is killed with the test.
pub struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

/// Starts a program and waits for a line of its standard error that `find` finds something in.
pub fn start(command: &mut Command, find: impl Fn(&str) -> Option<String>) -> (Guarded, String) {
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let found = lines.find_map(|line| find(&line)).expect("the program says where it listens");
    std::thread::spawn(move || lines.for_each(drop));
    (Guarded(child), found)
}

/// A real broker with JetStream on a free port; its address.
pub fn nats(store: &Path) -> (Guarded, String) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/nats-server");
    let mut command = Command::new(program);
    command.args(["-js", "-a", "127.0.0.1", "-p", "-1", "-sd"]).arg(store);
    let (child, addr) = start(&mut command, |line| {
        let (_, addr) = line.split_once("Listening for client connections on ")?;
        Some(addr.trim().to_owned())
    });
    (child, format!("nats://{addr}"))
}

/// The server of this workspace on a free port, fed by the broker; its address and its process.
pub fn odin_ws(nats_url: &str) -> (Guarded, String, u32) {
    // Built beside our own binary when the whole workspace is tested.
    let program = Path::new(env!("CARGO_BIN_EXE_odin-loadtest")).with_file_name("odin-ws");
    assert!(program.exists(), "run the tests of the whole workspace, as ./scripts/test does");
    let mut command = Command::new(program);
    command.env("LOG_FORMAT", "json").args(["serve", "--addr", "127.0.0.1:0"]);
    command.args(["--admin-addr", "off", "--nats-url", nats_url]);
    let addr = std::cell::RefCell::new(String::new());
    let (child, _) = start(&mut command, |line| {
        let log: serde_json::Value = serde_json::from_str(line).ok()?;
        if log["message"] == "listening" {
            *addr.borrow_mut() = log["addr"].as_str()?.to_owned();
        }
        (log["message"] == "the source is live").then(String::new)
    });
    let pid = child.0.id();
    (child, format!("ws://{}/ws", addr.into_inner()), pid)
}
