//! A client that writes down everything that it asked and was told, and when.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket};

use super::Instance;
use super::truth::{Truth, number};
use super::verdict::TOLD_WITHIN;
use crate::support::{Client, GUARD};

/// How often a silent connection is looked at for commands, and the notes for what is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// Where a client stands: `epoch`, `pos` and `ts`.
#[derive(Debug, Clone)]
pub struct Place(pub Value);

/// One line of what a witness wrote down.
#[derive(Debug, Clone)]
pub enum Entry {
    Asked(Value),
    Told(Value),
    /// The connection ended.
    Closed,
}

type Entries = Vec<(Instant, Entry)>;

/// A connected client.
#[derive(Debug)]
pub struct Witness {
    /// Who it is, for the account of a failure.
    pub name: &'static str,
    notes: Arc<Mutex<Entries>>,
    commands: Option<Sender<Value>>,
    thread: Option<JoinHandle<()>>,
    asked: u64,
    welcome: Value,
    /// When the instance was started.
    pub started: Instant,
    /// When this connection was made.
    pub began: Instant,
    /// What the stream held when a snapshot was asked for: channel and newest position.
    pub held: Vec<(String, u64)>,
}

impl Witness {
    pub fn connect(name: &'static str, instance: &Instance) -> Self {
        let began = Instant::now();
        let client = Client::connect(&instance.server);
        client.socket.get_ref().set_read_timeout(Some(LOOK)).unwrap();
        let notes = Arc::new(Mutex::new(Vec::new()));
        let (commands, receiver) = channel();
        let writer = Arc::clone(&notes);
        let socket = client.socket;
        let thread = std::thread::spawn(move || follow(socket, &receiver, &writer));
        Self {
            name,
            notes,
            commands: Some(commands),
            thread: Some(thread),
            asked: 0,
            welcome: client.welcome,
            started: instance.started,
            began,
            held: Vec::new(),
        }
    }

    /// A client of these channels.
    pub fn of(name: &'static str, instance: &Instance, channels: &[&str]) -> Self {
        let mut witness = Self::connect(name, instance);
        let answer = witness.ask(json!({"type": "subscribe", "channels": channels}));
        assert_eq!(answer["total"], channels.len(), "{answer}");
        witness
    }

    /// A client that asks to go on at a place; it does not wait for the answer.
    pub fn resume(
        name: &'static str,
        instance: &Instance,
        channels: &[&str],
        place: &Place,
    ) -> Self {
        let mut witness = Self::connect(name, instance);
        let resume = &place.0;
        witness.send(json!({"type": "subscribe", "channels": channels, "resume": resume}));
        witness
    }

    /// Whether it was told that it recovered.
    pub fn is_recovered(&self) -> bool {
        let entries = self.entries();
        entries.iter().any(|(_, entry)| matches!(entry, Entry::Told(it) if it["recovered"] == true))
    }

    /// Sends a command; its `id`.
    fn send(&mut self, mut command: Value) -> u64 {
        self.asked += 1;
        command["id"] = self.asked.into();
        self.commands.as_ref().expect("it has not left").send(command).unwrap();
        self.asked
    }

    /// Sends a command; its answer.
    pub fn ask(&mut self, command: Value) -> Value {
        let id = self.send(command);
        let deadline = Instant::now() + GUARD;
        let mut seen = 0;
        loop {
            let entries = self.notes.lock().unwrap();
            for (_, entry) in &entries[seen..] {
                match entry {
                    Entry::Told(told) if told["id"] == id => return told.clone(),
                    Entry::Closed => panic!("closed before an answer: {:?}", entries.last()),
                    _ => {}
                }
            }
            seen = entries.len();
            drop(entries);
            assert!(Instant::now() < deadline, "no answer comes");
            std::thread::sleep(LOOK);
        }
    }

    /// Asks for a sign of life, and so for the position.
    pub fn heartbeat(&mut self) -> Value {
        self.ask(json!({"type": "heartbeat"}))
    }

    /// Subscribes and asks for the newest of each channel; what it was told of the snapshot.
    pub fn snapshot(&mut self, channels: &[&str]) -> Value {
        let command = json!({"type": "subscribe", "channels": channels, "snapshot": true});
        self.ask(command)["snapshot"].take()
    }

    /// Waits until this holds for what was written down, or the deadline; whether it does.
    pub fn wait(&self, deadline: Instant, is_true: impl Fn(&Entries) -> bool) -> bool {
        loop {
            if is_true(&self.notes.lock().unwrap()) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for the message of this number.
    #[track_caller]
    pub fn wait_for(&self, wanted: usize) {
        let is_there =
            |entries: &Entries| events(entries).any(|event| number(event) == Some(wanted));
        assert!(self.wait(Instant::now() + GUARD, is_there), "message {wanted} does not come");
    }

    /// Whether it was told that something is missing.
    pub fn was_told_of_a_loss(&self) -> bool {
        is_told_of_a_loss(&self.notes.lock().unwrap())
    }

    /// Waits until it is told that something is missing.
    #[track_caller]
    pub fn wait_for_resync(&self) {
        let deadline = Instant::now() + TOLD_WITHIN;
        assert!(self.wait(deadline, is_told_of_a_loss), "the client is not told of the loss");
    }

    /// Where it stands by what it was told, as the protocol has it: at the event with the highest
    /// position, at a later heartbeat, or at its subscription. After a `resync` nowhere, until
    /// one of them comes.
    pub fn place(&self) -> Option<Place> {
        let mut epoch = self.welcome["epoch"].clone();
        let mut place: Option<(u64, Value)> = None;
        for (_, entry) in &self.entries() {
            let told = match entry {
                Entry::Told(told) => told,
                Entry::Asked(asked) => {
                    if let Some(pos) = asked["resume"]["pos"].as_u64() {
                        place = Some((pos, asked["resume"]["ts"].clone()));
                    }
                    continue;
                }
                Entry::Closed => break,
            };
            let is_event = told.get("seq").is_some();
            if !is_event && told["epoch"].is_string() {
                epoch = told["epoch"].clone();
            }
            let position = match told["type"].as_str() {
                _ if is_event => told,
                Some("heartbeat") => &told["position"],
                Some("subscribed") if told["recovered"] == false => {
                    place = None;
                    told
                }
                Some("subscribed") if told["resume"]["messages"].as_u64().unwrap_or(0) == 0 => told,
                Some("resync") => {
                    place = None;
                    continue;
                }
                _ => continue,
            };
            if let Some(pos) = position["pos"].as_u64()
                && place.as_ref().is_none_or(|(newest, _)| pos > *newest)
            {
                place = Some((pos, position["ts"].clone()));
            }
        }
        place.map(|(pos, ts)| Place(json!({"epoch": epoch, "pos": pos, "ts": ts})))
    }

    /// The numbers of the messages that came.
    pub fn numbers(&self) -> HashSet<usize> {
        events(&self.entries()).filter_map(number).collect()
    }

    /// Tells what no acknowledgement says of the messages that came.
    pub fn teach(&self, truth: &mut Truth) {
        events(&self.entries()).for_each(|event| truth.learn(event));
    }

    pub fn entries(&self) -> Entries {
        self.notes.lock().unwrap().clone()
    }

    /// Disconnects; what was written down stays.
    pub fn leave(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The events among these.
pub fn events(entries: &Entries) -> impl Iterator<Item = &Value> {
    entries.iter().filter_map(|(_, entry)| match entry {
        Entry::Told(told) if told.get("seq").is_some() => Some(told),
        _ => None,
    })
}

fn is_told_of_a_loss(entries: &Entries) -> bool {
    entries.iter().any(|(_, entry)| matches!(entry, Entry::Told(told) if is_resync(told)))
}

pub fn is_resync(told: &Value) -> bool {
    told.get("seq").is_none() && told["type"] == "resync"
}

fn follow(mut socket: WebSocket<TcpStream>, commands: &Receiver<Value>, notes: &Mutex<Entries>) {
    let note = |entry: Entry| notes.lock().unwrap().push((Instant::now(), entry));
    loop {
        loop {
            use std::sync::mpsc::TryRecvError::{Disconnected, Empty};
            match commands.try_recv() {
                Ok(command) => {
                    note(Entry::Asked(command.clone()));
                    if socket.send(Message::text(command.to_string())).is_err() {
                        break;
                    }
                }
                Err(Empty) => break,
                Err(Disconnected) => return note(Entry::Closed),
            }
        }
        match socket.read() {
            Ok(Message::Text(text)) => note(Entry::Told(serde_json::from_str(&text).unwrap())),
            Ok(_) => {}
            Err(Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return note(Entry::Closed),
        }
    }
}
