//! What no client may ever see, each with the claim that it would break.
//!
//! The truth of an instance: what was published on the stream's branch, and what the stream had
//! named or brought to it, even if a restore lost it since. What a restore
//! lost before this instance heard of it left no trace, and is no part of its truth.

use serde_json::Value;

use super::client::{At, Client, Link, PATTERNS, Promise, Snapshot, life, position};
use super::driver::Driver;
use super::stream::{CHANNELS, Set, Stream, each, one};

/// What is broken, as a sentence.
pub(super) type Broken = String;

/// What an instance tells a client of, and what the client has.
pub(super) struct Scene<'a> {
    pub stream: &'a Stream,
    pub driver: &'a Driver,
    pub client: &'a mut Client,
}

impl Scene<'_> {
    /// Takes in a message of the server.
    pub(super) fn take(&mut self, link: &mut Link, message: &Value) -> Result<(), Broken> {
        if message.get("seq").is_some() {
            return match link.snapshot.left {
                0 => self.take_live(link, message),
                _ => self.take_newest(link, message),
            };
        }
        match message["type"].as_str().unwrap_or_default() {
            "welcome" => link.life = life(&message["epoch"]),
            kind @ ("source_live" | "source_stale") => {
                link.is_live = kind == "source_live";
                let life = life(&message["epoch"]);
                if std::mem::replace(&mut link.life, life) != life {
                    // Before a source was reached nothing was promised.
                    link.told(self.stream);
                }
                if link.is_live {
                    self.check_first(link, "I7, live")?;
                }
            }
            "resync" => {
                link.life = life(&message["epoch"]);
                link.told(self.stream);
                self.client.position = None;
            }
            "subscribed" => self.take_answer(link, message)?,
            "heartbeat" => {
                let at = message.get("position").and_then(position);
                // Behind a loss the time of the position is not known: it is proved to nobody.
                if let Some(at) = at.filter(|at| at.ts > 0) {
                    self.check_reached(link, at, "I4, a heartbeat")?;
                    self.client.position = Some(at);
                }
            }
            "unsubscribed" => {}
            other => return Err(format!("an unexpected {other}: {message}")),
        }
        Ok(())
    }

    fn find(&self, at: At) -> Result<usize, Broken> {
        let found = self.stream.find(at.life, at.pos, at.ts);
        found.ok_or_else(|| format!("{at:?} names no message that was ever published"))
    }

    fn event(&self, link: &Link, message: &Value) -> Result<(usize, At), Broken> {
        let (Some(life), Some(pos), Some(ts)) =
            (link.life, message["pos"].as_u64(), message["ts"].as_u64())
        else {
            return Err(format!("an event without a place: {message}"));
        };
        let at = At { life, pos, ts };
        let number = self.find(at)?;
        let channel = CHANNELS[self.stream.all[number].channel];
        if message["channel"] != channel {
            return Err(format!("{message} was published on {channel}"));
        }
        Ok((number, at))
    }

    /// (I1) A `prev` other than 0 is the position of the message before it on its channel.
    ///
    /// (I6) Between two `resync` no position comes twice, and they come in their order. Snapshots
    /// are the exception: they bring nothing beyond the answer's position, which comes later.
    fn take_live(&mut self, link: &mut Link, message: &Value) -> Result<(), Broken> {
        let (number, at) = self.event(link, message)?;
        if at.pos <= link.newest {
            return Err(format!("I6: {} comes after {}", at.pos, link.newest));
        }
        link.newest = at.pos;
        self.client.received |= one(number);
        let prev = message["prev"].as_u64().unwrap_or_default();
        if prev == 0 {
            return Ok(());
        }
        let known = &self.driver.previous;
        if !known.iter().any(|(it, before)| *it == number && *before == prev) {
            let known: Vec<_> = known.iter().filter(|(it, _)| *it == number).collect();
            return Err(format!("I1: prev of {} is {prev}, and not {known:?}", at.pos));
        }
        if self
            .client
            .position
            .is_none_or(|position| position.life != at.life || position.pos < at.pos)
        {
            self.check_reached(link, at, "I4, an event with prev")?;
            self.client.position = Some(at);
        }
        Ok(())
    }

    /// (I4) Everything up to a position that a client may keep was sent to it, or it was told: all
    /// that was published on the branch of that message, before it. What else a restore lost, it is
    /// told before everything has come to rest (I3).
    fn check_reached(&self, link: &Link, at: At, what: &str) -> Result<(), Broken> {
        let number = self.find(at)?;
        let branch = self.stream.all[number].before | one(number);
        self.check_sent(link, branch, &format!("{what} at {}", at.pos))
    }

    fn check_sent(&self, link: &Link, truth: Set, what: &str) -> Result<(), Broken> {
        for number in each(truth & !self.client.received) {
            if link.is_promised(self.stream, number) {
                let message = &self.stream.all[number];
                let (seq, channel) = (message.seq, CHANNELS[message.channel]);
                return Err(format!("{what}: {seq} on {channel} (m{number}) was not sent"));
            }
        }
        Ok(())
    }

    /// (I2) After `recovered:true` every message of the channels after the position comes.
    ///
    /// (I3) After any other answer every message after the answer's position does. Both are checked
    /// when nothing is under way any more: each came, or the client was told.
    pub(super) fn check_settled(&self, link: &Link) -> Result<(), Broken> {
        let truth = self.stream.branch | self.driver.named;
        self.check_sent(link, truth, "I2/I3, settled")
    }

    fn take_answer(&mut self, link: &mut Link, message: &Value) -> Result<(), Broken> {
        let at = position(message);
        if let Some(at) = at.filter(|at| at.pos > 0 && at.ts > 0) {
            self.find(at)?;
        }
        let resumed = link.resumes_from.take();
        let mut gone = 0;
        let after = match (message.get("recovered").and_then(Value::as_bool), resumed) {
            (Some(true), Some(resumed)) => Some(resumed),
            (_, resumed) => {
                if resumed.is_some() {
                    self.client.begin();
                }
                gone = !self.stream.retained;
                // While it loads, and before it knows a position, only what is published from now
                // on is promised.
                at.filter(|at| link.is_live && at.pos > 0)
            }
        };
        let is_first = link.subscriptions.iter().all(|(_, promise)| promise.is_none());
        // Whoever recovers names one message; any other answer promises what has a later position.
        let recovered = resumed.filter(|_| message["recovered"] == true);
        let passed = recovered.and_then(|at| self.passed(at));
        let published_from = self.stream.all.len();
        let added = link.promise(Promise { after, passed, gone, published_from });
        if is_first && message.get("recovered") != Some(&Value::Bool(true)) {
            self.client.position = at;
        }
        if let Some(resumed) = resumed.filter(|_| message["recovered"] == true) {
            link.newest = resumed.pos;
            self.client.position = Some(resumed);
            if link.is_live {
                self.check_first(link, "I7, recovered")?;
            }
        }
        if let Some(snapshot) = message.get("snapshot") {
            link.is_snapshot_complete = snapshot["complete"] == true;
            link.snapshot = Snapshot {
                left: snapshot["messages"].as_u64().unwrap_or_default() as usize,
                to: at.map_or(0, |at| at.pos),
                wanted: self.newest_held(added, at),
                brought: Vec::new(),
            };
            if link.snapshot.left == 0 {
                return self.check_snapshot(link);
            }
        }
        Ok(())
    }

    /// What had been published up to a position, if its message is known.
    fn passed(&self, at: At) -> Option<Set> {
        if at.pos == 0 {
            return Some(0);
        }
        let number = self.stream.find(at.life, at.pos, at.ts)?;
        Some(self.stream.all[number].before | one(number))
    }

    /// (I7) Of what the stream had named when an instance was live for the first time nothing is
    /// missing to whoever is connected then, or recovers later.
    fn check_first(&self, link: &Link, what: &str) -> Result<(), Broken> {
        let brought = self.driver.previous.iter().fold(0, |sum, (number, _)| sum | one(*number));
        self.check_sent(link, self.driver.named_at_first & !brought, what)
    }

    /// The newest message up to a position that the stream holds on each channel.
    fn newest_held(&self, added: u8, at: Option<At>) -> Vec<(usize, u64)> {
        let Some(at) = at else { return Vec::new() };
        // Behind a loss the position has no time: what this instance was brought up to it counts.
        let is_up_to = |number: &usize| {
            let message = &self.stream.all[*number];
            message.life == at.life && message.seq <= at.pos
        };
        let brought = || self.driver.previous.iter().map(|(number, _)| *number);
        let up_to = match self.passed(at) {
            Some(passed) => passed,
            None => brought().filter(is_up_to).fold(0, |sum, number| sum | one(number)),
        };
        let held = self.stream.retained & self.stream.branch & !self.stream.brought_back & up_to;
        let newest = (0..CHANNELS.len()).filter_map(|channel| {
            let is_added = added & (1 << channel) != 0;
            let of = each(held).filter(|it| self.stream.all[*it].channel == channel);
            let seq = of.map(|it| self.stream.all[it].seq).max();
            seq.filter(|_| is_added).map(|seq| (channel, seq))
        });
        newest.collect()
    }

    fn take_newest(&mut self, link: &mut Link, message: &Value) -> Result<(), Broken> {
        let (number, at) = self.event(link, message)?;
        self.client.received |= one(number);
        link.snapshot.left -= 1;
        link.snapshot.brought.push((self.stream.all[number].channel, at.pos));
        if link.snapshot.to > 0 && at.pos > link.snapshot.to {
            return Err(format!(
                "I6: {} of a snapshot at {} comes again",
                at.pos, link.snapshot.to
            ));
        }
        if link.snapshot.left > 0 {
            return Ok(());
        }
        self.check_snapshot(link)
    }

    /// (I5) A complete snapshot brings of each channel the newest message that the stream holds up
    /// to the answer's position, or a newer one; but for what a restore brought back to the stream,
    /// which nothing tells of before the next contact.
    fn check_snapshot(&self, link: &Link) -> Result<(), Broken> {
        if !link.is_snapshot_complete {
            return Ok(());
        }
        for (channel, seq) in &link.snapshot.wanted {
            let brought = link.snapshot.brought.iter().find(|(it, _)| it == channel);
            if brought.is_none_or(|(_, brought)| brought < seq) {
                let name = CHANNELS[*channel];
                return Err(format!("I5: {seq} is the newest on {name}, and not {brought:?}"));
            }
        }
        Ok(())
    }
}

impl Link {
    /// Has what was subscribed and not answered be promised; the channels that this adds.
    fn promise(&mut self, promise: Promise) -> u8 {
        let (mut added, mut covered) = (0, 0);
        for (pattern, promised) in &mut self.subscriptions {
            let channels = if promised.is_none() { &mut added } else { &mut covered };
            *channels |= PATTERNS[*pattern].1;
            promised.get_or_insert(promise);
        }
        added & !covered
    }
}
