//! What the kit says and what it reads: positions, events, `subscribe`.

use serde_json::{Value, json};

/// A position in one of the kit's streams. The store time follows from `pos`, so that a client that
/// mixes two positions is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    pub epoch: String,
    pub pos: u64,
}

impl At {
    pub(super) fn new(epoch: &str, pos: u64) -> Self {
        Self { epoch: epoch.to_owned(), pos }
    }

    pub(super) fn json(&self) -> Value {
        json!({"epoch": self.epoch, "pos": self.pos, "ts": store_time(self.pos)})
    }
}

/// When the message at `pos` was stored, milliseconds since the Unix epoch.
pub(super) fn store_time(pos: u64) -> u64 {
    1_732_150_000_000 + pos * 10
}

/// A `subscribe` of the client.
#[derive(Debug, Clone)]
pub(super) struct Subscribe {
    pub id: Option<Value>,
    pub channels: Vec<String>,
    /// As it was sent; `None` if it was absent or `null`.
    pub resume: Option<Value>,
    pub wants_snapshot: bool,
}

impl Subscribe {
    /// `None` if the command is another one, or names no channel.
    pub(super) fn read(command: &Value) -> Option<Self> {
        let names = command["channels"].as_array().filter(|_| command["type"] == "subscribe")?;
        let channels: Vec<String> =
            names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        (!channels.is_empty()).then(|| Self {
            id: command.get("id").cloned(),
            channels,
            resume: command.get("resume").filter(|resume| !resume.is_null()).cloned(),
            wants_snapshot: command["snapshot"] == true,
        })
    }
}

/// A channel that the pattern matches.
pub(super) fn channel_of(pattern: &str) -> String {
    let token = |token| match token {
        "*" | ">" => "kit",
        other => other,
    };
    pattern.split('.').map(token).collect::<Vec<_>>().join(".")
}

/// An event, with the members in the order of the server.
#[derive(Debug, Clone)]
pub(super) struct Event<'a> {
    pub seq: u64,
    pub kind: &'a str,
    pub channel: &'a str,
    pub pos: u64,
    pub prev: u64,
    /// Further members behind `data`, each with its comma in front.
    pub further: &'a str,
}

impl Event<'_> {
    pub(super) fn text(&self) -> String {
        let Self { seq, kind, channel, pos, prev, further } = self;
        let ts = store_time(*pos);
        format!(
            "{{\"seq\":{seq},\"type\":{},\"channel\":{},\"ts\":{ts},\"pos\":{pos},\"prev\":{prev},\
             \"data\":{{\"n\":{pos}}}{further}}}",
            json!(kind),
            json!(channel),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_channels() {
        assert_eq!(channel_of("odin.token.*.trade"), "odin.token.kit.trade");
        assert_eq!(channel_of("odin.>"), "odin.kit");
    }

    #[test]
    fn events_have_the_servers_form() {
        let event =
            Event { seq: 1, kind: "a\"b", channel: "c", pos: 2, prev: 0, further: ",\"x\":[1]" };
        let read: Value = serde_json::from_str(&event.text()).unwrap();
        assert!(event.text().starts_with("{\"seq\":1,\"type\":"));
        assert_eq!((&read["type"], &read["x"][0]), (&json!("a\"b"), &json!(1)));
        assert_eq!(read["ts"], store_time(2));
    }

    #[test]
    fn a_subscription_is_read() {
        let read = Subscribe::read(&json!({"type": "subscribe", "channels": ["a"], "id": 3}));
        assert_eq!(read.unwrap().id, Some(json!(3)));
        assert!(Subscribe::read(&json!({"type": "subscribe", "channels": []})).is_none());
        assert!(Subscribe::read(&json!({"type": "heartbeat"})).is_none());
    }
}
