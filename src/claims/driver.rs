//! Drives a follower as the JetStream source does: contacts, consumers, looks, newest messages.
//!
//! A thin copy of `ingest/jetstream`: one call does what stands there between two waits, so that
//! anything may happen in between. It also notes what the instance was told, for the model.

use std::collections::VecDeque;
use std::time::Duration;

use futures_lite::future::block_on;

use super::stream::{Consumer, Published, Sent, Set, Stream, each, one};
use crate::channel::Pattern;
use crate::feed::FeedSender;
use crate::ingest::{FilterPlan, Follower, Look, Publisher, Stored, StreamState, Taken};
use crate::position::Epoch;

/// Times that a stream is asked again when it ends before our position.
const RECHECKS_MAX: u32 = 1;

/// Consumers in a row without a new message before the next message is suspected.
const SUSPICION: u32 = 2;

/// How far the way to a consumer is.
#[derive(Debug)]
enum Stage {
    Away,
    /// The stream has said what it is, with what it holds and held then.
    Asked(StreamState, Set),
    /// The contact is made.
    Contacted(StreamState),
    Reading(Consumer),
}

/// How far a look is.
#[derive(Debug)]
enum Looking {
    No,
    /// The stream has answered: where the reader was, and what was named.
    Stream((u64, u64), StreamState, Set),
    /// Its consumer, too.
    Both(Look, StreamState, Set),
}

/// How far the reading of the newest messages is.
#[derive(Debug)]
enum Reading {
    No,
    Begun,
    Left(VecDeque<usize>),
}

/// The source of an instance.
#[derive(Debug)]
pub(super) struct Driver {
    follower: Follower,
    plan: FilterPlan,
    is_durable: bool,
    stage: Stage,
    successor: Option<Consumer>,
    look: Looking,
    newest: Reading,
    rechecks: u32,
    fruitless: u32,
    /// The position at which the consumer began, and where the stream ended then.
    began: u64,
    end: u64,
    is_caught_up: bool,
    /// The last message that was read without a consumer.
    unreadable_to: u64,
    /// What the stream has named or brought to this instance.
    pub named: Set,
    /// The same when it was live for the first time.
    pub named_at_first: Set,
    /// For each message that was taken in: the position before it on its channel.
    pub previous: Vec<(usize, u64)>,
}

impl Driver {
    pub(super) fn new(sender: FeedSender, is_durable: bool) -> Self {
        let publisher = Publisher::new(vec![sender]).with_patience(Duration::ZERO);
        let served = Pattern::parse("t.>", 256).unwrap();
        Self {
            follower: Follower::new(publisher),
            plan: FilterPlan::Part(vec![served]),
            is_durable,
            stage: Stage::Away,
            successor: None,
            look: Looking::No,
            newest: Reading::No,
            rechecks: 0,
            fruitless: 0,
            began: 0,
            end: 0,
            is_caught_up: false,
            unreadable_to: 0,
            named: 0,
            named_at_first: 0,
            previous: Vec::new(),
        }
    }

    /// Makes the next step on the way to a consumer, or reads the next message.
    pub(super) fn advance(&mut self, stream: &Stream) {
        match std::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Away => self.stage = Stage::Asked(stream.state(), stream.branch),
            Stage::Asked(state, branch) => self.contact(stream, state, branch),
            Stage::Contacted(state) => self.open(stream, state),
            Stage::Reading(consumer) => {
                self.stage = Stage::Reading(consumer);
                self.read(stream);
            }
        }
    }

    pub(super) fn is_reading(&self) -> bool {
        matches!(self.stage, Stage::Reading(_))
    }

    /// Whether everything was read, and the end of the stream and the newest messages are known.
    pub(super) fn is_settled(&mut self, stream: &Stream) -> bool {
        let Stage::Reading(consumer) = &self.stage else { return false };
        !consumer.is_gone(stream)
            && consumer.flight.is_empty()
            && consumer.pending(stream) == 0
            && self.successor.is_none()
            && self.follower.tracker().is_settled()
            && !self.follower.wants_newest()
            && matches!(self.newest, Reading::No)
    }

    /// Whether no consumer can bring what stands at our position now, so that none is of use: the
    /// source never gets on, and claims nothing.
    pub(super) fn is_stuck_at_unreadable(&self, stream: &Stream) -> bool {
        let last = stream.at(self.follower.tracker().last());
        last.is_some_and(|number| stream.all[number].is_unreadable)
    }

    /// The consumer sends up to `count` messages.
    pub(super) fn send(&mut self, stream: &Stream, count: usize) {
        if let Stage::Reading(consumer) = &mut self.stage {
            for _ in 0..count {
                consumer.send(stream);
            }
        }
    }

    /// Somebody else takes the next message of the consumer.
    pub(super) fn take_elsewhere(&mut self, stream: &Stream) {
        if let Stage::Reading(consumer) = &mut self.stage {
            consumer.send_elsewhere(stream);
        }
    }

    /// The connection is lost, with all that was under way.
    pub(super) fn cut(&mut self) {
        self.end_consumer();
        block_on(self.follower.stale()).unwrap();
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ms: u64) {
        let publisher = self.follower.publisher();
        publisher.pass(Duration::from_millis(ms));
        block_on(publisher.tell_if_due()).unwrap();
    }

    fn contact(&mut self, stream: &Stream, state: StreamState, branch: Set) {
        if self.follower.tracker().is_beyond(state) && self.rechecks < RECHECKS_MAX {
            self.rechecks += 1;
            return;
        }
        self.rechecks = 0;
        if self.fruitless >= SUSPICION {
            self.fruitless = 0;
            // It was asked again behind the search.
            if self.follower.tracker().goes_on(stream.state()) {
                self.search(stream);
            }
        }
        // One that was there before repeats some of what was read.
        let repeats = u64::from(self.named.count_ones()) % 3;
        let start = (stream.last + 1).saturating_sub(repeats).max(self.unreadable_to + 1);
        self.successor = self.is_durable.then(|| Consumer::new(stream, start, 40));
        let epochs = self.epochs();
        let epoch = Epoch(epoch(state.created_nanos).into());
        block_on(self.follower.contact(epoch, state, self.plan.clone())).unwrap();
        if self.epochs() != epochs {
            self.unreadable_to = 0;
        }
        self.named |= branch;
        self.stage = Stage::Contacted(state);
    }

    fn epochs(&mut self) -> u64 {
        self.follower.publisher().report().epochs.total()
    }

    /// Takes the messages that no consumer can bring.
    fn search(&mut self, stream: &Stream) {
        let mut last = self.follower.tracker().last();
        let held = stream.at(last).map(|number| stream.all[number].stored_nanos);
        self.follower.holds_at_last(held);
        while let Some(number) = stream.next(last + 1) {
            let message = stream.all[number];
            if !message.is_unreadable {
                break;
            }
            last = message.seq;
            // The durable consumer is made again, or it would send this for ever.
            self.unreadable_to = last;
            self.note(stream, number);
            block_on(self.follower.take_unreadable(&stored(&message))).unwrap();
        }
    }

    fn open(&mut self, stream: &Stream, state: StreamState) {
        let start = self.follower.tracker().start().unwrap_or(0);
        if stream.life != state.created_nanos {
            return block_on(self.follower.stale()).unwrap();
        }
        if !self.follower.opened(stream.state()) {
            return block_on(self.follower.stale()).unwrap();
        }
        self.named |= stream.branch;
        if let Some(last) = self.follower.tracker().unreadable_last()
            && let Some(number) = stream.at(last)
        {
            self.follower.overlaps(stream.all[number].stored_nanos);
        }
        let consumer = Consumer::new(stream, start, 0);
        self.end = state.last.max(stream.last);
        self.began = self.follower.tracker().last();
        self.is_caught_up = consumer.pending(stream) == 0;
        self.look = Looking::No;
        self.stage = Stage::Reading(consumer);
        self.after(stream);
    }

    /// Reads what has arrived next.
    fn read(&mut self, stream: &Stream) {
        let Stage::Reading(consumer) = &mut self.stage else { return };
        match consumer.flight.pop_front() {
            Some(sent) => self.take(stream, sent),
            None if consumer.is_gone(stream) => {
                self.cut();
            }
            None => {
                if consumer.pending(stream) == 0 {
                    self.is_caught_up = true;
                }
                self.after(stream);
            }
        }
    }

    fn take(&mut self, stream: &Stream, sent: Sent) {
        let message = stream.all[sent.number];
        if message.is_unreadable {
            // The library ends the consumer.
            return self.end_consumer();
        }
        self.is_caught_up |= sent.pending == 0 || message.seq >= self.end;
        let named = self.named;
        self.note(stream, sent.number);
        match block_on(self.follower.take(&stored(&message), sent.consumer)).unwrap() {
            Taken::Handled => self.after(stream),
            Taken::Repeat => {
                self.previous.pop();
                self.after(stream);
            }
            Taken::Broken(_) => {
                self.previous.pop();
                self.named = named;
                self.end_consumer();
            }
        }
    }

    /// Notes that a message came, and the position before it on its channel.
    fn note(&mut self, stream: &Stream, number: usize) {
        let message = &stream.all[number];
        let is_earlier = |it: &&Published| {
            it.life == message.life && it.channel == message.channel && it.seq < message.seq
        };
        let known = each(message.before).map(|it| &stream.all[it]);
        let previous = known.filter(is_earlier).map(|it| it.seq).max().unwrap_or(0);
        self.previous.push((number, previous));
        self.named |= message.before | one(number);
    }

    /// What is done between two waits.
    fn after(&mut self, stream: &Stream) {
        if !self.is_caught_up {
            return;
        }
        if self.follower.is_end_known() {
            if !self.follower.has_been_live() {
                self.named_at_first = self.named;
            }
            block_on(self.follower.caught_up()).unwrap();
        }
        let Some(durable) = self.successor.take() else { return };
        if durable.is_gone(stream) {
            self.end_consumer();
        } else {
            self.follower.change_consumer(durable.sent);
            self.look = Looking::No;
            self.stage = Stage::Reading(durable);
        }
    }

    fn end_consumer(&mut self) {
        if matches!(self.stage, Stage::Reading(_)) {
            let is_fruitless = self.follower.tracker().last() == self.began;
            self.fruitless = if is_fruitless { self.fruitless + 1 } else { 0 };
        }
        self.stage = Stage::Away;
        self.successor = None;
        self.look = Looking::No;
    }

    /// Makes the next step of a look at the end of the stream.
    pub(super) fn look(&mut self, stream: &Stream) {
        let Stage::Reading(consumer) = &self.stage else { return };
        let tracker = self.follower.tracker();
        self.look = match std::mem::replace(&mut self.look, Looking::No) {
            Looking::No => {
                let arrived = (tracker.last(), tracker.consumer());
                Looking::Stream(arrived, stream.state(), stream.branch)
            }
            Looking::Stream(..) if consumer.is_gone(stream) => Looking::No,
            Looking::Stream((read_to, received), state, branch) => {
                let (sent, pending) = (consumer.sent, consumer.pending(stream));
                let look = Look { read_to, received, last: state.last, sent, pending };
                Looking::Both(look, state, branch)
            }
            Looking::Both(look, state, branch) => {
                let plan = self.plan.clone();
                match block_on(self.follower.looked(&look, state, plan)).unwrap() {
                    None => {
                        self.named |= branch;
                        self.after(stream);
                    }
                    Some(_) => self.end_consumer(),
                }
                Looking::No
            }
        };
    }

    /// Makes the next step of reading the newest message of each channel.
    pub(super) fn read_newest(&mut self, stream: &Stream) {
        if !self.is_reading() || !self.is_caught_up {
            return;
        }
        match &mut self.newest {
            Reading::No => {
                if self.follower.wants_newest() {
                    self.follower.begin_newest();
                    self.newest = Reading::Begun;
                }
            }
            Reading::Begun => self.newest = Reading::Left(stream.newest()),
            Reading::Left(left) => match left.pop_front() {
                Some(number) => {
                    let message = stream.all[number];
                    block_on(self.follower.take_newest(&stored(&message))).unwrap();
                }
                None => {
                    self.newest = Reading::No;
                    self.follower.end_newest(true);
                }
            },
        }
        self.after(stream);
    }
}

/// The epoch of a stream that was created then.
pub(super) fn epoch(created_nanos: i128) -> String {
    format!("S-{created_nanos}")
}

fn stored(message: &Published) -> Stored<'_> {
    Stored {
        sequence: message.seq,
        stored_nanos: message.stored_nanos,
        subject: super::stream::CHANNELS[message.channel],
        payload: b"1",
    }
}
