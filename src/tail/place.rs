//! Where this client stands, so that it can go on there at any instance (docs/protocol.md).

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The last message seen.
#[derive(Debug, Default)]
pub(super) struct Place {
    epoch: Option<String>,
    /// Position and store time; `None` if there is nothing to go on from.
    position: Option<(u64, u64)>,
}

impl Place {
    /// The `resume` member of a subscription; `null` if there is nothing to go on from.
    pub(super) fn resume(&self) -> Value {
        match (&self.epoch, self.position) {
            (Some(epoch), Some((pos, ts))) => json!({"epoch": epoch, "pos": pos, "ts": ts}),
            _ => Value::Null,
        }
    }

    /// Takes in a message of the server.
    pub(super) fn on_message(&mut self, message: &BTreeMap<String, Value>) {
        let number = |name: &str| message.get(name).and_then(Value::as_u64);
        let position = number("pos").zip(number("ts"));
        let epoch = message.get("epoch").and_then(Value::as_str);
        match message.get("type").and_then(Value::as_str) {
            // A snapshot or a replay brings older ones.
            _ if message.contains_key("seq") => self.position = self.position.max(position),
            Some("subscribed") => {
                self.epoch = epoch.map(str::to_owned);
                // What was missed comes now, and with it the positions.
                if message.get("recovered") != Some(&Value::Bool(true)) {
                    self.position = position;
                }
            }
            Some("heartbeat") => self.on_reached(message.get("position")),
            Some("resync") => {
                self.epoch = epoch.map(str::to_owned);
                self.position = None;
            }
            _ => {}
        }
    }

    /// Everything up to `reached` has come.
    fn on_reached(&mut self, reached: Option<&Value>) {
        let Some(reached) = reached else { return };
        let number = |name: &str| reached[name].as_u64();
        if reached["epoch"].as_str() == self.epoch.as_deref() {
            self.position = self.position.max(number("pos").zip(number("ts")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_what_comes() {
        let mut place = Place::default();
        let steps = [
            (json!({"type": "welcome", "epoch": "a", "pos": 1, "ts": 2}), Value::Null),
            (
                json!({"type": "subscribed", "epoch": "a", "pos": 3, "ts": 4}),
                json!({"epoch": "a", "pos": 3, "ts": 4}),
            ),
            (
                json!({"seq": 1, "type": "x", "pos": 5, "ts": 6}),
                json!({"epoch": "a", "pos": 5, "ts": 6}),
            ),
            (
                json!({"seq": 2, "type": "x", "pos": 4, "ts": 5}),
                json!({"epoch": "a", "pos": 5, "ts": 6}),
            ),
            (
                json!({"type": "subscribed", "epoch": "a", "pos": 9, "ts": 9, "recovered": true}),
                json!({"epoch": "a", "pos": 5, "ts": 6}),
            ),
            (
                json!({"type": "subscribed", "epoch": "b", "pos": 7, "ts": 8, "recovered": false}),
                json!({"epoch": "b", "pos": 7, "ts": 8}),
            ),
            (
                json!({"type": "heartbeat", "position": {"epoch": "b", "pos": 20, "ts": 30}}),
                json!({"epoch": "b", "pos": 20, "ts": 30}),
            ),
            (
                json!({"type": "heartbeat", "position": {"epoch": "a", "pos": 25, "ts": 30}}),
                json!({"epoch": "b", "pos": 20, "ts": 30}),
            ),
            (json!({"type": "heartbeat"}), json!({"epoch": "b", "pos": 20, "ts": 30})),
            (json!({"type": "resync", "epoch": "c"}), Value::Null),
            (
                json!({"seq": 2, "type": "resync", "pos": 1, "ts": 2}),
                json!({"epoch": "c", "pos": 1, "ts": 2}),
            ),
        ];
        for (message, resume) in steps {
            place.on_message(&serde_json::from_value(message.clone()).unwrap());
            assert_eq!(place.resume(), resume, "{message}");
        }
    }
}
