//! The rules of [`Delivery`] without a shard and without a socket.

use std::collections::VecDeque;

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
    let [queued, dropped, second, slow] = offered[..] else { unreachable!() };
    assert_eq!((queued, dropped, second), (Offered::Queued, Offered::Dropped, Offered::Dropped));
    assert_eq!(slow, Offered::TooSlow);

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
fn dropped_events_that_nothing_follows_are_sent_when_the_rest_is_read() {
    let mut bench = Bench::with_five_events(few(3));
    assert_eq!(bench.send(10), Overflow { dropped: 2, is_too_slow: false });
    assert!(!bench.delivery.is_up_to_date());
    bench.delivery.unblocked();
    bench.send(usize::MAX);
    assert_eq!(bench.seqs(), [1, 2, 3, 4, 5]);
    assert!(bench.delivery.is_up_to_date());
}

#[test]
fn dropped_events_are_sent_once_also_if_the_socket_is_full_again_while_they_are() {
    let mut bench = Bench::with_five_events(few(3));
    bench.send(0);
    bench.delivery.unblocked();
    let frame = event_frame_bytes(1, logged("t.a", 1).tail_for(Dialect::default()));
    // The three that waited, and a part of the first that did not.
    bench.send(3 * frame + 5);
    bench.delivery.unblocked();
    bench.send(usize::MAX);
    assert_eq!(bench.seqs(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_hole_that_a_later_event_shows_is_left_to_replay() {
    let mut bench = Bench::with_five_events(few(3));
    bench.send(0);
    bench.delivery.unblocked();
    let frame = event_frame_bytes(1, logged("t.a", 1).tail_for(Dialect::default()));
    bench.send(frame);
    assert_eq!(bench.offer(NOW), Offered::Queued, "there is room for one");
    bench.delivery.unblocked();
    bench.send(usize::MAX);
    assert_eq!(bench.seqs(), [1, 2, 3, 6]);
    let replayed = bench.delivery.replayed(4, 5).unwrap();
    assert_eq!(replayed.len(), 2);
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
fn an_end_sends_what_waits_and_nothing_that_was_dropped() {
    let mut bench = Bench::with_five_events(few(3));
    bench.delivery.resume(vec![logged("t.a", 9)], &bench.backlog_events);
    bench.send(0);
    bench.delivery.end();
    assert_eq!(bench.backlog_events.get(), 0);
    bench.delivery.answer(answer());
    bench.delivery.unblocked();
    bench.send(usize::MAX);
    assert_eq!(bench.seqs(), [1, 2, 3, 0]);
}

#[test]
fn what_is_abandoned_is_not_sent_but_for_the_frame_in_flight() {
    let mut bench = Bench::with_five_events(few(256));
    bench.send(7);
    bench.delivery.abandon();
    bench.delivery.end();
    bench.delivery.answer(answer());
    bench.delivery.unblocked();
    bench.send(usize::MAX);
    assert_eq!(bench.seqs(), [1, 0]);
}

/// What may happen to a connection's way out.
#[derive(Debug, Clone)]
enum Happens {
    Events(usize),
    Answer,
    Snapshot,
    Missed(usize),
    Takes(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (1..60_usize).prop_map(Happens::Events),
        Just(Happens::Answer),
        Just(Happens::Snapshot),
        (1..90_usize).prop_map(Happens::Missed),
        prop_oneof![0..200_usize, 0..9_000_usize, Just(usize::MAX)].prop_map(Happens::Takes),
    ]
}

proptest! {
    #[test]
    fn every_event_comes_in_order_or_is_counted_as_dropped(
        story in proptest::collection::vec(happens(), 1..60),
    ) {
        let mut bench = Bench::new(few(40));
        let (mut dropped, mut resumed) = (0, VecDeque::new());
        for step in story {
            match step {
                Happens::Events(count) => for _ in 0..count {
                    match bench.offer(NOW) {
                        Offered::Urgent => dropped += bench.send(usize::MAX).dropped,
                        Offered::Dropped | Offered::TooSlow => dropped += 1,
                        _ => {}
                    }
                },
                Happens::Answer => bench.delivery.answer(answer()),
                Happens::Snapshot if !bench.delivery.has_backlog() => {
                    let event = logged("t.b", 1);
                    let Bench { delivery, limits, encoder, .. } = &mut bench;
                    delivery.answer_newest(&event, limits, encoder);
                }
                Happens::Snapshot => {}
                Happens::Missed(count) => {
                    let missed = (1..=count as u64).map(|pos| logged("t.c", pos)).collect();
                    bench.delivery.resume(missed, &bench.backlog_events);
                    resumed.push_back(count);
                }
                Happens::Takes(room) => {
                    bench.delivery.unblocked();
                    dropped += bench.send(room).dropped;
                }
            }
        }
        bench.delivery.unblocked();
        dropped += bench.send(usize::MAX).dropped;
        let seqs: Vec<u64> = bench.seqs().into_iter().filter(|seq| *seq > 0).collect();
        prop_assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
        let missing = bench.delivery.last_seq() as usize - seqs.len();
        prop_assert!(missing <= dropped, "{missing} missing, {dropped} dropped");
        prop_assert_eq!(seqs.last().copied().unwrap_or(0), bench.delivery.last_seq());
        prop_assert!(bench.delivery.is_up_to_date());
        prop_assert_eq!((bench.backlog_events.get(), bench.delivery.queue_bytes()), (0, 0));
    }
}
