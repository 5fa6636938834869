//! Three nats-servers that share their streams, and what a test publishes to them.
//!
//! The ports of their routes are free ones of the loopback, chosen before the first start: each
//! has to know the others'. Everything is published with a message id until it is acknowledged, so
//! that it is in the stream once, in order, whatever happens to a node meanwhile.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, Context, stream};
use serde_json::json;
use tokio::runtime::Runtime;

use super::GUARD;
use super::nats::NatsServer;

const NODES: usize = 3;

/// Between two attempts: an election takes seconds.
const PAUSE: Duration = Duration::from_millis(50);

pub const STREAM: &str = "ODIN_TOKENS";

/// One cluster at a time: elections of several at once take long on a small machine.
static TURN: Mutex<()> = Mutex::new(());

pub struct Cluster {
    nodes: Vec<NatsServer>,
    publisher: Publisher,
    _turn: MutexGuard<'static, ()>,
}

/// Publishes from a thread of its own.
#[derive(Clone)]
pub struct Publisher {
    urls: Vec<String>,
}

impl Cluster {
    pub fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let free: Vec<TcpListener> =
            (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|port| port.local_addr().unwrap().port()).collect();
        drop(free);
        let routes: Vec<String> =
            ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let nodes: Vec<NatsServer> = (0..NODES)
            .map(|node| {
                NatsServer::start_with(&format!(
                    "server_name: node-{node}\n\
                     cluster {{ name: test, listen: \"127.0.0.1:{}\", routes: [{}] }}",
                    ports[node],
                    routes.join(", ")
                ))
            })
            .collect();
        let urls = nodes.iter().map(NatsServer::url).collect();
        Self { nodes, publisher: Publisher { urls }, _turn: turn }
    }

    /// The URLs of all nodes, comma-separated.
    pub fn urls(&self) -> String {
        self.publisher.urls.join(",")
    }

    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// The node of a URL.
    pub fn node(&mut self, url: &str) -> &mut NatsServer {
        self.nodes.iter_mut().find(|node| node.url() == url).expect("a node of this cluster")
    }

    /// Has the stream's leader step down; another node leads when this returns.
    pub fn step_down(&self) {
        let before = self.leader();
        self.publisher.with_jetstream(async |context| {
            let subject = format!("STREAM.LEADER.STEPDOWN.{STREAM}");
            let _: serde_json::Value = context.request(subject, &json!({})).await?;
            Ok::<_, async_nats::Error>(())
        });
        while self.leader() == before {}
    }

    fn leader(&self) -> String {
        self.publisher.with_jetstream(async |context| {
            let info = context.get_stream(STREAM).await?.cached_info().clone();
            info.cluster.and_then(|cluster| cluster.leader).ok_or_else(|| "no leader".into())
        })
    }

    pub fn stream_config(&self) -> stream::Config {
        self.publisher.with_jetstream(async |context| {
            Ok(context.get_stream(STREAM).await?.cached_info().config.clone())
        })
    }
}

impl Publisher {
    /// Publishes `{"n":number}` for each, each acknowledged before the next.
    pub fn publish_numbers(&self, subject: &str, numbers: Range<u64>) {
        let mut left = numbers;
        let left = &mut left;
        self.with_jetstream(async |context| {
            while let Some(number) = left.clone().next() {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Msg-Id", number.to_string());
                let payload = format!("{{\"n\":{number}}}").into();
                context.publish_with_headers(subject.to_owned(), headers, payload).await?.await?;
                left.next();
            }
            Ok(())
        });
    }

    /// Does `work`, again on the next node if it fails.
    fn with_jetstream<T>(
        &self,
        mut work: impl AsyncFnMut(Context) -> Result<T, async_nats::Error>,
    ) -> T {
        let runtime: Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let deadline = Instant::now() + GUARD;
            for url in self.urls.iter().cycle().take_while(|_| Instant::now() < deadline) {
                let options = ConnectOptions::new()
                    .connection_timeout(Duration::from_secs(1))
                    .request_timeout(Some(Duration::from_secs(1)));
                let Ok(client) = options.connect(url).await else { continue };
                let mut context = jetstream::new(client);
                context.set_timeout(Duration::from_secs(1));
                if let Ok(done) = work(context).await {
                    return done;
                }
                tokio::time::sleep(PAUSE).await;
            }
            panic!("no node does what is asked for");
        })
    }
}
