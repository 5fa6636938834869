//! The rules of [`Delivery`] without a shard and without a socket.

use proptest::prelude::*;

use super::*;
use crate::protocol::message::{Resync, ServerMessage};
use crate::shard::history::tests::logged;
use crate::shard::simulation::limits;

const NOW: Now = Now { monotonic_us: 1_000_000, unix_ms: 0 };

/// One connection's way out, with a socket that takes what it is told to.
struct Bench {
    delivery: Delivery,
    limits: ClientLimits,
    encoder: Encoder,
    buffer: SendBuffer,
    backlog_events: Rc<Cell<usize>>,
    sent: Vec<u8>,
    events: u64,
}

impl Bench {
    fn new(limits: ClientLimits) -> Self {
        Self {
            delivery: Delivery::default(),
            limits,
            encoder: Encoder::new(128),
            buffer: SendBuffer::default(),
            backlog_events: Rc::default(),
            sent: Vec::new(),
            events: 0,
        }
    }

    /// Five events wait for their turn.
    fn with_five_events(limits: ClientLimits) -> Self {
        let mut bench = Self::new(limits);
        for _ in 0..5 {
            bench.offer(NOW);
        }
        bench
    }

    fn offer(&mut self, now: Now) -> Offered {
        self.events += 1;
        let event = logged("t.a", self.events);
        self.delivery.offer((self.events, &event), &self.limits, &mut self.encoder, now)
    }

    /// Sends until nothing waits or the socket has taken `room` bytes.
    fn send(&mut self, mut room: usize) -> Overflow {
        loop {
            if self.delivery.is_blocked() {
                return Overflow::default();
            }
            if !self.delivery.fill(&mut self.buffer) {
                if self.delivery.take_portion(&self.limits, &mut self.encoder) == 0 {
                    return Overflow::default();
                }
                continue;
            }
            if room == 0 {
                return self.delivery.blocked(&self.limits);
            }
            let sent = self.buffer.bytes().len().min(room);
            self.sent.extend_from_slice(&self.buffer.bytes()[..sent]);
            self.delivery.sent(sent, &self.buffer, NOW);
            room -= sent;
        }
    }

    /// Closes the connection as one that reads too slowly; how many events it is not sent.
    fn close(&mut self) -> usize {
        let dropped = self.delivery.abandon();
        self.delivery.end();
        self.delivery.answer(answer());
        dropped
    }

    /// The texts of the whole frames that were sent.
    fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut rest = &self.sent[..];
        while let [_, length, ..] = rest {
            let (header, length) = match *length {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                length => (2, usize::from(length)),
            };
            let Some(text) = rest.get(header..header + length) else { break };
            texts.push(String::from_utf8(text.to_vec()).unwrap());
            rest = &rest[header + length..];
        }
        texts
    }

    /// The `seq` of the events that were sent, and 0 for an answer.
    fn seqs(&self) -> Vec<u64> {
        let seq = |text: &String| {
            let digits = text.strip_prefix("{\"seq\":").and_then(|rest| rest.split(',').next());
            digits.map_or(0, |digits| digits.parse().unwrap())
        };
        self.texts().iter().map(seq).collect()
    }
}

fn few(queue_messages: usize) -> ClientLimits {
    ClientLimits { queue_messages, ..limits().client }
}

fn answer() -> Vec<u8> {
    ServerMessage::Resync(Resync { epoch: "e", reason: "history_lost" }).to_frame()
}

#[test]
fn an_event_goes_where_the_state_of_the_connection_says() {
    let at = |ms: u64| Now { monotonic_us: ms * 1_000, unix_ms: 0 };
    let mut idle = Bench::new(few(256));
    assert_eq!(idle.offer(NOW), Offered::Ready);
    let event = logged("t.a", 1);
    let again = idle.delivery.offer((1, &event), &idle.limits, &mut idle.encoder, NOW);
    assert_eq!(again, Offered::Ignored, "it matched twice");

    let mut held = Bench::new(few(256));
    held.delivery.begin(Dialect::default(), 100);
    assert_eq!(held.offer(NOW), Offered::Ready, "the first");
    held.send(usize::MAX);
    assert_eq!(held.offer(at(1_001)), Offered::Held(1_100));
    assert_eq!(held.offer(at(1_100)), Offered::Ready);
    held.delivery.answer(answer());
    assert_eq!(held.offer(at(1_001)), Offered::Ready, "an answer waits for its turn anyway");

    let mut busy = Bench::new(few(256));
    let capacity = busy.limits.replay_messages;
    let offered: Vec<Offered> = (0..capacity).map(|_| busy.offer(NOW)).collect();
    assert_eq!(offered[..capacity - 1], vec![Offered::Ready; capacity - 1]);
    assert_eq!(offered[capacity - 1], Offered::Urgent);

    let mut full = Bench::new(few(2));
    full.offer(NOW);
    assert_eq!(full.send(0), Overflow::default());
    let offered: Vec<Offered> = (0..4).map(|_| full.offer(NOW)).collect();
    let expected = [Offered::Queued, Offered::Postponed, Offered::Postponed, Offered::TooSlow];
    assert_eq!(offered, expected);

    let mut resumed = Bench::new(ClientLimits { resume_messages: 2, ..few(256) });
    resumed.delivery.resume(vec![logged("t.a", 1), logged("t.a", 2)], &resumed.backlog_events);
    let offered: Vec<Offered> = (0..=BACKLOG_LIVE_MAX).map(|_| resumed.offer(NOW)).collect();
    assert!(offered[..BACKLOG_LIVE_MAX].iter().all(|it| *it == Offered::Behind));
    assert_eq!(offered[BACKLOG_LIVE_MAX], Offered::BacklogFull);

    let mut ended = Bench::new(few(256));
    ended.delivery.end();
    assert_eq!(ended.offer(NOW), Offered::Ignored);
}

#[test]
fn an_answer_stands_behind_the_events_that_came_before_it() {
    let mut bench = Bench::new(few(32));
    // More than the queue may hold: its bounds are for a socket that is full.
    for _ in 0..50 {
        bench.offer(NOW);
    }
    bench.delivery.answer(answer());
    bench.offer(NOW);
    bench.send(usize::MAX);
    let expected: Vec<u64> = (1..=50).chain([0, 51]).collect();
    assert_eq!(bench.seqs(), expected);
}

#[test]
fn an_answer_stands_behind_the_events_that_a_full_queue_postponed() {
    let mut bench = Bench::with_five_events(few(3));
    bench.delivery.answer(answer());
    assert_eq!(bench.send(10), Overflow { postponed: 2, is_too_slow: false });
    assert!(!bench.delivery.is_up_to_date());
    bench.delivery.unblocked();
    bench.send(usize::MAX);
    assert_eq!(bench.seqs(), [1, 2, 3, 4, 5, 0]);
    assert!(bench.delivery.is_up_to_date());
}

#[test]
fn an_event_is_postponed_once_also_if_the_socket_is_full_again_before_it_is_sent() {
    let mut bench = Bench::with_five_events(few(3));
    assert_eq!(bench.send(0), Overflow { postponed: 2, is_too_slow: false });
    bench.delivery.unblocked();
    assert_eq!(bench.send(5), Overflow { postponed: 0, is_too_slow: false }, "the same two");
    assert_eq!(bench.offer(NOW), Offered::TooSlow, "the third of them");
}

#[test]
fn an_event_does_not_overtake_those_that_found_the_queue_full() {
    let mut bench = Bench::with_five_events(few(3));
    bench.send(0);
    bench.delivery.unblocked();
    let frame = event_frame_bytes(1, logged("t.a", 1).tail_for(Dialect::default()));
    bench.send(frame);
    assert_eq!(bench.offer(NOW), Offered::Postponed, "of the four before it one is over");
    bench.delivery.unblocked();
    bench.send(3 * frame + 5);
    assert_eq!(bench.offer(NOW), Offered::Queued, "there is room for all");
    let event = logged("t.b", 1);
    let Bench { delivery, limits, encoder, .. } = &mut bench;
    delivery.answer_newest(&event, limits, encoder);
    bench.delivery.unblocked();
    bench.send(usize::MAX);
    assert_eq!(bench.seqs(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn what_is_postponed_does_not_count_against_the_budget() {
    let mut bench = Bench::with_five_events(few(3));
    let frame = event_frame_bytes(1, logged("t.a", 1).tail_for(Dialect::default()));
    bench.send(0);
    assert_eq!(bench.delivery.held_bytes(), 2 * frame, "the queue behind what is sent next");
    assert_eq!(bench.offer(NOW), Offered::TooSlow);
    assert_eq!(bench.delivery.held_bytes(), 2 * frame);
}

#[test]
fn reading_pauses_at_many_answers_and_goes_on_once_told() {
    let mut bench = Bench::new(few(256));
    assert!(bench.delivery.wants_read() && !bench.delivery.resumes_reading());
    bench.delivery.answer(vec![0; ANSWER_BYTES_PAUSE]);
    assert!(!bench.delivery.resumes_reading(), "nobody was told to wait");
    assert!(!bench.delivery.wants_read());
    assert!(!bench.delivery.resumes_reading(), "not yet");
    // No send ever blocks: the pause ends all the same.
    bench.send(usize::MAX);
    assert!(bench.delivery.resumes_reading());
    assert!(!bench.delivery.resumes_reading(), "once");
    assert!(bench.delivery.wants_read());
}

#[test]
fn an_end_sends_what_waits() {
    let mut bench = Bench::with_five_events(few(3));
    bench.delivery.resume(vec![logged("t.a", 9)], &bench.backlog_events);
    bench.send(0);
    bench.delivery.end();
    assert_eq!(bench.backlog_events.get(), 0);
    bench.delivery.answer(answer());
    bench.delivery.unblocked();
    bench.send(usize::MAX);
    assert_eq!(bench.seqs(), [1, 2, 3, 4, 5, 0]);
}

#[test]
fn what_is_abandoned_is_counted_and_not_sent_but_for_the_frame_in_flight() {
    let mut bench = Bench::with_five_events(few(256));
    bench.send(7);
    assert_eq!(bench.close(), 4);
    bench.delivery.unblocked();
    bench.send(usize::MAX);
    assert_eq!(bench.seqs(), [1, 0]);
    assert_eq!(Bench::with_five_events(few(256)).close(), 5, "they wait in the ring");
}

/// What may happen to a connection's way out.
#[derive(Debug, Clone)]
enum Happens {
    Events(usize),
    Answer,
    Snapshot,
    Replay(u64, u64),
    Missed(usize),
    Takes(usize),
    /// Everything that waits; more comes behind it.
    TakesAll,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (1..4_usize).prop_map(Happens::Events),
        1 => (1..60_usize).prop_map(Happens::Events),
        1 => Just(Happens::Answer),
        1 => Just(Happens::Snapshot),
        1 => (0..120_u64, 0..60_u64).prop_map(|(back, count)| Happens::Replay(back, count)),
        1 => (1..90_usize).prop_map(Happens::Missed),
        3 => prop_oneof![0..200_usize, 0..9_000_usize].prop_map(Happens::Takes),
        1 => Just(Happens::TakesAll),
    ]
}

/// One connection of which anything may become, until it is closed as too slow.
struct Story {
    bench: Bench,
    replayed: usize,
    is_closed: bool,
}

impl Story {
    fn tell(&mut self, step: &Happens) {
        let bench = &mut self.bench;
        match *step {
            Happens::Events(count) => {
                for _ in 0..count {
                    match self.bench.offer(NOW) {
                        Offered::Urgent => self.take(usize::MAX),
                        Offered::TooSlow | Offered::BacklogFull => self.close(),
                        _ => {}
                    }
                }
            }
            // A connection that is being closed is asked for nothing and answers nothing.
            _ if self.is_closed => self.take(100),
            Happens::Answer => bench.delivery.answer(answer()),
            Happens::Snapshot if !bench.delivery.has_backlog() => {
                let event = logged("t.b", 1);
                let Bench { delivery, limits, encoder, .. } = bench;
                delivery.answer_newest(&event, limits, encoder);
            }
            Happens::Snapshot => {}
            Happens::Replay(back, count) => {
                let from_seq = bench.delivery.last_seq().saturating_sub(back);
                let events = bench.delivery.replayed(from_seq, from_seq + count);
                for (seq, event) in events.into_iter().flatten() {
                    bench.delivery.answer_replayed(seq, &event);
                    self.replayed += 1;
                }
            }
            Happens::Missed(count) => {
                let missed = (1..=count as u64).map(|pos| logged("t.c", pos)).collect();
                bench.delivery.resume(missed, &bench.backlog_events);
            }
            Happens::Takes(room) => self.take(room),
            Happens::TakesAll => self.take(usize::MAX),
        }
    }

    fn take(&mut self, room: usize) {
        self.bench.delivery.unblocked();
        if self.bench.send(room).is_too_slow {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.is_closed {
            self.bench.close();
            self.is_closed = true;
        }
    }
}

proptest! {
    /// The client of a slow connection may take the newest event for its position at any moment.
    #[test]
    fn no_event_is_sent_behind_a_hole(story in proptest::collection::vec(happens(), 1..120)) {
        let mut told = Story { bench: Bench::new(few(40)), replayed: 0, is_closed: false };
        for step in &story {
            told.tell(step);
        }
        told.take(usize::MAX);
        let (mut newest, mut again) = (0, 0);
        for seq in told.bench.seqs().into_iter().filter(|seq| *seq > 0) {
            prop_assert!(seq <= newest + 1, "{seq} behind {newest}");
            again += usize::from(seq <= newest);
            newest = newest.max(seq);
        }
        let delivery = &told.bench.delivery;
        if !told.is_closed {
            prop_assert_eq!((newest, again), (delivery.last_seq(), told.replayed));
        }
        prop_assert!(delivery.is_up_to_date());
        prop_assert_eq!((told.bench.backlog_events.get(), delivery.queue_bytes()), (0, 0));
    }
}
