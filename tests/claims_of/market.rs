//! A real broker with one stream, and the truth about what was published to it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::truth::Truth;
use super::{Instance, Mode, Witness, verdict};
use crate::support::GUARD;
use crate::support::nats::NatsServer;

/// More than a server can have asked the broker for before it is held up: what is published after
/// these waits in the stream.
const MORE_THAN_IS_PULLED: usize = 2_000;

/// A stream of the served subjects alone, in memory: nothing waits for a disk.
pub fn own_stream() -> Config {
    Config {
        name: "ODIN_TOKENS".to_owned(),
        subjects: vec!["odin.token.>".to_owned(), "odin.global.>".to_owned()],
        storage: StorageType::Memory,
        ..Config::default()
    }
}

/// A stream of other subjects as well.
pub fn shared_stream() -> Config {
    Config { name: "SHARED".to_owned(), subjects: vec!["odin.>".to_owned()], ..own_stream() }
}

pub struct Market {
    pub broker: NatsServer,
    pub truth: Truth,
    runtime: Runtime,
    client: async_nats::Client,
    stream: String,
}

impl Market {
    /// A broker with this stream.
    pub fn open(stream: &Config) -> Self {
        let market = Self::without_stream(&stream.name);
        market.with_context(async |context| {
            context.create_stream(stream).await.unwrap();
        });
        market
    }

    /// A broker without one.
    pub fn without_stream(stream: &str) -> Self {
        let broker = NatsServer::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async_nats::connect(broker.url())).unwrap();
        Self { broker, truth: Truth::default(), runtime, client, stream: stream.to_owned() }
    }

    /// A server of this stream.
    pub fn instance(&self, mode: Mode) -> Instance {
        self.instance_with(mode, &[])
    }

    pub fn instance_with(&self, mode: Mode, arguments: &[&str]) -> Instance {
        let url = self.broker.url();
        let (mode, stream) = (mode.name(), &self.stream);
        let own = ["--nats-url", &url, "--js-stream-name", stream, "--js-consumer-mode", mode];
        Instance::start(&[&own, arguments].concat())
    }

    /// Publishes one message; its position.
    pub fn publish(&mut self, channel: &str) -> u64 {
        self.publish_with(channel, HeaderMap::new())
    }

    pub fn publish_with(&mut self, channel: &str, headers: HeaderMap) -> u64 {
        let number = self.truth.send(channel);
        let payload = payload(number);
        let (pos, ts) = self.with_context(async |context| {
            let subject = channel.to_owned();
            let publishing = context.publish_with_headers(subject, headers, payload.into()).await;
            let pos = publishing.unwrap().await.unwrap().sequence;
            let stream = context.get_stream(&self.stream).await.unwrap();
            // It may have aged away already.
            let stored = stream.get_raw_message(pos).await.ok();
            (pos, stored.map(|stored| stored.time.unix_timestamp_nanos() / 1_000_000))
        });
        self.truth.acknowledge(number, pos);
        if let Some(ts) = ts {
            self.truth.stored(number, u64::try_from(ts).unwrap());
        }
        pos
    }

    /// Publishes one message with a head that no client library would send; its position.
    pub fn publish_raw(&mut self, channel: &str, head: &[u8]) -> u64 {
        let number = self.truth.send(channel);
        let payload = payload(number);
        let reply = format!("raw.{number}");
        let (head_bytes, bytes) = (head.len(), head.len() + payload.len());
        let mut socket = TcpStream::connect(self.broker.url().replace("nats://", "")).unwrap();
        socket.set_read_timeout(Some(GUARD)).unwrap();
        let connect = "CONNECT {\"verbose\":false,\"headers\":true}\r\n";
        let publish = format!("HPUB {channel} {reply} {head_bytes} {bytes}\r\n");
        let begin = format!("{connect}SUB {reply} 1\r\n{publish}");
        let all = [begin.as_bytes(), head, payload.as_bytes(), b"\r\n"].concat();
        socket.write_all(&all).unwrap();
        let mut lines = BufReader::new(socket).lines().map(Result::unwrap);
        let is_message = |line: &String| line.starts_with("MSG ") || line.starts_with("-ERR");
        let message = lines.find(is_message).unwrap();
        assert!(message.starts_with("MSG "), "{message}");
        let answer: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        let pos = answer["seq"].as_u64().unwrap_or_else(|| panic!("not stored: {answer}"));
        self.truth.acknowledge(number, pos);
        pos
    }

    /// Publishes so many messages without a stream on these channels in turn.
    pub fn flood(&mut self, channels: &[&str], count: usize) {
        let (client, truth) = (self.client.clone(), &mut self.truth);
        self.runtime.block_on(async {
            for channel in channels.iter().cycle().take(count) {
                let payload = payload(truth.send(channel)).into();
                client.publish((*channel).to_owned(), payload).await.unwrap();
            }
            client.flush().await.unwrap();
        });
    }

    /// Publishes so many messages on these channels in turn, as fast as it can, and waits until
    /// all are acknowledged.
    pub fn burst(&mut self, channels: &[&str], count: usize) {
        let first = self.truth.next_number();
        let client = self.client.clone();
        let truth = &mut self.truth;
        self.runtime.block_on(async {
            let inbox = client.new_inbox();
            let mut acks = client.subscribe(format!("{inbox}.*")).await.unwrap();
            for channel in channels.iter().cycle().take(count) {
                let number = truth.send(channel);
                let reply = format!("{inbox}.{number}");
                let subject = (*channel).to_owned();
                let payload = payload(number).into();
                client.publish_with_reply(subject, reply, payload).await.unwrap();
            }
            client.flush().await.unwrap();
            for _ in first..first + count {
                let ack = tokio::time::timeout(GUARD, acks.next()).await;
                let ack = ack.expect("every acknowledgement comes").unwrap();
                let number = ack.subject.rsplit('.').next().unwrap().parse().unwrap();
                let answer: Value = serde_json::from_slice(&ack.payload).unwrap();
                let pos = answer["seq"].as_u64();
                truth.acknowledge(number, pos.unwrap_or_else(|| panic!("not stored: {answer}")));
            }
        });
    }

    /// Publishes more than a server that is held up has asked for, on a channel of its own.
    pub fn fill(&mut self) {
        self.burst(&["odin.token.FILL.trade"], MORE_THAN_IS_PULLED);
    }

    pub fn with_context<T>(&self, work: impl AsyncFnOnce(Context) -> T) -> T {
        self.runtime.block_on(async { work(jetstream::new(self.client.clone())).await })
    }

    pub fn with_stream<T>(&self, work: impl AsyncFnOnce(Stream) -> T) -> T {
        self.with_context(async |context| {
            work(context.get_stream(&self.stream).await.unwrap()).await
        })
    }

    /// Changes the stream's settings.
    pub fn edit(&self, change: impl FnOnce(&mut Config)) {
        self.with_context(async |context| {
            let stream = context.get_stream(&self.stream).await.unwrap();
            let mut config = stream.cached_info().config.clone();
            change(&mut config);
            context.update_stream(config).await.unwrap();
        });
    }

    /// Deletes messages and overwrites their bytes.
    pub fn erase(&self, positions: &[u64]) {
        self.remove(positions, &json!({}));
    }

    /// Deletes messages and leaves their bytes.
    pub fn delete(&self, positions: &[u64]) {
        self.remove(positions, &json!({"no_erase": true}));
    }

    fn remove(&self, positions: &[u64], how: &Value) {
        let subject = format!("STREAM.MSG.DELETE.{}", self.stream);
        for pos in positions {
            let mut query = how.clone();
            query["seq"] = (*pos).into();
            let answer: Value = self.with_context(async |context| {
                context.request(subject.clone(), &query).await.unwrap()
            });
            assert_eq!(answer["success"], true, "{answer}");
        }
    }

    /// The channels of the stream, and the newest position of each.
    pub fn held(&self) -> Vec<(String, u64)> {
        let subjects: BTreeMap<String, usize> = self.with_stream(async |stream| {
            let info = stream.info_with_subjects(">").await.unwrap();
            info.try_collect().await.unwrap()
        });
        // By the plain API: the library cannot read every message.
        self.with_context(async |context| {
            let mut held = Vec::new();
            for subject in subjects.into_keys() {
                let query = json!({"last_by_subj": subject});
                let asked = format!("STREAM.MSG.GET.{}", self.stream);
                let answer: Value = context.request(asked, &query).await.unwrap();
                held.push((subject, answer["message"]["seq"].as_u64().unwrap()));
            }
            held
        })
    }

    /// Ends the broker with SIGKILL.
    pub fn kill(&mut self) {
        self.broker.kill();
    }

    /// Starts it again.
    pub fn launch(&mut self) {
        self.broker.restart();
        self.client = self.runtime.block_on(async_nats::connect(self.broker.url())).unwrap();
    }

    /// Puts the store aside, as it is now.
    pub fn save(&mut self) -> u64 {
        self.kill();
        self.broker.save();
        self.launch();
        self.truth.last_pos()
    }

    /// Kills the broker, and puts the store in place that was put aside when `last` was its
    /// last position.
    pub fn lose_after(&mut self, last: u64) {
        self.kill();
        self.broker.load();
        self.truth.undo_after(last);
    }

    /// A client that asks for the newest of these channels.
    pub fn snapshot(&self, name: &'static str, instance: &Instance, channels: &[&str]) -> Witness {
        let mut witness = Witness::connect(name, instance);
        witness.held = self.held();
        witness.snapshot(channels);
        witness
    }

    /// Waits until everything has come to these clients or was told to be lost.
    #[track_caller]
    pub fn assert_no_false_claim(&mut self, witnesses: &[&Witness]) {
        verdict::assert_no_false_claim(&mut self.truth, witnesses);
    }

    /// How many messages of the channel did not come to this client.
    pub fn missing(&self, witness: &Witness, channel: &str) -> usize {
        let came = witness.numbers();
        let published = self.truth.numbers(&[channel.to_owned()], witness.started);
        published.iter().filter(|number| !came.contains(number)).count()
    }
}

/// What a message of this number carries.
pub fn payload(number: usize) -> String {
    format!("{{\"n\":{number}}}")
}
