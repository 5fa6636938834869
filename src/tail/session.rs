//! One connection: what is sent on it, what is shown of it, and when it is given up.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket};

use super::address::Address;
use super::ended::Ended;
use super::line;
use super::place::Place;
use super::settings::{TailSettings, TailSummary};

/// A heartbeat is sent so often, unless `welcome` says otherwise.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(25);

/// What `welcome` may ask for.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 1_000..=300_000;

/// If nothing comes for so long after a heartbeat, the connection is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Timers are looked at so often.
const TICK: Duration = Duration::from_millis(100);

/// The `id` of the two commands that may have to be sent again.
const SUBSCRIBE_ID: u64 = 1;
const REPLAY_ID: u64 = 2;

/// The client: what stays from one connection to the next.
pub(super) struct Tail<'a> {
    pub settings: &'a TailSettings,
    pub address: Address,
    pub summary: TailSummary,
    pub place: Place,
}

/// The state of one connection.
struct Session {
    socket: WebSocket<TcpStream>,
    subscribe: Value,
    subscribed: Option<Instant>,
    not_before: Option<Instant>,
    heartbeat_interval: Duration,
    next_heartbeat: Instant,
    /// The first heartbeat since the last message.
    asked: Option<Instant>,
    /// A replay under way.
    replay: Option<Value>,
    /// What has to be sent again, and when.
    again: Option<(Instant, Value)>,
}

impl Session {
    fn send(&mut self, command: &Value) -> Result<(), Ended> {
        let sent = self.socket.send(Message::text(command.to_string()));
        sent.map_err(|error| self.lost(error))
    }

    fn lost(&self, cause: impl ToString) -> Ended {
        let Self { subscribed, not_before, .. } = *self;
        Ended::Lost { cause: cause.to_string(), subscribed, not_before }
    }

    /// Sends what is due.
    fn on_time(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + self.heartbeat_interval;
            self.asked.get_or_insert(now);
            self.send(&json!({"type": "heartbeat"}))?;
        }
        if let Some((at, command)) = self.again.take() {
            match now >= at {
                true => self.send(&command)?,
                false => self.again = Some((at, command)),
            }
        }
        Ok(())
    }

    /// Asks for events that `seq` says are missing; one hole at a time is enough, because a second
    /// one shows that this client does not keep up.
    fn ask_for(&mut self, (first, last): (u64, u64)) -> Result<(), Ended> {
        if self.replay.is_some() {
            return Ok(());
        }
        let replay = json!({"type": "replay", "from_seq": first, "to_seq": last, "id": REPLAY_ID});
        self.replay = Some(replay.clone());
        self.send(&replay)
    }

    /// What an error means for what this client has asked for.
    fn on_error(&mut self, message: &BTreeMap<String, Value>) -> Result<(), Ended> {
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default();
        let id = message.get("id").and_then(Value::as_u64);
        let command = match id {
            Some(REPLAY_ID) => self.replay.clone(),
            // Before the answer, only the subscription is under way.
            Some(SUBSCRIBE_ID) | None => self.subscribed.is_none().then(|| self.subscribe.clone()),
            _ => None,
        };
        match (text("code"), command) {
            ("rate_limited", Some(command)) => {
                let wait = message.get("retry_after_ms").and_then(Value::as_u64);
                let wait = Duration::from_millis(wait.unwrap_or(1_000));
                self.again = Some((Instant::now() + wait, command));
                Ok(())
            }
            (code, _) if id == Some(REPLAY_ID) => {
                Err(self.lost(format!("missed events are not held any more ({code})")))
            }
            (code, Some(_)) if id.is_some() => {
                Err(Ended::ForGood(format!("{} ({code})", text("message"))))
            }
            _ => Ok(()),
        }
    }
}

impl Tail<'_> {
    /// One connection, from connect to its end.
    ///
    /// # Errors
    /// Why it ended, if not because the last event wanted has come.
    pub(super) fn session(&mut self) -> Result<(), Ended> {
        let socket = self.address.connect()?;
        self.summary.connections += 1;
        self.place.on_connected();
        let mut subscribe = json!({
            "type": "subscribe",
            "channels": self.settings.patterns,
            "snapshot": self.settings.wants_snapshot,
            "id": SUBSCRIBE_ID,
        });
        let resume = self.place.resume();
        if !resume.is_null() {
            subscribe["resume"] = resume;
        }
        let mut session = Session {
            socket,
            subscribe: subscribe.clone(),
            subscribed: None,
            not_before: None,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            next_heartbeat: Instant::now() + HEARTBEAT_INTERVAL,
            asked: None,
            replay: None,
            again: None,
        };
        let ticking = session.socket.get_ref().set_read_timeout(Some(TICK));
        ticking.map_err(|error| session.lost(error))?;
        session.send(&subscribe)?;
        loop {
            if self.read(&mut session)? {
                // The server hears of it from the end of the connection at the latest.
                session.socket.close(None).unwrap_or_default();
                return Ok(());
            }
            session.on_time()?;
        }
    }

    /// Reads one message; whether it was the last one wanted.
    fn read(&mut self, session: &mut Session) -> Result<bool, Ended> {
        match session.socket.read() {
            Ok(message) => {
                session.asked = None;
                match message {
                    Message::Text(text) => self.on_text(&text, session),
                    Message::Close(frame) => {
                        let code = frame.as_ref().map(|frame| u16::from(frame.code));
                        let reason = frame.map_or_else(String::new, |frame| frame.to_string());
                        let cause = format!("closed by the server {reason}");
                        Err(match code {
                            Some(1002 | 1003 | 1007 | 1009) => Ended::ForGood(cause),
                            _ => session.lost(cause),
                        })
                    }
                    _ => Ok(false),
                }
            }
            // Stopped and continued by the shell's job control (signal(7)).
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(Error::Io(error)) if is_timeout(&error) => match session.asked {
                Some(asked) if asked.elapsed() >= ANSWER_TIMEOUT => {
                    Err(session.lost("no sign of life from the server"))
                }
                _ => Ok(false),
            },
            Err(error) => Err(session.lost(error)),
        }
    }

    /// Shows one message; whether that was the last one wanted.
    fn on_text(&mut self, text: &str, session: &mut Session) -> Result<bool, Ended> {
        let Ok(message) = serde_json::from_str::<BTreeMap<String, Value>>(text) else {
            eprintln!("not a message: {text}");
            return Ok(false);
        };
        // A publisher may use any `type`: only events have `seq`.
        let Some(seq) = message.get("seq").and_then(Value::as_u64) else {
            self.place.on_control(&message);
            return self.on_control(text, &message, session).map(|()| false);
        };
        let seen = self.place.on_event(seq, &message);
        if let Some((first, last)) = seen.missing {
            let missed = last - first + 1;
            eprintln!("{missed} events missed before seq {seq}: this client read too slowly");
            self.summary.missed += missed;
            session.ask_for((first, last))?;
        }
        if seen.was_missing {
            self.summary.missed -= 1;
        }
        if seen.is_repetition {
            return Ok(false);
        }
        self.summary.events += 1;
        let mut out = io::stdout().lock();
        let printed = match self.settings.is_json {
            true => writeln!(out, "{text}"),
            false => writeln!(out, "{}", line::event(&message)),
        };
        printed.and_then(|()| out.flush()).map_err(Ended::Output)?;
        Ok(self.settings.count.is_some_and(|count| self.summary.events >= count))
    }

    fn on_control(
        &self,
        text: &str,
        message: &BTreeMap<String, Value>,
        session: &mut Session,
    ) -> Result<(), Ended> {
        let number = |name: &str| message.get(name).and_then(Value::as_u64);
        match message.get("type").and_then(Value::as_str) {
            Some("heartbeat") => {}
            Some("replay") => session.replay = None,
            Some("subscribed") => {
                session.subscribed = Some(Instant::now());
                return show_subscribed(message);
            }
            Some("welcome") => {
                eprintln!("connected to {}", line::plain(message.get("instance")));
                if let Some(ms) = number("heartbeat_interval_ms") {
                    let ms = ms.clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
                    session.heartbeat_interval = Duration::from_millis(ms);
                    session.next_heartbeat = Instant::now() + session.heartbeat_interval;
                }
            }
            Some("server_draining") => {
                eprintln!("{text}");
                let wait = Duration::from_millis(number("reconnect_after_ms").unwrap_or(0));
                session.not_before = Instant::now().checked_add(wait);
            }
            Some("error") => {
                eprintln!("{text}");
                return session.on_error(message);
            }
            _ => eprintln!("{text}"),
        }
        Ok(())
    }
}

fn show_subscribed(message: &BTreeMap<String, Value>) -> Result<(), Ended> {
    let list = |name: &str| message.get(name).and_then(Value::as_array).into_iter().flatten();
    for rejection in list("rejected") {
        eprintln!("{}", line::rejection(rejection));
    }
    let taken: Vec<String> = list("channels").map(|it| line::plain(Some(it))).collect();
    if taken.is_empty() {
        return Err(Ended::AllRejected);
    }
    eprintln!("subscribed to {}", taken.join(" "));
    if let Some(resume) = message.get("resume") {
        eprintln!("{}", line::resume(resume));
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
