//! A nats-server and what a test publishes to it, without async.

use std::collections::VecDeque;
use std::ops::Range;

use async_nats::jetstream;
use tokio::runtime::Runtime;

use super::nats::NatsServer;

/// Messages that are published before the first of them is acknowledged.
const ACKNOWLEDGEMENTS_WAITING: usize = 500;

pub struct Nats {
    server: NatsServer,
    runtime: Runtime,
}

impl Nats {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { server: NatsServer::start(), runtime }
    }

    /// A server that is away, but whose address is known.
    pub fn absent() -> Self {
        let mut nats = Self::start();
        nats.kill();
        nats
    }

    /// Starts it again, with the same address and store.
    pub fn launch(&mut self) {
        self.server.restart();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Puts a copy of the store of a killed server aside.
    pub fn save(&self) {
        self.server.save();
    }

    /// Puts the copy in its place: what was written since is lost.
    pub fn load(&self) {
        self.server.load();
    }

    pub fn url(&self) -> String {
        self.server.url()
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
    pub fn publish_numbers(&self, subject: &str, numbers: Range<u64>) {
        self.with_jetstream(async |context| {
            let mut waiting = VecDeque::new();
            for number in numbers {
                let payload = format!("{{\"n\":{number}}}");
                let acknowledgement = context.publish(subject.to_owned(), payload.into()).await;
                waiting.push_back(acknowledgement.unwrap());
                if waiting.len() > ACKNOWLEDGEMENTS_WAITING {
                    waiting.pop_front().unwrap().await.unwrap();
                }
            }
            for acknowledgement in waiting {
                acknowledgement.await.unwrap();
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
}
