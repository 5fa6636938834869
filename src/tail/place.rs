//! Where this client stands, so that it can go on there at any instance, and what it has received,
//! so that it shows nothing twice. The rules are those of docs/client-guide.md.
//!
//! Bounds: [`CHANNELS_MAX`] channels are remembered, and [`AHEAD_MAX`] events behind a hole.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

/// Channels whose newest event is remembered; repetitions of further ones are shown.
const CHANNELS_MAX: usize = 100_000;

/// Events beyond the position that are remembered; repetitions of further ones are shown.
const AHEAD_MAX: usize = 10_000;

/// A hole of more events is not asked for: the server holds fewer.
const MISSING_MAX: u64 = 1_000;

/// What an event turned out to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// It came before.
    pub is_repetition: bool,
    /// It closed a part of a hole.
    pub was_missing: bool,
    /// Numbers that should have come before it, first and last.
    pub missing: Option<(u64, u64)>,
}

/// What was received, and the position that follows from it.
#[derive(Debug, Default)]
pub(super) struct Place {
    epoch: Option<String>,
    /// Position and store time; `None` if there is nothing to go on from.
    position: Option<(u64, u64)>,
    /// The position when the hole is closed.
    position_ahead: Option<(u64, u64)>,
    /// The `pos` that the subscription began from.
    began: u64,
    /// The newest `pos` received, by channel.
    newest: HashMap<String, u64>,
    /// The last `seq`.
    seq: u64,
    /// Numbers that have not come, although later ones have.
    missing: BTreeSet<u64>,
    /// What came beyond the position, by `pos`: it comes again after a resume, and with it what may
    /// have been missing between.
    ahead: BTreeSet<u64>,
    /// Events of the snapshot that are still to come.
    snapshot: u64,
}

impl Place {
    /// The `resume` member of a subscription; `null` if there is nothing to go on from.
    pub(super) fn resume(&self) -> Value {
        match (&self.epoch, self.position) {
            (Some(epoch), Some((pos, ts))) => json!({"epoch": epoch, "pos": pos, "ts": ts}),
            _ => Value::Null,
        }
    }

    /// A new connection numbers its events afresh. What came beyond the position comes again.
    pub(super) fn on_connected(&mut self) {
        let reached = self.position.map_or(0, |(pos, _)| pos);
        self.newest.values_mut().for_each(|newest| *newest = (*newest).min(reached));
        self.missing.clear();
        self.position_ahead = None;
        self.seq = 0;
        self.snapshot = 0;
    }

    /// Takes in a message that is no event.
    pub(super) fn on_control(&mut self, message: &BTreeMap<String, Value>) {
        let epoch = message.get("epoch").and_then(Value::as_str);
        match message.get("type").and_then(Value::as_str) {
            Some("subscribed") if message.get("recovered") == Some(&Value::Bool(true)) => {
                // What was missed comes now, and with it the positions.
                self.began = self.position.map_or(0, |(pos, _)| pos);
            }
            Some("subscribed") => {
                let number = |name: &str| message.get(name).and_then(Value::as_u64);
                self.begin_anew(epoch);
                self.position = number("pos").zip(number("ts")).filter(|_| epoch.is_some());
                self.began = self.position.map_or(0, |(pos, _)| pos);
                let snapshot = message.get("snapshot").map(|it| &it["messages"]);
                self.snapshot = snapshot.and_then(Value::as_u64).unwrap_or(0);
            }
            Some("resync") => self.begin_anew(epoch),
            Some("heartbeat") => self.on_reached(message.get("position")),
            // Events before this belong to the epoch that is named now.
            Some("source_live" | "source_stale") if self.epoch.is_none() => {
                self.epoch = epoch.map(str::to_owned);
            }
            _ => {}
        }
    }

    /// Nothing that was received says anything about what comes.
    fn begin_anew(&mut self, epoch: Option<&str>) {
        let seq = self.seq;
        *self = Self { epoch: epoch.map(str::to_owned), seq, ..Self::default() };
    }

    /// Everything up to `reached` has been sent.
    fn on_reached(&mut self, reached: Option<&Value>) {
        let Some(reached) = reached else { return };
        let number = |name: &str| reached[name].as_u64();
        let epoch = reached["epoch"].as_str();
        if self.epoch.is_none() {
            self.epoch = epoch.map(str::to_owned);
        }
        if epoch.is_some() && epoch == self.epoch.as_deref() && self.missing.is_empty() {
            self.position = self.position.max(number("pos").zip(number("ts")));
        }
    }

    /// Takes in an event: a message with `seq`, whatever its `type`.
    pub(super) fn on_event(&mut self, seq: u64, message: &BTreeMap<String, Value>) -> Seen {
        let number = |name: &str| message.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (pos, ts, prev) = (number("pos"), number("ts"), number("prev"));
        let channel = message.get("channel").and_then(Value::as_str).unwrap_or_default();
        let mut seen = self.on_seq(seq);
        let is_snapshot = self.snapshot > 0;
        self.snapshot = self.snapshot.saturating_sub(1);
        let newest = self.newest.get(channel).copied().unwrap_or(self.began);
        let is_wanted = is_snapshot || seen.was_missing;
        seen.is_repetition = self.ahead.contains(&pos) || (pos <= newest && !is_wanted);
        if self.newest.contains_key(channel) || self.newest.len() < CHANNELS_MAX {
            self.newest.insert(channel.to_owned(), newest.max(pos));
        }
        if prev != 0 {
            self.position_ahead = self.position_ahead.max(Some((pos, ts)));
        }
        if self.missing.is_empty() {
            self.position = self.position.max(self.position_ahead.take());
        }
        let reached = self.position.map_or(0, |(pos, _)| pos);
        if pos > reached && self.ahead.len() < AHEAD_MAX {
            self.ahead.insert(pos);
        }
        if self.ahead.first().is_some_and(|first| *first <= reached) {
            self.ahead = self.ahead.split_off(&(reached + 1));
        }
        seen
    }

    fn on_seq(&mut self, seq: u64) -> Seen {
        let mut seen = Seen { was_missing: self.missing.remove(&seq), ..Seen::default() };
        if seq > self.seq + 1 {
            let first = self.seq + 1;
            seen.missing = Some((first, seq - 1));
            self.missing.extend(first..seq.min(first + MISSING_MAX));
        }
        self.seq = self.seq.max(seq);
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(place: &mut Place, message: Value) -> Seen {
        let message: BTreeMap<String, Value> = serde_json::from_value(message).unwrap();
        match message.get("seq").and_then(Value::as_u64) {
            Some(seq) => place.on_event(seq, &message),
            None => {
                place.on_control(&message);
                Seen::default()
            }
        }
    }

    fn event(seq: u64, pos: u64, prev: u64) -> Value {
        json!({"seq": seq, "type": "resync", "channel": "c", "pos": pos, "ts": pos, "prev": prev})
    }

    fn at(epoch: &str, pos: u64) -> Value {
        json!({"epoch": epoch, "pos": pos, "ts": pos})
    }

    fn subscribed(epoch: &str, pos: u64, recovered: Option<bool>) -> Value {
        let mut answer = at(epoch, pos);
        answer["type"] = "subscribed".into();
        if let Some(recovered) = recovered {
            answer["recovered"] = recovered.into();
        }
        answer
    }

    #[test]
    fn the_place_follows_what_comes() {
        let mut place = Place::default();
        let null_answer = json!({"type": "subscribed", "epoch": null, "pos": 0, "ts": 0});
        let steps = [
            (json!({"type": "welcome", "epoch": "a", "pos": 1, "ts": 2}), Value::Null),
            (subscribed("a", 3, None), at("a", 3)),
            (event(1, 5, 2), at("a", 5)),
            (event(2, 4, 2), at("a", 5)),
            (event(3, 6, 0), at("a", 5)),
            (subscribed("a", 9, Some(true)), at("a", 5)),
            (subscribed("b", 7, Some(false)), at("b", 7)),
            (json!({"type": "heartbeat", "position": at("b", 20)}), at("b", 20)),
            (json!({"type": "heartbeat", "position": at("a", 25)}), at("b", 20)),
            (json!({"type": "heartbeat"}), at("b", 20)),
            (json!({"type": "source_live", "epoch": "b", "pos": 99, "ts": 99}), at("b", 20)),
            (json!({"type": "resync", "epoch": "c"}), Value::Null),
            (event(4, 1, 0), Value::Null),
            (event(5, 2, 1), at("c", 2)),
            (null_answer.clone(), Value::Null),
            (event(6, 8, 7), Value::Null),
            (json!({"type": "source_stale", "epoch": "d", "pos": 8, "ts": 8}), at("d", 8)),
            (null_answer, Value::Null),
            (json!({"type": "heartbeat", "position": at("e", 9)}), at("e", 9)),
        ];
        for (message, resume) in steps {
            take(&mut place, message.clone());
            assert_eq!(place.resume(), resume, "{message}");
        }
    }

    #[test]
    fn the_position_waits_until_a_hole_is_filled() {
        let mut place = Place::default();
        take(&mut place, subscribed("a", 10, None));
        take(&mut place, event(1, 11, 9));
        assert_eq!(take(&mut place, event(4, 14, 13)).missing, Some((2, 3)));
        take(&mut place, json!({"type": "heartbeat", "position": at("a", 20)}));
        assert_eq!(place.resume(), at("a", 11));
        let seen = take(&mut place, event(2, 12, 11));
        assert!(seen.was_missing && !seen.is_repetition, "{seen:?}");
        assert_eq!(place.resume(), at("a", 11));
        take(&mut place, event(3, 13, 12));
        assert_eq!(place.resume(), at("a", 14));
    }

    #[test]
    fn a_resume_from_before_a_hole_shows_only_what_was_missing() {
        let mut place = Place::default();
        take(&mut place, subscribed("a", 10, None));
        take(&mut place, event(1, 11, 9));
        take(&mut place, event(3, 13, 12));
        place.on_connected();
        take(&mut place, subscribed("a", 13, Some(true)));
        assert!(!take(&mut place, event(1, 12, 11)).is_repetition);
        assert!(take(&mut place, event(2, 13, 12)).is_repetition);
        assert!(!take(&mut place, event(3, 14, 13)).is_repetition);
        assert_eq!(place.resume(), at("a", 14));
    }

    #[test]
    fn what_was_missing_before_an_event_without_prev_is_no_repetition() {
        let mut place = Place::default();
        let answer = json!({"type": "subscribed", "epoch": "a", "pos": 100, "ts": 1});
        place.on_control(&serde_json::from_value(answer).unwrap());
        assert!(!take(&mut place, event(1, 105, 0)).is_repetition);
        assert_eq!(place.resume()["pos"], 100);
        place.on_connected();
        let answer = json!({"type": "subscribed", "epoch": "a", "pos": 105, "recovered": true});
        place.on_control(&serde_json::from_value(answer).unwrap());
        assert!(
            !take(&mut place, event(1, 103, 99)).is_repetition,
            "the other instance had it not"
        );
        assert!(take(&mut place, event(2, 105, 103)).is_repetition);
        assert!(!take(&mut place, event(3, 106, 105)).is_repetition);
        assert_eq!(place.resume()["pos"], 106);
    }

    #[test]
    fn what_came_before_is_a_repetition_unless_it_was_asked_for() {
        let mut place = Place::default();
        let mut answer = subscribed("a", 10, None);
        answer["snapshot"] = json!({"messages": 1, "complete": true});
        take(&mut place, answer);
        assert!(!take(&mut place, event(1, 8, 7)).is_repetition);
        assert!(!take(&mut place, event(2, 12, 0)).is_repetition);
        assert_eq!(place.resume(), at("a", 10), "an event with prev 0 moves nothing");
        place.on_connected();
        take(&mut place, subscribed("a", 12, Some(true)));
        assert!(take(&mut place, event(1, 12, 8)).is_repetition, "so it comes again");
        assert_eq!(place.resume(), at("a", 12));
        take(&mut place, json!({"type": "resync", "epoch": "a"}));
        assert!(!take(&mut place, event(2, 12, 0)).is_repetition);
    }
}
