//! A real nats-server with JetStream, really killed and restarted.
//!
//! The binary is `ODIN_NATS_SERVER`, or `nats-server` on the path, or the one that scripts/test
//! installs. Every write is synced, so that what was acknowledged survives SIGKILL.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::GUARD;

pub struct Nats {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
    runtime: Runtime,
}

impl Nats {
    /// Starts a server on a port of the kernel's choice.
    pub fn start() -> Self {
        let mut nats = Self::absent();
        nats.launch();
        nats
    }

    /// A server that is not started yet, but whose port is known and was free.
    pub fn absent() -> Self {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { child: None, directory: TempDir::new().unwrap(), port, runtime }
    }

    /// Starts it, also again: on the same port, with the same store.
    pub fn launch(&mut self) {
        let config = self.directory.path().join("nats.conf");
        let store = self.directory.path().join("store");
        let text = format!(
            "listen: 127.0.0.1:{}\njetstream {{ store_dir: {store:?}, sync_interval: always }}\n",
            self.port
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(self.directory.path().join("nats.log")).unwrap();
        let child = Command::new(binary())
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{:?} does not start ({error}): run the tests with scripts/test", binary())
            });
        self.child = Some(child);
        self.wait_ready();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Publishes to JetStream and waits for the acknowledgement; the stream sequence.
    pub fn publish(&self, subject: &str, payload: &str) -> u64 {
        self.publish_bytes(subject, payload.as_bytes().to_vec())
    }

    pub fn publish_bytes(&self, subject: &str, payload: Vec<u8>) -> u64 {
        self.with_jetstream(async |context| {
            let acknowledgement = context.publish(subject.to_owned(), payload.into()).await;
            acknowledgement.unwrap().await.unwrap().sequence
        })
    }

    /// Publishes many payloads, `{"n":index}`, all acknowledged.
    pub fn publish_numbers(&self, subject: &str, numbers: std::ops::Range<u64>) {
        self.with_jetstream(async |context| {
            for number in numbers {
                let payload = format!("{{\"n\":{number}}}");
                let acknowledgement = context.publish(subject.to_owned(), payload.into()).await;
                acknowledgement.unwrap().await.unwrap();
            }
        });
    }

    /// Publishes without JetStream.
    pub fn publish_core(&self, subject: &str, payload: &str) {
        let (url, subject, payload) = (self.url(), subject.to_owned(), payload.to_owned());
        self.runtime.block_on(async {
            let client = async_nats::connect(url).await.unwrap();
            client.publish(subject, payload.into()).await.unwrap();
            client.flush().await.unwrap();
        });
    }

    pub fn with_jetstream<T>(&self, work: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
        let url = self.url();
        self.runtime.block_on(async {
            let client = async_nats::connect(url).await.unwrap();
            work(jetstream::new(client)).await
        })
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + GUARD;
        let url = self.url();
        self.runtime.block_on(async {
            loop {
                // An answer from JetStream, not only from the port.
                if let Ok(client) = async_nats::connect(&url).await
                    && jetstream::new(client).query_account().await.is_ok()
                {
                    return;
                }
                assert!(Instant::now() < deadline, "nats-server does not answer");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ODIN_NATS_SERVER") {
        return path.into();
    }
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/nats-server");
    if installed.exists() { installed } else { "nats-server".into() }
}
