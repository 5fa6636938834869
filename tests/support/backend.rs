//! A backend that is polled: a real HTTP server in the test's process, with faults on request.
//!
//! It keeps a list of tokens. `since` is a cursor into it, without one all of them are answered;
//! a cursor of an earlier life is 410 Gone. What was asked is recorded.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Request, Response, Uri};
use axum::serve::Listener;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::GUARD;

/// The date of everything, for backends that have no entity tags.
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status, with this header.
    Status(u16, &'static str, &'static str),
    /// 200 with this body.
    Body(String),
    /// No answer as long as the fault is there.
    Silence,
}

/// How an answer can be asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conditions {
    #[default]
    None,
    EntityTag,
    Date,
}

/// A request and the status of its answer; 0 while there is none.
#[derive(Debug, Clone)]
pub struct Asked {
    pub uri: Uri,
    pub headers: HeaderMap,
    pub status: u16,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The cursor as it stands in the query.
    pub fn since(&self) -> Option<&str> {
        let query = self.uri.query().unwrap_or_default();
        query.split('&').find_map(|pair| pair.strip_prefix("since="))
    }
}

#[derive(Default)]
struct State {
    life: usize,
    tokens: Vec<Value>,
    conditions: Conditions,
    fault: Option<Fault>,
    once: VecDeque<Fault>,
    asked: Vec<Asked>,
}

struct Inner {
    state: Mutex<State>,
    has_asked: Condvar,
    healed: watch::Sender<()>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The backend. It keeps its address and what it knows over restarts.
pub struct Backend {
    pub addr: SocketAddr,
    inner: Arc<Inner>,
    tls: Option<Arc<ServerConfig>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Backend {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// A backend that speaks TLS.
    pub fn start_tls(config: ServerConfig) -> Self {
        Self::start_with(Some(Arc::new(config)))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>) -> Self {
        let inner = Inner {
            state: Mutex::default(),
            has_asked: Condvar::new(),
            healed: watch::Sender::new(()),
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut backend = Self { addr, inner: Arc::new(inner), tls, running: None };
        backend.launch();
        backend
    }

    /// Starts it again, with the same address.
    pub fn launch(&mut self) {
        let inner = Arc::clone(&self.inner);
        let (stop, stopped) = oneshot::channel();
        let (has_bound, bound) = std::sync::mpsc::channel();
        let (addr, tls) = (self.addr, self.tls.clone().map(TlsAcceptor::from));
        let thread = std::thread::spawn(move || {
            let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
            builder.unwrap().block_on(async move {
                let listener = TcpListener::bind(addr).await.unwrap();
                has_bound.send(listener.local_addr().unwrap()).unwrap();
                let router = Router::new().fallback(answer).with_state(inner);
                let serve = async {
                    match tls {
                        None => axum::serve(listener, router).await,
                        Some(acceptor) => {
                            axum::serve(TlsListener { listener, acceptor }, router).await
                        }
                    }
                };
                // The end of the runtime cuts all connections.
                tokio::select! {
                    served = serve => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        self.addr = bound.recv().unwrap();
        self.running = Some((stop, thread));
    }

    /// Ends it and cuts its connections.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.send(()).unwrap();
            thread.join().unwrap();
        }
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost:{}/changes?key=hunter2", self.addr.port())
    }

    pub fn conditions(&self, conditions: Conditions) {
        self.inner.state().conditions = conditions;
    }

    pub fn publish(&self, token: Value) {
        self.inner.state().tokens.push(token);
    }

    /// Forgets what the cursors meant that it gave out, but not the tokens.
    pub fn forget(&self) {
        self.inner.state().life += 1;
    }

    /// The cursor of now.
    pub fn cursor(&self) -> String {
        cursor(&self.inner.state())
    }

    /// Fails from now on.
    pub fn fail(&self, fault: Fault) {
        self.inner.state().fault = Some(fault);
    }

    /// Fails once.
    pub fn fail_once(&self, fault: Fault) {
        self.inner.state().once.push_back(fault);
    }

    pub fn heal(&self) {
        self.inner.state().fault = None;
        self.inner.healed.send_replace(());
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.inner.state().asked.clone()
    }

    /// Waits until what was asked is as wanted.
    pub fn wait_until(&self, is_wanted: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
        let state = self.inner.state();
        let waited = self
            .inner
            .has_asked
            .wait_timeout_while(state, GUARD, |state| !is_wanted(&state.asked))
            .unwrap();
        let (state, result) = waited;
        assert!(!result.timed_out(), "{:#?}", state.asked);
        state.asked.clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn answer(Shared(inner): Shared<Arc<Inner>>, request: Request<Body>) -> Response<Body> {
    let mut healed = inner.healed.subscribe();
    let index = {
        let mut state = inner.state();
        let (uri, headers) = (request.uri().clone(), request.headers().clone());
        state.asked.push(Asked { uri, headers, status: 0 });
        state.asked.len() - 1
    };
    inner.has_asked.notify_all();
    let response = loop {
        if let Some(response) = respond(&mut inner.state(), index) {
            break response;
        }
        healed.changed().await.unwrap();
    };
    inner.state().asked[index].status = response.status().as_u16();
    inner.has_asked.notify_all();
    response
}

/// The answer, unless there is to be none.
fn respond(state: &mut State, index: usize) -> Option<Response<Body>> {
    let fault = state.once.pop_front().or_else(|| state.fault.clone());
    let response = Response::builder();
    match fault {
        Some(Fault::Silence) => return None,
        Some(Fault::Status(status, name, value)) => {
            return Some(response.status(status).header(name, value).body(Body::empty()).unwrap());
        }
        Some(Fault::Body(text)) => return Some(response.body(Body::from(text)).unwrap()),
        None => {}
    }
    let asked = &state.asked[index];
    let begin = match asked.since() {
        None => 0,
        Some(since) => {
            let since = percent_encoding::percent_decode_str(since).decode_utf8().unwrap();
            let (life, number) = since.split_once(" &é=").unwrap();
            if life != state.life.to_string() {
                return Some(response.status(410).body(Body::empty()).unwrap());
            }
            number.parse().unwrap()
        }
    };
    let tokens = &state.tokens[begin..];
    let tag = format!("\"{}\"", state.tokens.len());
    let is_same = asked.header("if-none-match") == tag
        || (asked.header("if-modified-since") == MODIFIED && tokens.is_empty());
    if is_same {
        return Some(response.status(304).body(Body::empty()).unwrap());
    }
    let response = match state.conditions {
        Conditions::None => response,
        Conditions::EntityTag => response.header("etag", tag),
        Conditions::Date => response.header("last-modified", MODIFIED),
    };
    let body = json!({"cursor": cursor(state), "tokens": tokens}).to_string();
    Some(response.body(Body::from(body)).unwrap())
}

fn cursor(state: &State) -> String {
    format!("{} &é={}", state.life, state.tokens.len())
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, addr) = self.listener.accept().await.unwrap();
            // Clients that do not trust the certificate end the handshake.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, addr);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
