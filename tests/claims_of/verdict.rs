//! Compares what a witness was told with the truth.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::truth::{Message, Truth, number};
use super::witness::{Entry, Witness, is_resync};

/// A loss is told at once, or 5 s after the one before. The rest is for a busy machine.
pub const TOLD_WITHIN: Duration = Duration::from_secs(8);

/// What was published comes within 10 s, or the client is told that it does not. The rest is for a
/// busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

/// How often a witness that has not settled is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What speaks against the server.
#[derive(Debug)]
struct Charge {
    text: String,
    /// Whether nothing that follows can put it right.
    is_final: bool,
}

/// Waits until everything that was published on the witnesses' channels has come to them, or they
/// were told that something is lost.
///
/// # Panics
/// If anything that a witness was told is false, or nothing was told of a loss in time.
#[track_caller]
pub fn assert_no_false_claim(truth: &mut Truth, witnesses: &[&Witness]) {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let mut accounts = Vec::new();
    for witness in witnesses {
        witness.teach(truth);
    }
    for witness in witnesses {
        accounts.extend(account_of(truth, witness, deadline));
    }
    assert!(accounts.is_empty(), "{}", accounts.join("\n\n"));
}

/// What speaks against what this witness was told, if anything.
fn account_of(truth: &mut Truth, witness: &Witness, deadline: Instant) -> Option<String> {
    loop {
        witness.teach(truth);
        let entries = witness.entries();
        let charges = Trial::new(truth, witness).run(&entries);
        if charges.is_empty() {
            return None;
        }
        if charges.iter().any(|charge| charge.is_final) || Instant::now() > deadline {
            let texts = charges.iter().map(|charge| format!("- {}", charge.text)).collect();
            return Some(format!("{}:\n{}\n{}", witness.name, shorten(texts), lines(&entries)));
        }
        std::thread::sleep(LOOK);
    }
}

/// A hole that the client could see and was not told of yet.
struct Hole {
    seen: Instant,
    before: usize,
    missing: Vec<usize>,
}

/// One reading of what a witness wrote down.
struct Trial<'a> {
    truth: &'a Truth,
    witness: &'a Witness,
    /// For each message, where the one before it on its channel is: in all that was published,
    /// and without what the broker lost again before this connection began or was told.
    before: [Vec<Option<Option<u64>>>; 2],
    channels: Vec<String>,
    /// The messages of these channels.
    relevant: Vec<usize>,
    received: HashSet<usize>,
    /// Everything up to here has come, was told to be lost, or was before the subscription.
    accounted: usize,
    /// The last live message since the last resync.
    newest: Option<usize>,
    /// A resume recovered from before these; until the first resync they have to come.
    owed_up_to: usize,
    snapshot_left: u64,
    /// The `seq` of the last event.
    seq: u64,
    holes: Vec<Hole>,
    told_last: Option<Instant>,
    snapshot_complete: bool,
    charges: Vec<Charge>,
}

impl<'a> Trial<'a> {
    fn new(truth: &'a Truth, witness: &'a Witness) -> Self {
        Self {
            truth,
            witness,
            before: [witness.started, witness.began].map(|at| truth.before(at)),
            channels: Vec::new(),
            relevant: Vec::new(),
            received: HashSet::new(),
            accounted: 0,
            newest: None,
            owed_up_to: 0,
            snapshot_left: 0,
            seq: 0,
            holes: Vec::new(),
            told_last: None,
            snapshot_complete: false,
            charges: Vec::new(),
        }
    }

    fn run(mut self, entries: &[(Instant, Entry)]) -> Vec<Charge> {
        let mut closed = None;
        for (at, entry) in entries {
            match entry {
                Entry::Told(told) if told.get("seq").is_some() => self.event(*at, told),
                Entry::Told(told) if is_resync(told) => self.resync(*at),
                Entry::Told(told) if told["type"] == "subscribed" => {
                    let asked = entries.iter().find_map(|(_, entry)| match entry {
                        Entry::Asked(asked) if asked["id"] == told["id"] => Some(asked),
                        _ => None,
                    });
                    self.subscribed(*at, asked.expect("an answer to a command"), told);
                }
                Entry::Told(told) if told["type"] == "heartbeat" => self.heartbeat(told),
                Entry::Told(told) if told["type"] == "error" => {
                    self.accuse(true, format!("an error: {told}"));
                }
                Entry::Told(_) | Entry::Asked(_) => {}
                Entry::Closed => closed = Some(*at),
            }
        }
        self.end(closed);
        self.charges
    }

    fn accuse(&mut self, is_final: bool, text: String) {
        self.charges.push(Charge { text, is_final });
    }

    fn message(&self, number: usize) -> &'a Message {
        self.truth.message(number).expect("a number of the truth")
    }

    fn numbers_up_to(&self, position: &Value) -> usize {
        let member = |name: &str| position[name].as_u64().expect("a position");
        self.truth.numbers_up_to(member("pos"), member("ts"))
    }

    fn subscribed(&mut self, at: Instant, asked: &Value, told: &Value) {
        assert!(self.channels.is_empty(), "a witness subscribes once");
        let strings = told["channels"].as_array().expect("channels").iter();
        self.channels = strings.map(|it| it.as_str().expect("a channel").to_owned()).collect();
        // Who is not recovered loads anew: what had been lost by then is not owed any more.
        let since = if told["recovered"] == true { self.witness.started } else { at };
        self.relevant = self.truth.numbers(&self.channels, since);
        // After a loss a server may know no position: what is published from now on comes.
        let from = match told["pos"].as_u64() {
            Some(0) if told["recovered"] != true => self.truth.numbers_before(at),
            _ => self.numbers_up_to(told),
        };
        self.accounted = from;
        if told["recovered"] == true {
            self.accounted = self.numbers_up_to(&asked["resume"]);
            self.owed_up_to = from;
            let missed = self.missing_between(self.accounted, from + 1).len();
            if told["resume"]["messages"] != missed {
                let text = format!("recovered, but {missed} messages were missed: {told}");
                self.accuse(true, text);
            }
        }
        if let Some(messages) = told["snapshot"]["messages"].as_u64() {
            self.snapshot_left = messages;
            self.snapshot_complete = told["snapshot"]["complete"] == true;
        }
    }

    fn event(&mut self, at: Instant, event: &Value) {
        let Some(number) = number(event).filter(|it| self.truth.message(*it).is_some()) else {
            return self.accuse(true, format!("nobody published this: {event}"));
        };
        let message = self.message(number);
        if event["channel"] != message.channel.as_str() || event["pos"].as_u64() != message.pos {
            self.accuse(true, format!("this was {message:?}: {event}"));
        }
        self.seq += 1;
        if event["seq"] != self.seq {
            self.accuse(true, format!("not the next seq, although the client reads: {event}"));
        }
        let prev = event["prev"].as_u64().expect("prev");
        let before = self.before.each_ref().map(|before| before[number - 1]);
        if prev != 0 && !before.contains(&Some(Some(prev))) {
            let [truth, _] = before;
            self.accuse(true, format!("prev is false, before it is {truth:?}: {event}"));
        }
        self.received.insert(number);
        if self.snapshot_left > 0 {
            self.snapshot_left -= 1;
            return;
        }
        if self.newest.is_some_and(|newest| newest >= number) {
            self.accuse(true, format!("again, or not in order: {event}"));
        }
        self.newest = Some(number);
        let missing = self.untold_between(self.accounted, number);
        if missing.first().is_some_and(|first| *first <= self.owed_up_to) {
            let text = format!("recovered, but {missing:?} did not come before {event}");
            self.accuse(true, text);
        }
        if !missing.is_empty() {
            self.holes.push(Hole { seen: at, before: number, missing });
        }
        self.accounted = self.accounted.max(number);
    }

    fn resync(&mut self, at: Instant) {
        for hole in std::mem::take(&mut self.holes) {
            if at > hole.seen + TOLD_WITHIN {
                self.accuse(true, format!("told too late: {}", hole.text()));
            }
        }
        self.told_last = Some(at);
        self.before[1] = self.truth.before(at);
        self.newest = None;
        self.owed_up_to = 0;
    }

    fn heartbeat(&mut self, told: &Value) {
        if told.get("position").is_none() {
            return;
        }
        let number = self.numbers_up_to(&told["position"]);
        if let Some(hole) = self.holes.first() {
            let text = format!("a position although {}: {told}", hole.text());
            self.accuse(true, text);
        }
        let missing = self.untold_between(self.accounted, number + 1);
        if !missing.is_empty() {
            self.accuse(true, format!("a position, but {missing:?} had not come: {told}"));
        }
        self.accounted = self.accounted.max(number);
    }

    fn end(&mut self, closed: Option<Instant>) {
        let end = closed.unwrap_or_else(Instant::now);
        for hole in std::mem::take(&mut self.holes) {
            let is_late = end > hole.seen + TOLD_WITHIN;
            if is_late || closed.is_none() {
                self.accuse(is_late, format!("not told: {}", hole.text()));
            }
        }
        if closed.is_some() {
            return;
        }
        if self.channels.is_empty() {
            return self.accuse(false, "no answer to subscribe".to_owned());
        }
        let missing = self.untold_between(self.accounted, usize::MAX);
        if let Some(first) = missing.first() {
            let text = format!(
                "neither came nor told to be lost: {} messages from {first} on, after {}",
                missing.len(),
                self.accounted
            );
            self.accuse(false, text);
        }
        if self.snapshot_complete && self.told_last.is_none() {
            self.check_snapshot();
        }
    }

    /// Each channel's newest message has come, or one that followed it.
    fn check_snapshot(&mut self) {
        let mut newest = std::collections::BTreeMap::new();
        for number in &self.received {
            let message = self.message(*number);
            let newest = newest.entry(message.channel.as_str()).or_insert(0);
            *newest = message.pos.unwrap_or_default().max(*newest);
        }
        let is_missing = |(channel, pos): &&(String, u64)| {
            let is_mine = self.channels.iter().any(|it| super::truth::matches(it, channel));
            is_mine && newest.get(channel.as_str()).is_none_or(|newest| newest < pos)
        };
        let missing: Vec<_> = self.witness.held.iter().filter(is_missing).collect();
        if let Some(first) = missing.first() {
            let count = missing.len();
            let text = format!("the snapshot is complete without {count} channels: {first:?}");
            self.accuse(false, text);
        }
    }

    /// The messages between two that did not come.
    fn missing_between(&self, after: usize, before: usize) -> Vec<usize> {
        let from = self.relevant.partition_point(|number| *number <= after);
        let between = self.relevant[from..].iter().take_while(|number| **number < before);
        between.filter(|number| !self.received.contains(number)).copied().collect()
    }

    /// Those of them that were published after the last resync.
    fn untold_between(&self, after: usize, before: usize) -> Vec<usize> {
        let mut missing = self.missing_between(after, before);
        missing.retain(|number| self.told_last.is_none_or(|at| at < self.message(*number).sent));
        missing
    }
}

impl Hole {
    fn text(&self) -> String {
        let (count, first, before) = (self.missing.len(), self.missing[0], self.before);
        format!("{count} messages from {first} on did not come before {before}")
    }
}

/// What a witness wrote down.
fn lines(entries: &[(Instant, Entry)]) -> String {
    let Some((began, _)) = entries.first() else { return String::new() };
    let line = |(at, entry): &(Instant, Entry)| {
        let milliseconds = at.duration_since(*began).as_millis();
        match entry {
            Entry::Asked(asked) => format!("  {milliseconds} ms asked {asked}"),
            Entry::Told(told) => format!("  {milliseconds} ms told {told}"),
            Entry::Closed => format!("  {milliseconds} ms closed"),
        }
    };
    shorten(entries.iter().map(line).collect())
}

/// The first and the last of many lines.
fn shorten(lines: Vec<String>) -> String {
    const LINES: usize = 12;
    if lines.len() <= LINES {
        return lines.join("\n");
    }
    let (first, last) = (&lines[..LINES / 2], &lines[lines.len() - LINES / 2..]);
    let left_out = lines.len() - LINES;
    format!("{}\n  ({left_out} more)\n{}", first.join("\n"), last.join("\n"))
}
