//! A real nats-server with JetStream, started, killed and restarted by a test.
//!
//! The server chooses its port at the first start and keeps it, with its store, over restarts.
//! It is ready when it says so in its log: nothing here sleeps. Every write is synced before it
//! is acknowledged, so what was acknowledged survives SIGKILL. Dropping the server kills it and
//! removes its files.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The line of the server's log that names its port.
const LISTENING: &str = "Listening for client connections on ";

/// The line of the server's log that says it is ready.
const READY: &str = "Server is ready";

/// A nats-server of this test alone, on a loopback port of its own.
#[derive(Debug)]
pub(crate) struct NatsServer {
    dir: PathBuf,
    settings: String,
    port: Option<u16>,
    child: Option<Child>,
    log: UnboundedReceiver<String>,
}

impl NatsServer {
    /// Starts a server with JetStream and no authentication.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a server with these lines added to its configuration file.
    pub(crate) fn start_with(settings: &str) -> Self {
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("nats-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (_, log) = unbounded_channel();
        let settings = settings.to_owned();
        let mut server = Self { dir, settings, port: None, child: None, log };
        server.restart();
        server
    }

    /// The URL that clients connect to; it stays the same over restarts.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.expect("the server was started once"))
    }

    /// A directory of this server's own, for files that a test needs beside it.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the server with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts the server again on the same port with the same store, after [`Self::kill`].
    pub(crate) fn restart(&mut self) {
        self.kill();
        let config = self.dir.join("server.conf");
        std::fs::write(&config, self.config()).unwrap();
        let mut child = Command::new(binary())
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
        let log = child.stderr.take().unwrap();
        self.child = Some(child);
        let (port, log) = wait_until_ready(log);
        self.port = Some(port);
        self.log = log;
    }

    /// Freezes the server (SIGSTOP): its connections stay open and nothing is answered, as when
    /// the network is cut.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Has the running server read its configuration file again (SIGHUP).
    pub(crate) fn reload(&mut self, settings: &str) {
        self.configure(settings);
        std::fs::write(self.dir.join("server.conf"), self.config()).unwrap();
        self.signal("-HUP");
    }

    /// Replaces the lines that were added to the configuration file, for the next start.
    pub(crate) fn configure(&mut self, settings: &str) {
        settings.clone_into(&mut self.settings);
    }

    /// Lets a frozen server go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Waits until the server has logged a line with this text since it was started.
    pub(crate) async fn logged(&mut self, text: &str) {
        while let Some(line) = self.log.recv().await {
            if line.contains(text) {
                return;
            }
        }
        panic!("nats-server ended without logging {text:?}");
    }

    /// Puts a copy of the store of a killed server aside.
    pub(crate) fn save(&self) {
        self.copy_store("store", "saved");
    }

    /// Puts the copy in the place of the store of a killed server: what was written since
    /// [`Self::save`] is lost.
    pub(crate) fn load(&self) {
        self.copy_store("saved", "store");
    }

    /// Sends protocol bytes that a well-behaved client library would not, and waits until the
    /// server has taken them.
    pub(crate) fn publish_raw(&self, bytes: &[u8]) {
        let address = self.url().replace("nats://", "");
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").unwrap();
        socket.write_all(bytes).unwrap();
        socket.write_all(b"PING\r\n").unwrap();
        let mut lines = BufReader::new(socket).lines();
        assert!(lines.any(|line| line.unwrap() == "PONG"));
    }

    fn copy_store(&self, from: &str, to: &str) {
        assert!(self.child.is_none(), "kill the server before its store is touched");
        let (from, to) = (self.dir.join(from), self.dir.join(to));
        std::fs::remove_dir_all(&to).ok();
        assert!(Command::new("cp").arg("-a").args([&from, &to]).status().unwrap().success());
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("the server runs").id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn config(&self) -> String {
        format!(
            "listen: \"127.0.0.1:{port}\"\n\
             jetstream {{ store_dir: \"{store}\"{sync} }}\n\
             {settings}\n",
            sync = if version() >= (2, 10) { ", sync_interval: always" } else { "" },
            port = self.port.map_or(-1, i32::from),
            store = self.dir.join("store").display(),
            settings = self.settings,
        )
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
        // Left-over files of a failed removal disappear with the target directory.
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// Reads the log until the server is ready; returns its port and the lines that follow.
fn wait_until_ready(log: ChildStderr) -> (u16, UnboundedReceiver<String>) {
    let mut lines = BufReader::new(log).lines();
    let mut seen = String::new();
    let mut port = None;
    for line in lines.by_ref() {
        let line = line.unwrap();
        if let Some((_, address)) = line.split_once(LISTENING) {
            port = address.rsplit(':').next().and_then(|digits| digits.parse().ok());
        }
        let is_ready = line.contains(READY);
        seen.push_str(&line);
        seen.push('\n');
        if is_ready {
            let port = port.unwrap_or_else(|| panic!("no port in the log:\n{seen}"));
            return (port, follow(lines));
        }
    }
    panic!("nats-server ended before it was ready:\n{seen}");
}

/// Reads on for as long as the server runs, or it would block on a full pipe.
fn follow(lines: Lines<BufReader<ChildStderr>>) -> UnboundedReceiver<String> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            // Nobody has to listen.
            sender.send(line).ok();
        }
    });
    receiver
}

/// Major and minor version of the server under test.
fn version() -> (u32, u32) {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let output = Command::new(binary()).arg("--version").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut numbers = text.split(['v', '.']).filter_map(|part| part.trim().parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    })
}

/// `ODIN_NATS_SERVER` if set, else `nats-server` on the PATH, else the one in `.venv/bin`.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ODIN_NATS_SERVER") {
        return path.into();
    }
    let name = "nats-server";
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin").join(name))
}
